//! Sampling parameters, and the one table of those that are numbers: the command line, the settings, the
//! server and `generation_config.json` have them from it.

use crate::{Error, Result};
use std::fmt;

/// The parameters that determine how the next token is chosen. The default leaves the model's distribution
/// unchanged.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// The divisor of the logits; 0 is greedy decoding, the lowest id among ties. Default 1.
    pub temperature: f32,
    /// Keeps the k most probable tokens and any that tie with the last of them; 0 is off.
    pub top_k: usize,
    /// Keeps the most probable tokens until their cumulative probability reaches this, at least one; 1 is
    /// off.
    pub top_p: f32,
    /// Keeps tokens at least this many times as probable as the most probable one; 0 is off.
    pub min_p: f32,
    /// Keeps the tokens whose surprisal is nearest the entropy until their cumulative probability reaches
    /// this; 1 is off.
    pub typical_p: f32,
    /// Divides the positive and multiplies the negative logits of tokens in prompt and completion; 1 is off.
    pub repetition_penalty: f32,
    /// Subtracted from the logit of each token that occurs in the completion; 0 is off.
    pub presence_penalty: f32,
    /// Subtracted from a token's logit once per occurrence in the completion; 0 is off.
    pub frequency_penalty: f32,
    /// No n-gram of this size occurs twice in prompt and completion; 0 is off.
    pub no_repeat_ngram_size: usize,
    /// Added to the logits of these token ids; negative infinity bans a token.
    pub logit_bias: Vec<(u32, f32)>,
    /// The random seed.
    pub seed: u64,
    /// Stop ids are banned until the completion has this many tokens.
    pub min_tokens: usize,
    /// Token ids that end a completion, including the end-of-text token.
    pub stop_ids: Vec<u32>,
    /// Sequences of token ids that the completion never contains.
    pub bad_words_ids: Vec<Vec<u32>>,
    /// Token ids that the completion consists of; empty for all.
    pub allowed_ids: Vec<u32>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            no_repeat_ngram_size: 0,
            logit_bias: Vec::new(),
            seed: 0,
            min_tokens: 0,
            stop_ids: Vec::new(),
            bad_words_ids: Vec::new(),
            allowed_ids: Vec::new(),
        }
    }
}

impl SamplingParams {
    /// Checks that every parameter is within its range: for presence and frequency penalties, the OpenAI
    /// API's -2 to 2.
    ///
    /// # Errors
    /// [`Error::Parameter`] naming the first parameter out of range, [`Error::TokenId`] for an id outside the
    /// vocabulary.
    pub fn validate(&self, vocab_size: usize) -> Result<()> {
        let out_of_range = |name: &str, value: f32, expected: String| Error::Parameter {
            name: name.into(),
            found: value.to_string(),
            expected,
        };
        for Parameter { name, field, .. } in PARAMETERS {
            if let Field::Number(get, _, range) = field {
                let value = get(self);
                range.check(value).map_err(|expected| out_of_range(name, value, expected))?;
            }
        }
        let is_allowed = |bias: f32| bias < f32::INFINITY;
        if let Some(&(_, bias)) = self.logit_bias.iter().find(|(_, bias)| !is_allowed(*bias)) {
            let expected = "a finite number, or -inf to ban the token";
            return Err(out_of_range("logit_bias", bias, expected.into()));
        }
        let biased = self.logit_bias.iter().map(|(id, _)| id);
        let listed = biased.chain(&self.stop_ids).chain(&self.allowed_ids);
        let mut ids = listed.chain(self.bad_words_ids.iter().flatten()).copied();
        match ids.find(|&id| id as usize >= vocab_size) {
            Some(id) => Err(Error::TokenId { id, vocab_size }),
            None => Ok(()),
        }
    }
}

/// A parameter that is a number: its name, field, place and texts.
#[derive(Debug)]
pub struct Parameter {
    /// The name everywhere; the option of the command line has dashes in it.
    pub name: &'static str,
    /// The letter for the value in `help`.
    pub value_name: &'static str,
    /// The field of [`SamplingParams`].
    pub field: Field,
    /// The range in the server's API, where OpenAI's is narrower.
    pub openai_range: Option<Range>,
    /// Whether the parameter belongs to the logits processors, which beam search has too.
    pub is_processor: bool,
    /// Whether transformers' `GenerationConfig` has it, so that a model may have its own default.
    pub in_generation_config: bool,
    /// The help of the option, without the default.
    pub help: &'static str,
    /// The description in the server's OpenAPI document.
    pub description: &'static str,
}

/// The field of a parameter: how to get and to set it.
#[derive(Debug)]
pub enum Field {
    /// A number within a range.
    Number(fn(&SamplingParams) -> f32, fn(&mut SamplingParams, f32), Range),
    /// A non-negative integer.
    Count(fn(&SamplingParams) -> usize, fn(&mut SamplingParams, usize)),
}

/// The value of a parameter, whose integers are of type `I`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar<I = usize> {
    /// Of a [`Field::Number`].
    Number(f32),
    /// Of a [`Field::Count`].
    Count(I),
}

/// The values that a number may have, up to the second, which is included.
#[derive(Clone, Copy, Debug)]
pub enum Range {
    /// The first is included.
    From(f32, f32),
    /// The first is excluded.
    Above(f32, f32),
}

/// The parameters that are numbers: the warpers in the order in which they apply, then the processors.
#[rustfmt::skip]
pub static PARAMETERS: &[Parameter] = &[
    Parameter { name: "temperature", value_name: "T", is_processor: false, in_generation_config: true,
        field: Field::Number(|p| p.temperature, |p, x| p.temperature = x, Range::From(0.0, f32::MAX)),
        openai_range: Some(Range::From(0.0, 2.0)),
        help: "Divide the logits by T: below 1 favors likely tokens, above 1 unlikely ones; 0 selects the \
            most likely (greedy)",
        description: "Sampling temperature, 0 to 2; 0 is greedy. Default 1, unless the model has its own." },
    Parameter { name: "top_k", value_name: "K", is_processor: false, in_generation_config: true,
        field: Field::Count(|p| p.top_k, |p, n| p.top_k = n),
        openai_range: None,
        help: "Keep the K most likely tokens; 0 disables",
        description: "Hornbook extension: keep the k most likely tokens; 0 or -1 keeps all." },
    Parameter { name: "top_p", value_name: "P", is_processor: false, in_generation_config: true,
        field: Field::Number(|p| p.top_p, |p, x| p.top_p = x, Range::From(0.0, 1.0)),
        openai_range: None,
        help: "Keep the most likely tokens until their total probability reaches P; 1 disables",
        description: "Nucleus sampling, 0 to 1: keep the most likely tokens up to this cumulative \
            probability. Default 1, unless the model has its own." },
    Parameter { name: "min_p", value_name: "P", is_processor: false, in_generation_config: true,
        field: Field::Number(|p| p.min_p, |p, x| p.min_p = x, Range::From(0.0, 1.0)),
        openai_range: None,
        help: "Keep tokens at least P times as likely as the most likely token; 0 disables",
        description: "Hornbook extension: keep tokens with at least this fraction of the top token's \
            probability." },
    Parameter { name: "typical_p", value_name: "P", is_processor: false, in_generation_config: true,
        field: Field::Number(|p| p.typical_p, |p, x| p.typical_p = x, Range::Above(0.0, 1.0)),
        openai_range: None,
        help: "Keep the tokens whose surprisal is closest to the entropy, until their total probability \
            reaches P; 1 disables",
        description: "Hornbook extension: locally typical sampling." },
    Parameter { name: "repetition_penalty", value_name: "R", is_processor: true, in_generation_config: true,
        field: Field::Number(|p| p.repetition_penalty, |p, r| p.repetition_penalty = r,
            Range::Above(0.0, f32::MAX)),
        openai_range: None,
        help: "Divide the positive logits of tokens seen so far by R and multiply the negative ones, as \
            transformers does; 1 disables",
        description: "Hornbook extension: divide the logits of tokens in the prompt and completion by \
            this." },
    Parameter { name: "presence_penalty", value_name: "P", is_processor: true, in_generation_config: false,
        field: Field::Number(|p| p.presence_penalty, |p, x| p.presence_penalty = x, Range::From(-2.0, 2.0)),
        openai_range: None,
        help: "Subtract P from the logit of each token generated so far, as OpenAI does",
        description: "-2 to 2: subtracted from the logits of tokens generated before." },
    Parameter { name: "frequency_penalty", value_name: "P", is_processor: true, in_generation_config: false,
        field: Field::Number(|p| p.frequency_penalty, |p, x| p.frequency_penalty = x, Range::From(-2.0, 2.0)),
        openai_range: None,
        help: "Subtract P from a token's logit each time it was generated, as OpenAI does",
        description: "-2 to 2: subtracted once per occurrence." },
    Parameter { name: "no_repeat_ngram_size", value_name: "N", is_processor: true, in_generation_config: true,
        field: Field::Count(|p| p.no_repeat_ngram_size, |p, n| p.no_repeat_ngram_size = n),
        openai_range: None,
        help: "Never generate the same sequence of N tokens twice; 0 disables",
        description: "Hornbook extension: no n-gram of this size occurs twice." },
];

impl Parameter {
    /// Returns the value in `params`.
    pub fn get(&self, params: &SamplingParams) -> Scalar {
        match self.field {
            Field::Number(get, ..) => Scalar::Number(get(params)),
            Field::Count(get, _) => Scalar::Count(get(params)),
        }
    }

    /// Sets the value in `params`; one of the other kind is ignored.
    pub fn set(&self, params: &mut SamplingParams, value: Scalar) {
        match (&self.field, value) {
            (Field::Number(_, set, _), Scalar::Number(x)) => set(params, x),
            (Field::Count(_, set), Scalar::Count(n)) => set(params, n),
            _ => {}
        }
    }

    /// The range of a number in the server's API.
    pub fn api_range(&self) -> Option<Range> {
        match self.field {
            Field::Number(.., range) => self.openai_range.or(Some(range)),
            Field::Count(..) => None,
        }
    }

    /// Parses a value.
    ///
    /// # Errors
    /// What was expected: a number, or one within the range.
    pub fn parse(&self, text: &str) -> std::result::Result<Scalar, String> {
        match &self.field {
            Field::Count(..) => text.parse().map(Scalar::Count).map_err(|_| "a non-negative integer".into()),
            Field::Number(_, _, range) => {
                let number = text.parse().map_err(|_| "a number")?;
                range.check(number).map(|()| Scalar::Number(number))
            }
        }
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Number(x) => x.fmt(f),
            Self::Count(n) => n.fmt(f),
        }
    }
}

impl Range {
    /// Checks that a value is in the range.
    ///
    /// # Errors
    /// What was expected.
    pub fn check(&self, x: f32) -> std::result::Result<(), String> {
        match *self {
            Self::From(min, max) if min <= x && x <= max => Ok(()),
            Self::Above(min, max) if min < x && x <= max => Ok(()),
            Self::From(0.0, f32::MAX) => Err("a non-negative number".into()),
            Self::Above(0.0, f32::MAX) => Err("a positive number".into()),
            Self::From(min, max) => Err(format!("a number from {min} to {max}")),
            Self::Above(min, max) => Err(format!("a number above {min} and at most {max}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_range_bounds_are_valid() {
        let off = SamplingParams::default();
        off.validate(10).unwrap();
        let edges = SamplingParams {
            temperature: 0.0,
            top_p: 0.0,
            min_p: 1.0,
            presence_penalty: -2.0,
            frequency_penalty: 2.0,
            logit_bias: vec![(9, f32::NEG_INFINITY), (0, -100.0)],
            stop_ids: vec![9],
            ..off
        };
        edges.validate(10).unwrap();
    }

    #[test]
    fn rows_are_complete_and_get_what_they_set() {
        let names: Vec<&str> = PARAMETERS.iter().map(|parameter| parameter.name).collect();
        for (i, parameter) in PARAMETERS.iter().enumerate() {
            assert!(!names[..i].contains(&parameter.name), "{}", parameter.name);
            let mut params = SamplingParams::default();
            let default = parameter.get(&params);
            let value = parameter.parse(if default == Scalar::Number(1.0) { "0.5" } else { "1" }).unwrap();
            parameter.set(&mut params, value);
            assert_eq!(parameter.get(&params), value, "{}", parameter.name);
            assert_ne!(params, SamplingParams::default(), "{}", parameter.name);
            params.validate(10).unwrap();
            parameter.set(&mut params, default);
            assert_eq!(params, SamplingParams::default(), "{} sets another field", parameter.name);
            assert!(!parameter.help.is_empty() && !parameter.description.is_empty(), "{}", parameter.name);
        }
    }

    #[test]
    fn out_of_range_parameter_is_named() {
        type Change = fn(&mut SamplingParams);
        let cases: [(Change, &str); 19] = [
            (|p| p.temperature = -0.5, "temperature: found -0.5, expected a non-negative number"),
            (|p| p.temperature = f32::NAN, "temperature: found NaN"),
            (|p| p.temperature = f32::INFINITY, "temperature: found inf"),
            (|p| p.top_p = 1.5, "top_p: found 1.5, expected a number from 0 to 1"),
            (|p| p.top_p = f32::NAN, "top_p"),
            (|p| p.min_p = -0.1, "min_p"),
            (|p| p.min_p = f32::NAN, "min_p"),
            (|p| p.typical_p = 0.0, "typical_p: found 0, expected a number above 0 and at most 1"),
            (|p| p.typical_p = 1.1, "typical_p"),
            (|p| p.repetition_penalty = 0.0, "repetition_penalty"),
            (|p| p.repetition_penalty = f32::INFINITY, "repetition_penalty"),
            (|p| p.presence_penalty = 2.1, "presence_penalty: found 2.1, expected a number from -2 to 2"),
            (|p| p.frequency_penalty = f32::NAN, "frequency_penalty"),
            (|p| p.logit_bias = vec![(1, f32::INFINITY)], "logit_bias: found inf"),
            (|p| p.logit_bias = vec![(1, f32::NAN)], "logit_bias: found NaN"),
            (|p| p.logit_bias = vec![(10, 1.0)], "token id 10 is outside the vocabulary (0 to 9)"),
            (|p| p.stop_ids = vec![3, 11], "token id 11 is outside"),
            (|p| p.allowed_ids = vec![3, 12], "token id 12 is outside"),
            (|p| p.bad_words_ids = vec![vec![3], vec![4, 13]], "token id 13 is outside"),
        ];
        for (change, message) in cases {
            let mut params = SamplingParams::default();
            change(&mut params);
            let error = params.validate(10).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}: expected {message}");
        }
    }
}
