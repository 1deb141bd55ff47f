//! A file as the store has it, and as clients see it.

use crate::server::store::{Entry, Object};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What files are for.
pub mod purpose {
    /// Data to fine-tune a model with.
    pub const FINE_TUNE: &str = "fine-tune";
    /// Requests of a batch.
    pub const BATCH: &str = "batch";
    /// Responses of a batch, written by the server.
    pub const BATCH_OUTPUT: &str = "batch_output";
    /// Measurements of a fine-tuning job, written by the server.
    pub const FINE_TUNE_RESULTS: &str = "fine-tune-results";
    /// Those that a client may give.
    pub const OF_UPLOADS: [&str; 6] = [FINE_TUNE, BATCH, "assistants", "vision", "user_data", "evals"];
}

/// A file in the store; its content is beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// Name that the client gave it.
    pub filename: String,
    /// What it is for: one of [`purpose`].
    pub purpose: String,
    /// Size of the content in bytes.
    pub bytes: u64,
    /// SHA-256 of the content, in hexadecimal.
    pub sha256: String,
    /// Time from which on it does not exist, in seconds since 1970.
    pub expires_at: Option<u64>,
}

impl Object for StoredFile {
    const KIND: &'static str = "files";
    const ID_PREFIX: &'static str = "file-";

    fn expires_at(&self) -> Option<u64> {
        self.expires_at
    }
}

impl StoredFile {
    /// Returns the name of the file with the content, which says how it is read.
    pub fn content_name(&self) -> &'static str {
        match self.purpose.as_str() {
            purpose::FINE_TUNE | purpose::BATCH | purpose::BATCH_OUTPUT => "content.jsonl",
            purpose::FINE_TUNE_RESULTS => "content.csv",
            _ => "content",
        }
    }
}

/// A file.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FileObject {
    id: String,
    /// `file`
    object: &'static str,
    /// Size in bytes.
    bytes: u64,
    /// Time of creation, in seconds since 1970.
    created_at: u64,
    /// Time at which it is deleted, in seconds since 1970; absent if it never is.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
    /// Name that the client gave it.
    filename: String,
    /// What it is for.
    purpose: String,
    /// `processed`: a file that is not valid is refused.
    status: &'static str,
}

impl From<&Entry<StoredFile>> for FileObject {
    fn from(entry: &Entry<StoredFile>) -> Self {
        let StoredFile { filename, purpose, bytes, expires_at, .. } = entry.value.clone();
        Self {
            id: entry.id.clone(),
            object: "file",
            bytes,
            created_at: entry.created_at,
            expires_at,
            filename,
            purpose,
            status: "processed",
        }
    }
}
