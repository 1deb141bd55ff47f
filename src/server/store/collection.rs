//! The objects of one kind.

use super::entry::{Entry, Object, unix_time};
use super::{Space, Store, folder};
use crate::server::middleware::random_u64;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Beginning of the name of a folder that is not, or no longer, an object.
const PARTIAL: &str = ".partial-";
/// Digits of the number in an id, by which ids sort in the order of creation.
const NUMBER_DIGITS: usize = 8;

/// All objects of a kind, in memory and on the disk. A clone is the same collection.
#[derive(Debug)]
pub struct Collection<T: Object>(Arc<Inner<T>>);

#[derive(Debug)]
struct Inner<T> {
    store: Arc<Store>,
    folder: PathBuf,
    next_number: AtomicU32,
    /// By id, so in the order of creation. Locked for moments only.
    entries: Mutex<BTreeMap<String, Slot<T>>>,
    /// Held while an object is changed on the disk and in memory.
    changing: Mutex<()>,
}

#[derive(Debug)]
struct Slot<T> {
    entry: Arc<Entry<T>>,
    space: Space,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Object> Clone for Collection<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Object> Collection<T> {
    /// Reads all objects of the kind, and removes what a kill left of others.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] that names an `object.json` that is none, [`Error::Io`].
    pub fn open(store: &Arc<Store>) -> Result<Self> {
        let root = store.root.join(T::KIND);
        folder::create(&root)?;
        let mut entries = BTreeMap::new();
        let mut next_number = 1;
        let read_error = |source| Error::Io { path: root.clone(), action: "read", source };
        for item in fs::read_dir(&root).map_err(read_error)? {
            let item = item.map_err(read_error)?;
            let (path, name) = (item.path(), item.file_name().to_string_lossy().into_owned());
            if name.starts_with(PARTIAL) {
                fs::remove_dir_all(&path).map_err(|source| Error::Io {
                    path: path.clone(),
                    action: "remove",
                    source,
                })?;
            } else if path.is_dir() {
                let entry = Entry::read(&path, &name)?;
                folder::remove_partial_files(&path);
                next_number = next_number.max(number(&name, T::ID_PREFIX).saturating_add(1));
                let mut space = Space::new(store);
                space.set(folder::size(&path)?);
                entries.insert(name, Slot { entry: Arc::new(entry), space });
            }
        }
        Ok(Self(Arc::new(Inner {
            store: Arc::clone(store),
            folder: root,
            next_number: next_number.into(),
            entries: entries.into(),
            changing: Mutex::new(()),
        })))
    }

    /// Begins a new object.
    ///
    /// # Errors
    /// [`Error::Io`] if its folder cannot be created.
    pub fn draft(&self, owner: &str) -> Result<Draft<T>> {
        let number = self.0.next_number.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}{number:0NUMBER_DIGITS$x}{:016x}", T::ID_PREFIX, random_u64());
        let folder = self.0.folder.join(format!("{PARTIAL}{id}"));
        folder::create(&folder)?;
        Ok(Draft {
            collection: self.clone(),
            id,
            owner: owner.into(),
            created_at: unix_time(),
            folder,
            space: Space::new(&self.0.store),
        })
    }

    /// Creates an object; `fill` writes its files into the folder that it is given.
    ///
    /// # Errors
    /// Those of `fill`, and [`Error::Io`]; then nothing is left.
    pub fn create(&self, owner: &str, fill: impl FnOnce(&Path) -> Result<T>) -> Result<Arc<Entry<T>>> {
        let draft = self.draft(owner)?;
        let value = fill(draft.folder())?;
        draft.commit(value)
    }

    /// Renames a draft to its object, and adds it.
    fn insert(&self, draft: &Path, entry: Entry<T>, space: Space) -> Result<Arc<Entry<T>>> {
        let _changing = lock(&self.0.changing);
        let path = self.folder(&entry.id);
        fs::rename(draft, &path).map_err(|source| Error::Io { path, action: "create", source })?;
        folder::sync_entries(&self.0.folder);
        let entry = Arc::new(entry);
        lock(&self.0.entries).insert(entry.id.clone(), Slot { entry: Arc::clone(&entry), space });
        Ok(entry)
    }

    /// Returns an object, whoever owns it, and also after its expiry.
    pub fn find(&self, id: &str) -> Option<Arc<Entry<T>>> {
        lock(&self.0.entries).get(id).map(|slot| Arc::clone(&slot.entry))
    }

    /// Returns an object, unless it has expired or has another owner.
    pub fn get(&self, owner: &str, id: &str) -> Option<Arc<Entry<T>>> {
        self.find(id).filter(|entry| entry.owner == owner && entry.exists_at(unix_time()))
    }

    /// Returns an owner's objects, the newest first.
    pub fn list(&self, owner: &str) -> Vec<Arc<Entry<T>>> {
        let (entries, now) = (lock(&self.0.entries), unix_time());
        let own = entries.values().rev().map(|slot| &slot.entry).filter(|entry| entry.owner == owner);
        own.filter(|entry| entry.exists_at(now)).cloned().collect()
    }

    /// Returns everyone's objects, the oldest first.
    pub fn all(&self) -> Vec<Arc<Entry<T>>> {
        let (entries, now) = (lock(&self.0.entries), unix_time());
        let all = entries.values().map(|slot| &slot.entry);
        all.filter(|entry| entry.exists_at(now)).cloned().collect()
    }

    /// Returns the number of everyone's objects.
    pub fn len(&self) -> usize {
        lock(&self.0.entries).len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Changes an object, and returns what `change` returns; `None` if it does not exist. Its other files are
    /// measured, too, for the quota.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written; then it stays as it was.
    pub fn update<R>(&self, id: &str, change: impl FnOnce(&mut T) -> R) -> Result<Option<R>> {
        let _changing = lock(&self.0.changing);
        let Some(entry) = self.find(id) else { return Ok(None) };
        let mut entry = Entry::clone(&entry);
        let result = change(&mut entry.value);
        let folder = self.folder(id);
        entry.write(&folder)?;
        let bytes = folder::size(&folder)?;
        if let Some(slot) = lock(&self.0.entries).get_mut(id) {
            slot.entry = Arc::new(entry);
            slot.space.set(bytes);
        }
        Ok(Some(result))
    }

    /// Removes an owner's object with all its files. Returns whether there was one.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn remove(&self, owner: &str, id: &str) -> Result<bool> {
        match self.get(owner, id) {
            Some(_) => self.discard(id),
            None => Ok(false),
        }
    }

    /// Removes the objects that have expired, and returns how many.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn remove_expired(&self) -> Result<usize> {
        let now = unix_time();
        let is_expired = |slot: &&Slot<T>| !slot.entry.exists_at(now);
        let expired: Vec<String> =
            lock(&self.0.entries).values().filter(is_expired).map(|slot| slot.entry.id.clone()).collect();
        expired.iter().try_for_each(|id| self.discard(id).map(drop))?;
        Ok(expired.len())
    }

    fn discard(&self, id: &str) -> Result<bool> {
        let removed = self.0.folder.join(format!("{PARTIAL}{id}"));
        {
            let _changing = lock(&self.0.changing);
            if self.find(id).is_none() {
                return Ok(false);
            }
            let path = self.folder(id);
            match fs::rename(&path, &removed) {
                Err(error) if error.kind() == ErrorKind::NotFound => {} // someone has removed it by hand
                renamed => renamed.map_err(|source| Error::Io { path, action: "remove", source })?,
            }
            folder::sync_entries(&self.0.folder);
            lock(&self.0.entries).remove(id);
        }
        if let Err(error) = fs::remove_dir_all(&removed)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!("{}: cannot remove: {error}", removed.display()); // the next start tries again
        }
        Ok(true)
    }

    /// Returns the folder of an object.
    pub fn folder(&self, id: &str) -> PathBuf {
        self.0.folder.join(id)
    }
}

/// A new object's folder under a temporary name. Dropping it uncommitted leaves nothing.
#[derive(Debug)]
pub struct Draft<T: Object> {
    collection: Collection<T>,
    id: String,
    owner: String,
    created_at: u64,
    folder: PathBuf,
    space: Space,
}

impl<T: Object> Draft<T> {
    /// Returns the id that the object will have.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the time of creation, in seconds since 1970.
    pub fn created_at(&self) -> u64 {
        self.created_at
    }

    /// Returns the folder to write the object's files into.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Reserves room for bytes that are about to be written.
    ///
    /// # Errors
    /// [`Error::Io`](Error::Io) if the store's quota is used up.
    pub fn reserve(&mut self, bytes: u64) -> Result<()> {
        self.space.grow(bytes)
    }

    /// Makes the object appear, with all that is in its folder, once it is on the disk.
    ///
    /// # Errors
    /// [`Error::Io`](Error::Io), also if the quota does not suffice; then nothing is left.
    pub fn commit(mut self, value: T) -> Result<Arc<Entry<T>>> {
        let entry =
            Entry { id: self.id.clone(), owner: self.owner.clone(), created_at: self.created_at, value };
        entry.write(&self.folder)?;
        let bytes = folder::size(&self.folder)?;
        self.space.grow(bytes.saturating_sub(self.space.bytes))?;
        self.space.set(bytes);
        folder::sync_all(&self.folder)?;
        let space = std::mem::replace(&mut self.space, Space::new(&self.collection.0.store));
        self.collection.insert(&self.folder, entry, space)
    }
}

impl<T: Object> Drop for Draft<T> {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder); // it is not there any more after a commit
    }
}

/// Returns the number in an id; 0 if it has none.
fn number(id: &str, prefix: &str) -> u32 {
    let digits = id.strip_prefix(prefix).and_then(|rest| rest.get(..NUMBER_DIGITS));
    digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or_default()
}
