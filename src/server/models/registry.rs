//! The registry of served models: names, aliases, and who may use them.

use super::{Origin, Result, ServedModel};
use crate::Error;
use crate::chat::ChatTemplate;
use crate::checkpoint::adapter::Adapter;
use crate::engine::Engine;
use crate::server::error::ApiError;
use crate::server::keys::Key;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// Maximum length of a model name in a request, which its response repeats.
pub const MAX_NAME_CHARS: usize = 256;
/// How the names of fine-tuned models begin, which nothing else stands in for.
const FINE_TUNED: &str = "ft:";

/// All served models. A change replaces the list as a whole, so that a request sees one list throughout.
pub struct ModelRegistry {
    models: RwLock<Arc<Models>>,
    /// Whether a single model answers to any name.
    accepts_any_name: bool,
}

/// The models and aliases that are served at one time.
#[derive(Clone, Default)]
pub struct Models {
    served: Vec<Arc<ServedModel>>,
    aliases: BTreeMap<String, Arc<ServedModel>>,
}

impl ModelRegistry {
    /// Registers models under their short names, adapters as pairs of name and folder, and aliases as pairs
    /// of alias and name. `template` overrides the models' own chat templates. If adapters will be loaded at
    /// `runtime`, requests have to name models exactly.
    ///
    /// # Errors
    /// [`Error::DuplicateModel`], [`Error::Parameter`] for an alias of an unknown model, and for adapters of
    /// more than one model, and the errors of [`Adapter::open`].
    pub fn new(
        engines: Vec<Engine>,
        adapters: &[(String, PathBuf)],
        aliases: &[(String, String)],
        template: Option<&Arc<ChatTemplate>>,
        runtime_adapters: bool,
    ) -> Result<Self> {
        let mut models = Models::default();
        for engine in engines {
            let name = short_name(engine.hornbook().name());
            models.add(ServedModel::new(name, engine, template))?;
        }
        if let (Some((name, folder)), 2..) = (adapters.first(), models.served.len()) {
            return Err(Error::Parameter {
                name: "adapter".into(),
                found: format!("{name}={} with {} models", folder.display(), models.served.len()),
                expected: "a single model, which the adapter changes".into(),
            });
        }
        for (name, folder) in adapters {
            models.check_new(name)?;
            let base = &models.served[0];
            let adapter = base.with_adapter(name.clone(), &Adapter::open(folder, base.config())?)?;
            models.add(adapter)?;
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
            models.check_new(alias)?;
            let served = Arc::clone(served);
            models.aliases.insert(alias.clone(), served);
        }
        let accepts_any_name = models.served.len() == 1 && !runtime_adapters;
        Ok(Self { models: RwLock::new(Arc::new(models)), accepts_any_name })
    }

    /// Returns the models that are served now.
    pub fn current(&self) -> Arc<Models> {
        Arc::clone(&self.models.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes what is served from the next request on.
    ///
    /// # Errors
    /// Those of the change, after which all is as before.
    pub fn change<T, E>(&self, change: impl FnOnce(&mut Models) -> Result<T, E>) -> Result<T, E> {
        let mut current = self.models.write().unwrap_or_else(PoisonError::into_inner);
        let mut models = Models::clone(&current);
        let result = change(&mut models)?;
        *current = Arc::new(models);
        Ok(result)
    }

    /// Serves some models no more; requests that have them go on.
    pub fn remove_where(&self, is_removed: impl Fn(&ServedModel) -> bool) {
        let mut current = self.models.write().unwrap_or_else(PoisonError::into_inner);
        let mut models = Models::clone(&current);
        models.served.retain(|served| !is_removed(served));
        *current = Arc::new(models);
    }

    /// Returns the requested model and the name the request uses for it. A name in the path takes precedence
    /// over one in the body. If only one model was named at the start, any name or none selects it.
    ///
    /// # Errors
    /// 400 for a missing name, 404 for an unknown one or one that the key may not use.
    pub fn resolve(
        &self,
        path: Option<&str>,
        body: Option<&str>,
        key: Option<&Key>,
    ) -> Result<(Arc<ServedModel>, String), ApiError> {
        let models = self.current();
        let path_name = path.map(|path| models.decode_path_name(path));
        let requested = path_name.as_deref().or(body).filter(|name| !name.is_empty());
        let names = path_name.as_deref().into_iter().chain(body);
        if let Some(chars) = names.map(|name| name.chars().count()).find(|&chars| chars > MAX_NAME_CHARS) {
            let message = format!("found a name of {chars} characters, expected at most {MAX_NAME_CHARS}");
            return Err(ApiError::invalid_param("model", message));
        }
        let (name, served) = match (requested, models.only_model()) {
            (Some(name), only_model) => {
                let any_name = self.accepts_any_name && !name.starts_with(FINE_TUNED);
                (name, models.get(name).or(only_model.filter(|_| any_name)))
            }
            (None, Some(model)) => (model.name.as_str(), Some(model)),
            (None, None) => {
                return Err(ApiError::invalid_param("model", "missing, expected a model name"));
            }
        };
        let allowed = |served: &&Arc<ServedModel>| models.may_use(key, served);
        let served = served.filter(allowed).ok_or_else(|| ApiError::model_not_found(name))?;
        Ok((Arc::clone(served), name.to_string()))
    }
}

impl Models {
    /// Adds a model.
    ///
    /// # Errors
    /// [`Error::DuplicateModel`] if its name is taken.
    pub fn add(&mut self, model: ServedModel) -> Result<()> {
        self.check_new(&model.name)?;
        self.served.push(Arc::new(model));
        Ok(())
    }

    /// Removes a model; requests that have it go on. Returns whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.served.len();
        self.served.retain(|served| served.name != name);
        self.served.len() < before
    }

    fn check_new(&self, name: &str) -> Result<()> {
        match self.get(name) {
            Some(_) => Err(Error::DuplicateModel { name: name.into() }),
            None => Ok(()),
        }
    }

    /// Returns the models with an engine of their own: those that are no adapters.
    pub fn base_models(&self) -> impl Iterator<Item = &Arc<ServedModel>> + Clone {
        self.served.iter().filter(|served| served.adapter.is_none())
    }

    /// Returns the names of a model's adapters that are not a key's own.
    pub fn shared_adapters(&self, model: &ServedModel) -> impl Iterator<Item = &str> {
        let adapters = self.served.iter().filter(|served| served.adapter.is_some());
        let of_model = adapters.filter(move |adapter| Arc::ptr_eq(&adapter.engine, &model.engine));
        let shared = of_model.filter(|adapter| adapter.owner.as_deref().is_none_or(str::is_empty));
        shared.map(|adapter| adapter.name.as_str())
    }

    /// Returns the model that was named at the start, if it is the only one.
    pub fn only_model(&self) -> Option<&Arc<ServedModel>> {
        let mut named = self.served.iter().filter(|served| served.origin == Origin::Startup);
        named.next().filter(|_| named.next().is_none())
    }

    /// Returns all names with their models: the models' own names first, then the aliases.
    pub fn names(&self) -> impl Iterator<Item = (&str, &Arc<ServedModel>)> {
        let model_names = self.served.iter().map(|served| (served.name.as_str(), served));
        model_names.chain(self.aliases.iter().map(|(alias, served)| (alias.as_str(), served)))
    }

    /// Returns the model of a name.
    pub fn get(&self, name: &str) -> Option<&Arc<ServedModel>> {
        self.names().find(|(other, _)| *other == name).map(|(_, served)| served)
    }

    /// Returns whether a key may use a model: whether it is the owner's, or one of the names that the key is
    /// limited to is this model's. The name in the request does not matter.
    pub fn may_use(&self, key: Option<&Key>, served: &Arc<ServedModel>) -> bool {
        let limits = key.and_then(|key| key.models.as_ref()).filter(|_| served.owner.is_none());
        let is_allowed = |names: &Vec<String>| {
            names.iter().filter_map(|name| self.get(name)).any(|allowed| Arc::ptr_eq(allowed, served))
        };
        served.is_of(key) && limits.is_none_or(is_allowed)
    }

    /// Decodes a model name from a path: openai 0.28 encodes a space as `+`.
    pub fn decode_path_name(&self, name: &str) -> String {
        match self.get(name) {
            Some(_) => name.to_string(),
            None => name.replace('+', " "),
        }
    }
}

/// Returns the last component of a path, and any other model name unchanged.
fn short_name(name: &str) -> String {
    let path = Path::new(name);
    let is_path = path.is_absolute() || name.starts_with('.') || path.join("config.json").is_file();
    let resolved =
        if is_path { path.canonicalize().unwrap_or_else(|_| path.to_path_buf()) } else { path.into() };
    match resolved.file_name().filter(|_| is_path) {
        Some(last) => last.to_string_lossy().into_owned(),
        None => name.to_string(),
    }
}
