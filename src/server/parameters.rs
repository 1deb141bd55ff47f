//! Request parameters shared by all routes that generate text: sampling, stopping and streaming.

use super::completion_limits::MaxTokens;
use super::error::ApiError;
use super::json::from_value;
use super::middleware::random_u64;
use super::ranges::{integer_in_range, out_of_range, token_ids};
use crate::Hornbook;
use crate::generate::Options;
use crate::sampling::{Overrides, SamplingParams, Scalar};
use serde::Deserialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Maximum number of stop strings.
const MAX_STOP: usize = 4;
/// Maximum size of a stop string.
const MAX_STOP_BYTES: usize = 4096;
/// Maximum number of token ids in `logit_bias`, `stop_token_ids` and `allowed_token_ids`, times the number of
/// completions, each of which has a copy.
const MAX_COPIED_IDS: usize = 1 << 19;
/// Maximum number of bad words.
const MAX_BAD_WORDS: usize = 256;
/// Maximum length of a bad word.
const MAX_BAD_WORD_BYTES: usize = 128;

/// The shared fields. All may be absent or null, which is the same.
// Those of the table of sampling parameters are `Overrides`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct Parameters {
    /// Stream the response as server-sent events.
    stream: Option<bool>,
    /// Options of the stream.
    stream_options: Option<StreamOptions>,
    /// Up to four stop strings, at which generation ends; they are not returned.
    stop: Option<Stop>,
    /// Map from token ids to values added to their logits, -100 to 100.
    logit_bias: Option<BTreeMap<String, f32>>,
    /// Random seed; the same seed gives the same tokens.
    seed: Option<i64>,
    /// Hornbook extension: minimum number of tokens before end-of-text or one of `stop_token_ids` may be
    /// generated.
    min_tokens: Option<i64>,
    /// Hornbook extension: token ids at which generation ends, as at end-of-text; their text is not returned.
    stop_token_ids: Option<Vec<u32>>,
    /// Hornbook extension: end-of-text is never generated, so that `max_tokens` tokens are.
    ignore_eos: Option<bool>,
    /// Hornbook extension: the only token ids that may be generated.
    allowed_token_ids: Option<Vec<u32>>,
    /// Hornbook extension: up to 256 words or phrases that are never generated.
    bad_words: Option<Vec<String>>,
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

/// Validates the fields of [`Parameters`] and [`PARAMETERS`](crate::sampling::PARAMETERS) in a request.
///
/// # Errors
/// 400 that names the field.
pub fn validate(request: &serde_json::Value) -> Result<(), ApiError> {
    from_value::<Overrides<i64>>(request)?;
    from_value::<Parameters>(request).map(drop)
}

impl Parameters {
    /// Checks that the lists of token ids are not too long for so many completions.
    ///
    /// # Errors
    /// 400 that names the longest.
    pub fn check_copies(&self, completions: usize) -> Result<(), ApiError> {
        let len = |ids: &Option<Vec<u32>>| ids.as_ref().map_or(0, Vec::len);
        let lens = [
            ("logit_bias", self.logit_bias.as_ref().map_or(0, BTreeMap::len)),
            ("stop_token_ids", len(&self.stop_token_ids)),
            ("allowed_token_ids", len(&self.allowed_token_ids)),
        ];
        let max = MAX_COPIED_IDS / completions.max(1) / lens.len();
        match lens.into_iter().max_by_key(|(_, len)| *len) {
            Some((name, len)) if len > max => {
                let expected = format!("at most {max} with {completions} completions");
                Err(out_of_range(name, format!("{len} token ids"), expected))
            }
            _ => Ok(()),
        }
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

    /// Returns the generation options with the fields `given` that are numbers, and those of `sampling` in
    /// place of absent ones. Their `max_tokens` are those requested.
    ///
    /// # Errors
    /// 400 for a field that is out of range, and for `bad_words` without a tokenizer.
    pub fn options(
        &self,
        given: &Overrides<i64>,
        mut sampling: SamplingParams,
        hornbook: &Hornbook,
        max_tokens: MaxTokens,
    ) -> Result<Options, ApiError> {
        let vocab_size = hornbook.config().vocab_size;
        for (parameter, value) in given.iter() {
            let name = parameter.name;
            let value = match value {
                Scalar::Number(x) => {
                    let checked = parameter.api_range().map_or(Ok(()), |range| range.check(x));
                    checked.map_err(|expected| out_of_range(name, x, expected))?;
                    Scalar::Number(x)
                }
                Scalar::Count(-1) if name == "top_k" => continue, // vLLM's default
                Scalar::Count(n) => {
                    Scalar::Count(integer_in_range(name, Some(n), 0..=usize::MAX)?.unwrap_or_default())
                }
            };
            parameter.set(&mut sampling, value);
        }
        let sampling = SamplingParams {
            logit_bias: self.logit_bias(hornbook)?,
            // Without a seed, a random one; a negative seed is reinterpreted as unsigned.
            seed: self.seed.map_or_else(random_u64, |seed| seed as u64),
            min_tokens: self.min_tokens(hornbook.config().n_positions - 1, max_tokens)?,
            stop_ids: token_ids("stop_token_ids", self.stop_token_ids.as_deref(), vocab_size)?,
            bad_words_ids: self.bad_words_ids(hornbook)?,
            allowed_ids: self.allowed_ids(vocab_size)?,
            ..sampling
        };
        Ok(Options { sampling, max_tokens: max_tokens.requested, stop: self.stop()?, ..Options::default() })
    }

    /// Returns the minimum number of tokens; `most` may follow a prompt of one token.
    fn min_tokens(&self, most: usize, max_tokens: MaxTokens) -> Result<usize, ApiError> {
        let min_tokens = integer_in_range("min_tokens", self.min_tokens, 0..=most)?.unwrap_or(0);
        match max_tokens {
            MaxTokens { requested: Some(max), field } if min_tokens > max => {
                Err(out_of_range("min_tokens", min_tokens, format!("at most {field}, which is {max}")))
            }
            _ => Ok(min_tokens),
        }
    }

    fn allowed_ids(&self, vocab_size: usize) -> Result<Vec<u32>, ApiError> {
        let ids = token_ids("allowed_token_ids", self.allowed_token_ids.as_deref(), vocab_size)?;
        match self.allowed_token_ids.is_some() && ids.is_empty() {
            true => Err(out_of_range("allowed_token_ids", "an empty list", "at least one token id")),
            false => Ok(ids),
        }
    }

    /// Returns the token ids of each bad word at the start of a text and after a space, if that makes another
    /// token of its beginning. vLLM bans the second only if it has as many tokens as the first.
    fn bad_words_ids(&self, hornbook: &Hornbook) -> Result<Vec<Vec<u32>>, ApiError> {
        let words = self.bad_words.as_deref().unwrap_or_default();
        if words.is_empty() {
            return Ok(vec![]);
        }
        if words.len() > MAX_BAD_WORDS {
            let expected = format!("at most {MAX_BAD_WORDS}");
            return Err(out_of_range("bad_words", format!("{} words", words.len()), expected));
        }
        let Some(tokenizer) = hornbook.try_tokenizer() else {
            let message = "the model has no tokenizer; use logit_bias with token ids instead";
            return Err(ApiError::invalid_param("bad_words", message));
        };
        let mut sequences = vec![];
        for (i, word) in words.iter().enumerate() {
            let (name, word) = (format!("bad_words[{i}]"), word.trim_start());
            if word.is_empty() || word.len() > MAX_BAD_WORD_BYTES {
                let expected = format!("a word of 1 to {MAX_BAD_WORD_BYTES} bytes");
                return Err(out_of_range(&name, format!("{} bytes", word.len()), expected));
            }
            let encode = |text: &str| {
                tokenizer
                    .encode(text, false)
                    .map_err(|error| ApiError::invalid_param(&name, error.to_string()))
            };
            let (at_start, after_space) = (encode(word)?, encode(&format!(" {word}"))?);
            if after_space[0] != at_start[0] {
                sequences.push(after_space);
            }
            sequences.push(at_start);
        }
        Ok(sequences)
    }

    fn logit_bias(&self, hornbook: &Hornbook) -> Result<Vec<(u32, f32)>, ApiError> {
        let vocab_size = hornbook.config().vocab_size;
        let ignored_eos = hornbook.stop_ids().iter().filter(|_| self.ignore_eos == Some(true));
        let no_eos =
            ignored_eos.filter(|&&id| (id as usize) < vocab_size).map(|&id| Ok((id, f32::NEG_INFINITY)));
        let biases = self.logit_bias.iter().flatten().map(|(id, &bias)| {
            let is_number = id.bytes().all(|byte| byte.is_ascii_digit()); // `parse` would accept a plus sign
            let token_id = id.parse().ok().filter(|&id: &u32| is_number && (id as usize) < vocab_size);
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
        biases.chain(no_eos).collect()
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
        match stop.iter().map(String::len).find(|len| !(1..=MAX_STOP_BYTES).contains(len)) {
            Some(0) => Err(out_of_range("stop", "an empty string", "strings of at least one character")),
            Some(len) => {
                Err(out_of_range("stop", format!("{len} bytes"), format!("at most {MAX_STOP_BYTES} bytes")))
            }
            None => Ok(stop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[derive(Debug, Deserialize)]
    struct TestRequest {
        #[serde(flatten)]
        parameters: Parameters,
        #[serde(flatten)]
        sampling: Overrides<i64>,
    }

    impl super::super::json::RequestBody for TestRequest {}

    fn request(value: Value) -> TestRequest {
        super::super::json::from_value(&value).unwrap()
    }

    /// A model with token ids from 0 to 96 and without a tokenizer.
    fn options(request: &TestRequest, max_tokens: usize) -> Result<Options, ApiError> {
        let hornbook = Hornbook::open("tests/data/tiny-gelu-new").unwrap();
        let max_tokens = MaxTokens { requested: Some(max_tokens), field: "max_tokens" };
        request.parameters.options(&request.sampling, SamplingParams::default(), &hornbook, max_tokens)
    }

    fn error_message(value: Value) -> String {
        let request = request(value);
        let parameters = &request.parameters;
        let error = parameters.response_mode().and_then(|_| options(&request, 3)).unwrap_err();
        let error: Value = serde_json::from_str(&error.json()).unwrap();
        let (message, param) =
            (error["error"]["message"].as_str().unwrap(), error["error"]["param"].as_str());
        assert!(message.starts_with(param.unwrap()), "{message}");
        message.to_string()
    }

    #[test]
    fn null_and_absent_fields_have_the_defaults() {
        let nulls = json!({"temperature": null, "stop": null, "logit_bias": null, "seed": null,
            "stream": null, "stream_options": null, "top_k": null});
        for request in [nulls, json!({}), json!({"logit_bias": {}, "stop": [], "top_k": -1})].map(request) {
            let parameters = &request.parameters;
            assert_eq!(parameters.response_mode().unwrap(), ResponseMode::Complete);
            let options = options(&request, 7).unwrap();
            let seed = options.sampling.seed;
            assert_eq!(options.sampling, SamplingParams { seed, ..SamplingParams::default() });
            assert_eq!((options.max_tokens, options.stop.len()), (Some(7), 0));
        }
    }

    #[test]
    fn given_fields_reach_the_options() {
        let request =
            request(json!({"temperature": 0, "top_p": 0.5, "seed": -1, "stop": "x", "stream": true,
            "stream_options": {"include_usage": true, "include_obfuscation": true},
            "logit_bias": {"9": -100}, "top_k": 4}));
        let parameters = &request.parameters;
        assert_eq!(parameters.response_mode().unwrap(), ResponseMode::Stream { include_usage: true });
        let options = options(&request, 7).unwrap();
        assert_eq!((options.sampling.temperature, options.sampling.seed), (0.0, u64::MAX));
        assert_eq!((options.sampling.logit_bias, options.stop), (vec![(9, -100.0)], vec!["x".to_string()]));
        assert_eq!((options.sampling.top_p, options.sampling.top_k), (0.5, 4));
    }

    #[test]
    fn out_of_range_field_error_names_the_field() {
        assert!(
            error_message(json!({"temperature": 2.5})).contains("found 2.5, expected a number from 0 to 2")
        );
        assert!(error_message(json!({"temperature": 1e300})).contains("temperature: found inf"));
        assert!(error_message(json!({"top_p": -0.1})).starts_with("top_p"));
        assert!(error_message(json!({"frequency_penalty": 3})).starts_with("frequency_penalty"));
        assert!(
            error_message(json!({"logit_bias": {"97": 1}}))
                .contains("token '97', expected a token id from 0 to 96")
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
        for (body, message) in [
            (json!({"stop_token_ids": [97]}), "stop_token_ids: found 97, expected a token id from 0 to 96"),
            (
                json!({"allowed_token_ids": [1, 99]}),
                "allowed_token_ids: found 99, expected a token id from 0 to 96",
            ),
            (
                json!({"allowed_token_ids": []}),
                "allowed_token_ids: found an empty list, expected at least one",
            ),
            (json!({"bad_words": ["x"]}), "bad_words: the model has no tokenizer"),
            (json!({"bad_words": vec!["x"; 257]}), "bad_words: found 257 words, expected at most 256"),
            (json!({"min_tokens": 4}), "min_tokens: found 4, expected at most max_tokens, which is 3"),
        ] {
            assert!(error_message(body.clone()).starts_with(message), "{}", error_message(body));
        }
    }

    #[test]
    fn extensions_reach_the_options() {
        let body = json!({"stop_token_ids": [4.0, 2], "ignore_eos": true, "allowed_token_ids": [1],
            "min_tokens": 3, "min_p": 0.25, "typical_p": 0.5, "repetition_penalty": 2,
            "logit_bias": {"1": 2}, "bad_words": []});
        let known = body.as_object().unwrap().keys().cloned().collect();
        let parsed = super::super::json::parse::<TestRequest>(body.to_string().as_bytes(), &known).unwrap();
        let sampling = options(&parsed, 3).unwrap().sampling;
        assert_eq!((&sampling.stop_ids[..], &sampling.allowed_ids[..]), (&[4, 2][..], &[1][..]));
        assert_eq!(sampling.logit_bias, [(1, 2.0), (50, f32::NEG_INFINITY)]);
        assert_eq!((sampling.min_p, sampling.typical_p, sampling.repetition_penalty), (0.25, 0.5, 2.0));
        assert_eq!(sampling.min_tokens, 3);
    }
}
