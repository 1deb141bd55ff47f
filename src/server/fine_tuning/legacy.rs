//! `/v1/fine-tunes`: the same jobs in the format of OpenAI's deprecated API, which its clients before 1.0
//! have.

use super::event_log::{self, JobEvent, Kind};
use super::job::{FineTuningJob, Status, job_id, legacy_id};
use super::jobs::{CANCELLED, UNFINISHED, organization};
use super::request::CreateFineTune;
use super::service::Jobs;
use crate::server::AppState;
use crate::server::Phase;
use crate::server::deleted::Deleted;
use crate::server::error::{ApiError, ErrorBody};
use crate::server::files::FileObject;
use crate::server::json::{Json, json_response, to_json};
use crate::server::models::routes::List;
use crate::server::path::PathId;
use crate::server::query::Query;
use crate::server::request_context::RequestContext;
use crate::server::store::Entry;
use axum::Extension;
use axum::extract::State;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::watch;
use utoipa::ToSchema;

/// A job.
#[derive(Serialize, ToSchema)]
pub struct FineTuneObject {
    id: String,
    /// `fine-tune`
    object: &'static str,
    /// The model that it begins with.
    model: String,
    created_at: u64,
    updated_at: u64,
    /// What happened; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<Vec<FineTuneEvent>>,
    /// The name of the result, once it is there.
    fine_tuned_model: Option<String>,
    hyperparams: Value,
    /// The name of the API key, or `hornbook`.
    organization_id: String,
    /// Tables of losses.
    result_files: Vec<FileObject>,
    training_files: Vec<FileObject>,
    validation_files: Vec<FileObject>,
    /// `pending`, `running`, `succeeded`, `failed` or `cancelled`.
    status: &'static str,
}

/// Something that happened to a job.
#[derive(Serialize, ToSchema)]
pub struct FineTuneEvent {
    /// `fine-tune-event`
    object: &'static str,
    created_at: u64,
    /// `info`, `warn` or `error`
    level: Value,
    message: String,
}

impl FineTuneObject {
    fn new(jobs: &Jobs, entry: &Entry<FineTuningJob>) -> Self {
        let job = &entry.value;
        let file = |id: &Option<String>| {
            let file = id.as_ref().and_then(|id| jobs.files.get(&entry.owner, id));
            file.iter().map(|file| FileObject::from(&**file)).collect()
        };
        // Here, what is not decided is null.
        let mut hyperparams = job.hyperparameters.to_json();
        for value in hyperparams.as_object_mut().into_iter().flat_map(|fields| fields.values_mut()) {
            if value == "auto" {
                *value = Value::Null;
            }
        }
        hyperparams["prompt_loss_weight"] = json!(job.hyperparameters.prompt_loss_weight);
        Self {
            id: legacy_id(&entry.id),
            object: "fine-tune",
            model: job.model.clone(),
            created_at: entry.created_at,
            updated_at: job.updated_at,
            events: None,
            fine_tuned_model: job.fine_tuned_model.clone(),
            hyperparams,
            organization_id: organization(&entry.owner),
            result_files: file(&job.result_file),
            training_files: file(&Some(job.training_file.clone())),
            validation_files: file(&job.validation_file),
            status: job.status.legacy(),
        }
    }
}

/// The events of a job that are sentences, the oldest first.
fn events(jobs: &Jobs, id: &str) -> Vec<FineTuneEvent> {
    let events = event_log::read(&jobs.folder(id)).into_iter();
    let messages = events.filter(|event| event.kind == Kind::Message);
    let object = |JobEvent { created_at, level, message, .. }| FineTuneEvent {
        object: "fine-tune-event",
        created_at,
        level: json!(level),
        message,
    };
    messages.map(object).collect()
}

fn respond(jobs: &Jobs, entry: &Entry<FineTuningJob>) -> Response {
    let object = FineTuneObject { events: Some(events(jobs, &entry.id)), ..FineTuneObject::new(jobs, entry) };
    json_response(to_json(&object)).into_response()
}

/// Create a fine-tuning job.
#[utoipa::path(post, path = "/v1/fine-tunes", operation_id = "createFineTune", tag = "fine-tuning",
    request_body = CreateFineTune, responses(
        (status = 200, body = FineTuneObject, description = "The job, which waits for those before it"),
        (status = 507, body = ErrorBody, description = "The disk or the store is full")))]
pub async fn create(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    body: Result<Json<CreateFineTune>, ApiError>,
) -> Result<Response, ApiError> {
    let jobs = Arc::clone(app.fine_tuning()?);
    let Json(request) = body?;
    let request = request.validated()?;
    let entry = request.create(&app, &jobs, &context).await?;
    Ok(respond(&jobs, &entry))
}

/// List the fine-tuning jobs, the oldest first.
#[utoipa::path(get, path = "/v1/fine-tunes", operation_id = "listFineTunes", tag = "fine-tuning",
    responses(
        (status = 200, body = List<FineTuneObject>, description = "All jobs"),
        (status = 404, body = ErrorBody, description = "The server has no store")))]
pub async fn list(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
) -> Result<Response, ApiError> {
    let jobs = app.fine_tuning()?;
    let entries = jobs.collection.list(&context.owner()).into_iter().rev();
    let list = List::new(entries.map(|entry| FineTuneObject::new(jobs, &entry)).collect());
    Ok(json_response(to_json(&list)).into_response())
}

/// Retrieve a fine-tuning job.
#[utoipa::path(get, path = "/v1/fine-tunes/{job_id}", operation_id = "retrieveFineTune", tag = "fine-tuning",
    params(("job_id" = String, Path, description = "The job's id", min_length = 1)),
    responses(
        (status = 200, body = FineTuneObject, description = "The job"),
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

/// Cancel a fine-tuning job.
#[utoipa::path(post, path = "/v1/fine-tunes/{job_id}/cancel", operation_id = "cancelFineTune",
    tag = "fine-tuning", params(("job_id" = String, Path, description = "The job's id", min_length = 1)),
    responses(
        (status = 200, body = FineTuneObject, description = "The job is cancelled"),
        (status = 400, body = ErrorBody, description = "The job has ended"),
        (status = 404, body = ErrorBody, description = "The job does not exist"),
        (status = 429, body = ErrorBody, description = "A rate limit is reached")))]
pub async fn cancel(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    PathId(id): PathId,
) -> Result<Response, ApiError> {
    let jobs = Arc::clone(app.fine_tuning()?);
    let owner = context.owner();
    jobs.get(&owner, &id)?;
    let (cancelled, cancelled_id) = (Arc::clone(&jobs), job_id(&id));
    let cancel = move || cancelled.set_status(&cancelled_id, UNFINISHED, Status::Cancelled, CANCELLED);
    app.blocking(move || Ok(cancel())).await??;
    Ok(respond(&jobs, &*jobs.get(&owner, &id)?))
}

/// Delete a fine-tuning job that has ended, with its model.
#[utoipa::path(delete, path = "/v1/fine-tunes/{job_id}", operation_id = "deleteFineTune",
    tag = "fine-tuning", params(("job_id" = String, Path, description = "The job's id", min_length = 1)),
    responses(
        (status = 200, body = Deleted, description = "The job is deleted"),
        (status = 400, body = ErrorBody, description = "The job has not ended"),
        (status = 404, body = ErrorBody, description = "The job does not exist")))]
pub async fn delete(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    PathId(id): PathId,
) -> Result<Response, ApiError> {
    let jobs = Arc::clone(app.fine_tuning()?);
    let owner = context.owner();
    let entry = jobs.get(&owner, &id)?;
    app.blocking(move || Ok(jobs.delete(&entry))).await??;
    Ok(json_response(to_json(&Deleted::new("fine-tune", id))).into_response())
}

/// List what happened to a fine-tuning job, the oldest first.
#[utoipa::path(get, path = "/v1/fine-tunes/{job_id}/events", operation_id = "listFineTuneEvents",
    tag = "fine-tuning",
    params(
        ("job_id" = String, Path, description = "The job's id", min_length = 1),
        ("stream" = Option<bool>, Query, description = "Whether to wait for events until the job ends")),
    responses(
        (status = 200, content((List<FineTuneEvent> = "application/json"), (String = "text/event-stream")),
            description = "The events; with `stream`, one at a time as they happen, then `[DONE]`"),
        (status = 400, body = ErrorBody, description = "The id is not UTF-8"),
        (status = 404, body = ErrorBody, description = "The job does not exist")))]
pub async fn list_events(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    PathId(id): PathId,
    query: Query,
) -> Result<Response, ApiError> {
    let jobs = app.fine_tuning()?;
    let entry = jobs.get(&context.owner(), &id)?;
    if !matches!(query.text("stream"), Some("true" | "True" | "1")) {
        let list = List::new(events(jobs, &entry.id));
        return Ok(json_response(to_json(&list)).into_response());
    }
    let changes = jobs.subscribe();
    let (jobs, id, phase) = (Arc::clone(jobs), entry.id.clone(), app.phase.clone());
    let stream = Events { jobs, id, changes, phase, sent: 0, ready: VecDeque::new(), ended: false };
    let stream =
        unfold(stream, |mut stream| async { Some((Ok::<_, Infallible>(stream.next().await?), stream)) });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new()).into_response())
}

/// The events of a job, as they happen.
struct Events {
    jobs: Arc<Jobs>,
    id: String,
    changes: watch::Receiver<u64>,
    phase: watch::Receiver<Phase>,
    sent: usize,
    ready: VecDeque<String>,
    ended: bool,
}

impl Events {
    /// The next event; `None` after the last.
    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            if let Some(data) = self.ready.pop_front() {
                return Some(sse::Event::default().data(data));
            }
            if self.ended {
                return None;
            }
            self.changes.mark_unchanged();
            // What a job tells last, it tells while the worker has it.
            let has_ended = !self.jobs.is_current(&self.id)
                && self.jobs.find(&self.id).is_none_or(|job| job.status.is_final());
            let all = events(&self.jobs, &self.id);
            self.ready.extend(all[self.sent.min(all.len())..].iter().map(to_json));
            self.sent = all.len();
            if has_ended {
                self.ready.push_back("[DONE]".into());
                self.ended = true;
            } else if self.ready.is_empty() {
                tokio::select! {
                    changed = self.changes.changed() => changed.ok()?,
                    _ = self.phase.wait_for(|phase| *phase != Phase::Serving) => return None,
                }
            }
        }
    }
}
