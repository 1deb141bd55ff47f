//! Sampling parameters and their ranges.

use crate::{Error, Result};

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
        let check = |name: &str, value: f32, ok: bool, expected: &str| match ok {
            true => Ok(()),
            false => Err(Error::Parameter {
                name: name.into(),
                found: value.to_string(),
                expected: expected.into(),
            }),
        };
        let t = self.temperature;
        check("temperature", t, t >= 0.0 && t.is_finite(), "a non-negative number")?;
        let probability = "a number from 0 to 1";
        check("top_p", self.top_p, (0.0..=1.0).contains(&self.top_p), probability)?;
        check("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), probability)?;
        let typical = self.typical_p;
        let expected = "a number above 0 and at most 1";
        check("typical_p", typical, typical > 0.0 && typical <= 1.0, expected)?;
        let r = self.repetition_penalty;
        check("repetition_penalty", r, r > 0.0 && r.is_finite(), "a positive number")?;
        for (name, penalty) in
            [("presence_penalty", self.presence_penalty), ("frequency_penalty", self.frequency_penalty)]
        {
            let ok = (-2.0..=2.0).contains(&penalty);
            check(name, penalty, ok, "a number from -2 to 2")?;
        }
        for &(_, bias) in &self.logit_bias {
            let ok = bias < f32::INFINITY;
            check("logit_bias", bias, ok, "a finite number, or -inf to ban the token")?;
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
