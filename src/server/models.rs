//! The models that are served, and the names they answer to.

use super::App;
use super::answer::object;
use super::error::ApiError;
use super::keys::Key;
use super::log::Call;
use crate::chat::ChatTemplate;
use crate::checkpoint::Config;
use crate::engine::Engine;
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
pub struct Served {
    /// The name it is served under.
    pub name: String,
    /// What computes it.
    pub engine: Engine,
    /// How messages become a prompt.
    pub template: Arc<ChatTemplate>,
    created: u64,
}

impl Served {
    /// The model.
    pub fn hornbook(&self) -> &Hornbook {
        self.engine.hornbook()
    }

    /// Its shape.
    pub fn config(&self) -> &Config {
        self.hornbook().config()
    }

    /// Its tokenizer, where text is asked for in field `param`.
    ///
    /// # Errors
    /// 400 where it has none.
    pub fn tokenizer(&self, param: &str) -> Result<&Tokenizer, ApiError> {
        self.hornbook().try_tokenizer().ok_or_else(|| {
            let message = format!("the model `{}` has no tokenizer, expected token ids", self.name);
            ApiError::param(param, message)
        })
    }
}

/// All models, and the other names they answer to.
pub struct Models {
    served: Vec<Arc<Served>>,
    aliases: BTreeMap<String, Arc<Served>>,
}

impl Models {
    /// Models by their names, and pairs of another name and the model's own; with a template for all, or each its own.
    ///
    /// # Errors
    /// [`Error::Message`] where a name is used twice or an alias leads nowhere.
    pub fn new(
        engines: Vec<Engine>,
        aliases: &[(String, String)],
        template: Option<ChatTemplate>,
    ) -> Result<Self> {
        let for_all = template.map(Arc::new);
        let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut models = Self { served: vec![], aliases: BTreeMap::new() };
        for engine in engines {
            let name = short_name(engine.hornbook().name());
            if models.named(&name).is_some() {
                return Err(Error::Message(format!("two models are called '{name}', expected one")));
            }
            let template = match &for_all {
                Some(template) => Arc::clone(template),
                None => Arc::new(ChatTemplate::for_model(engine.hornbook())?),
            };
            models.served.push(Arc::new(Served { name, engine, template, created }));
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
            if models.named(alias).is_some() {
                return Err(Error::Message(format!("two models are called '{alias}', expected one")));
            }
            models.aliases.insert(alias.clone(), Arc::clone(served));
        }
        Ok(models)
    }

    /// All of them.
    pub fn served(&self) -> &[Arc<Served>] {
        &self.served
    }

    /// Every name and the model behind it, the models' own first.
    pub fn names(&self) -> impl Iterator<Item = (&str, &Arc<Served>)> {
        let own = self.served.iter().map(|served| (served.name.as_str(), served));
        own.chain(self.aliases.iter().map(|(alias, served)| (alias.as_str(), served)))
    }

    fn named(&self, name: &str) -> Option<&Arc<Served>> {
        self.names().find(|(known, _)| *known == name).map(|(_, served)| served)
    }

    /// A name as a path has it: the old client writes a space there as it would in a form.
    fn in_path(&self, name: &str) -> String {
        match self.named(name) {
            Some(_) => name.to_string(),
            None => name.replace('+', " "),
        }
    }

    /// The model a request means, and what the request calls it: the name in the path before that in the body. Where
    /// one model is served any name means it, and so does none.
    ///
    /// # Errors
    /// 400 where a name is needed, 404 where it is not known or not for this key.
    pub fn find(
        &self,
        path: Option<&str>,
        body: Option<&str>,
        key: Option<&Key>,
    ) -> Result<(Arc<Served>, String), ApiError> {
        let only = match self.served.as_slice() {
            [only] => Some(only),
            _ => None,
        };
        let in_path = path.map(|path| self.in_path(path));
        let (name, served) = match (in_path.as_deref().or(body).filter(|name| !name.is_empty()), only) {
            (Some(name), only) => (name, self.named(name).or(only)),
            (None, Some(only)) => (only.name.as_str(), Some(only)),
            (None, None) => return Err(ApiError::param("model", "found nothing, expected a model's name")),
        };
        let allowed = |served: &&Arc<Served>| key.is_none_or(|key| key.may_use(&[&served.name, name]));
        let served = served.filter(allowed).ok_or_else(|| ApiError::model_not_found(name))?;
        Ok((Arc::clone(served), name.to_string()))
    }
}

/// A folder's path is nobody's name for a model; its last part is.
fn short_name(name: &str) -> String {
    let path = std::path::Path::new(name);
    let is_path = path.is_absolute() || name.starts_with('.') || path.join("config.json").is_file();
    let full = if is_path { path.canonicalize().unwrap_or_else(|_| path.to_path_buf()) } else { path.into() };
    match full.file_name().filter(|_| is_path) {
        Some(last) => last.to_string_lossy().into_owned(),
        None => name.to_string(),
    }
}

fn model(name: &str, served: &Served) -> Value {
    json!({"id": name, "object": "model", "created": served.created, "owned_by": "hornbook"})
}

fn engine(name: &str, _: &Served) -> Value {
    json!({"id": name, "object": "engine", "owner": "hornbook", "ready": true})
}

fn all(app: &App, call: &Call, shape: fn(&str, &Served) -> Value) -> Response {
    let key = call.key();
    let allowed = |name: &str, served: &Served| {
        key.as_ref().is_none_or(|key| key.may_use(&[served.name.as_str(), name]))
    };
    let listed = app.models.names().filter(|(name, served)| allowed(name, served));
    let data: Vec<Value> = listed.map(|(name, served)| shape(name, served)).collect();
    object(&json!({"object": "list", "data": data}))
}

fn one(app: &App, call: &Call, name: &str, shape: fn(&str, &Served) -> Value) -> Result<Response, ApiError> {
    let name = app.models.in_path(name);
    let known = app.models.named(&name).ok_or_else(|| ApiError::model_not_found(&name))?;
    app.models.find(Some(&name), None, call.key().as_deref())?;
    Ok(object(&shape(&name, known)))
}

/// The models, aliases among them.
#[utoipa::path(get, path = "/v1/models", responses((status = 200, description = "Every name a model answers to")))]
pub async fn list(State(app): State<Arc<App>>, Extension(call): Extension<Arc<Call>>) -> Response {
    all(&app, &call, model)
}

/// One model.
#[utoipa::path(get, path = "/v1/models/{model}", params(("model" = String, Path, description = "Its name")),
    responses((status = 200, description = "The model"), (status = 404, description = "There is none of that name")))]
pub async fn show(
    State(app): State<Arc<App>>,
    Extension(call): Extension<Arc<Call>>,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    one(&app, &call, &name, model)
}

/// The models, as they were listed when they were called engines.
pub async fn list_engines(State(app): State<Arc<App>>, Extension(call): Extension<Arc<Call>>) -> Response {
    all(&app, &call, engine)
}

/// One model, as an engine.
pub async fn show_engine(
    State(app): State<Arc<App>>,
    Extension(call): Extension<Arc<Call>>,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    one(&app, &call, &name, engine)
}
