//! A batch as the store has it, and as clients see it.

use crate::server::store::{Entry, Object, unix_time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Where a batch is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = BatchStatus)]
pub enum Status {
    /// The input file is about to be checked.
    Validating,
    /// The input file is not valid.
    Failed,
    /// Requests wait or are answered.
    InProgress,
    /// All requests are answered, and the result files are about to be written.
    Finalizing,
    /// The results are there.
    Completed,
    /// The time was over; the results of some requests are there.
    Expired,
    /// Cancelled, but the results of some requests are about to be written.
    Cancelling,
    /// Cancelled; the results of some requests are there.
    Cancelled,
}

impl Status {
    /// Returns the name, as clients see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Validating => "validating",
            Self::Failed => "failed",
            Self::InProgress => "in_progress",
            Self::Finalizing => "finalizing",
            Self::Completed => "completed",
            Self::Expired => "expired",
            Self::Cancelling => "cancelling",
            Self::Cancelled => "cancelled",
        }
    }

    /// Returns whether nothing happens any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Failed | Self::Completed | Self::Expired | Self::Cancelled)
    }
}

/// A problem of the input file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BatchProblem {
    /// Error code for a program.
    pub code: String,
    /// Error message for a person.
    pub message: String,
    /// The field that is not valid.
    pub param: Option<String>,
    /// The line that is not valid, from 1.
    pub line: Option<usize>,
}

/// Times at which a batch changed its status, in seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BatchTimes {
    /// Start of the answers.
    pub in_progress_at: Option<u64>,
    /// Time until which requests are answered.
    pub expires_at: Option<u64>,
    /// End of the answers.
    pub finalizing_at: Option<u64>,
    /// End of a batch whose requests are all answered.
    pub completed_at: Option<u64>,
    /// End of a batch that is not valid.
    pub failed_at: Option<u64>,
    /// End of a batch whose time was over.
    pub expired_at: Option<u64>,
    /// Time at which it was cancelled.
    pub cancelling_at: Option<u64>,
    /// End of a batch that was cancelled.
    pub cancelled_at: Option<u64>,
}

/// Numbers of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RequestCounts {
    /// All requests.
    pub total: usize,
    /// Requests answered with status 200.
    pub completed: usize,
    /// Requests answered with an error.
    pub failed: usize,
}

/// A batch in the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredBatch {
    /// Endpoint of all requests, such as `/v1/completions`.
    pub endpoint: String,
    /// The file with the requests.
    pub input_file_id: String,
    /// The client's own notes.
    pub metadata: Option<BTreeMap<String, String>>,
    /// Seconds after which a result file is deleted; `None` for never.
    pub output_expires_after: Option<u64>,
    /// Where it is on its way.
    pub status: Status,
    /// Problems of the input file.
    pub problems: Vec<BatchProblem>,
    /// File of the responses with status 200.
    pub output_file_id: Option<String>,
    /// File of the other responses.
    pub error_file_id: Option<String>,
    /// Numbers of requests.
    pub request_counts: RequestCounts,
    /// Times.
    pub times: BatchTimes,
}

impl StoredBatch {
    /// Cancels a batch whose requests are not all answered.
    pub fn cancel(&mut self) {
        if matches!(self.status, Status::Validating | Status::InProgress) {
            self.status = Status::Cancelling;
            self.times.cancelling_at = Some(unix_time());
        }
    }
}

impl Object for StoredBatch {
    const KIND: &'static str = "batches";
    const ID_PREFIX: &'static str = "batch_";
}

/// The problems of an input file.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BatchProblems {
    /// `list`
    object: &'static str,
    data: Vec<BatchProblem>,
}

/// A batch.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BatchObject {
    id: String,
    /// `batch`
    object: &'static str,
    /// Endpoint of all requests.
    endpoint: String,
    /// Problems of the input file, if it is not valid.
    errors: Option<BatchProblems>,
    /// The file with the requests.
    input_file_id: String,
    /// `24h`
    completion_window: &'static str,
    status: Status,
    /// File of the responses with status 200.
    output_file_id: Option<String>,
    /// File of the other responses.
    error_file_id: Option<String>,
    /// Time of creation, in seconds since 1970.
    created_at: u64,
    #[serde(flatten)]
    times: BatchTimes,
    request_counts: RequestCounts,
    /// The client's own notes.
    metadata: Option<BTreeMap<String, String>>,
}

impl BatchObject {
    /// Batch with the numbers of requests that are answered and failed up to now, if it is computed.
    pub fn new(entry: &Entry<StoredBatch>, running: Option<(usize, usize)>) -> Self {
        let batch = entry.value.clone();
        let mut request_counts = batch.request_counts;
        if let Some((answered, failed)) = running {
            request_counts.completed = answered - failed;
            request_counts.failed = failed;
        }
        let problems = batch.problems;
        Self {
            id: entry.id.clone(),
            object: "batch",
            endpoint: batch.endpoint,
            errors: (!problems.is_empty()).then_some(BatchProblems { object: "list", data: problems }),
            input_file_id: batch.input_file_id,
            completion_window: "24h",
            status: batch.status,
            output_file_id: batch.output_file_id,
            error_file_id: batch.error_file_id,
            created_at: entry.created_at,
            times: batch.times,
            request_counts,
            metadata: batch.metadata,
        }
    }
}
