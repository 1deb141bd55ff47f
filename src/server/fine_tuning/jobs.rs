//! `/v1/fine_tuning/jobs`: jobs in OpenAI's current format.

use super::event_log::{self, JobEvent};
use super::folder::{last_folder, run_folder};
use super::job::{FineTuningJob, JobError, Status, job_id};
use super::request::CreateJob;
use super::results;
use super::serve::checkpoint_name;
use super::service::Jobs;
use crate::server::AppState;
use crate::server::error::{ApiError, ErrorBody};
use crate::server::json::{Json, json_response, to_json};
use crate::server::metadata::Metadata;
use crate::server::path::PathId;
use crate::server::query::Query;
use crate::server::request_context::RequestContext;
use crate::server::store::{Entry, Object, Page, PageQuery, unix_time};
use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;
use utoipa::ToSchema;

const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 100;

/// A fine-tuning job.
#[derive(Serialize, ToSchema)]
pub struct JobObject {
    /// `fine_tuning.job`
    object: &'static str,
    id: String,
    /// The model that it begins with.
    model: String,
    created_at: u64,
    finished_at: Option<u64>,
    estimated_finish: Option<u64>,
    /// The name of the result, once it is there.
    fine_tuned_model: Option<String>,
    /// The name of the API key, or `hornbook`.
    organization_id: String,
    /// The ids of files with tables of losses.
    result_files: Vec<String>,
    /// `validating_files`, `queued`, `running`, `paused`, `succeeded`, `failed` or `cancelled`.
    status: &'static str,
    training_file: String,
    validation_file: Option<String>,
    hyperparameters: Value,
    /// The tokens that it was trained on, once it has succeeded.
    trained_tokens: Option<u64>,
    seed: u64,
    error: Option<JobErrorObject>,
    method: Value,
    /// Always empty.
    integrations: Vec<Value>,
    metadata: Metadata,
}

/// Why a job failed.
#[derive(Serialize, ToSchema)]
pub struct JobErrorObject {
    code: String,
    message: String,
    param: Option<String>,
}

/// Something that happened to a job.
#[derive(Serialize, ToSchema)]
pub struct EventObject {
    /// `fine_tuning.job.event`
    object: &'static str,
    id: String,
    created_at: u64,
    /// `info`, `warn` or `error`
    level: Value,
    message: String,
    /// `message` or `metrics`
    #[serde(rename = "type")]
    kind: Value,
    /// The losses of a step, or a text that the model has written after it.
    data: Option<Value>,
}

/// A model that a job has kept.
#[derive(Serialize, ToSchema)]
pub struct CheckpointObject {
    /// `fine_tuning.job.checkpoint`
    object: &'static str,
    id: String,
    created_at: u64,
    /// The name that it is served under.
    fine_tuned_model_checkpoint: String,
    fine_tuning_job_id: String,
    step_number: u64,
    /// What was measured after that step.
    metrics: Value,
}

/// The name of the organization that a job belongs to.
pub fn organization(owner: &str) -> String {
    if owner.is_empty() { "hornbook".into() } else { owner.into() }
}

impl JobObject {
    /// A job as it is now.
    pub fn new(jobs: &Jobs, entry: &Entry<FineTuningJob>) -> Self {
        let job = &entry.value;
        let hyperparameters = job.hyperparameters.to_json();
        let (is_current, at) = (jobs.is_current(&entry.id), |seconds| unix_time() + seconds);
        let error = job.error.clone().map(|JobError { code, message, param }| JobErrorObject {
            code,
            message,
            param,
        });
        Self {
            object: "fine_tuning.job",
            id: entry.id.clone(),
            model: job.model.clone(),
            created_at: entry.created_at,
            finished_at: job.status.is_final().then_some(job.updated_at),
            estimated_finish: is_current.then(|| jobs.progress.seconds_left()).flatten().map(at),
            fine_tuned_model: job.fine_tuned_model.clone(),
            organization_id: organization(&entry.owner),
            result_files: job.result_file.iter().cloned().collect(),
            status: job.status.as_str(),
            training_file: job.training_file.clone(),
            validation_file: job.validation_file.clone(),
            method: json!({"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}),
            hyperparameters,
            trained_tokens: job.trained_tokens,
            seed: job.seed,
            error,
            integrations: vec![],
            metadata: job.metadata.clone(),
        }
    }
}

/// The part of a job's id that the ids of its events and checkpoints begin with.
fn stem(id: &str) -> &str {
    id.strip_prefix(FineTuningJob::ID_PREFIX).unwrap_or(id)
}

fn event_object(id: &str, number: usize, event: JobEvent) -> EventObject {
    EventObject {
        object: "fine_tuning.job.event",
        id: format!("ftevent-{}{number:08x}", stem(id)),
        created_at: event.created_at,
        level: json!(event.level),
        message: event.message,
        kind: json!(event.kind),
        data: event.data,
    }
}

/// The models that a job has kept, the newest first: that of its last step, and the result, which is the one
/// that predicted best what is held out.
fn checkpoints(jobs: &Jobs, entry: &Entry<FineTuningJob>) -> Vec<CheckpointObject> {
    let folder = jobs.folder(&entry.id);
    let Some(name) = entry.value.fine_tuned_model.as_ref().filter(|_| !entry.value.is_deleted) else {
        return vec![];
    };
    let measurements = results::measurements(&run_folder(&folder));
    let best = results::best(&measurements).map(|row| (row, name.clone()));
    let last = measurements.last().filter(|_| last_folder(&folder).is_some());
    let last = last.map(|row| (row, checkpoint_name(name, row.step)));
    let object = |(row, name): (&results::Measurements, String)| {
        let mut metrics = json!({"step": row.step, "train_loss": row.train[0],
            "train_mean_token_accuracy": row.train[1]});
        if let Some([loss, accuracy]) = row.valid {
            for prefix in ["valid", "full_valid"] {
                metrics[format!("{prefix}_loss")] = loss.into();
                metrics[format!("{prefix}_mean_token_accuracy")] = accuracy.into();
            }
        }
        CheckpointObject {
            object: "fine_tuning.job.checkpoint",
            id: format!("ftckpt_{}{:08x}", stem(&entry.id), row.step),
            created_at: entry.value.updated_at,
            fine_tuned_model_checkpoint: name,
            fine_tuning_job_id: entry.id.clone(),
            step_number: row.step,
            metrics,
        }
    };
    last.into_iter().chain(best).map(object).collect()
}

fn respond(jobs: &Jobs, entry: &Entry<FineTuningJob>) -> Response {
    json_response(to_json(&JobObject::new(jobs, entry))).into_response()
}

/// Create a fine-tuning job.
#[utoipa::path(post, path = "/v1/fine_tuning/jobs", operation_id = "createFineTuningJob",
    tag = "fine-tuning", request_body = CreateJob, responses(
        (status = 200, body = JobObject, description = "The job, which waits for those before it"),
        (status = 507, body = ErrorBody, description = "The disk or the store is full")))]
pub async fn create(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    body: Result<Json<CreateJob>, ApiError>,
) -> Result<Response, ApiError> {
    let jobs = Arc::clone(app.fine_tuning()?);
    let Json(request) = body?;
    let request = request.validated()?;
    let entry = request.create(&app, &jobs, &context).await?;
    Ok(respond(&jobs, &entry))
}

/// List the fine-tuning jobs, the newest first.
#[utoipa::path(get, path = "/v1/fine_tuning/jobs", operation_id = "listFineTuningJobs", tag = "fine-tuning",
    params(
        ("limit" = Option<usize>, Query, description = "Maximum number of jobs; default 20",
            minimum = 1, maximum = 100),
        ("after" = Option<String>, Query, description = "Id of the last job of the page before",
            pattern = "^ftjob-")),
    responses(
        (status = 200, body = Page<JobObject>, description = "A page of the jobs"),
        (status = 400, body = ErrorBody, description = "A parameter is not valid"),
        (status = 404, body = ErrorBody, description = "The server has no store")))]
pub async fn list(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    query: Query,
) -> Result<Response, ApiError> {
    let jobs = app.fine_tuning()?;
    let page = PageQuery::new(&query, FineTuningJob::ID_PREFIX, DEFAULT_LIMIT, MAX_LIMIT)?;
    let page = page.page(jobs.collection.list(&context.owner()), |entry| &entry.id);
    Ok(json_response(to_json(&page.map(|entry| JobObject::new(jobs, &entry)))).into_response())
}

/// Retrieve a fine-tuning job.
#[utoipa::path(get, path = "/v1/fine_tuning/jobs/{job_id}", operation_id = "retrieveFineTuningJob",
    tag = "fine-tuning", params(("job_id" = String, Path, description = "The job's id", min_length = 1)),
    responses(
        (status = 200, body = JobObject, description = "The job"),
        (status = 400, body = ErrorBody, description = "The id is not UTF-8"),
        (status = 404, body = ErrorBody, description = "The job does not exist")))]
pub async fn retrieve(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    PathId(id): PathId,
) -> Result<Response, ApiError> {
    let jobs = app.fine_tuning()?;
    Ok(respond(jobs, &*jobs.get(&context.owner(), &id)?))
}

/// Changes the status of a job, and responds with it.
async fn change(
    app: &AppState,
    context: &RequestContext,
    id: String,
    from: &'static [Status],
    to: Status,
    message: &'static str,
) -> Result<Response, ApiError> {
    let jobs = Arc::clone(app.fine_tuning()?);
    let owner = context.owner();
    jobs.get(&owner, &id)?;
    let changed = Arc::clone(&jobs);
    let changed_id = job_id(&id);
    app.blocking(move || Ok(changed.set_status(&changed_id, from, to, message))).await??;
    Ok(respond(&jobs, &*jobs.get(&owner, &id)?))
}

/// The statuses of jobs that may be cancelled.
pub const UNFINISHED: &[Status] = &[Status::Queued, Status::ValidatingFiles, Status::Running, Status::Paused];
/// What a job says that was cancelled.
pub const CANCELLED: &str = "Fine-tune cancelled";

/// Cancel a fine-tuning job.
#[utoipa::path(post, path = "/v1/fine_tuning/jobs/{job_id}/cancel", operation_id = "cancelFineTuningJob",
    tag = "fine-tuning", params(("job_id" = String, Path, description = "The job's id", min_length = 1)),
    responses(
        (status = 200, body = JobObject, description = "The job is cancelled"),
        (status = 400, body = ErrorBody, description = "The job has ended"),
        (status = 404, body = ErrorBody, description = "The job does not exist"),
        (status = 429, body = ErrorBody, description = "A rate limit is reached")))]
pub async fn cancel(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    PathId(id): PathId,
) -> Result<Response, ApiError> {
    change(&app, &context, id, UNFINISHED, Status::Cancelled, CANCELLED).await
}

/// Pause a fine-tuning job.
#[utoipa::path(post, path = "/v1/fine_tuning/jobs/{job_id}/pause", operation_id = "pauseFineTuningJob",
    tag = "fine-tuning", params(("job_id" = String, Path, description = "The job's id", min_length = 1)),
    responses(
        (status = 200, body = JobObject, description = "The job stops after the step that it takes"),
        (status = 400, body = ErrorBody, description = "The job has ended, or is paused"),
        (status = 404, body = ErrorBody, description = "The job does not exist"),
        (status = 429, body = ErrorBody, description = "A rate limit is reached")))]
pub async fn pause(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    PathId(id): PathId,
) -> Result<Response, ApiError> {
    let from = &[Status::Queued, Status::ValidatingFiles, Status::Running];
    change(&app, &context, id, from, Status::Paused, "Fine-tune paused").await
}

/// Resume a fine-tuning job that was paused.
#[utoipa::path(post, path = "/v1/fine_tuning/jobs/{job_id}/resume", operation_id = "resumeFineTuningJob",
    tag = "fine-tuning", params(("job_id" = String, Path, description = "The job's id", min_length = 1)),
    responses(
        (status = 200, body = JobObject, description = "The job is queued, to go on where it stopped"),
        (status = 400, body = ErrorBody, description = "The job is not paused"),
        (status = 404, body = ErrorBody, description = "The job does not exist"),
        (status = 429, body = ErrorBody, description = "A rate limit is reached")))]
pub async fn resume(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    PathId(id): PathId,
) -> Result<Response, ApiError> {
    change(&app, &context, id, &[Status::Paused], Status::Queued, "Fine-tune resumed").await
}

/// List what happened to a fine-tuning job, the newest first.
#[utoipa::path(get, path = "/v1/fine_tuning/jobs/{job_id}/events", operation_id = "listFineTuningEvents",
    tag = "fine-tuning",
    params(
        ("job_id" = String, Path, description = "The job's id", min_length = 1),
        ("limit" = Option<usize>, Query, description = "Maximum number of events; default 20",
            minimum = 1, maximum = 100),
        ("after" = Option<String>, Query, description = "Id of the last event of the page before",
            pattern = "^ftevent-")),
    responses(
        (status = 200, body = Page<EventObject>, description = "A page of the events"),
        (status = 400, body = ErrorBody, description = "A parameter is not valid"),
        (status = 404, body = ErrorBody, description = "The job does not exist")))]
pub async fn events(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    PathId(id): PathId,
    query: Query,
) -> Result<Response, ApiError> {
    let jobs = app.fine_tuning()?;
    let entry = jobs.get(&context.owner(), &id)?;
    let page = PageQuery::new(&query, "ftevent-", DEFAULT_LIMIT, MAX_LIMIT)?;
    let events = event_log::read(&jobs.folder(&entry.id)).into_iter().enumerate();
    let mut events: Vec<_> = events.map(|(i, event)| event_object(&entry.id, i, event)).collect();
    events.reverse();
    Ok(json_response(to_json(&page.page(events, |event| &event.id))).into_response())
}

/// List the models that a fine-tuning job has kept, the newest first.
#[utoipa::path(get, path = "/v1/fine_tuning/jobs/{job_id}/checkpoints",
    operation_id = "listFineTuningCheckpoints", tag = "fine-tuning",
    params(
        ("job_id" = String, Path, description = "The job's id", min_length = 1),
        ("limit" = Option<usize>, Query, description = "Maximum number of checkpoints; default 20",
            minimum = 1, maximum = 100),
        ("after" = Option<String>, Query, description = "Id of the last checkpoint of the page before",
            pattern = "^ftckpt_")),
    responses(
        (status = 200, body = Page<CheckpointObject>, description = "A page of the checkpoints"),
        (status = 400, body = ErrorBody, description = "A parameter is not valid"),
        (status = 404, body = ErrorBody, description = "The job does not exist")))]
pub async fn list_checkpoints(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    PathId(id): PathId,
    query: Query,
) -> Result<Response, ApiError> {
    let jobs = app.fine_tuning()?;
    let entry = jobs.get(&context.owner(), &id)?;
    let page = PageQuery::new(&query, "ftckpt_", DEFAULT_LIMIT, MAX_LIMIT)?;
    let page = page.page(checkpoints(jobs, &entry), |checkpoint| &checkpoint.id);
    Ok(json_response(to_json(&page)).into_response())
}
