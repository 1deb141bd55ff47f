//! `/v1/files`: what clients upload, and what the server writes for them.
//!
//! - [`Files`]: the files in the [store](super::store).
//! - [`multipart`], [`body`]: an upload's body, of which only a piece is in memory at a time.
//! - [`upload`]: the handler that receives it.
//! - [`routes`]: list, retrieve, read and delete.

pub mod body;
mod draft;
pub mod multipart;
mod object;
pub mod routes;
pub mod upload;

pub use draft::FileDraft;
pub use object::{FileObject, StoredFile, purpose};

use super::store::{Collection, Entry, Store};
use crate::Result;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Uploads written at once, each by a thread of its own.
const UPLOADS: usize = 4;

/// The files in the store.
#[derive(Clone)]
pub struct Files {
    collection: Collection<StoredFile>,
    uploads: Arc<Semaphore>,
}

impl Files {
    /// Opens the files of a store.
    ///
    /// # Errors
    /// Those of [`Collection::open`].
    pub fn open(store: &Arc<Store>) -> Result<Self> {
        let collection = Collection::open(store)?;
        Ok(Self { collection, uploads: Arc::new(Semaphore::new(UPLOADS)) })
    }

    /// Returns all files as objects of the store.
    pub fn collection(&self) -> &Collection<StoredFile> {
        &self.collection
    }

    /// Returns an owner's file.
    pub fn get(&self, owner: &str, id: &str) -> Option<Arc<Entry<StoredFile>>> {
        self.collection.get(owner, id)
    }

    /// Returns where a file's content is.
    pub fn path(&self, file: &Entry<StoredFile>) -> PathBuf {
        self.collection.folder(&file.id).join(file.value.content_name())
    }

    /// Begins a new file.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io)
    pub fn draft(&self, owner: &str) -> Result<FileDraft> {
        FileDraft::new(self.collection.draft(owner)?)
    }
}
