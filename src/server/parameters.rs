//! Request parameters shared by completions and chat: sampling, stopping and streaming.

use super::error::ApiError;
use super::middleware::random_u64;
use crate::generate::Options;
use crate::sampling::SamplingParams;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use utoipa::ToSchema;

/// Maximum number of choices per prompt.
const MAX_N: usize = 128;
/// Maximum number of stop strings.
const MAX_STOP: usize = 4;

/// The shared fields. All may be absent or null, which is the same.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct Parameters {
    /// Maximum number of tokens to generate.
    max_tokens: Option<i64>,
    /// The newer name of `max_tokens`; takes precedence over it.
    max_completion_tokens: Option<i64>,
    /// Sampling temperature, 0 to 2; 0 is greedy. Default 1, unless the model has its own.
    temperature: Option<f32>,
    /// Nucleus sampling, 0 to 1: keep the most likely tokens up to this cumulative probability. Default 1,
    /// unless the model has its own.
    top_p: Option<f32>,
    /// Number of choices per prompt, 1 to 128. Default 1.
    n: Option<i64>,
    /// Stream the response as server-sent events.
    stream: Option<bool>,
    /// Options of the stream.
    stream_options: Option<StreamOptions>,
    /// Up to four stop strings, at which generation ends; they are not returned.
    stop: Option<Stop>,
    /// -2 to 2: subtracted from the logits of tokens generated before.
    presence_penalty: Option<f32>,
    /// -2 to 2: subtracted once per occurrence.
    frequency_penalty: Option<f32>,
    /// Map from token ids to values added to their logits, -100 to 100.
    logit_bias: Option<BTreeMap<String, f32>>,
    /// Random seed; the same seed gives the same tokens.
    seed: Option<i64>,
    /// Hornbook extension: keep the k most likely tokens; 0 or -1 keeps all.
    top_k: Option<i64>,
    /// Hornbook extension: keep tokens with at least this fraction of the top token's probability.
    min_p: Option<f32>,
    /// Hornbook extension: locally typical sampling.
    typical_p: Option<f32>,
    /// Hornbook extension: divide the logits of tokens in the prompt and completion by this.
    repetition_penalty: Option<f32>,
    /// Hornbook extension: no n-gram of this size occurs twice.
    no_repeat_ngram_size: Option<i64>,
    /// Hornbook extension: minimum number of tokens before end-of-text may be generated.
    min_tokens: Option<i64>,
}

/// The `stream_options` field.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
pub struct StreamOptions {
    /// Send a final chunk with the usage and no choices.
    include_usage: Option<bool>,
}

/// One stop string, or several.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a string or a list of strings")]
pub enum Stop {
    /// One.
    One(String),
    /// Several.
    Several(Vec<String>),
}

/// The way a response is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ResponseMode {
    /// As one JSON object.
    Complete,
    /// As server-sent events.
    Stream {
        /// Whether to send a final chunk with the usage.
        include_usage: bool,
    },
}

/// Checks that an integer field is in a range; `None` if the field is absent.
///
/// # Errors
/// 400 if it is out of range.
pub fn integer_in_range(
    name: &str,
    value: Option<i64>,
    range: RangeInclusive<usize>,
) -> Result<Option<usize>, ApiError> {
    let Some(value) = value else { return Ok(None) };
    let inside = usize::try_from(value).ok().filter(|value| range.contains(value));
    match inside {
        Some(value) => Ok(Some(value)),
        None if *range.end() == usize::MAX => {
            Err(out_of_range(name, value, format!("an integer of at least {}", range.start())))
        }
        None => {
            Err(out_of_range(name, value, format!("an integer from {} to {}", range.start(), range.end())))
        }
    }
}

fn out_of_range(name: &str, found: impl std::fmt::Display, expected: impl std::fmt::Display) -> ApiError {
    ApiError::invalid_param(name, format!("found {found}, expected {expected}"))
}

impl Parameters {
    /// Returns the maximum number of tokens, and the name of the field that sets it.
    pub fn max_tokens(&self) -> Result<(Option<usize>, &'static str), ApiError> {
        let (value, name) = match self.max_completion_tokens {
            Some(n) => (Some(n), "max_completion_tokens"),
            None => (self.max_tokens, "max_tokens"),
        };
        Ok((integer_in_range(name, value, 0..=usize::MAX)?, name))
    }

    /// Returns the number of choices per prompt.
    pub fn n(&self) -> Result<usize, ApiError> {
        Ok(integer_in_range("n", self.n, 1..=MAX_N)?.unwrap_or(1))
    }

    /// Returns how to send the response.
    pub fn response_mode(&self) -> Result<ResponseMode, ApiError> {
        match (self.stream.unwrap_or(false), self.stream_options) {
            (true, options) => Ok(ResponseMode::Stream {
                include_usage: options.and_then(|options| options.include_usage).unwrap_or(false),
            }),
            (false, None) => Ok(ResponseMode::Complete),
            (false, Some(_)) => Err(ApiError::invalid_param(
                "stream_options",
                "found options, expected none unless stream is true",
            )),
        }
    }

    /// Returns the generation options, with `max_tokens` already resolved and `default` for absent fields.
    ///
    /// # Errors
    /// 400 for a field that is out of range.
    pub fn options(
        &self,
        default: SamplingParams,
        vocab_size: usize,
        max_tokens: usize,
    ) -> Result<Options, ApiError> {
        let float_in_range = |name: &str, value: Option<f32>, default: f32, from: f32, to: f32| match value {
            None => Ok(default),
            Some(value) if (from..=to).contains(&value) => Ok(value),
            Some(value) => Err(out_of_range(name, value, format!("a number from {from} to {to}"))),
        };
        let sampling = SamplingParams {
            temperature: float_in_range("temperature", self.temperature, default.temperature, 0.0, 2.0)?,
            top_p: float_in_range("top_p", self.top_p, default.top_p, 0.0, 1.0)?,
            presence_penalty: float_in_range("presence_penalty", self.presence_penalty, 0.0, -2.0, 2.0)?,
            frequency_penalty: float_in_range("frequency_penalty", self.frequency_penalty, 0.0, -2.0, 2.0)?,
            logit_bias: self.logit_bias(vocab_size)?,
            // Without a seed, a random one; a negative seed is reinterpreted as unsigned.
            seed: self.seed.map_or_else(random_u64, |seed| seed as u64),
            top_k: integer_in_range("top_k", self.top_k.filter(|k| *k != -1), 0..=usize::MAX)?
                .unwrap_or(default.top_k),
            min_p: self.min_p.unwrap_or(default.min_p),
            typical_p: self.typical_p.unwrap_or(default.typical_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(default.repetition_penalty),
            no_repeat_ngram_size: integer_in_range(
                "no_repeat_ngram_size",
                self.no_repeat_ngram_size,
                0..=usize::MAX,
            )?
            .unwrap_or(default.no_repeat_ngram_size),
            min_tokens: integer_in_range("min_tokens", self.min_tokens, 0..=usize::MAX)?
                .unwrap_or(default.min_tokens),
            stop_ids: vec![],
        };
        Ok(Options { sampling, max_tokens: Some(max_tokens), stop: self.stop()?, ..Options::default() })
    }

    fn logit_bias(&self, vocab_size: usize) -> Result<Vec<(u32, f32)>, ApiError> {
        let biases = self.logit_bias.iter().flatten().map(|(id, &bias)| {
            let token_id = id.parse().ok().filter(|&id: &u32| (id as usize) < vocab_size);
            let Some(token_id) = token_id else {
                let expected = format!("a token id from 0 to {}", vocab_size - 1);
                return Err(out_of_range("logit_bias", format!("token '{id}'"), expected));
            };
            match (-100.0..=100.0).contains(&bias) {
                true => Ok((token_id, bias)),
                false => Err(out_of_range(
                    "logit_bias",
                    format!("{bias} for token {id}"),
                    "a number from -100 to 100",
                )),
            }
        });
        biases.collect()
    }

    fn stop(&self) -> Result<Vec<String>, ApiError> {
        let stop = match &self.stop {
            None => return Ok(vec![]),
            Some(Stop::One(stop)) => vec![stop.clone()],
            Some(Stop::Several(stop)) => stop.clone(),
        };
        if stop.len() > MAX_STOP {
            return Err(out_of_range(
                "stop",
                format!("{} strings", stop.len()),
                format!("at most {MAX_STOP}"),
            ));
        }
        match stop.iter().any(String::is_empty) {
            true => Err(out_of_range("stop", "an empty string", "strings of at least one character")),
            false => Ok(stop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parameters(value: Value) -> Parameters {
        super::super::json::from_value(&value).unwrap()
    }

    fn error_message(value: Value) -> String {
        let parameters = parameters(value);
        let error = parameters
            .max_tokens()
            .and_then(|_| parameters.n())
            .and_then(|_| parameters.response_mode())
            .and_then(|_| parameters.options(SamplingParams::default(), 10, 1))
            .unwrap_err();
        let error: Value = serde_json::from_str(&error.json()).unwrap();
        let (message, param) =
            (error["error"]["message"].as_str().unwrap(), error["error"]["param"].as_str());
        assert!(message.starts_with(param.unwrap()), "{message}");
        message.to_string()
    }

    #[test]
    fn null_and_absent_fields_have_the_defaults() {
        let nulls = json!({"temperature": null, "n": null, "stop": null, "logit_bias": null, "seed": null,
            "stream": null, "stream_options": null, "max_tokens": null, "top_k": null});
        for parameters in [
            parameters(nulls),
            parameters(json!({})),
            parameters(json!({"logit_bias": {}, "stop": [], "top_k": -1})),
        ] {
            assert_eq!((parameters.n().unwrap(), parameters.max_tokens().unwrap().0), (1, None));
            assert_eq!(parameters.response_mode().unwrap(), ResponseMode::Complete);
            let options = parameters.options(SamplingParams::default(), 10, 7).unwrap();
            let seed = options.sampling.seed;
            assert_eq!(options.sampling, SamplingParams { seed, ..SamplingParams::default() });
            assert_eq!((options.max_tokens, options.stop.len()), (Some(7), 0));
        }
    }

    #[test]
    fn given_fields_reach_the_options() {
        let parameters =
            parameters(json!({"temperature": 0, "top_p": 0.5, "seed": -1, "stop": "x", "stream": true,
            "stream_options": {"include_usage": true, "include_obfuscation": true},
            "max_tokens": 3, "max_completion_tokens": 5, "logit_bias": {"9": -100}, "top_k": 4}));
        assert_eq!(parameters.max_tokens().unwrap(), (Some(5), "max_completion_tokens"));
        assert_eq!(parameters.response_mode().unwrap(), ResponseMode::Stream { include_usage: true });
        let options = parameters.options(SamplingParams::default(), 10, 7).unwrap();
        assert_eq!((options.sampling.temperature, options.sampling.seed), (0.0, u64::MAX));
        assert_eq!((options.sampling.logit_bias, options.stop), (vec![(9, -100.0)], vec!["x".to_string()]));
        assert_eq!((options.sampling.top_p, options.sampling.top_k), (0.5, 4));
    }

    #[test]
    fn out_of_range_field_error_names_the_field() {
        assert_eq!(error_message(json!({"n": 129})), "n: found 129, expected an integer from 1 to 128");
        assert_eq!(error_message(json!({"n": 0})), "n: found 0, expected an integer from 1 to 128");
        assert_eq!(
            error_message(json!({"max_tokens": -1})),
            "max_tokens: found -1, expected an integer of at least 0"
        );
        assert!(
            error_message(json!({"temperature": 2.5})).contains("found 2.5, expected a number from 0 to 2")
        );
        assert!(error_message(json!({"temperature": 1e300})).contains("temperature: found inf"));
        assert!(error_message(json!({"top_p": -0.1})).starts_with("top_p"));
        assert!(error_message(json!({"frequency_penalty": 3})).starts_with("frequency_penalty"));
        assert!(
            error_message(json!({"logit_bias": {"10": 1}}))
                .contains("token '10', expected a token id from 0 to 9")
        );
        assert!(error_message(json!({"logit_bias": {"a": 1}})).contains("token 'a'"));
        assert!(error_message(json!({"logit_bias": {"1": 101}})).contains("found 101 for token 1"));
        assert!(
            error_message(json!({"stop": ["a", "b", "c", "d", "e"]}))
                .contains("5 strings, expected at most 4")
        );
        assert!(error_message(json!({"stop": [""]})).contains("an empty string"));
        assert!(
            error_message(json!({"stream_options": {"include_usage": true}})).starts_with("stream_options")
        );
        assert!(error_message(json!({"top_k": -2})).starts_with("top_k"));
    }
}
