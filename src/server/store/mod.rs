//! The folder of `--store DIR`, in which the server keeps what clients create: files, batches, jobs.
//!
//! ```text
//! DIR/lock                       held by the server that has the store open
//! DIR/<kind>/<id>/object.json    an object: who made it, when, and what it is
//! DIR/<kind>/<id>/…              its other files
//! DIR/<kind>/.partial-<id>/      an object that is being made or removed
//! ```
//!
//! An object appears and disappears by one rename, so that a kill leaves the whole object or none of it; what
//! else is left of it is removed when the store is next opened. `object.json` is replaced by a rename, too.
//!
//! - [`Store`]: the folder, its lock and its quota.
//! - [`Collection`]: the objects of one kind, each readable by its owner alone.
//! - [`Draft`]: an object in the making.
//! - [`Page`]: a part of a list, as OpenAI's lists are paged.

mod collection;
mod entry;
mod folder;
mod paging;

pub use collection::{Collection, Draft};
pub use entry::{Entry, Object, unix_time};
pub use paging::{Page, PageQuery};

use crate::{Error, Result};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The folder, locked for as long as it is open.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    max_bytes: Option<u64>,
    used_bytes: AtomicU64,
    _lock: File,
}

impl Store {
    /// Opens the folder, which is created if it does not exist. All its files together have at most
    /// `max_bytes`.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] if another server has it open, [`Error::Io`].
    pub fn open(root: &Path, max_bytes: Option<u64>) -> Result<Arc<Self>> {
        folder::create(root)?;
        let path = root.join("lock");
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let lock = lock.map_err(|source| Error::Io { path, action: "open", source })?;
        // Other errors are ignored: some file systems do not support locks.
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            let problem = "another server has this store open; stop it, or choose another --store";
            return Err(Error::invalid_file(root, problem));
        }
        Ok(Arc::new(Self { root: root.into(), max_bytes, used_bytes: AtomicU64::new(0), _lock: lock }))
    }

    /// Returns the size of all objects in bytes.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Returns how much more it may hold; `None` without a limit.
    pub fn free_bytes(&self) -> Option<u64> {
        self.max_bytes.map(|max| max.saturating_sub(self.used_bytes()))
    }
}

/// The part of the quota that an object takes; dropping it gives it back.
#[derive(Debug)]
struct Space {
    store: Arc<Store>,
    bytes: u64,
}

impl Space {
    fn new(store: &Arc<Store>) -> Self {
        Self { store: Arc::clone(store), bytes: 0 }
    }

    /// Takes more, if there is as much.
    fn grow(&mut self, bytes: u64) -> Result<()> {
        let max = self.store.max_bytes.unwrap_or(u64::MAX);
        let add = |used: u64| used.checked_add(bytes).filter(|used| *used <= max);
        let grown = self.store.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        grown.map_err(|used| {
            let problem = format!("the store has {used} of at most {max} bytes (--store-max-bytes)");
            let source = io::Error::new(ErrorKind::QuotaExceeded, problem);
            Error::Io { path: self.store.root.clone(), action: "write", source }
        })?;
        self.bytes += bytes;
        Ok(())
    }

    /// Sets what is taken, whatever the quota: the bytes are there.
    fn set(&mut self, bytes: u64) {
        self.store.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.store.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests;
