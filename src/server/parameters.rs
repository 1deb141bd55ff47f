//! What completions and chat have in common: how tokens are chosen, when a text ends, how it is sent.

use super::error::ApiError;
use super::headers::random;
use crate::generate::Options;
use crate::sampling::SamplingParams;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use utoipa::ToSchema;

/// The most choices of one prompt.
const MAX_N: usize = 128;
/// The most stop strings.
const MAX_STOP: usize = 4;

/// The fields. Each may be left out or null, which is the same.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct Parameters {
    /// The most tokens to write.
    max_tokens: Option<i64>,
    /// The newer name of `max_tokens`, which it comes before.
    max_completion_tokens: Option<i64>,
    /// 0 to 2; 0 takes the likeliest token. Default 1.
    temperature: Option<f32>,
    /// 0 to 1: keep the likeliest tokens that together are this probable. Default 1.
    top_p: Option<f32>,
    /// Choices per prompt, 1 to 128. Default 1.
    n: Option<i64>,
    /// Send the text as it is written.
    stream: Option<bool>,
    /// What a stream holds besides.
    stream_options: Option<StreamOptions>,
    /// Up to four texts that end a completion; they are not part of it.
    stop: Option<Stop>,
    /// -2 to 2: taken off the logits of tokens written before.
    presence_penalty: Option<f32>,
    /// -2 to 2: taken off once for each time.
    frequency_penalty: Option<f32>,
    /// Token ids, and what is added to their logits, -100 to 100.
    logit_bias: Option<BTreeMap<String, f32>>,
    /// The same seed, the same tokens.
    seed: Option<i64>,
    /// Hornbook's own: keep the k likeliest tokens; 0 or -1 keeps all.
    top_k: Option<i64>,
    /// Hornbook's own: keep tokens this times as probable as the likeliest.
    min_p: Option<f32>,
    /// Hornbook's own: locally typical sampling.
    typical_p: Option<f32>,
    /// Hornbook's own: divide the logits of tokens in prompt and completion.
    repetition_penalty: Option<f32>,
    /// Hornbook's own: no run of this many tokens comes twice.
    no_repeat_ngram_size: Option<i64>,
    /// Hornbook's own: the fewest tokens before the text may end by itself.
    min_tokens: Option<i64>,
}

/// `stream_options`.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
pub struct StreamOptions {
    /// End with a chunk of no choices that has the usage.
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

/// How an answer is to be sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Send {
    /// In one piece.
    Whole,
    /// As it comes, and with a chunk of usage at the end or without.
    Stream {
        /// Whether that chunk is wanted.
        usage: bool,
    },
}

/// A whole number in a range; none where it is not given.
pub fn whole(
    name: &str,
    value: Option<i64>,
    range: RangeInclusive<usize>,
) -> Result<Option<usize>, ApiError> {
    let Some(value) = value else { return Ok(None) };
    let inside = usize::try_from(value).ok().filter(|value| range.contains(value));
    match inside {
        Some(value) => Ok(Some(value)),
        None if *range.end() == usize::MAX => {
            Err(out_of_range(name, value, format!("a whole number from {} up", range.start())))
        }
        None => Err(out_of_range(
            name,
            value,
            format!("a whole number from {} to {}", range.start(), range.end()),
        )),
    }
}

fn out_of_range(name: &str, found: impl std::fmt::Display, expected: impl std::fmt::Display) -> ApiError {
    ApiError::param(name, format!("found {found}, expected {expected}"))
}

impl Parameters {
    /// The most tokens to write, and the field that says so.
    pub fn max_tokens(&self) -> Result<(Option<usize>, &'static str), ApiError> {
        let (value, name) = match self.max_completion_tokens {
            Some(n) => (Some(n), "max_completion_tokens"),
            None => (self.max_tokens, "max_tokens"),
        };
        Ok((whole(name, value, 0..=usize::MAX)?, name))
    }

    /// Choices per prompt.
    pub fn n(&self) -> Result<usize, ApiError> {
        Ok(whole("n", self.n, 1..=MAX_N)?.unwrap_or(1))
    }

    /// How to send the answer.
    pub fn send(&self) -> Result<Send, ApiError> {
        match (self.stream.unwrap_or(false), self.stream_options) {
            (true, options) => {
                Ok(Send::Stream { usage: options.and_then(|options| options.include_usage).unwrap_or(false) })
            }
            (false, None) => Ok(Send::Whole),
            (false, Some(_)) => Err(ApiError::param(
                "stream_options",
                "found options, expected none where stream is not true",
            )),
        }
    }

    /// Everything the sampler and the loop are told; `max_tokens` is settled already.
    pub fn options(&self, vocab_size: usize, max_tokens: usize) -> Result<Options, ApiError> {
        let number = |name: &str, value: Option<f32>, default: f32, from: f32, to: f32| match value {
            None => Ok(default),
            Some(value) if (from..=to).contains(&value) => Ok(value),
            Some(value) => Err(out_of_range(name, value, format!("a number from {from} to {to}"))),
        };
        let off = SamplingParams::default();
        let sampling = SamplingParams {
            temperature: number("temperature", self.temperature, 1.0, 0.0, 2.0)?,
            top_p: number("top_p", self.top_p, 1.0, 0.0, 1.0)?,
            presence_penalty: number("presence_penalty", self.presence_penalty, 0.0, -2.0, 2.0)?,
            frequency_penalty: number("frequency_penalty", self.frequency_penalty, 0.0, -2.0, 2.0)?,
            logit_bias: self.logit_bias(vocab_size)?,
            // A new one each time, unless the client cares; which numbers come of it is the bits' affair.
            seed: self.seed.map_or_else(random, |seed| seed as u64),
            top_k: whole("top_k", self.top_k.filter(|k| *k != -1), 0..=usize::MAX)?.unwrap_or(off.top_k),
            min_p: self.min_p.unwrap_or(off.min_p),
            typical_p: self.typical_p.unwrap_or(off.typical_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(off.repetition_penalty),
            no_repeat_ngram_size: whole("no_repeat_ngram_size", self.no_repeat_ngram_size, 0..=usize::MAX)?
                .unwrap_or(off.no_repeat_ngram_size),
            min_tokens: whole("min_tokens", self.min_tokens, 0..=usize::MAX)?.unwrap_or(off.min_tokens),
            stop_ids: vec![],
        };
        Ok(Options { sampling, max_tokens: Some(max_tokens), stop: self.stop()?, ..Options::default() })
    }

    fn logit_bias(&self, vocab_size: usize) -> Result<Vec<(u32, f32)>, ApiError> {
        let biased = self.logit_bias.iter().flatten().map(|(id, &bias)| {
            let known = id.parse().ok().filter(|&id: &u32| (id as usize) < vocab_size);
            let Some(known) = known else {
                let expected = format!("a token id from 0 to {}", vocab_size - 1);
                return Err(out_of_range("logit_bias", format!("token '{id}'"), expected));
            };
            match (-100.0..=100.0).contains(&bias) {
                true => Ok((known, bias)),
                false => Err(out_of_range(
                    "logit_bias",
                    format!("{bias} for token {id}"),
                    "a number from -100 to 100",
                )),
            }
        });
        biased.collect()
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

    fn of(value: Value) -> Parameters {
        super::super::json::read(&value).unwrap()
    }

    fn refused(value: Value) -> String {
        let parameters = of(value);
        let error = parameters
            .max_tokens()
            .and_then(|_| parameters.n())
            .and_then(|_| parameters.send())
            .and_then(|_| parameters.options(10, 1))
            .unwrap_err();
        let error: Value = serde_json::from_str(&error.json()).unwrap();
        let (message, param) =
            (error["error"]["message"].as_str().unwrap(), error["error"]["param"].as_str());
        assert!(message.starts_with(param.unwrap()), "{message}");
        message.to_string()
    }

    #[test]
    fn nulls_and_absence_are_the_defaults() {
        let nulls = json!({"temperature": null, "n": null, "stop": null, "logit_bias": null, "seed": null,
            "stream": null, "stream_options": null, "max_tokens": null, "top_k": null});
        for parameters in [of(nulls), of(json!({})), of(json!({"logit_bias": {}, "stop": [], "top_k": -1}))] {
            assert_eq!((parameters.n().unwrap(), parameters.max_tokens().unwrap().0), (1, None));
            assert_eq!(parameters.send().unwrap(), Send::Whole);
            let options = parameters.options(10, 7).unwrap();
            let seed = options.sampling.seed;
            assert_eq!(options.sampling, SamplingParams { seed, ..SamplingParams::default() });
            assert_eq!((options.max_tokens, options.stop.len()), (Some(7), 0));
        }
    }

    #[test]
    fn what_is_given_is_passed_on() {
        let parameters = of(json!({"temperature": 0, "top_p": 0.5, "seed": -1, "stop": "x", "stream": true,
            "stream_options": {"include_usage": true, "include_obfuscation": true},
            "max_tokens": 3, "max_completion_tokens": 5, "logit_bias": {"9": -100}, "top_k": 4}));
        assert_eq!(parameters.max_tokens().unwrap(), (Some(5), "max_completion_tokens"));
        assert_eq!(parameters.send().unwrap(), Send::Stream { usage: true });
        let options = parameters.options(10, 7).unwrap();
        assert_eq!((options.sampling.temperature, options.sampling.seed), (0.0, u64::MAX));
        assert_eq!((options.sampling.logit_bias, options.stop), (vec![(9, -100.0)], vec!["x".to_string()]));
        assert_eq!((options.sampling.top_p, options.sampling.top_k), (0.5, 4));
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        assert_eq!(refused(json!({"n": 129})), "n: found 129, expected a whole number from 1 to 128");
        assert_eq!(refused(json!({"n": 0})), "n: found 0, expected a whole number from 1 to 128");
        assert_eq!(
            refused(json!({"max_tokens": -1})),
            "max_tokens: found -1, expected a whole number from 0 up"
        );
        assert!(refused(json!({"temperature": 2.5})).contains("found 2.5, expected a number from 0 to 2"));
        assert!(refused(json!({"temperature": 1e300})).contains("temperature: found inf"));
        assert!(refused(json!({"top_p": -0.1})).starts_with("top_p"));
        assert!(refused(json!({"frequency_penalty": 3})).starts_with("frequency_penalty"));
        assert!(
            refused(json!({"logit_bias": {"10": 1}})).contains("token '10', expected a token id from 0 to 9")
        );
        assert!(refused(json!({"logit_bias": {"a": 1}})).contains("token 'a'"));
        assert!(refused(json!({"logit_bias": {"1": 101}})).contains("found 101 for token 1"));
        assert!(
            refused(json!({"stop": ["a", "b", "c", "d", "e"]})).contains("5 strings, expected at most 4")
        );
        assert!(refused(json!({"stop": [""]})).contains("an empty string"));
        assert!(refused(json!({"stream_options": {"include_usage": true}})).starts_with("stream_options"));
        assert!(refused(json!({"top_k": -2})).starts_with("top_k"));
    }
}
