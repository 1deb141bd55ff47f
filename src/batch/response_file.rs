//! The file of the responses, to which each is appended as one line.

use super::fingerprint;
use super::progress::{LINE_PREFIX, OutputLine, Progress};
use super::requests::BatchRequest;
use crate::Error;
use serde_json::Value;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufReader, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

type Result<T, E = Error> = std::result::Result<T, E>;

/// Interval at which the file is synchronized with the disk, after which power loss cannot damage it.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// The response to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchResponse {
    /// HTTP status.
    pub status: u16,
    /// Request id, as in the `x-request-id` header.
    pub request_id: String,
    /// Response body, as JSON.
    pub body: String,
}

/// Returns the output line of a response; `settings` is the fingerprint of all but the request that it
/// depends on.
pub fn response_line(settings: &str, request: &BatchRequest, response: &BatchResponse) -> String {
    let BatchResponse { status, request_id, body } = response;
    // The body is copied verbatim, which preserves its number formatting.
    format!(
        "{LINE_PREFIX}{settings}{}\",\"custom_id\":{},\"response\":{{\"status_code\":{status},\
         \"request_id\":{},\"body\":{body}}},\"error\":null}}\n",
        fingerprint::of_request(request),
        Value::from(request.custom_id.as_str()),
        Value::from(request_id.as_str()),
    )
}

/// Returns the output line of a request that was not executed.
pub fn refusal_line(settings: &str, request: &BatchRequest, code: &str, message: &str) -> String {
    format!(
        "{LINE_PREFIX}{settings}{}\",\"custom_id\":{},\"response\":null,\
         \"error\":{{\"code\":{},\"message\":{}}}}}\n",
        fingerprint::of_request(request),
        Value::from(request.custom_id.as_str()),
        Value::from(code),
        Value::from(message),
    )
}

/// A file of responses, locked for as long as it is open.
pub struct ResponseFile {
    path: PathBuf,
    file: File,
    synced: Instant,
}

impl ResponseFile {
    /// Opens a file, and reads the responses of an earlier run. `check` sees each with its bytes in the file,
    /// and says what is wrong with it. The file is not modified before [`start`](Self::start).
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Message`] if another run is writing to it, for other content, and those of
    /// `check`.
    pub fn open(
        path: &Path,
        check: impl FnMut(&OutputLine, Range<u64>) -> Result<(), String>,
    ) -> Result<(Self, Progress)> {
        let io_error = |action| move |source| Error::Io { path: path.into(), action, source };
        let message = |problem| Error::Message(format!("{}: {problem}", path.display()));
        let file = OpenOptions::new().read(true).append(true).create(true).open(path);
        let file = file.map_err(io_error("open"))?;
        // Other errors are ignored: some file systems do not support locks.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(message("another run is writing to it".into()));
        }
        let progress = Progress::read(BufReader::new(&file), check).map_err(io_error("read"))?;
        let progress = progress.map_err(message)?;
        Ok((Self { path: path.into(), file, synced: Instant::now() }, progress))
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn io_error(&self, action: &'static str) -> impl FnOnce(std::io::Error) -> Error + use<> {
        let path = self.path.clone();
        move |source| Error::Io { path, action, source }
    }

    /// Removes a damaged end, and makes sure that the file is on the disk.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn start(&mut self, progress: &Progress) -> Result<()> {
        if progress.damage.is_some() {
            self.file.set_len(progress.valid_len).map_err(self.io_error("truncate"))?;
        }
        self.file.sync_all().map_err(self.io_error("synchronize"))?;
        // The folder's entry for a new file; not every system can synchronize a folder.
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let _ = File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all());
        Ok(())
    }

    /// Appends a line.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn append(&mut self, line: &str) -> Result<()> {
        self.file.write_all(line.as_bytes()).map_err(self.io_error("write"))?;
        if self.synced.elapsed() >= SYNC_INTERVAL { self.sync() } else { Ok(()) }
    }

    /// Synchronizes the file with the disk.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn sync(&mut self) -> Result<()> {
        self.synced = Instant::now();
        self.file.sync_data().map_err(self.io_error("synchronize"))
    }
}
