//! Served models with their names and aliases, and the `/v1/models` and `/v1/engines` handlers.

use super::AppState;
use super::error::ApiError;
use super::keys::Key;
use super::request_context::RequestContext;
use super::response::json_object;
use crate::chat::ChatTemplate;
use crate::checkpoint::Config;
use crate::engine::Engine;
use crate::sampling::SamplingParams;
use crate::tokenizer::Tokenizer;
use crate::{Error, Hornbook};
use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

type Result<T, E = Error> = std::result::Result<T, E>;

/// A model that is served.
pub struct ServedModel {
    /// Name the model is served under.
    pub name: String,
    /// Engine that runs the model.
    pub engine: Engine,
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
            let message = format!("the model `{}` has no usable chat template: {problem}", self.name);
            ApiError::invalid_param("model", message)
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
    /// Registers models under their short names, and aliases as pairs of alias and model name. `template`
    /// overrides the models' own chat templates.
    ///
    /// # Errors
    /// [`Error::Message`] for a name used twice, [`Error::Parameter`] for an alias of an unknown model.
    pub fn new(
        engines: Vec<Engine>,
        aliases: &[(String, String)],
        template: Option<ChatTemplate>,
    ) -> Result<Self> {
        let shared_template = template.map(Arc::new);
        let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut models = Self { served: vec![], aliases: BTreeMap::new() };
        for engine in engines {
            let name = short_name(engine.hornbook().name());
            if models.get(&name).is_some() {
                return Err(Error::Message(format!("two models are named '{name}', expected unique names")));
            }
            let template = match &shared_template {
                Some(template) => Ok(Arc::clone(template)),
                None => ChatTemplate::for_model(engine.hornbook()).map(Arc::new).map_err(|error| {
                    tracing::warn!("the model {name} is served without chat: {error}");
                    error.to_string()
                }),
            };
            models.served.push(Arc::new(ServedModel { name, engine, template, created }));
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
                return Err(Error::Message(format!("two models are named '{alias}', expected unique names")));
            }
            models.aliases.insert(alias.clone(), Arc::clone(served));
        }
        Ok(models)
    }

    /// Returns all served models.
    pub fn served(&self) -> &[Arc<ServedModel>] {
        &self.served
    }

    /// Returns all names with their models: the models' own names first, then the aliases.
    pub fn names(&self) -> impl Iterator<Item = (&str, &Arc<ServedModel>)> {
        let model_names = self.served.iter().map(|served| (served.name.as_str(), served));
        model_names.chain(self.aliases.iter().map(|(alias, served)| (alias.as_str(), served)))
    }

    fn get(&self, name: &str) -> Option<&Arc<ServedModel>> {
        self.names().find(|(other, _)| *other == name).map(|(_, served)| served)
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
        let only_model = match self.served.as_slice() {
            [model] => Some(model),
            _ => None,
        };
        let path_name = path.map(|path| self.decode_path_name(path));
        let (name, served) = match (path_name.as_deref().or(body).filter(|name| !name.is_empty()), only_model)
        {
            (Some(name), only_model) => (name, self.get(name).or(only_model)),
            (None, Some(model)) => (model.name.as_str(), Some(model)),
            (None, None) => {
                return Err(ApiError::invalid_param("model", "missing, expected a model name"));
            }
        };
        let allowed = |served: &&Arc<ServedModel>| key.is_none_or(|key| key.may_use(&[&served.name, name]));
        let served = served.filter(allowed).ok_or_else(|| ApiError::model_not_found(name))?;
        Ok((Arc::clone(served), name.to_string()))
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

fn model_object(name: &str, served: &ServedModel) -> Value {
    json!({"id": name, "object": "model", "created": served.created, "owned_by": "hornbook"})
}

fn engine_object(name: &str, _: &ServedModel) -> Value {
    json!({"id": name, "object": "engine", "owner": "hornbook", "ready": true})
}

fn list_response(
    app: &AppState,
    context: &RequestContext,
    to_object: fn(&str, &ServedModel) -> Value,
) -> Response {
    let key = context.key();
    let allowed = |name: &str, served: &ServedModel| {
        key.as_ref().is_none_or(|key| key.may_use(&[served.name.as_str(), name]))
    };
    let names = app.models.names().filter(|(name, served)| allowed(name, served));
    let data: Vec<Value> = names.map(|(name, served)| to_object(name, served)).collect();
    json_object(&json!({"object": "list", "data": data}))
}

fn retrieve_response(
    app: &AppState,
    context: &RequestContext,
    name: &str,
    to_object: fn(&str, &ServedModel) -> Value,
) -> Result<Response, ApiError> {
    let name = app.models.decode_path_name(name);
    let served = app.models.get(&name).ok_or_else(|| ApiError::model_not_found(&name))?;
    app.models.resolve(Some(&name), None, context.key().as_deref())?;
    Ok(json_object(&to_object(&name, served)))
}

/// List the models and aliases.
#[utoipa::path(get, path = "/v1/models",
    responses((status = 200, description = "All model names and aliases")))]
pub async fn list(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
) -> Response {
    list_response(&app, &context, model_object)
}

/// Retrieve a model.
#[utoipa::path(get, path = "/v1/models/{model}",
    params(("model" = String, Path, description = "The model name")),
    responses(
        (status = 200, description = "The model"),
        (status = 404, description = "The model does not exist")))]
pub async fn retrieve(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    retrieve_response(&app, &context, &name, model_object)
}

/// Lists the models in the format of the deprecated engines API.
pub async fn list_engines(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
) -> Response {
    list_response(&app, &context, engine_object)
}

/// Retrieves a model in the format of the deprecated engines API.
pub async fn retrieve_engine(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    retrieve_response(&app, &context, &name, engine_object)
}
