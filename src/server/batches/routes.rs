//! Batches: create, list, retrieve and cancel.

use super::object::{BatchTimes, RequestCounts};
use super::{BatchObject, Status, StoredBatch};
use crate::batch::ENDPOINTS;
use crate::server::AppState;
use crate::server::collections::Collections;
use crate::server::error::{ApiError, ErrorBody};
use crate::server::files::purpose;
use crate::server::json::{Json, RequestBody, json_response, to_json};
use crate::server::metadata::{self, Metadata};
use crate::server::path::PathId;
use crate::server::query::Query;
use crate::server::request_context::RequestContext;
use crate::server::store::{Object, Page, PageQuery, unix_time};
use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// The one completion window, and its seconds.
const WINDOW: (&str, u64) = ("24h", 24 * 3600);
/// Number of batches in a page without `limit`, and the maximum.
const LIMIT: usize = 20;
const MAX_LIMIT: usize = 100;
/// Range of `output_expires_after.seconds`: an hour to 30 days.
const EXPIRY_SECONDS: std::ops::RangeInclusive<u64> = 3600..=2_592_000;

/// A new batch.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct BatchCreation {
    /// The file with the requests, uploaded with the purpose `batch`: at most 50,000 lines.
    input_file_id: Option<String>,
    /// Endpoint of all requests.
    endpoint: Option<String>,
    /// `24h`: the time until which requests are answered.
    completion_window: Option<String>,
    /// The client's own notes.
    metadata: Option<Metadata>,
    /// When the result files are deleted. Default: never.
    output_expires_after: Option<ExpiresAfter>,
}

/// When a file is deleted.
#[derive(Debug, Deserialize, ToSchema)]
pub struct ExpiresAfter {
    /// `created_at`
    anchor: Option<String>,
    /// Seconds since then: an hour to 30 days.
    seconds: Option<u64>,
}

impl RequestBody for BatchCreation {}

impl BatchCreation {
    /// Checks all fields, and that the owner has the file.
    fn into_batch(self, collections: &Collections, owner: &str) -> Result<StoredBatch, ApiError> {
        let missing = |param: &str, expected: &str| {
            ApiError::invalid_param(param, format!("missing, expected {expected}"))
        };
        let wrong = |param: &str, found: &str, expected: &str| {
            ApiError::invalid_param(param, format!("found {found:?}, expected {expected}"))
        };
        let input_file_id = self.input_file_id.ok_or_else(|| missing("input_file_id", "a file's id"))?;
        let endpoints = ENDPOINTS.map(|endpoint| format!("/v1{endpoint}"));
        let expected = format!("one of {}", endpoints.join(", "));
        let endpoint = self.endpoint.ok_or_else(|| missing("endpoint", &expected))?;
        if !endpoints.contains(&endpoint) {
            return Err(wrong("endpoint", &endpoint, &expected));
        }
        match self.completion_window.as_deref() {
            None => return Err(missing("completion_window", WINDOW.0)),
            Some(window) if window != WINDOW.0 => return Err(wrong("completion_window", window, WINDOW.0)),
            Some(_) => {}
        }
        let file = collections.files.get(owner, &input_file_id);
        let Some(file) = file else {
            return Err(ApiError::invalid_param(
                "input_file_id",
                format!("No such File object: {input_file_id}"),
            ));
        };
        if file.value.purpose != purpose::BATCH {
            return Err(wrong(
                "input_file_id",
                &format!("a file with the purpose {}", file.value.purpose),
                "batch",
            ));
        }
        let output_expires_after = self.output_expires_after.map(ExpiresAfter::seconds).transpose()?;
        metadata::check(self.metadata.as_ref())?;
        Ok(StoredBatch {
            endpoint,
            input_file_id,
            metadata: self.metadata,
            output_expires_after,
            status: Status::Validating,
            problems: vec![],
            output_file_id: None,
            error_file_id: None,
            request_counts: RequestCounts::default(),
            times: BatchTimes { expires_at: Some(unix_time() + WINDOW.1), ..BatchTimes::default() },
        })
    }
}

impl ExpiresAfter {
    fn seconds(self) -> Result<u64, ApiError> {
        let param = "output_expires_after";
        if self.anchor.as_deref() != Some("created_at") {
            return Err(ApiError::invalid_param(&format!("{param}.anchor"), "expected created_at"));
        }
        self.seconds.filter(|seconds| EXPIRY_SECONDS.contains(seconds)).ok_or_else(|| {
            ApiError::invalid_param(&format!("{param}.seconds"), "expected seconds from 3600 to 2592000")
        })
    }
}

/// Create a batch.
#[utoipa::path(post, path = "/v1/batches", operation_id = "createBatch", tag = "batches",
    request_body = BatchCreation,
    responses(
        (status = 200, body = BatchObject, description = "The batch, whose file is about to be checked"),
        (status = 404, body = ErrorBody, description = "The server has no store"),
        (status = 507, body = ErrorBody, description = "The disk or the store is full")))]
pub async fn create(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    Json(request): Json<BatchCreation>,
) -> Result<Response, ApiError> {
    let collections = Arc::clone(app.collections("batches")?);
    let owner = context.owner();
    let batch = request.into_batch(&collections, &owner)?;
    let work = move || {
        let batch = collections.batches.create(&owner, batch)?;
        Ok(collections.batches.object(&batch))
    };
    let batch = app.blocking(work).await?;
    Ok(json_response(to_json(&batch)).into_response())
}

/// List the batches, the newest first.
#[utoipa::path(get, path = "/v1/batches", operation_id = "listBatches", tag = "batches",
    params(
        ("limit" = Option<usize>, Query, description = "Maximum number of batches; default 20",
            minimum = 1, maximum = 100),
        ("after" = Option<String>, Query, description = "Id of the last batch of the page before",
            pattern = "^batch_")),
    responses(
        (status = 200, body = Page<BatchObject>, description = "A page of the batches"),
        (status = 400, body = ErrorBody, description = "A parameter is not valid"),
        (status = 404, body = ErrorBody, description = "The server has no store")))]
pub async fn list(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    query: Query,
) -> Result<Response, ApiError> {
    let batches = &app.collections("batches")?.batches;
    let page = PageQuery::new(&query, StoredBatch::ID_PREFIX, LIMIT, MAX_LIMIT)?;
    let all = batches.collection().list(&context.owner());
    let page = page.page(all, |batch| &batch.id).map(|batch| batches.object(&batch));
    Ok(json_response(to_json(&page)).into_response())
}

/// Retrieve a batch.
#[utoipa::path(get, path = "/v1/batches/{batch_id}", operation_id = "retrieveBatch", tag = "batches",
    params(("batch_id" = String, Path, description = "The batch's id", min_length = 1)),
    responses(
        (status = 200, body = BatchObject, description = "The batch"),
        (status = 400, body = ErrorBody, description = "The id is not UTF-8"),
        (status = 404, body = ErrorBody, description = "The batch does not exist")))]
pub async fn retrieve(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    PathId(id): PathId,
) -> Result<Response, ApiError> {
    let batches = &app.collections("batches")?.batches;
    let batch = batches.collection().get(&context.owner(), &id);
    let batch = batch.ok_or_else(|| ApiError::no_such_object("Batch object", &id))?;
    Ok(json_response(to_json(&batches.object(&batch))).into_response())
}

/// Cancel a batch. The responses that are there become its results.
#[utoipa::path(post, path = "/v1/batches/{batch_id}/cancel", operation_id = "cancelBatch", tag = "batches",
    params(("batch_id" = String, Path, description = "The batch's id", min_length = 1)),
    responses(
        (status = 200, body = BatchObject, description = "The batch, which is about to end"),
        (status = 400, body = ErrorBody, description = "The batch is at its end"),
        (status = 404, body = ErrorBody, description = "The batch does not exist"),
        (status = 429, body = ErrorBody, description = "A rate limit is reached; see `Retry-After`")))]
pub async fn cancel(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    PathId(id): PathId,
) -> Result<Response, ApiError> {
    let collections = Arc::clone(app.collections("batches")?);
    let unknown = ApiError::no_such_object("Batch object", &id);
    let Some(batch) = collections.batches.collection().get(&context.owner(), &id) else {
        return Err(unknown);
    };
    if matches!(batch.value.status, Status::Completed | Status::Failed | Status::Expired) {
        let status = batch.value.status.as_str();
        return Err(ApiError::invalid(format!("Cannot cancel a batch with status '{status}'.")));
    }
    let work = move || {
        collections.batches.update(&id, StoredBatch::cancel)?;
        let batch = collections.batches.collection().get(&batch.owner, &id);
        Ok(batch.map(|batch| collections.batches.object(&batch)))
    };
    let batch = app.blocking(work).await?.ok_or(unknown)?;
    Ok(json_response(to_json(&batch)).into_response())
}
