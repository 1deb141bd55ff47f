//! A file in the making: written piece by piece and hashed meanwhile.

use super::object::StoredFile;
use crate::server::store::{Draft, Entry};
use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Size from which written pieces are passed on to the disk.
const BUFFER_BYTES: usize = 64 << 10;

/// A new file. Dropping it unfinished leaves nothing.
pub struct FileDraft {
    draft: Draft<StoredFile>,
    path: PathBuf,
    file: File,
    /// Bytes that are not written yet.
    buffer: Vec<u8>,
    hash: Sha256,
    bytes: u64,
}

impl FileDraft {
    pub(super) fn new(draft: Draft<StoredFile>) -> Result<Self> {
        let path = draft.folder().join("content");
        let file = File::create_new(&path).map_err(io_error(&path, "create"))?;
        Ok(Self { draft, path, file, buffer: vec![], hash: Sha256::new(), bytes: 0 })
    }

    /// Returns the id that the file will have.
    pub fn id(&self) -> &str {
        self.draft.id()
    }

    /// Returns the time of creation, in seconds since 1970.
    pub fn created_at(&self) -> u64 {
        self.draft.created_at()
    }

    /// Returns the number of bytes written.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`Error::Io`], also if the store's quota is used up.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.draft.reserve(bytes.len() as u64)?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        if self.buffer.is_empty() && bytes.len() >= BUFFER_BYTES {
            return self.file.write_all(bytes).map_err(io_error(&self.path, "write"));
        }
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let written = self.file.write_all(&self.buffer);
        self.buffer.clear();
        written.map_err(io_error(&self.path, "write"))
    }

    /// Writes all that was appended, and returns the path of the content as it is so far.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn content(&mut self) -> Result<&Path> {
        self.flush()?;
        Ok(&self.path)
    }

    /// Makes the file appear in the store.
    ///
    /// # Errors
    /// [`Error::Io`]; then nothing is left.
    pub fn finish(
        mut self,
        filename: &str,
        purpose: &str,
        expires_at: Option<u64>,
    ) -> Result<Arc<Entry<StoredFile>>> {
        self.flush()?;
        let Self { draft, path, file, hash, bytes, .. } = self;
        drop(file);
        let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let (filename, purpose) = (filename.to_string(), purpose.to_string());
        let value = StoredFile { filename, purpose, bytes, sha256, expires_at };
        let target = draft.folder().join(value.content_name());
        std::fs::rename(&path, &target).map_err(io_error(&path, "rename"))?;
        draft.commit(value)
    }
}

fn io_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { path: path.into(), action, source }
}
