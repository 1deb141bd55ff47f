//! What every object has, and the file that it is in.

use super::folder;
use crate::atomic_file::AtomicFile;
use crate::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

const OBJECT: &str = "object.json";

/// A kind of object.
pub trait Object: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// Name of the kind's folder, such as `files`.
    const KIND: &'static str;
    /// Beginning of every id, such as `file-`.
    const ID_PREFIX: &'static str;

    /// Returns the time from which on the object does not exist, in seconds since 1970.
    fn expires_at(&self) -> Option<u64> {
        None
    }
}

/// An object with what every object has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry<T> {
    /// The id. Ids of one kind sort in the order of creation.
    pub id: String,
    /// Name of the API key that created it; empty on a server without keys.
    pub owner: String,
    /// Time of creation, in seconds since 1970.
    pub created_at: u64,
    /// The object itself.
    pub value: T,
}

impl<T: Object> Entry<T> {
    /// Reads `object.json`.
    pub(super) fn read(folder: &Path, id: &str) -> Result<Self> {
        let path = folder.join(OBJECT);
        let bytes = fs::read(&path);
        let bytes = bytes.map_err(|source| Error::Io { path: path.clone(), action: "read", source })?;
        let entry: Self = serde_json::from_slice(&bytes)
            .map_err(|error| Error::invalid_file(&path, format!("is no object of this store: {error}")))?;
        match entry.id == id {
            true => Ok(entry),
            false => {
                let problem = format!("id: found {:?}, expected {id:?}, its folder's name", entry.id);
                Err(Error::invalid_file(&path, problem))
            }
        }
    }

    /// Writes `object.json`, or replaces it.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(OBJECT);
        let mut json = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::invalid_file(&path, format!("cannot be written: {error}")))?;
        json.push(b'\n');
        AtomicFile::create_private(&path)?.write_and_commit(&json)?;
        folder::sync_entries(folder);
        Ok(())
    }

    /// Returns whether it has not expired at a time.
    pub(super) fn exists_at(&self, now: u64) -> bool {
        self.value.expires_at().is_none_or(|expires_at| now < expires_at)
    }
}

/// Returns the time, in seconds since 1970.
pub fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
