//! Downloads one file into the cache and verifies it.
//!
//! A download resumes from the partial file `blobs/ETAG.part` of an earlier run, which is renamed when it is
//! complete. Size and SHA-256 are compared with those that the file list or else the file's headers announce.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};
use ureq::Body;
use ureq::http::{Response, header};

use super::client::{Client, FileMetadata};
use super::errors::DownloadError;
use super::model_info::RemoteFile;

/// The maximum number of downloads of a file that fails verification and was resumed from a partial file.
const MAX_CORRUPT_DOWNLOADS: u32 = 3;
/// The maximum number of consecutive attempts that receive no data.
const MAX_ATTEMPTS: u32 = 5;
/// The delay before the second attempt; doubled before each further one.
const INITIAL_BACKOFF: Duration = Duration::from_millis(250);

/// The source and the destination of downloads.
pub(super) struct Downloader {
    pub(super) client: Client,
    /// The address of the files of the commit.
    pub(super) url: String,
    pub(super) commit: String,
    /// The repository's folder in the cache.
    pub(super) folder: PathBuf,
}

/// The data received by one request or several.
#[derive(Default)]
struct Received {
    bytes: u64,
    /// Whether the last request started at the beginning of the file.
    from_start: bool,
}

impl Downloader {
    /// Ensures that a file is present and verified, and learns its size if the file list has none.
    /// `on_progress` receives the number of bytes present; returns the number of bytes received.
    pub(super) fn run(
        &self,
        file: &mut RemoteFile,
        mut on_progress: impl FnMut(u64),
    ) -> Result<u64, DownloadError> {
        let pointer = self.folder.join("snapshots").join(&self.commit).join(&file.name);
        let (mut received, mut error) = (0, None);
        for _ in 0..MAX_CORRUPT_DOWNLOADS {
            let mut from_start = false;
            if !pointer.exists() || file.size.is_none() {
                let new = self.fetch(file, &pointer, &mut on_progress)?;
                (received, from_start) = (received + new.bytes, new.from_start);
            }
            error = verify(file, &pointer).map_err(DownloadError::Disk)?;
            if error.is_none() {
                let size = std::fs::metadata(&pointer).map_err(DownloadError::Disk)?.len();
                file.size = Some(size);
                on_progress(size);
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
        file: &mut RemoteFile,
        pointer: &Path,
        on_progress: &mut impl FnMut(u64),
    ) -> Result<Received, DownloadError> {
        let (mut received, mut failures) = (Received::default(), 0);
        loop {
            let before = received.bytes;
            let result = self.attempt(file, pointer, &mut received, on_progress);
            let Err(error) = result else { return Ok(received) };
            failures = if received.bytes > before { 1 } else { failures + 1 };
            if failures >= MAX_ATTEMPTS || !is_transient(&error) {
                return Err(error);
            }
            thread::sleep(INITIAL_BACKOFF * 2u32.pow(failures - 1));
        }
    }

    /// One attempt: the metadata, and the file unless the cache has it.
    fn attempt(
        &self,
        file: &mut RemoteFile,
        pointer: &Path,
        received: &mut Received,
        on_progress: &mut impl FnMut(u64),
    ) -> Result<(), DownloadError> {
        let url = format!("{}/{}", self.url, file.name);
        let metadata = self.client.file_metadata(&url)?;
        self.announce(file, &metadata)?;
        if pointer.exists() {
            return Ok(());
        }
        let blobs = self.folder.join("blobs");
        let blob = blobs.join(&metadata.etag);
        std::fs::create_dir_all(&blobs).map_err(DownloadError::Disk)?;
        let lock = File::create(blob.with_extension("lock")).map_err(DownloadError::Disk)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => DownloadError::Locked,
            TryLockError::Error(error) => DownloadError::Disk(error),
        })?;
        if !blob.exists() {
            let partial = blob.with_extension("part");
            self.transfer(&url, file, &partial, received, on_progress)?;
            std::fs::rename(partial, &blob).map_err(DownloadError::Disk)?;
        }
        link(&blob, pointer).map_err(DownloadError::Disk)
    }

    /// Adds the size and the hash of the headers to those of the file list, and compares the size.
    fn announce(&self, file: &mut RemoteFile, metadata: &FileMetadata) -> Result<(), DownloadError> {
        if metadata.commit != self.commit {
            let found = format!("commit {:?}, expected {:?}", metadata.commit, self.commit);
            return Err(DownloadError::MetadataMismatch(found));
        }
        if let (Some(found), Some(listed)) = (metadata.size, file.size)
            && found != listed
        {
            let found = format!("{found} bytes, but {listed} in the file list");
            return Err(DownloadError::MetadataMismatch(found));
        }
        file.size = file.size.or(metadata.size);
        file.sha256 = file.sha256.take().or_else(|| metadata.sha256.clone());
        Ok(())
    }

    /// Appends the rest of the file to the partial file.
    fn transfer(
        &self,
        url: &str,
        file: &RemoteFile,
        partial: &Path,
        received: &mut Received,
        on_progress: &mut impl FnMut(u64),
    ) -> Result<(), DownloadError> {
        truncate_partial(partial, file.size).map_err(DownloadError::Disk)?;
        let mut output =
            OpenOptions::new().create(true).append(true).open(partial).map_err(DownloadError::Disk)?;
        let mut present = output.metadata().map_err(DownloadError::Disk)?.len();
        let get = |from: u64| {
            let request = self.client.get(url);
            if from == 0 { request } else { request.header(header::RANGE, format!("bytes={from}-")) }.call()
        };
        let mut response = match get(present) {
            // Another file of this name: the partial file is longer.
            Err(ureq::Error::StatusCode(416)) if present > 0 => None,
            response => Some(response.map_err(DownloadError::Request)?),
        };
        let start = response.as_ref().and_then(range_start);
        if present > 0 && start != Some(present) {
            output.set_len(0).map_err(DownloadError::Disk)?;
            present = 0;
            response = response.filter(|_| start == Some(0));
        }
        let response = match response {
            Some(response) => response,
            None => get(0).map_err(DownloadError::Request)?,
        };
        received.from_start = present == 0;
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; 1 << 16];
        loop {
            on_progress(file.size.map_or(present, |size| present.min(size)));
            let read = match body.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) => return Err(DownloadError::Request(error.into())),
            };
            output.write_all(&buffer[..read]).map_err(DownloadError::Disk)?;
            received.bytes += read as u64;
            present += read as u64;
        }
    }
}

/// The position in the file at which a response starts: that of a `Content-Range`, or 0 of a complete file.
fn range_start(response: &Response<Body>) -> Option<u64> {
    if response.status() != 206 {
        return Some(0);
    }
    let range = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// Makes the partial file of an earlier run shorter than the complete file: the hub rejects a range request
/// for nothing.
fn truncate_partial(partial: &Path, size: Option<u64>) -> std::io::Result<()> {
    match (std::fs::metadata(partial), size) {
        (Ok(metadata), Some(size)) if metadata.len() > size => std::fs::remove_file(partial),
        (Ok(metadata), Some(size)) if metadata.len() == size && size > 0 => {
            OpenOptions::new().write(true).open(partial)?.set_len(size - 1)
        }
        _ => Ok(()),
    }
}

/// Links a file of the snapshot to its content: `snapshots/COMMIT/NAME` to `../../blobs/ETAG`.
fn link(blob: &Path, pointer: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(pointer.parent().expect("a file in a snapshot"))?;
    if pointer.is_symlink() {
        std::fs::remove_file(pointer)?; // a dangling link
    }
    #[cfg(unix)]
    let result = {
        let target = Path::new("../../blobs").join(blob.file_name().expect("an ETag"));
        std::os::unix::fs::symlink(target, pointer)
    };
    #[cfg(not(unix))]
    let result = std::fs::hard_link(blob, pointer);
    result
}

/// Compares a file with its announced size and hash; returns the difference, if any.
fn verify(file: &RemoteFile, path: &Path) -> std::io::Result<Option<DownloadError>> {
    let mut opened = File::open(path)?;
    let size = opened.metadata()?.len();
    if let Some(expected) = file.size.filter(|expected| *expected != size) {
        let (found, expected) = (format!("{size} bytes"), format!("{expected} bytes"));
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
        DownloadError::Request(ureq::Error::StatusCode(status)) => *status == 429 || *status >= 500,
        DownloadError::Request(ureq::Error::Timeout(_)) => false,
        DownloadError::Request(_) | DownloadError::Locked => true,
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
        truncate_partial(&partial, Some(5)).unwrap();
        for (before, after) in [("1234", Some(4)), ("12345", Some(4)), ("123456", None)] {
            std::fs::write(&partial, before).unwrap();
            truncate_partial(&partial, Some(5)).unwrap();
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
        let file = |size, sha256: &str| RemoteFile {
            name: "f".into(),
            size: Some(size),
            sha256: Some(sha256.into()),
        };
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
