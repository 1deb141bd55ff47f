//! Served models with their names and aliases, and the `/v1/models` and `/v1/engines` handlers.

use super::AppState;
use super::error::{ApiError, ErrorBody};
use super::json::{json_response, to_json};
use super::keys::Key;
use super::request_context::RequestContext;
use crate::chat::ChatTemplate;
use crate::checkpoint::Config;
use crate::checkpoint::adapter::Adapter;
use crate::engine::Engine;
use crate::model::AdapterWeights;
use crate::sampling::SamplingParams;
use crate::tokenizer::Tokenizer;
use crate::{Error, Hornbook};
use axum::Extension;
use axum::extract::{FromRequestParts, OptionalFromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use utoipa::ToSchema;

type Result<T, E = Error> = std::result::Result<T, E>;

/// Maximum length of a model name in a request, which its response repeats.
const MAX_NAME_CHARS: usize = 256;

/// A model that is served.
pub struct ServedModel {
    /// Name the model is served under.
    pub name: String,
    /// Engine that runs the model; a model and its adapters share one.
    pub engine: Arc<Engine>,
    /// The adapter that the model's requests are computed with, if this is one.
    pub adapter: Option<Arc<AdapterWeights>>,
    /// Name of the model that the adapter changes.
    pub parent: Option<String>,
    /// Chat template, or the problem with the model's own.
    template: std::result::Result<Arc<ChatTemplate>, String>,
    created: u64,
}

impl ServedModel {
    /// Returns the model.
    pub fn hornbook(&self) -> &Hornbook {
        self.engine.hornbook()
    }

    /// Returns the model's configuration.
    pub fn config(&self) -> &Config {
        self.hornbook().config()
    }

    /// Returns the sampling parameters of a request that gives none: the model's own, else the API's.
    pub fn default_sampling(&self) -> SamplingParams {
        self.hornbook().default_sampling(SamplingParams::default())
    }

    /// Returns the maximum number of tokens of a request that gives none, after a prompt of `prompt_tokens`:
    /// the model's own, as far as the context has room, else `api_default`.
    pub fn default_max_tokens(&self, prompt_tokens: usize, api_default: usize) -> usize {
        let room = self.config().n_positions.saturating_sub(prompt_tokens).max(1);
        self.hornbook().generation_config().max_new_tokens.map_or(api_default, |own| own.min(room))
    }

    /// Returns the chat template.
    ///
    /// # Errors
    /// 400 if the model's own cannot be used.
    pub fn template(&self) -> Result<&Arc<ChatTemplate>, ApiError> {
        self.template.as_ref().map_err(|problem| {
            ApiError::invalid_param(
                "model",
                format!("`{}` has no usable chat template: {problem}", self.name),
            )
        })
    }

    /// Returns the tokenizer, which the field `param` needs.
    ///
    /// # Errors
    /// 400 if the model has none.
    pub fn tokenizer(&self, param: &str) -> Result<&Tokenizer, ApiError> {
        self.hornbook().try_tokenizer().ok_or_else(|| {
            let message = format!("the model `{}` has no tokenizer, expected token ids", self.name);
            ApiError::invalid_param(param, message)
        })
    }
}

/// All served models and their aliases.
pub struct ModelRegistry {
    served: Vec<Arc<ServedModel>>,
    aliases: BTreeMap<String, Arc<ServedModel>>,
}

impl ModelRegistry {
    /// Registers models under their short names, adapters as pairs of name and folder, and aliases as pairs
    /// of alias and name. `template` overrides the models' own chat templates.
    ///
    /// # Errors
    /// [`Error::DuplicateModel`], [`Error::Parameter`] for an alias of an unknown model, and for adapters of
    /// more than one model, and the errors of [`Adapter::open`].
    pub fn new(
        engines: Vec<Engine>,
        adapters: &[(String, PathBuf)],
        aliases: &[(String, String)],
        template: Option<ChatTemplate>,
    ) -> Result<Self> {
        let shared_template = template.map(Arc::new);
        let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut models = Self { served: vec![], aliases: BTreeMap::new() };
        for engine in engines {
            let name = short_name(engine.hornbook().name());
            if models.get(&name).is_some() {
                return Err(Error::DuplicateModel { name });
            }
            let template = match &shared_template {
                Some(template) => Ok(Arc::clone(template)),
                None => ChatTemplate::for_model(engine.hornbook()).map(Arc::new).map_err(|error| {
                    tracing::warn!("the model {name} is served without chat: {error}");
                    error.without_path()
                }),
            };
            if let Err(error) = engine.hornbook().tokenizer_or("it is served with token ids only") {
                tracing::warn!("{error}");
            }
            let engine = Arc::new(engine);
            let served = ServedModel { name, engine, adapter: None, parent: None, template, created };
            models.served.push(Arc::new(served));
        }
        if let (Some((name, folder)), 2..) = (adapters.first(), models.served.len()) {
            return Err(Error::Parameter {
                name: "adapter".into(),
                found: format!("{name}={} with {} models", folder.display(), models.served.len()),
                expected: "a single model, which the adapter changes".into(),
            });
        }
        for (name, folder) in adapters {
            if models.get(name).is_some() {
                return Err(Error::DuplicateModel { name: name.clone() });
            }
            let base = &models.served[0];
            let adapter = Adapter::open(folder, base.config())?;
            models.served.push(Arc::new(ServedModel {
                name: name.clone(),
                engine: Arc::clone(&base.engine),
                adapter: Some(base.hornbook().model().adapter(&adapter)?),
                parent: Some(base.name.clone()),
                template: base.template.clone(),
                created,
            }));
        }
        for (alias, name) in aliases {
            let Some(served) = models.served.iter().find(|served| served.name == *name) else {
                let names: Vec<&str> = models.served.iter().map(|served| served.name.as_str()).collect();
                return Err(Error::Parameter {
                    name: "alias".into(),
                    found: format!("{alias}={name}"),
                    expected: format!("one of the models served: {}", names.join(", ")),
                });
            };
            if models.get(alias).is_some() {
                return Err(Error::DuplicateModel { name: alias.clone() });
            }
            models.aliases.insert(alias.clone(), Arc::clone(served));
        }
        Ok(models)
    }

    /// Returns all served models, adapters included.
    pub fn served(&self) -> &[Arc<ServedModel>] {
        &self.served
    }

    /// Returns the served models that are no adapters, each with an engine of its own.
    pub fn base_models(&self) -> impl Iterator<Item = &Arc<ServedModel>> + Clone {
        self.served.iter().filter(|served| served.adapter.is_none())
    }

    /// Returns all names with their models: the models' own names first, then the aliases.
    pub fn names(&self) -> impl Iterator<Item = (&str, &Arc<ServedModel>)> {
        let model_names = self.served.iter().map(|served| (served.name.as_str(), served));
        model_names.chain(self.aliases.iter().map(|(alias, served)| (alias.as_str(), served)))
    }

    fn get(&self, name: &str) -> Option<&Arc<ServedModel>> {
        self.names().find(|(other, _)| *other == name).map(|(_, served)| served)
    }

    /// Returns whether a key may use a model: whether one of the names it is limited to is this model's. The
    /// name in the request does not matter.
    fn may_use(&self, key: Option<&Key>, served: &Arc<ServedModel>) -> bool {
        key.and_then(|key| key.models.as_ref()).is_none_or(|names| {
            names.iter().filter_map(|name| self.get(name)).any(|allowed| Arc::ptr_eq(allowed, served))
        })
    }

    /// Decodes a model name from a path: openai 0.28 encodes a space as `+`.
    fn decode_path_name(&self, name: &str) -> String {
        match self.get(name) {
            Some(_) => name.to_string(),
            None => name.replace('+', " "),
        }
    }

    /// Returns the requested model and the name the request uses for it. A name in the path takes precedence
    /// over one in the body. If only one model is served, any name or none selects it.
    ///
    /// # Errors
    /// 400 for a missing name, 404 for an unknown one or one that the key may not use.
    pub fn resolve(
        &self,
        path: Option<&str>,
        body: Option<&str>,
        key: Option<&Key>,
    ) -> Result<(Arc<ServedModel>, String), ApiError> {
        let path_name = path.map(|path| self.decode_path_name(path));
        let requested = path_name.as_deref().or(body).filter(|name| !name.is_empty());
        let names = path_name.as_deref().into_iter().chain(body);
        if let Some(chars) = names.map(|name| name.chars().count()).find(|&chars| chars > MAX_NAME_CHARS) {
            let message = format!("found a name of {chars} characters, expected at most {MAX_NAME_CHARS}");
            return Err(ApiError::invalid_param("model", message));
        }
        let only_model = match self.served.as_slice() {
            [model] => Some(model),
            _ => None,
        };
        let (name, served) = match (requested, only_model) {
            (Some(name), only_model) => (name, self.get(name).or(only_model)),
            (None, Some(model)) => (model.name.as_str(), Some(model)),
            (None, None) => {
                return Err(ApiError::invalid_param("model", "missing, expected a model name"));
            }
        };
        let allowed = |served: &&Arc<ServedModel>| self.may_use(key, served);
        let served = served.filter(allowed).ok_or_else(|| ApiError::model_not_found(name))?;
        Ok((Arc::clone(served), name.to_string()))
    }
}

/// Extractor of a model name in the path.
pub struct PathName(pub String);

impl<S: Send + Sync> FromRequestParts<S> for PathName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let name = <Self as OptionalFromRequestParts<S>>::from_request_parts(parts, state).await?;
        name.ok_or_else(|| ApiError::invalid_param("model", "missing, expected a model name"))
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for PathName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, ApiError> {
        let name = <Path<String> as OptionalFromRequestParts<S>>::from_request_parts(parts, state).await;
        match name {
            Ok(name) => Ok(name.map(|Path(name)| Self(name))),
            Err(_) => {
                Err(ApiError::invalid_param("model", "found a path that is not UTF-8, expected a name"))
            }
        }
    }
}

/// Returns the last component of a path, and any other model name unchanged.
fn short_name(name: &str) -> String {
    let path = std::path::Path::new(name);
    let is_path = path.is_absolute() || name.starts_with('.') || path.join("config.json").is_file();
    let resolved =
        if is_path { path.canonicalize().unwrap_or_else(|_| path.to_path_buf()) } else { path.into() };
    match resolved.file_name().filter(|_| is_path) {
        Some(last) => last.to_string_lossy().into_owned(),
        None => name.to_string(),
    }
}

/// A model.
#[derive(Serialize, ToSchema)]
pub struct ModelObject {
    id: String,
    /// `model`
    object: &'static str,
    /// Unix time at which the server started.
    created: u64,
    /// `hornbook`
    owned_by: &'static str,
    /// The model itself; for an adapter, the model that it changes.
    root: String,
    /// The model that an adapter changes; null for other models.
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

fn model_object(name: &str, served: &ServedModel) -> ModelObject {
    let root = served.parent.as_ref().unwrap_or(&served.name).clone();
    let (created, parent) = (served.created, served.parent.clone());
    ModelObject { id: name.into(), object: "model", created, owned_by: "hornbook", root, parent }
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
    let names = app.models.names().filter(|(_, served)| app.models.may_use(key.as_deref(), served));
    let data = names.map(|(name, served)| to_object(name, served)).collect();
    json_response(to_json(&List { object: "list", data })).into_response()
}

fn retrieve_response<T: Serialize>(
    app: &AppState,
    context: &RequestContext,
    name: &str,
    to_object: fn(&str, &ServedModel) -> T,
) -> Result<Response, ApiError> {
    let name = app.models.decode_path_name(name);
    let served = app.models.get(&name).ok_or_else(|| ApiError::model_not_found(&name))?;
    app.models.resolve(Some(&name), None, context.key().as_deref())?;
    Ok(json_response(to_json(&to_object(&name, served))).into_response())
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
