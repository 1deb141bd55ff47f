//! Hyperparameters: as they are asked for, what stands for `auto`, and the settings that follow.

use crate::checkpoint::adapter::{AdapterConfig, Modules};
use crate::server::error::ApiError;
use crate::train::{Length, Scope, Settings};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::ops::RangeInclusive;
use utoipa::ToSchema;

/// Ranges of what may be asked for.
const N_EPOCHS: RangeInclusive<u64> = 1..=50;
const BATCH_SIZE: RangeInclusive<u64> = 1..=256;
const MAX_MULTIPLIER: f64 = 1000.0;

/// The part of the examples that makes a batch.
const BATCH_SHARE: f64 = 0.002;
/// The learning rates that a multiplier of 1 stands for.
const LORA_LEARNING_RATE: f32 = 1e-3;
const FULL_LEARNING_RATE: f32 = 1e-4;
/// The rank of an adapter, and what scales it.
const LORA_R: usize = 8;
const LORA_ALPHA: f64 = 16.0;

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// A LoRA adapter.
    Lora,
    /// All weights.
    Full,
}

/// The fields of a request: each a number, `auto`, or absent.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub struct HyperparameterFields {
    /// How often the examples are read, 1 to 50, or `auto`.
    pub n_epochs: Option<Value>,
    /// The examples of a step, 1 to 256, or `auto`.
    pub batch_size: Option<Value>,
    /// What the learning rate is multiplied with, or `auto`.
    pub learning_rate_multiplier: Option<Value>,
}

/// Hyperparameters; `None` stands for `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hyperparameters {
    /// How often the examples are read.
    pub n_epochs: Option<u64>,
    /// The examples of a step.
    pub batch_size: Option<u64>,
    /// What the learning rate is multiplied with.
    pub learning_rate_multiplier: Option<f64>,
    /// How much predicting a token of a prompt counts, beside one of a completion.
    pub prompt_loss_weight: f32,
}

impl HyperparameterFields {
    /// Checks what a request has in the field `param`.
    ///
    /// # Errors
    /// 400 that names the field.
    pub fn validated(&self, param: &str) -> Result<Hyperparameters, ApiError> {
        let path = |name: &str| if param.is_empty() { name.to_string() } else { format!("{param}.{name}") };
        let integer = |name: &str, value: &Option<Value>, range: RangeInclusive<u64>| {
            let expected = format!("auto or an integer from {} to {}", range.start(), range.end());
            number_or_auto(&path(name), value, &expected, |value| {
                value.as_u64().filter(|n| range.contains(n))
            })
        };
        let name = "learning_rate_multiplier";
        let multiplier = |value: &Value| value.as_f64().filter(|x| *x > 0.0 && *x <= MAX_MULTIPLIER);
        let expected = format!("auto or a number above 0, at most {MAX_MULTIPLIER}");
        Ok(Hyperparameters {
            n_epochs: integer("n_epochs", &self.n_epochs, N_EPOCHS)?,
            batch_size: integer("batch_size", &self.batch_size, BATCH_SIZE)?,
            learning_rate_multiplier: number_or_auto(
                &path(name),
                &self.learning_rate_multiplier,
                &expected,
                multiplier,
            )?,
            prompt_loss_weight: DEFAULT_PROMPT_LOSS_WEIGHT,
        })
    }
}

/// How much a token of a prompt counts unless a request says otherwise.
pub const DEFAULT_PROMPT_LOSS_WEIGHT: f32 = 0.01;

fn number_or_auto<T>(
    param: &str,
    value: &Option<Value>,
    expected: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Option<T>, ApiError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(auto)) if auto == "auto" => Ok(None),
        Some(value) => match read(value) {
            Some(number) => Ok(Some(number)),
            None => Err(ApiError::invalid_param(param, format!("found {value}, expected {expected}"))),
        },
    }
}

impl Hyperparameters {
    /// The hyperparameters with numbers in place of `auto`, for so many examples: 3 epochs of fewer than
    /// 1,000, 2 of fewer than 10,000, else 1; batches of 0.2 % of them, at least 1 and at most 256.
    pub fn resolved(self, n_examples: usize) -> Self {
        let n_epochs = match n_examples {
            0..1_000 => 3,
            1_000..10_000 => 2,
            _ => 1,
        };
        let batch_size = (n_examples as f64 * BATCH_SHARE).round() as u64;
        Self {
            n_epochs: self.n_epochs.or(Some(n_epochs)),
            batch_size: self.batch_size.or(Some(batch_size.clamp(*BATCH_SIZE.start(), *BATCH_SIZE.end()))),
            learning_rate_multiplier: self.learning_rate_multiplier.or(Some(1.0)),
            ..self
        }
    }

    /// The settings of a run with these numbers, for examples of so many tokens: `hornbook finetune` with the
    /// same settings and data gives the same model.
    pub fn settings(self, method: Method, base: &str, seed: u64, tokens_per_example: f64) -> Settings {
        let batch_size = self.batch_size.unwrap_or(1);
        let multiplier = self.learning_rate_multiplier.unwrap_or(1.0) as f32;
        let batch_tokens = ((batch_size as f64 * tokens_per_example).round() as usize).max(1);
        let (scope, learning_rate) = match method {
            Method::Lora => {
                let lora = AdapterConfig {
                    base_model_name_or_path: Some(base.into()),
                    r: LORA_R,
                    lora_alpha: LORA_ALPHA,
                    target_modules: Some(Modules::gpt2_default()),
                    ..AdapterConfig::default()
                };
                (Scope::Lora(Box::new(lora)), LORA_LEARNING_RATE)
            }
            Method::Full => (Scope::All, FULL_LEARNING_RATE),
        };
        Settings {
            scope,
            length: Length::Epochs(self.n_epochs.unwrap_or(1)),
            batch_tokens,
            micro_batch_tokens: batch_tokens, // or less, if there is not the memory
            learning_rate: learning_rate * multiplier,
            seed,
            ..Settings::default()
        }
    }

    /// The command that trains the same model.
    pub fn command(settings: &Settings, base: &str) -> String {
        let lora = match settings.scope {
            Scope::Lora(_) => format!(" --lora {LORA_R}:{LORA_ALPHA}"),
            _ => String::new(),
        };
        let &Settings { batch_tokens, learning_rate, seed, length, .. } = settings;
        let (Length::Epochs(epochs) | Length::Tokens(epochs)) = length;
        format!(
            "hornbook finetune --model {base}{lora} --epochs {epochs} --batch {batch_tokens} --learning-rate \
             {learning_rate} --seed {seed}"
        )
    }

    /// The three of the API.
    pub fn to_json(self) -> Value {
        let auto = |value: Option<Value>| value.unwrap_or_else(|| json!("auto"));
        json!({
            "n_epochs": auto(self.n_epochs.map(Value::from)),
            "batch_size": auto(self.batch_size.map(Value::from)),
            "learning_rate_multiplier": auto(self.learning_rate_multiplier.map(Value::from)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validated(value: Value) -> Result<Hyperparameters, ApiError> {
        let fields: HyperparameterFields = serde_json::from_value(value).unwrap();
        fields.validated("hyperparameters")
    }

    #[test]
    fn numbers_and_auto_are_read_and_others_refused_by_name() {
        let given = validated(json!({"n_epochs": 4, "batch_size": "auto"})).unwrap();
        assert_eq!((given.n_epochs, given.batch_size, given.learning_rate_multiplier), (Some(4), None, None));
        for (field, value) in [
            ("n_epochs", json!(0)),
            ("n_epochs", json!(51)),
            ("n_epochs", json!("many")),
            ("batch_size", json!(257)),
            ("batch_size", json!(1.5)),
            ("learning_rate_multiplier", json!(0)),
            ("learning_rate_multiplier", json!(-1.0)),
            ("learning_rate_multiplier", json!([])),
        ] {
            let error = validated(json!({field: value})).unwrap_err().json();
            let expected = format!("hyperparameters.{field}: found");
            assert!(error.contains(&expected) && error.contains("expected auto or"), "{error}");
        }
    }

    #[test]
    fn auto_follows_the_number_of_examples() {
        let auto = validated(json!({})).unwrap();
        for (n, epochs, batch) in [(1, 3, 1), (999, 3, 2), (1_000, 2, 2), (10_000, 1, 20), (200_000, 1, 256)]
        {
            let resolved = auto.resolved(n);
            assert_eq!((resolved.n_epochs, resolved.batch_size), (Some(epochs), Some(batch)), "{n}");
        }
        assert_eq!(validated(json!({"n_epochs": 7})).unwrap().resolved(5).n_epochs, Some(7));
    }

    #[test]
    fn command_names_what_is_not_the_default() {
        let given = validated(json!({"n_epochs": 4, "batch_size": 2, "learning_rate_multiplier": 0.5}));
        let settings = given.unwrap().settings(Method::Lora, "fable", 7, 41.3);
        assert_eq!(
            Hyperparameters::command(&settings, "fable"),
            "hornbook finetune --model fable --lora 8:16 --epochs 4 --batch 83 --learning-rate 0.0005 \
             --seed 7"
        );
    }
}
