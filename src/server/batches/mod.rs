//! `/v1/batches`: files of requests, answered when no live request needs the machine.
//!
//! ```text
//! create ─▶ validating ─▶ in_progress ─▶ finalizing ─▶ completed
//!               │              ├─ cancelling ─────────▶ cancelled
//!               ▼              └───────────────────────▶ expired
//!             failed
//! ```
//!
//! - [`StoredBatch`], [`BatchObject`]: a batch in the [store](super::store), and as clients see it.
//! - [`routes`]: create, list, retrieve and cancel.
//! - `validation`: every line is checked before the first is answered.
//! - `worker`, `context`: the thread that all batches are computed on. It goes on where the one before it
//!   stopped.
//! - `answers`: the responses of a batch, each appended to `responses.jsonl` in its folder.
//! - `results`: the output file and the error file.

mod answers;
mod context;
mod object;
mod results;
pub mod routes;
mod validation;
pub(super) mod worker;

pub use object::{BatchObject, Status, StoredBatch};

use super::store::{Collection, Entry, Store};
use crate::Result;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// The batches in the store.
pub struct Batches {
    collection: Collection<StoredBatch>,
    /// Number of requests answered and failed so far, of the batches that are computed now.
    running: Mutex<HashMap<String, (usize, usize)>>,
    /// Changes whenever the worker has to look at the batches again.
    changes: watch::Sender<()>,
}

impl Batches {
    /// Opens the batches of a store.
    ///
    /// # Errors
    /// Those of [`Collection::open`].
    pub fn open(store: &Arc<Store>) -> Result<Self> {
        let collection = Collection::open(store)?;
        Ok(Self { collection, running: Mutex::default(), changes: watch::Sender::new(()) })
    }

    /// Returns all batches as objects of the store.
    pub fn collection(&self) -> &Collection<StoredBatch> {
        &self.collection
    }

    /// Returns the number of batches by status.
    pub fn counts(&self) -> BTreeMap<Status, usize> {
        let mut counts = BTreeMap::new();
        for batch in self.collection.all() {
            *counts.entry(batch.value.status).or_default() += 1;
        }
        counts
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, (usize, usize)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a batch as clients see it, with the requests answered up to now.
    fn object(&self, batch: &Entry<StoredBatch>) -> BatchObject {
        BatchObject::new(batch, self.running().get(&batch.id).copied())
    }

    /// Adds a batch, and tells the worker.
    fn create(&self, owner: &str, batch: StoredBatch) -> Result<Arc<Entry<StoredBatch>>> {
        let created = self.collection.create(owner, |_| Ok(batch));
        self.changes.send_replace(());
        created
    }

    /// Changes a batch, if there still is one, and tells the worker.
    fn update<R>(&self, id: &str, change: impl FnOnce(&mut StoredBatch) -> R) -> Result<Option<R>> {
        let result = self.collection.update(id, change);
        self.changes.send_replace(());
        result
    }

    /// Returns where the responses of a batch are while it is computed.
    fn responses_path(&self, id: &str) -> PathBuf {
        self.collection.folder(id).join("responses.jsonl")
    }
}
