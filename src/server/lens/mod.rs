//! `/lens`: the model seen from inside, for the page. A text is run through the model once and kept for a
//! while; then the page asks for the heads and tokens that its reader looks at.

mod analysis;
mod recent;

pub use recent::RecentAnalyses;

use super::AppState;
use super::error::{ApiError, ErrorBody};
use super::json::{Json, RequestBody, json_response};
use super::models::ServedModel;
use super::query::Query;
use super::request_context::RequestContext;
use crate::Error;
use crate::engine::SubmitError;
use crate::lens::intervention::InterventionTarget;
use analysis::{Ablation, Analysis};
use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// Header with the shape of activations: `4,256`.
const SHAPE: HeaderName = HeaderName::from_static("x-shape");

/// A request to look at a text.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct LensRequest {
    /// The model; required if several are served.
    model: Option<String>,
    /// The text.
    prompt: Option<String>,
    /// Its token ids, instead.
    tokens: Option<Vec<u32>>,
    /// Attention heads and MLPs whose output is replaced, such as `L5H1` and `mlp3`.
    ablate: Option<Vec<String>>,
    /// What replaces it: `zero`, or `mean`, the mean over the text.
    ablate_with: Option<String>,
    /// Whether to return the tokens and their predictions alone, and to keep nothing.
    predictions_only: Option<bool>,
}

impl RequestBody for LensRequest {}

/// Look at a text: its tokens, predictions and attention.
#[utoipa::path(post, path = "/lens", operation_id = "createLens", tag = "lens",
    request_body = LensRequest, responses((status = 200, body = serde_json::Value,
        description = "Tokens, predictions, head saliency, residual norms and thumbnails of all attention \
                       patterns, with the values and names of `hornbook inspect --json`; `id` is for the \
                       other routes")))]
pub async fn create(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    Json(request): Json<LensRequest>,
) -> Result<Response, ApiError> {
    let (served, name) = app.models.resolve(None, request.model.as_deref(), context.key().as_deref())?;
    context.set_model(&name);
    let ablated = targets(&served, &request.ablate.unwrap_or_default())?;
    let ablation = match request.ablate_with.as_deref() {
        None | Some("zero") => Ablation::Zero,
        Some("mean") => Ablation::Mean,
        Some(other) => {
            let message = format!("found {other:?}, expected \"zero\" or \"mean\"");
            return Err(ApiError::invalid_param("ablate_with", message));
        }
    };
    let ids = ids(&served, request.prompt.as_deref(), request.tokens)?;
    app.reserve(&context, ids.len()).await?;
    context.set_prompt_tokens(ids.len());
    let only_predictions = request.predictions_only.unwrap_or(false);
    let recent = Arc::clone(&app.analyses);
    let owner = context.owner();
    let done = app.memory.run(0, move || {
        let analysis = Analysis::new(served, &ids, &ablated, ablation);
        let analysis = analysis.map_err(|error| refused(error, "prompt"))?;
        if only_predictions {
            return Ok(analysis.predictions_json().to_string());
        }
        let id = recent.new_id();
        let json = analysis.to_json(&id).to_string();
        recent.insert(id, owner, analysis);
        Ok(json)
    });
    Ok(json_response(done.await?).into_response())
}

/// Retrieve the attention pattern of a head, a byte per weight.
#[utoipa::path(get, path = "/lens/{id}/attention/{layer}/{head}", tag = "lens",
    operation_id = "retrieveAttention",
    params(("id" = String, Path), ("layer" = usize, Path), ("head" = usize, Path)),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>,
        description = "255 times the square root of each weight: row by row, each up to the diagonal"),
        (status = 404, body = ErrorBody, description = "No such analysis or head, or it is no longer kept")))]
pub async fn attention(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    Path((id, layer, head)): Path<(String, String, String)>,
) -> Result<Response, ApiError> {
    let analysis = app.analyses.get(&context.owner(), &id)?;
    let pattern = || analysis.pattern(layer.parse().ok()?, head.parse().ok()?);
    let Some(pattern) = pattern() else {
        return Err(ApiError::no_such_object("attention head", &format!("L{layer}H{head}")));
    };
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], pattern.to_vec()).into_response())
}

/// Retrieve the activations at a site, such as `blocks.0.attn.hook_q`.
#[utoipa::path(get, path = "/lens/{id}/sites/{site}", operation_id = "retrieveLensSite", tag = "lens",
    params(("id" = String, Path), ("site" = String, Path), ("token" = Option<usize>, Query,
        description = "The token whose activations are returned; by default all")),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>,
        description = "Little-endian 32-bit floats, with their shape in the header `x-shape`"),
        (status = 400, body = ErrorBody, description = "No such site or token"),
        (status = 404, body = ErrorBody, description = "No such analysis, or it is no longer kept")))]
pub async fn site(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    Path((id, site)): Path<(String, String)>,
    query: Query,
) -> Result<Response, ApiError> {
    let analysis = app.analyses.get(&context.owner(), &id)?;
    let token = query.integer("token", 0..=usize::MAX)?;
    let done = app.memory.run(0, move || analysis.site(&site, token).map_err(|error| refused(error, "site")));
    let (shape, values) = done.await?;
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let shape = shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let headers = [(header::CONTENT_TYPE, "application/octet-stream".into()), (SHAPE, shape)];
    Ok((headers, bytes).into_response())
}

/// Retrieve the logit lens and direct logit attribution after a token.
#[utoipa::path(get, path = "/lens/{id}/tokens/{token}", operation_id = "retrieveLensToken", tag = "lens",
    params(("id" = String, Path), ("token" = usize, Path), ("target" = Option<u32>, Query,
        description = "The token whose logit is attributed; by default the one that follows, or the most \
                       likely after the last")),
    responses((status = 200, body = serde_json::Value,
        description = "The predictions at every depth, and each component's contribution to the logit"),
        (status = 400, body = ErrorBody, description = "No such token or target"),
        (status = 404, body = ErrorBody, description = "No such analysis, or it is no longer kept")))]
pub async fn token(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    Path((id, token)): Path<(String, String)>,
    query: Query,
) -> Result<Response, ApiError> {
    let analysis = app.analyses.get(&context.owner(), &id)?;
    let Ok(token) = token.parse() else { return Err(ApiError::no_such_object("token", &token)) };
    let target = query.integer("target", 0..=u32::MAX as usize)?.map(|id| id as u32);
    let done = app
        .memory
        .run(0, move || analysis.token_json(token, target).map_err(|error| refused(error, "target")));
    Ok(json_response(done.await?.to_string()).into_response())
}

/// The token ids of a request.
fn ids(served: &ServedModel, text: Option<&str>, ids: Option<Vec<u32>>) -> Result<Vec<u32>, ApiError> {
    let ids = match (text, ids) {
        (Some(text), None) => {
            let encoded = served.tokenizer("prompt")?.encode(text, true);
            encoded.map_err(|error| ApiError::invalid_param("prompt", error.to_string()))?
        }
        (None, Some(ids)) => ids,
        _ => return Err(ApiError::invalid_param("prompt", "expected a text, or token ids in `tokens`")),
    };
    let n_positions = served.config().n_positions;
    if ids.len() > n_positions {
        return Err(ApiError::context_length_exceeded("prompt", n_positions, ids.len(), 0));
    }
    let valid = served.hornbook().validate_prompt(&ids);
    valid.map_err(|error| ApiError::invalid_param("prompt", error.to_string()))
}

/// The components of these names, which the model has.
fn targets(served: &ServedModel, names: &[String]) -> Result<Vec<InterventionTarget>, ApiError> {
    let parse = |name: &String| {
        let target: InterventionTarget =
            name.parse().map_err(|error: String| ApiError::invalid_param("ablate", error))?;
        target.check(served.hornbook().model()).map_err(|error| match error {
            Error::Parameter { found, expected, .. } => {
                ApiError::invalid_param("ablate", format!("found {found}, expected {expected}"))
            }
            error => refused(error, "ablate"),
        })?;
        Ok(target)
    };
    names.iter().map(parse).collect()
}

/// What the library refuses of a request, in the field that it names, or in this one.
fn refused(error: Error, param: &str) -> ApiError {
    ApiError::from_submit_error(SubmitError::Invalid(error), param)
}
