//! What the hub, the network or the disk refuse, said in one line with what to do about it.

use std::io::ErrorKind;
use std::path::Path;

use hf_hub::api::sync::ApiError;

use super::DEFAULT_REVISION;
use super::download::Problem;
use super::model_info::Remote;
use crate::checkpoint;
use crate::error::Error;

/// What was asked for, for whoever has to say that it cannot be had.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) name: &'a str,
    pub(super) revision: &'a str,
    pub(super) endpoint: &'a str,
    pub(super) cache: &'a Path,
    pub(super) token: bool,
}

impl Asked<'_> {
    /// A repository that is there but does not hold what runs here.
    pub(super) fn cannot_run(&self, problem: &str) -> Error {
        Error::Message(format!("{} cannot run here: {problem}", self.what()))
    }

    /// Something that does not answer as the hub does.
    pub(super) fn no_hub(&self, problem: &str) -> Error {
        Error::Message(format!("{} does not answer as the hub does: {problem}", self.endpoint))
    }

    /// Why there is no listing.
    pub(super) fn refuse_listing(&self, error: &ureq::Error) -> Error {
        match error {
            ureq::Error::StatusCode(status) => self.status(*status),
            ureq::Error::Json(error) => self.no_hub(&error.to_string()),
            error => self.unreachable(&error.to_string()),
        }
    }

    /// Why a file did not come.
    pub(super) fn refuse(&self, file: &Remote, problem: Problem) -> Error {
        let name = &file.name;
        match problem {
            Problem::Refused(ApiError::RequestError(error)) => match &*error {
                ureq::Error::StatusCode(404) => {
                    Error::Message(format!("{}: {name} is listed but not there (404)", self.what()))
                }
                ureq::Error::StatusCode(status) => self.status(*status),
                error => self.unreachable(&error.to_string()),
            },
            Problem::Refused(ApiError::IoError(error)) => match of_disk(&error) {
                true => self.disk(error),
                false => self.unreachable(&error.to_string()),
            },
            Problem::Refused(ApiError::LockAcquisition(_)) => Error::Message(format!(
                "{name} is being downloaded by another program into {}: wait for it, or end it",
                self.cache.display()
            )),
            Problem::Refused(error) => self.no_hub(&format!("{name}: {error}")),
            Problem::Changed(what) => self.no_hub(&format!("{name}: {what}")),
            Problem::Disk(error) => self.disk(error),
            Problem::Silent(seconds) => Error::Message(format!(
                "nothing came from {} for {seconds} seconds; what is here stays: the same command goes on behind it",
                self.endpoint
            )),
            Problem::Wrong { found, expected } => Error::Message(format!(
                "{name}: found {found}, expected {expected}: what came was removed; try again, and mistrust {}",
                self.endpoint
            )),
        }
    }

    fn disk(&self, source: std::io::Error) -> Error {
        let path = self.cache.to_path_buf();
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                Error::Message(format!(
                    "{}: cannot write: {source}; make room and run the same command, which goes on behind what is here, or \
                 set HF_HUB_CACHE to another disk",
                    path.display()
                ))
            }
            _ => Error::Message(format!(
                "{}: cannot write: {source}; HF_HUB_CACHE names another folder to keep models in",
                path.display()
            )),
        }
    }

    fn unreachable(&self, why: &str) -> Error {
        Error::Message(format!(
            "{} cannot be reached: {}; what is here stays, and the same command goes on behind it",
            self.endpoint,
            why.replace('\n', " ")
        ))
    }

    /// `openai-community/gpt2`, with the revision where that is not the usual one.
    fn what(&self) -> String {
        match self.revision {
            DEFAULT_REVISION => format!("'{}'", self.name),
            revision => format!("'{}' at revision '{revision}'", self.name),
        }
    }

    fn status(&self, status: u16) -> Error {
        let (what, page) = (self.what(), format!("{}/{}", self.endpoint, self.name));
        let similar = Error::did_you_mean(
            self.name,
            checkpoint::KNOWN.iter().flat_map(|(short, full)| [*short, *full]),
        );
        Error::Message(match status {
            401 if self.token => {
                format!("the hub refuses the token (401): make another at {}/settings/tokens", self.endpoint)
            }
            // Whether there is such a repository is told to those only who may see it.
            401 => format!(
                "the hub has no {what} that anyone may see (401){similar}; for a private one set HF_TOKEN"
            ),
            403 => format!(
                "the hub does not let you have {what} (403): ask for access at {page}, and set HF_TOKEN"
            ),
            404 => format!("the hub has no {what} (404){similar}"),
            429 => "the hub wants fewer requests (429): try again in a few minutes, or set HF_TOKEN".into(),
            500.. => format!("the hub is in trouble ({status}): try again later"),
            _ => format!("the hub refuses {what} with status {status}"),
        })
    }
}

/// Whether a failed copy failed at its end here.
pub(super) fn of_disk(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull
            | ErrorKind::QuotaExceeded
            | ErrorKind::FileTooLarge
            | ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::NotADirectory
            | ErrorKind::IsADirectory
            | ErrorKind::AlreadyExists
            | ErrorKind::NotFound
    )
}
