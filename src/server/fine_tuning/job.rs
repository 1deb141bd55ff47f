//! A job as the store keeps it.

use super::hyperparameters::{Hyperparameters, Method};
use crate::Error;
use crate::server::metadata::Metadata;
use crate::server::store::{Entry, Object};
use serde::{Deserialize, Serialize};

/// A fine-tuning job: what was asked for, and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FineTuningJob {
    /// The name of the model that it begins with.
    pub model: String,
    /// Id of the file that it is trained on.
    pub training_file: String,
    /// Id of the file that it is measured on; a part of the training file if there is none.
    pub validation_file: Option<String>,
    /// A part of the result's name.
    pub suffix: Option<String>,
    /// The seed of the data's order, and of an adapter's first weights.
    pub seed: u64,
    /// What is trained.
    pub method: Method,
    /// As asked for; once the data has been read, without anything automatic.
    pub hyperparameters: Hyperparameters,
    /// The client's own notes.
    pub metadata: Metadata,
    /// Where it stands.
    pub status: Status,
    /// Time of the last change of `status`, in seconds since 1970.
    pub updated_at: u64,
    /// Why it failed.
    pub error: Option<JobError>,
    /// The number of steps, once the data has been read.
    pub steps: Option<u32>,
    /// The tokens that it was trained on.
    pub trained_tokens: Option<u64>,
    /// The name that the result is served under.
    pub fine_tuned_model: Option<String>,
    /// Whether the result has been deleted since.
    pub is_deleted: bool,
    /// Id of the file with the table of losses.
    pub result_file: Option<String>,
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It waits for the jobs before it.
    Queued,
    /// Its data is read.
    ValidatingFiles,
    /// It is trained.
    Running,
    /// Its client has paused it.
    Paused,
    /// Its result is there.
    Succeeded,
    /// Its data was wrong, or the training failed.
    Failed,
    /// Its client has cancelled it.
    Cancelled,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::ValidatingFiles,
        Self::Running,
        Self::Paused,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::ValidatingFiles => "validating_files",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The name in the older API, which knows fewer.
    pub fn legacy(self) -> &'static str {
        match self {
            Self::Queued | Self::ValidatingFiles | Self::Paused => "pending",
            other => other.as_str(),
        }
    }

    /// Whether it is the last one of a job.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// Whether the worker has the job, or had it when the server was killed.
    pub fn is_active(self) -> bool {
        matches!(self, Self::ValidatingFiles | Self::Running)
    }
}

const SERVER_ERROR: &str = "server_error";
const DISK_FULL: &str = "insufficient_storage";

/// Why a job failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobError {
    /// For a program.
    pub code: String,
    /// For a person.
    pub message: String,
    /// The field of the request.
    pub param: Option<String>,
}

impl JobError {
    /// Whether the job can go on as soon as there is room on the disk.
    pub fn is_disk_full(&self) -> bool {
        self.code == DISK_FULL
    }

    /// An error that is not the client's.
    pub fn of_server(message: String) -> Self {
        Self { code: SERVER_ERROR.into(), message, param: None }
    }
}

impl From<Error> for JobError {
    /// An error that is not the client's, without the names of the server's files.
    fn from(error: Error) -> Self {
        let code = if error.is_disk_full() { DISK_FULL } else { SERVER_ERROR };
        Self { code: code.into(), message: error.without_path(), param: None }
    }
}

impl Object for FineTuningJob {
    const KIND: &'static str = "fine_tuning_jobs";
    const ID_PREFIX: &'static str = "ftjob-";
}

/// How the older API begins the id of the same job.
pub const LEGACY_PREFIX: &str = "ft-";

/// The older API's id of a job.
pub fn legacy_id(id: &str) -> String {
    format!("{LEGACY_PREFIX}{}", without_prefix(id))
}

/// The id of a job by either of its ids.
pub fn job_id(id: &str) -> String {
    format!("{}{}", FineTuningJob::ID_PREFIX, without_prefix(id))
}

fn without_prefix(id: &str) -> &str {
    let rest = id.strip_prefix(FineTuningJob::ID_PREFIX).or_else(|| id.strip_prefix(LEGACY_PREFIX));
    rest.unwrap_or(id)
}

/// The name of a job's result: `ft:BASE:ORGANIZATION:SUFFIX:ID`, where the organization is the API key.
pub fn model_name(entry: &Entry<FineTuningJob>) -> String {
    let FineTuningJob { model, suffix, .. } = &entry.value;
    let random = &without_prefix(&entry.id)[8..14]; // what follows the number
    format!("ft:{model}:{}:{}:{random}", entry.owner, suffix.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ids_name_one_job() {
        assert_eq!(legacy_id("ftjob-0123"), "ft-0123");
        assert_eq!((job_id("ft-0123"), job_id("ftjob-0123")), ("ftjob-0123".into(), "ftjob-0123".into()));
    }
}
