//! Downloads one file into the cache and verifies it.
//!
//! `hf-hub` resumes from the partial file `blobs/ETAG.part` of an earlier run and renames it when it is
//! complete. It does not verify the content; this module compares the size and, where the hub announces one,
//! the SHA-256.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiError};
use hf_hub::{Cache, Repo};
use sha2::{Digest, Sha256};

use super::errors::is_disk_error;
use super::is_file_name;
use super::model_info::RemoteFile;

/// The maximum number of downloads of a file that fails verification and was resumed from a partial file.
const MAX_CORRUPT_DOWNLOADS: u32 = 3;
/// The maximum number of consecutive attempts that receive no data.
const MAX_ATTEMPTS: u32 = 5;
/// The delay before the second attempt; doubled before each further one.
const INITIAL_BACKOFF: Duration = Duration::from_millis(250);

/// The source and the destination of downloads.
pub(super) struct Downloader {
    pub(super) api: Api,
    /// The repository at the commit.
    pub(super) repo: Repo,
    pub(super) cache: Cache,
    pub(super) timeout: Duration,
}

/// An error of a download.
#[derive(Debug)]
pub(super) enum DownloadError {
    /// The hub's client failed.
    Api(ApiError),
    /// The file's metadata differs from the file list.
    MetadataMismatch(String),
    /// The cache cannot be read or cleaned up.
    Disk(std::io::Error),
    /// No data arrived for this many seconds.
    Timeout(u64),
    /// The downloaded file differs from the announced size or hash.
    Corrupt { found: String, expected: String },
}

/// A message of the download thread.
enum Event {
    /// A response has started.
    Start,
    /// This many more bytes of the file are present.
    Bytes(u64),
}

/// The data received by one request or several.
struct Received {
    bytes: u64,
    /// Whether the last request started at the beginning of the file.
    from_start: bool,
}

/// Forwards the progress of `hf-hub` to a channel.
struct EventSender(Sender<Event>);

impl hf_hub::api::Progress for EventSender {
    fn init(&mut self, _: usize, _: &str) {
        let _ = self.0.send(Event::Start); // the receiver is gone after a timeout
    }

    fn update(&mut self, bytes: usize) {
        let _ = self.0.send(Event::Bytes(bytes as u64));
    }

    fn finish(&mut self) {}
}

impl Downloader {
    /// Ensures that a file is present and verified. `on_progress` receives the number of bytes present;
    /// returns the number of bytes received.
    pub(super) fn run(
        &self,
        file: &RemoteFile,
        mut on_progress: impl FnMut(u64),
    ) -> Result<u64, DownloadError> {
        let pointer = self.cache.repo(self.repo.clone()).pointer_path(self.repo.revision()).join(&file.name);
        let (mut received, mut error) = (0, None);
        for _ in 0..MAX_CORRUPT_DOWNLOADS {
            let mut from_start = false;
            if !pointer.exists() {
                let new = self.fetch(file, &pointer, &mut on_progress)?;
                (received, from_start) = (received + new.bytes, new.from_start);
            }
            error = verify(file, &pointer).map_err(DownloadError::Disk)?;
            if error.is_none() {
                on_progress(file.size);
                return Ok(received);
            }
            remove_with_blob(&pointer).map_err(DownloadError::Disk)?;
            if from_start {
                break;
            }
        }
        Err(error.expect("the last verification failed"))
    }

    /// Downloads a file, retrying as long as requests receive data.
    fn fetch(
        &self,
        file: &RemoteFile,
        pointer: &Path,
        on_progress: &mut impl FnMut(u64),
    ) -> Result<Received, DownloadError> {
        if pointer.is_symlink() {
            std::fs::remove_file(pointer).map_err(DownloadError::Disk)?; // a dangling link
        }
        let (mut received, mut failures) = (0, 0);
        loop {
            let (sender, events) = channel();
            let (api, repo, cache, file_) =
                (self.api.clone(), self.repo.clone(), self.cache.clone(), file.clone());
            let thread = thread::spawn(move || attempt(&api, &repo, &cache, &file_, EventSender(sender)));
            let new = self.receive(&events, |present| on_progress(present.min(file.size)))?;
            received += new.bytes;
            let error = match thread.join() {
                Ok(Ok(())) => return Ok(Received { bytes: received, from_start: new.from_start }),
                Ok(Err(error)) => error,
                Err(_) => DownloadError::MetadataMismatch("the response cannot be parsed".into()),
            };
            failures = if new.bytes > 0 { 1 } else { failures + 1 };
            if failures >= MAX_ATTEMPTS || !is_transient(&error) {
                return Err(error);
            }
            thread::sleep(INITIAL_BACKOFF * 2u32.pow(failures - 1));
        }
    }

    /// Forwards the progress of a download until it ends; returns the bytes received. The first event of each
    /// response counts the bytes of the partial file, which were present before.
    fn receive(
        &self,
        events: &Receiver<Event>,
        mut on_progress: impl FnMut(u64),
    ) -> Result<Received, DownloadError> {
        let (mut present, mut resumed_from) = (0, None);
        loop {
            match events.recv_timeout(self.timeout) {
                Ok(Event::Start) => (present, resumed_from) = (0, None),
                Ok(Event::Bytes(bytes)) => {
                    present += bytes;
                    resumed_from.get_or_insert(bytes);
                    on_progress(present);
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let resumed_from = resumed_from.unwrap_or(0);
                    return Ok(Received { bytes: present - resumed_from, from_start: resumed_from == 0 });
                }
                // The thread is detached and ends with the process.
                Err(RecvTimeoutError::Timeout) => return Err(DownloadError::Timeout(self.timeout.as_secs())),
            }
        }
    }
}

/// One download attempt, resuming from the partial file.
fn attempt(
    api: &Api,
    repo: &Repo,
    cache: &Cache,
    file: &RemoteFile,
    events: EventSender,
) -> Result<(), DownloadError> {
    let source = api.repo(repo.clone());
    let announced = api.metadata(&source.url(&file.name)).map_err(DownloadError::Api)?;
    if !is_file_name(announced.etag()) || announced.commit_hash() != repo.revision() {
        let found = format!("commit {:?}, ETag {:?}", announced.commit_hash(), announced.etag());
        return Err(DownloadError::MetadataMismatch(found));
    }
    if announced.size() as u64 != file.size {
        return Err(DownloadError::MetadataMismatch(format!(
            "{} bytes, but {} in the file list",
            announced.size(),
            file.size
        )));
    }
    let partial = cache.repo(repo.clone()).blob_path(announced.etag()).with_extension("part");
    truncate_partial(&partial, file.size).map_err(DownloadError::Disk)?;
    source.download_with_progress(&file.name, events).map(drop).map_err(DownloadError::Api)
}

/// Makes the partial file of an earlier run shorter than the complete file: the hub rejects a range request
/// for nothing.
fn truncate_partial(partial: &Path, size: u64) -> std::io::Result<()> {
    match std::fs::metadata(partial) {
        Ok(metadata) if metadata.len() > size => std::fs::remove_file(partial),
        Ok(metadata) if metadata.len() == size && size > 0 => {
            std::fs::OpenOptions::new().write(true).open(partial)?.set_len(size - 1)
        }
        _ => Ok(()),
    }
}

/// Compares a file with its announced size and hash; returns the difference, if any.
fn verify(file: &RemoteFile, path: &Path) -> std::io::Result<Option<DownloadError>> {
    let mut opened = File::open(path)?;
    let size = opened.metadata()?.len();
    if size != file.size {
        let (found, expected) = (format!("{size} bytes"), format!("{} bytes", file.size));
        return Ok(Some(DownloadError::Corrupt { found, expected }));
    }
    let Some(expected) = &file.sha256 else { return Ok(None) };
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match opened.read(&mut buffer)? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let label = |hash: &str| format!("SHA-256 {hash}");
    Ok((found != *expected)
        .then(|| DownloadError::Corrupt { found: label(&found), expected: label(expected) }))
}

/// Removes a link and the blob it points to.
fn remove_with_blob(pointer: &Path) -> std::io::Result<()> {
    let blob = pointer.canonicalize()?;
    std::fs::remove_file(pointer)?;
    if blob.exists() { std::fs::remove_file(blob) } else { Ok(()) }
}

/// Whether a retry may succeed.
fn is_transient(error: &DownloadError) -> bool {
    match error {
        DownloadError::Api(ApiError::RequestError(error)) => match &**error {
            ureq::Error::StatusCode(status) => *status == 429 || *status >= 500,
            ureq::Error::Io(error) => !is_disk_error(error),
            _ => true,
        },
        DownloadError::Api(ApiError::IoError(error)) => !is_disk_error(error),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncate_partial_makes_file_shorter_than_size() {
        let folder = tempfile::tempdir().unwrap();
        let partial = folder.path().join("x.part");
        truncate_partial(&partial, 5).unwrap();
        for (before, after) in [("1234", Some(4)), ("12345", Some(4)), ("123456", None)] {
            std::fs::write(&partial, before).unwrap();
            truncate_partial(&partial, 5).unwrap();
            assert_eq!(std::fs::metadata(&partial).ok().map(|metadata| metadata.len()), after);
        }
    }

    #[cfg(unix)]
    #[test]
    fn corrupt_file_is_removed_with_its_blob() {
        let folder = tempfile::tempdir().unwrap();
        let (blob, pointer) = (folder.path().join("blob"), folder.path().join("pointer"));
        std::fs::write(&blob, "abc").unwrap();
        std::os::unix::fs::symlink("blob", &pointer).unwrap();
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let file = |size, sha256: &str| RemoteFile { name: "f".into(), size, sha256: Some(sha256.into()) };
        assert!(verify(&file(3, hash), &pointer).unwrap().is_none());
        assert!(matches!(verify(&file(4, hash), &pointer).unwrap(), Some(DownloadError::Corrupt { .. })));
        assert!(matches!(
            verify(&file(3, &hash.replace('b', "c")), &pointer).unwrap(),
            Some(DownloadError::Corrupt { .. })
        ));
        remove_with_blob(&pointer).unwrap();
        assert!(!blob.exists() && !pointer.is_symlink());
    }
}
