//! The `/v1/models` and `/v1/engines` handlers.

use super::{Models, Origin, PathName, ServedModel};
use crate::server::AppState;
use crate::server::deleted::Deleted;
use crate::server::error::{ApiError, ErrorBody};
use crate::server::json::{json_response, to_json};
use crate::server::request_context::RequestContext;
use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// A model.
#[derive(Serialize, ToSchema)]
pub struct ModelObject {
    id: String,
    /// `model`
    object: &'static str,
    /// Unix time since which it is served.
    created: u64,
    /// The name of the key that it belongs to, or `hornbook`.
    owned_by: String,
    /// The model itself; for an adapter or a fine-tuned model, the model that it was made from.
    root: String,
    /// The model that an adapter or a fine-tuned model was made from; null for other models.
    parent: Option<String>,
}

/// A model in the format of the deprecated engines API.
#[derive(Serialize, ToSchema)]
pub struct EngineObject {
    id: String,
    /// `engine`
    object: &'static str,
    /// `hornbook`
    owner: &'static str,
    /// Always true.
    ready: bool,
}

/// A list.
#[derive(Serialize, ToSchema)]
pub struct List<T> {
    /// `list`
    object: &'static str,
    data: Vec<T>,
}

impl<T> List<T> {
    /// A list of these.
    pub fn new(data: Vec<T>) -> Self {
        Self { object: "list", data }
    }
}

fn model_object(name: &str, served: &ServedModel) -> ModelObject {
    let root = served.parent.as_ref().unwrap_or(&served.name).clone();
    let (created, parent) = (served.created, served.parent.clone());
    let owner = served.owner.as_deref().filter(|owner| !owner.is_empty());
    let owned_by = owner.unwrap_or("hornbook").to_string();
    ModelObject { id: name.into(), object: "model", created, owned_by, root, parent }
}

fn engine_object(name: &str, _: &ServedModel) -> EngineObject {
    EngineObject { id: name.into(), object: "engine", owner: "hornbook", ready: true }
}

fn list_response<T: Serialize>(
    app: &AppState,
    context: &RequestContext,
    to_object: fn(&str, &ServedModel) -> T,
) -> Response {
    let key = context.key();
    let models = app.models.current();
    let names = models.names().filter(|(_, served)| models.may_use(key.as_deref(), served));
    let data = names.map(|(name, served)| to_object(name, served)).collect();
    json_response(to_json(&List::new(data))).into_response()
}

fn retrieve_response<T: Serialize>(
    app: &AppState,
    context: &RequestContext,
    name: &str,
    to_object: fn(&str, &ServedModel) -> T,
) -> Result<Response, ApiError> {
    let (name, served) = find(&app.models.current(), name, context)?;
    Ok(json_response(to_json(&to_object(&name, &served))).into_response())
}

/// Returns the model of exactly this name.
fn find(
    models: &Models,
    name: &str,
    context: &RequestContext,
) -> Result<(String, Arc<ServedModel>), ApiError> {
    let name = models.decode_path_name(name);
    let allowed = |served: &&Arc<ServedModel>| models.may_use(context.key().as_deref(), served);
    match models.get(&name).filter(allowed).cloned() {
        Some(served) => Ok((name, served)),
        None => Err(ApiError::model_not_found(&name)),
    }
}

/// List the models and aliases.
#[utoipa::path(get, path = "/v1/models", operation_id = "listModels", tag = "models",
    responses((status = 200, body = List<ModelObject>, description = "All model names and aliases")))]
pub async fn list(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
) -> Response {
    list_response(&app, &context, model_object)
}

/// Retrieve a model.
#[utoipa::path(get, path = "/v1/models/{model}", operation_id = "retrieveModel", tag = "models",
    params(("model" = String, Path, description = "The model name", min_length = 1, max_length = 256)),
    responses(
        (status = 200, body = ModelObject, description = "The model"),
        (status = 400, body = ErrorBody, description = "The name is too long or not UTF-8"),
        (status = 404, body = ErrorBody, description = "The model does not exist")))]
pub async fn retrieve(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    PathName(name): PathName,
) -> Result<Response, ApiError> {
    retrieve_response(&app, &context, &name, model_object)
}

/// Delete a fine-tuned model.
#[utoipa::path(delete, path = "/v1/models/{model}", operation_id = "deleteModel", tag = "models",
    params(("model" = String, Path, description = "The model name", min_length = 1, max_length = 256)),
    responses(
        (status = 200, body = Deleted, description = "The model is deleted"),
        (status = 400, body = ErrorBody, description = "The name is not UTF-8"),
        (status = 403, body = ErrorBody, description = "The model is not the result of fine-tuning"),
        (status = 404, body = ErrorBody, description = "The model does not exist")))]
pub async fn delete(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    PathName(name): PathName,
) -> Result<Response, ApiError> {
    let (name, served) = find(&app.models.current(), &name, &context)?;
    if served.origin != Origin::FineTuned {
        let message = format!("The model `{name}` cannot be deleted: it is not the result of fine-tuning.");
        return Err(ApiError::forbidden(message));
    }
    app.delete_model(&name).await?;
    Ok(json_response(to_json(&Deleted::new("model", name))).into_response())
}

/// List the models in the format of the deprecated engines API.
#[utoipa::path(get, path = "/v1/engines", operation_id = "listEngines", tag = "models",
    responses((status = 200, body = List<EngineObject>, description = "All model names and aliases")))]
pub async fn list_engines(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
) -> Response {
    list_response(&app, &context, engine_object)
}

/// Retrieve a model in the format of the deprecated engines API.
#[utoipa::path(get, path = "/v1/engines/{engine}", operation_id = "retrieveEngine", tag = "models",
    params(("engine" = String, Path, description = "The model name", min_length = 1, max_length = 256)),
    responses(
        (status = 200, body = EngineObject, description = "The model"),
        (status = 400, body = ErrorBody, description = "The name is too long or not UTF-8"),
        (status = 404, body = ErrorBody, description = "The model does not exist")))]
pub async fn retrieve_engine(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    PathName(name): PathName,
) -> Result<Response, ApiError> {
    retrieve_response(&app, &context, &name, engine_object)
}
