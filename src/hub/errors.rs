//! Errors of the hub, the network and the disk, each one line that says what to do next.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use super::DEFAULT_REVISION;
use crate::checkpoint;
use crate::error::Error;

/// An error of a download.
#[derive(Debug)]
pub(super) enum DownloadError {
    /// A request failed, or a response broke off.
    Request(ureq::Error),
    /// The file's headers are malformed, or differ from the file list.
    MetadataMismatch(String),
    /// The cache cannot be read, written or cleaned up.
    Disk(std::io::Error),
    /// Another process is downloading the file.
    Locked,
    /// The downloaded file differs from the announced size or hash.
    Corrupt { found: String, expected: String },
}

/// The request that error messages refer to.
#[derive(Debug)]
pub(super) struct ErrorContext<'a> {
    pub(super) repo_id: &'a str,
    pub(super) revision: &'a str,
    pub(super) endpoint: &'a str,
    pub(super) cache: &'a Path,
    pub(super) has_token: bool,
    pub(super) timeout: Duration,
}

impl ErrorContext<'_> {
    /// The error of a repository that exists but holds no supported model.
    pub(super) fn unsupported(&self, problem: &str) -> Error {
        Error::Unsupported(format!("{} is not supported: {problem}", self.repo_and_revision()))
    }

    /// The error of an endpoint that does not respond as the hub does.
    pub(super) fn unexpected_response(&self, problem: &str) -> Error {
        hub_error(format!("unexpected response from {}: {problem}", self.endpoint))
    }

    /// The error of a failed request.
    pub(super) fn request_error(&self, error: &ureq::Error) -> Error {
        match error {
            ureq::Error::StatusCode(status) => self.status(*status),
            ureq::Error::Timeout(_) => hub_error(format!(
                "no data from {} for {} seconds; run the same command again to resume the download",
                self.endpoint,
                self.timeout.as_secs()
            )),
            ureq::Error::Json(error) => self.unexpected_response(&error.to_string()),
            error => self.unreachable(&error.to_string()),
        }
    }

    /// The error of a failed download.
    pub(super) fn download_error(&self, name: &str, error: DownloadError) -> Error {
        match error {
            DownloadError::Request(ureq::Error::StatusCode(404)) => {
                let problem = format!("{}: {name} is listed but missing (404)", self.repo_and_revision());
                Error::Hub { status: Some(404), problem }
            }
            DownloadError::Request(error) => self.request_error(&error),
            DownloadError::Locked => hub_error(format!(
                "{name} is being downloaded by another process into {}: wait for it to finish, or stop it",
                self.cache.display()
            )),
            DownloadError::MetadataMismatch(found) => self.unexpected_response(&format!("{name}: {found}")),
            DownloadError::Disk(error) => self.disk(error),
            DownloadError::Corrupt { found, expected } => hub_error(format!(
                "{name}: found {found}, expected {expected}; the corrupt file was removed: try again, \
                 and do not trust {} if this repeats",
                self.endpoint
            )),
        }
    }

    fn disk(&self, source: std::io::Error) -> Error {
        let path = self.cache.to_path_buf();
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                hub_error(format!(
                    "{}: cannot write: {source}; free some space and run the same command again to \
                     resume, or set HF_HUB_CACHE to another disk",
                    path.display()
                ))
            }
            _ => hub_error(format!(
                "{}: cannot write: {source}; set HF_HUB_CACHE to a writable folder",
                path.display()
            )),
        }
    }

    fn unreachable(&self, reason: &str) -> Error {
        hub_error(format!(
            "cannot reach {}: {}; run the same command again to resume the download, or {}",
            self.endpoint,
            reason.replace('\n', " "),
            super::BY_HAND
        ))
    }

    /// `'openai-community/gpt2'`, with the revision unless it is the default one.
    fn repo_and_revision(&self) -> String {
        match self.revision {
            DEFAULT_REVISION => format!("'{}'", self.repo_id),
            revision => format!("'{}' at revision '{revision}'", self.repo_id),
        }
    }

    fn status(&self, status: u16) -> Error {
        let (repo, page) = (self.repo_and_revision(), format!("{}/{}", self.endpoint, self.repo_id));
        let similar = Error::did_you_mean(
            self.repo_id,
            checkpoint::HUB_ALIASES.iter().flat_map(|(short, full)| [*short, *full]),
        );
        let problem = match status {
            401 if self.has_token => {
                format!(
                    "the hub rejected the token (401): create another at {}/settings/tokens",
                    self.endpoint
                )
            }
            // The hub does not reveal to others whether a private repository exists.
            401 => {
                format!("the hub has no public {repo} (401){similar}; set HF_TOKEN to access a private one")
            }
            403 => format!("access to {repo} is denied (403): request access at {page}, and set HF_TOKEN"),
            404 => format!("the hub has no {repo} (404){similar}"),
            429 => {
                "the hub is rate-limiting requests (429): try again in a few minutes, or set HF_TOKEN".into()
            }
            500.. => format!("the hub has a server error ({status}): try again later"),
            _ => format!("the hub refused {repo} with status {status}"),
        };
        Error::Hub { status: Some(status), problem }
    }
}

/// The error of a download for which the hub has no status.
pub(super) fn hub_error(problem: impl Into<String>) -> Error {
    Error::Hub { status: None, problem: problem.into() }
}
