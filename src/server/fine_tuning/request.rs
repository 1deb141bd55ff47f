//! Requests for a job, of both APIs, and how a job is made of one.

use super::event_log::{JobEvent, Level};
use super::folder::{TRAINING, VALIDATION};
use super::hyperparameters::{HyperparameterFields, Hyperparameters, Method};
use super::job::{FineTuningJob, Status, legacy_id};
use super::service::Jobs;
use crate::Error;
use crate::server::AppState;
use crate::server::error::ApiError;
use crate::server::files::purpose;
use crate::server::json::RequestBody;
use crate::server::metadata::{self, Metadata};
use crate::server::models::Origin;
use crate::server::request_context::RequestContext;
use crate::server::store::{Entry, unix_time};
use serde::Deserialize;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use utoipa::ToSchema;

const MAX_SUFFIX_CHARS: usize = 64;
/// The key of `metadata` that says what is trained: `lora` or `full`.
const METHOD_KEY: &str = "hornbook";
/// How often the older API reads the examples unless a request says otherwise.
const LEGACY_EPOCHS: u64 = 4;

/// A request for a job. All fields but the training file may be absent or null.
#[derive(Debug, Deserialize, ToSchema)]
pub struct CreateJob {
    /// The model to begin with; any name if only one model is served.
    model: Option<String>,
    /// Id of an uploaded file of examples.
    training_file: Option<String>,
    /// Id of an uploaded file to measure the model on; a twentieth of the examples if there is none.
    validation_file: Option<String>,
    /// A part of the result's name: letters, digits, `-`, `_` and `.`.
    suffix: Option<String>,
    /// Seed of the data's order. Default: 0.
    seed: Option<u32>,
    /// As in `method`, which takes precedence.
    hyperparameters: Option<HyperparameterFields>,
    /// Supervised fine-tuning, and its hyperparameters.
    method: Option<MethodFields>,
    /// Not supported.
    integrations: Option<Value>,
    /// The client's own notes. `{"hornbook": "full"}` trains all weights instead of a LoRA adapter.
    metadata: Option<Metadata>,
}

/// How a model is fine-tuned.
#[derive(Debug, Deserialize, ToSchema)]
pub struct MethodFields {
    /// `supervised`
    #[serde(rename = "type")]
    kind: Option<String>,
    /// The hyperparameters of supervised fine-tuning.
    supervised: Option<SupervisedFields>,
}

/// Supervised fine-tuning.
#[derive(Debug, Deserialize, ToSchema)]
pub struct SupervisedFields {
    hyperparameters: Option<HyperparameterFields>,
}

impl RequestBody for CreateJob {
    const FIELDS: &'static [&'static str] = &["suffix"];
}

/// A request for a job in the format of the deprecated fine-tunes API.
#[derive(Debug, Deserialize, ToSchema)]
pub struct CreateFineTune {
    /// The model to begin with; any name if only one model is served.
    model: Option<String>,
    /// Id of an uploaded file of examples.
    training_file: Option<String>,
    /// Id of an uploaded file to measure the model on; a twentieth of the examples if there is none.
    validation_file: Option<String>,
    /// A part of the result's name: letters, digits, `-`, `_` and `.`.
    suffix: Option<String>,
    /// How much predicting a token of a prompt counts, beside one of its completion. Default: 0.01.
    prompt_loss_weight: Option<f32>,
    /// Not supported: must be false.
    compute_classification_metrics: Option<bool>,
    /// How often the examples are read, 1 to 50. Default: 4.
    n_epochs: Option<Value>,
    /// The examples of a step, 1 to 256. Default: 0.2 % of them.
    batch_size: Option<Value>,
    /// What the learning rate is multiplied with. Default: 1.
    learning_rate_multiplier: Option<Value>,
}

impl RequestBody for CreateFineTune {
    const FIELDS: &'static [&'static str] = &["suffix"];
}

/// What both kinds of requests ask for.
pub struct NewJob {
    model: Option<String>,
    training_file: Option<String>,
    validation_file: Option<String>,
    suffix: Option<String>,
    seed: u64,
    method: Method,
    hyperparameters: Hyperparameters,
    metadata: Metadata,
    is_legacy: bool,
}

impl CreateJob {
    /// Checks the fields.
    ///
    /// # Errors
    /// 400 that names the field.
    pub fn validated(self) -> Result<NewJob, ApiError> {
        let is_empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        if self.integrations.as_ref().is_some_and(|value| !is_empty(value)) {
            return Err(ApiError::unsupported_param("integrations", None));
        }
        let (fields, param) = match self.method {
            Some(MethodFields { kind, supervised }) => {
                if let Some(kind) = kind.filter(|kind| kind != "supervised") {
                    let message = format!("found {kind:?}, which is not supported, expected supervised");
                    return Err(ApiError::invalid_param("method.type", message));
                }
                let fields = supervised.and_then(|supervised| supervised.hyperparameters);
                (fields.or(self.hyperparameters), "method.supervised.hyperparameters")
            }
            None => (self.hyperparameters, "hyperparameters"),
        };
        metadata::check(self.metadata.as_ref())?;
        let metadata = self.metadata.unwrap_or_default();
        let method = match metadata.get(METHOD_KEY).map(String::as_str) {
            None | Some("lora") => Method::Lora,
            Some("full") => Method::Full,
            Some(other) => {
                let message = format!("found {other:?}, expected lora or full");
                return Err(ApiError::invalid_param(&format!("metadata.{METHOD_KEY}"), message));
            }
        };
        Ok(NewJob {
            model: self.model,
            training_file: self.training_file,
            validation_file: self.validation_file,
            suffix: self.suffix,
            seed: self.seed.unwrap_or(0).into(),
            method,
            hyperparameters: fields.unwrap_or_default().validated(param)?,
            metadata,
            is_legacy: false,
        })
    }
}

impl CreateFineTune {
    /// Checks the fields.
    ///
    /// # Errors
    /// 400 that names the field.
    pub fn validated(self) -> Result<NewJob, ApiError> {
        if self.compute_classification_metrics == Some(true) {
            return Err(ApiError::unsupported_param("compute_classification_metrics", None));
        }
        let Self { n_epochs, batch_size, learning_rate_multiplier, .. } = self;
        let n_epochs = n_epochs.or(Some(LEGACY_EPOCHS.into()));
        let fields = HyperparameterFields { n_epochs, batch_size, learning_rate_multiplier };
        let mut hyperparameters = fields.validated("")?;
        if let Some(weight) = self.prompt_loss_weight {
            if !(0.0..=1.0).contains(&weight) {
                let message = format!("found {weight}, expected a number from 0 to 1");
                return Err(ApiError::invalid_param("prompt_loss_weight", message));
            }
            hyperparameters.prompt_loss_weight = weight;
        }
        Ok(NewJob {
            model: self.model,
            training_file: self.training_file,
            validation_file: self.validation_file,
            suffix: self.suffix,
            seed: 0,
            method: Method::Lora,
            hyperparameters,
            metadata: Metadata::new(),
            is_legacy: true,
        })
    }
}

fn check_suffix(suffix: Option<&str>) -> Result<(), ApiError> {
    let is_valid = |suffix: &str| {
        (1..=MAX_SUFFIX_CHARS).contains(&suffix.len())
            && suffix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    match suffix {
        Some(suffix) if !is_valid(suffix) => {
            let expected = format!("1 to {MAX_SUFFIX_CHARS} letters, digits, '-', '_' and '.'");
            Err(ApiError::invalid_param("suffix", format!("found {suffix:?}, expected {expected}")))
        }
        _ => Ok(()),
    }
}

impl NewJob {
    /// Creates the job, with its data, and queues it.
    ///
    /// # Errors
    /// 400 for a model or file that is not there, 429 for more jobs than a key may have, and those of the
    /// store.
    pub async fn create(
        self,
        app: &AppState,
        jobs: &Arc<Jobs>,
        context: &RequestContext,
    ) -> Result<Arc<Entry<FineTuningJob>>, ApiError> {
        check_suffix(self.suffix.as_deref())?;
        let owner = context.owner();
        let (served, name) = app.models.resolve(None, self.model.as_deref(), context.key().as_deref())?;
        context.set_model(&name);
        if served.origin != Origin::Startup || served.adapter.is_some() {
            let message = format!("found {name}, expected a model that is neither an adapter nor fine-tuned");
            return Err(ApiError::invalid_param("model", message));
        }
        let training_file = self.training_file.unwrap_or_default();
        let training = content(jobs, &owner, "training_file", &training_file)?;
        let validation_file = self.validation_file.filter(|id| !id.is_empty());
        let validation = validation_file.as_deref();
        let validation = validation.map(|id| content(jobs, &owner, "validation_file", id)).transpose()?;
        let max = context.key().and_then(|key| key.max_jobs).unwrap_or(jobs.options.max_jobs_per_key);
        let unfinished = jobs.collection.list(&owner).into_iter().filter(|job| !job.value.status.is_final());
        if unfinished.count() as u64 >= max {
            return Err(ApiError::too_many_jobs(max));
        }
        let job = FineTuningJob {
            model: served.name.clone(),
            training_file,
            validation_file,
            suffix: self.suffix,
            seed: self.seed,
            method: self.method,
            hyperparameters: self.hyperparameters,
            metadata: self.metadata,
            status: Status::Queued,
            updated_at: unix_time(),
            error: None,
            steps: None,
            trained_tokens: None,
            fine_tuned_model: None,
            is_deleted: false,
            result_file: None,
        };
        let (jobs, is_legacy) = (Arc::clone(jobs), self.is_legacy);
        app.blocking(move || {
            let entry = jobs.collection.create(&owner, |folder| {
                link(&training, &folder.join(TRAINING))?;
                validation.as_deref().map_or(Ok(()), |path| link(path, &folder.join(VALIDATION)))?;
                Ok(job)
            })?;
            let id = if is_legacy { legacy_id(&entry.id) } else { entry.id.clone() };
            let queue = jobs.queue_number(&entry.id);
            jobs.tell(&entry.id, JobEvent::message(Level::Info, format!("Created fine-tune: {id}")));
            let enqueued = format!("Fine-tune enqueued. Queue number: {queue}");
            jobs.tell(&entry.id, JobEvent::message(Level::Info, enqueued));
            jobs.wake();
            Ok(entry)
        })
        .await
    }
}

/// Where the content of an owner's file is.
fn content(jobs: &Jobs, owner: &str, param: &str, id: &str) -> Result<PathBuf, ApiError> {
    if id.is_empty() {
        return Err(ApiError::invalid_param(param, "missing, expected the id of a file"));
    }
    let Some(file) = jobs.files.get(owner, id) else {
        return Err(ApiError::invalid_param(param, format!("No such File object: {id:?}")));
    };
    match file.value.purpose.as_str() {
        purpose::FINE_TUNE => Ok(jobs.files.path(&file)),
        other => {
            let expected = format!("found a file for {other}, expected one for {}", purpose::FINE_TUNE);
            Err(ApiError::invalid_param(param, expected))
        }
    }
}

/// Gives a file a second name, or where the file system has no links, a copy: a job has its data until it
/// ends.
fn link(from: &Path, to: &Path) -> crate::Result<()> {
    let linked = fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop));
    linked.map_err(|source| Error::Io { path: to.into(), action: "write", source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_that_cannot_be_in_a_path_are_refused() {
        for suffix in ["letters", "a", "My-model_1.2", &"x".repeat(64)] {
            assert!(check_suffix(Some(suffix)).is_ok(), "{suffix}");
        }
        for suffix in ["", "a:b", "a/b", "a b", "é", &"x".repeat(65)] {
            assert!(check_suffix(Some(suffix)).is_err(), "{suffix}");
        }
    }
}
