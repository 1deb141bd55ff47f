//! `/v1/load_lora_adapter` and `/v1/unload_lora_adapter`, as in vLLM: LoRA adapters that come and go while
//! the server runs, behind `--allow-runtime-adapters`, for they are read from the server's own folders.

use super::registry::MAX_NAME_CHARS;
use super::{Origin, ServedModel};
use crate::checkpoint::adapter::Adapter;
use crate::server::AppState;
use crate::server::error::ApiError;
use crate::server::json::{Json, RequestBody};
use crate::server::keys::Key;
use crate::server::request_context::RequestContext;
use axum::Extension;
use axum::extract::State;
use serde::Deserialize;
use std::path::Path;
use std::sync::Arc;
use utoipa::ToSchema;

/// A request to serve an adapter.
#[derive(Debug, Deserialize, ToSchema)]
pub struct LoadLoraAdapter {
    /// The name that it is served under.
    lora_name: String,
    /// Its folder on the server, in peft's format.
    lora_path: String,
    /// Whether it may take the place of one with this name; its running requests end with the old one.
    load_inplace: Option<bool>,
}

impl RequestBody for LoadLoraAdapter {
    const FIELDS: &'static [&'static str] = &["lora_path"];
}

/// A request to serve an adapter no more.
#[derive(Debug, Deserialize, ToSchema)]
pub struct UnloadLoraAdapter {
    /// The name that it is served under.
    lora_name: String,
}

impl RequestBody for UnloadLoraAdapter {}

/// Serve a LoRA adapter of the model.
#[utoipa::path(post, path = "/v1/load_lora_adapter", operation_id = "loadLoraAdapter", tag = "models",
    request_body = LoadLoraAdapter,
    responses((status = 200, body = String, content_type = "text/plain", description = "It is served")))]
pub async fn load(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    body: Result<Json<LoadLoraAdapter>, ApiError>,
) -> Result<String, ApiError> {
    check_allowed(&app)?;
    let Json(LoadLoraAdapter { lora_name: name, lora_path, load_inplace }) = body?;
    if name.is_empty() || name.chars().count() > MAX_NAME_CHARS || name.chars().any(char::is_control) {
        let message = format!("found {name:?}, expected a name of 1 to {MAX_NAME_CHARS} characters");
        return Err(ApiError::invalid_param("lora_name", message));
    }
    let models = app.models.current();
    let base = models.only_base().cloned().ok_or_else(|| {
        let message = "found several models, expected a single one, which the adapter changes";
        ApiError::invalid_param("lora_name", message)
    })?;
    if models.get(&name).is_some() && load_inplace != Some(true) {
        return Err(is_taken(&name));
    }
    let served_name = name.clone();
    let open = move || {
        let adapter = Adapter::open(Path::new(&lora_path), base.config());
        adapter
            .and_then(|adapter| base.with_adapter(served_name, &adapter))
            .map_err(|error| ApiError::invalid_param("lora_path", error.to_string()))
    };
    let adapter = app.memory.run(0, open).await?;
    let key = context.key();
    let owner = Some(key.as_ref().map_or_else(String::new, |key| key.name.clone()));
    app.models.change(|models| {
        if models.loaded(&name, key.as_deref()).is_some() {
            models.remove(&name);
        }
        let added = models.add(ServedModel { origin: Origin::Loaded, owner, ..adapter });
        added.map_err(|_| is_taken(&name))
    })?;
    tracing::info!("serving the adapter {name}");
    Ok(format!("Success: LoRA adapter '{name}' added successfully."))
}

/// Serve a LoRA adapter no more. Requests that run with it go on.
#[utoipa::path(post, path = "/v1/unload_lora_adapter", operation_id = "unloadLoraAdapter", tag = "models",
    request_body = UnloadLoraAdapter,
    responses((status = 200, body = String, content_type = "text/plain", description = "It is gone")))]
pub async fn unload(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    body: Result<Json<UnloadLoraAdapter>, ApiError>,
) -> Result<String, ApiError> {
    check_allowed(&app)?;
    let Json(UnloadLoraAdapter { lora_name: name }) = body?;
    let key = context.key();
    app.models.change(|models| match models.loaded(&name, key.as_deref()) {
        Some(_) => Ok(models.remove(&name)),
        None => Err(ApiError::no_such_object("adapter that was loaded by a request", &name)),
    })?;
    tracing::info!("the adapter {name} is served no more");
    Ok(format!("Success: LoRA adapter '{name}' removed successfully."))
}

impl super::Models {
    /// The adapter of a name that a request of this key has loaded.
    fn loaded(&self, name: &str, key: Option<&Key>) -> Option<&Arc<ServedModel>> {
        let is_loaded = |served: &&Arc<ServedModel>| served.origin == Origin::Loaded && served.is_of(key);
        self.get(name).filter(is_loaded)
    }

    /// The model of the start that adapters change, if it is the only one.
    fn only_base(&self) -> Option<&Arc<ServedModel>> {
        let mut bases = self.base_models().filter(|served| served.origin == Origin::Startup);
        bases.next().filter(|_| bases.next().is_none())
    }
}

fn check_allowed(app: &AppState) -> Result<(), ApiError> {
    match app.runtime_adapters {
        true => Ok(()),
        false => Err(ApiError::off("adapters are loaded by requests", "--allow-runtime-adapters")),
    }
}

fn is_taken(name: &str) -> ApiError {
    let message = format!(
        "found {name:?}, which is taken, expected another name, or load_inplace for an \
                           adapter that a request has loaded"
    );
    ApiError::invalid_param("lora_name", message)
}
