//! Served models: what they are, their registry, which changes while the server runs, and the routes for
//! them.

mod path_name;
mod registry;
pub mod routes;
pub mod runtime_adapters;

pub use path_name::PathName;
pub use registry::{ModelRegistry, Models};

use super::error::ApiError;
use super::keys::Key;
use crate::chat::ChatTemplate;
use crate::checkpoint::Config;
use crate::checkpoint::adapter::Adapter;
use crate::engine::Engine;
use crate::model::{AdapterWeights, Model};
use crate::sampling::SamplingParams;
use crate::tokenizer::Tokenizer;
use crate::{Error, Hornbook};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

type Result<T, E = Error> = std::result::Result<T, E>;

/// How a model came to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was named when the server started.
    Startup,
    /// An adapter that a request has loaded.
    Loaded,
    /// The result of a fine-tuning job.
    FineTuned,
}

/// A model that is served. A request holds on to it, so that it may be removed while the request runs.
pub struct ServedModel {
    /// Name the model is served under.
    pub name: String,
    /// Engine that runs the model; a model and its adapters share one.
    pub engine: Arc<Engine>,
    /// The adapter that the model's requests are computed with, if this is one.
    pub adapter: Option<Arc<AdapterWeights>>,
    /// Name of the model that this one was made from.
    pub parent: Option<String>,
    /// How it came to be served.
    pub origin: Origin,
    /// Name of the key that alone may use it; empty on a server without keys. Without an owner it is
    /// everyone's.
    pub owner: Option<String>,
    /// Chat template, or the problem with the model's own.
    template: Result<Arc<ChatTemplate>, String>,
    created: u64,
}

impl ServedModel {
    /// A model with an engine of its own. `template` overrides its chat template.
    pub fn new(name: String, engine: Engine, template: Option<&Arc<ChatTemplate>>) -> Self {
        let template = match template {
            Some(template) => Ok(Arc::clone(template)),
            None => ChatTemplate::for_model(engine.hornbook()).map(Arc::new).map_err(|error| {
                tracing::warn!("the model {name} is served without chat: {error}");
                error.without_path()
            }),
        };
        if let Err(error) = engine.hornbook().tokenizer_or("it is served with token ids only") {
            tracing::warn!("{error}");
        }
        Self {
            name,
            engine: Arc::new(engine),
            adapter: None,
            parent: None,
            origin: Origin::Startup,
            owner: None,
            template,
            created: now(),
        }
    }

    /// An adapter of this model.
    ///
    /// # Errors
    /// As [`Model::adapter`](crate::model::Model::adapter).
    pub fn with_adapter(&self, name: String, adapter: &Adapter) -> Result<Self> {
        Ok(Self {
            name,
            engine: Arc::clone(&self.engine),
            adapter: Some(self.hornbook().model().adapter(adapter)?),
            parent: Some(self.name.clone()),
            origin: Origin::Startup,
            owner: None,
            template: self.template.clone(),
            created: now(),
        })
    }

    /// The model as a result of fine-tuning another one.
    pub fn fine_tuned(self, parent: &str, owner: &str, created: u64) -> Self {
        let (parent, owner) = (Some(parent.into()), Some(owner.into()));
        Self { parent, owner, created, origin: Origin::FineTuned, ..self }
    }

    /// Returns the model.
    pub fn hornbook(&self) -> &Hornbook {
        self.engine.hornbook()
    }

    /// Returns the model, with the adapter if this is one.
    pub fn model(&self) -> Model {
        let model = self.hornbook().model().clone();
        match &self.adapter {
            Some(adapter) => model.with_adapter_weights(Arc::clone(adapter)),
            None => model,
        }
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

    /// Returns whether it belongs to a key, or to everyone.
    fn is_of(&self, key: Option<&Key>) -> bool {
        self.owner.as_ref().is_none_or(|owner| *owner == key.map_or("", |key| &key.name))
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
