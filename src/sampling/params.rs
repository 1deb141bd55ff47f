//! What a user can ask of the sampler, and within which bounds.

use crate::{Error, Result};

/// How the next token is chosen. The default leaves the model's distribution as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// Logits are divided by this; 0 takes the best token, the lowest id among equals. Default 1.
    pub temperature: f32,
    /// Keep the k best tokens and any that tie with the last of them; 0 is off.
    pub top_k: usize,
    /// Keep the best tokens whose probabilities first reach this sum, at least one; 1 is off.
    pub top_p: f32,
    /// Keep tokens at least this times as probable as the best; 0 is off.
    pub min_p: f32,
    /// Keep the tokens whose surprise is nearest the expected one until they reach this sum; 1 is off.
    pub typical_p: f32,
    /// Divides the positive and multiplies the negative logits of tokens in prompt and completion; 1 is off.
    pub repetition_penalty: f32,
    /// Taken off the logit of each token that is in the completion; 0 is off.
    pub presence_penalty: f32,
    /// Taken off a token's logit once for each time it is in the completion; 0 is off.
    pub frequency_penalty: f32,
    /// No run of this many tokens comes twice in prompt and completion; 0 is off.
    pub no_repeat_ngram_size: usize,
    /// Added to the logits of these ids; negative infinity rules one out.
    pub logit_bias: Vec<(u32, f32)>,
    /// The random numbers' seed.
    pub seed: u64,
    /// Stop ids are ruled out until the completion has this many tokens.
    pub min_tokens: usize,
    /// Ids that end a completion, the end-of-text token among them.
    pub stop_ids: Vec<u32>,
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
        }
    }
}

impl SamplingParams {
    /// Holds every option to its range; penalties to OpenAI's, -2 to 2.
    ///
    /// # Errors
    /// [`Error::Parameter`] naming the first option that is outside, [`Error::TokenId`] for an id the model lacks.
    pub fn validate(&self, vocab_size: usize) -> Result<()> {
        let number = |name: &str, value: f32, ok: bool, expected: &str| match ok {
            true => Ok(()),
            false => Err(Error::Parameter {
                name: name.into(),
                found: value.to_string(),
                expected: expected.into(),
            }),
        };
        let t = self.temperature;
        number("temperature", t, t >= 0.0 && t.is_finite(), "a number from 0 up")?;
        let share = "a number from 0 to 1";
        number("top_p", self.top_p, (0.0..=1.0).contains(&self.top_p), share)?;
        number("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), share)?;
        let typical = self.typical_p;
        let expected = "a number above 0, up to 1";
        number("typical_p", typical, typical > 0.0 && typical <= 1.0, expected)?;
        let r = self.repetition_penalty;
        number("repetition_penalty", r, r > 0.0 && r.is_finite(), "a number above 0")?;
        for (name, penalty) in
            [("presence_penalty", self.presence_penalty), ("frequency_penalty", self.frequency_penalty)]
        {
            let ok = (-2.0..=2.0).contains(&penalty);
            number(name, penalty, ok, "a number from -2 to 2")?;
        }
        for &(_, bias) in &self.logit_bias {
            let ok = bias < f32::INFINITY;
            number("logit_bias", bias, ok, "a number, or -inf to rule the token out")?;
        }
        let biased = self.logit_bias.iter().map(|&(id, _)| id);
        match biased.chain(self.stop_ids.iter().copied()).find(|&id| id as usize >= vocab_size) {
            Some(id) => Err(Error::TokenId { id, vocab_size }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_and_every_bound_are_valid() {
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
    fn what_is_outside_is_named() {
        type Change = fn(&mut SamplingParams);
        let cases: [(Change, &str); 17] = [
            (|p| p.temperature = -0.5, "temperature: found -0.5, expected a number from 0 up"),
            (|p| p.temperature = f32::NAN, "temperature: found NaN"),
            (|p| p.temperature = f32::INFINITY, "temperature: found inf"),
            (|p| p.top_p = 1.5, "top_p: found 1.5, expected a number from 0 to 1"),
            (|p| p.top_p = f32::NAN, "top_p"),
            (|p| p.min_p = -0.1, "min_p"),
            (|p| p.min_p = f32::NAN, "min_p"),
            (|p| p.typical_p = 0.0, "typical_p: found 0, expected a number above 0, up to 1"),
            (|p| p.typical_p = 1.1, "typical_p"),
            (|p| p.repetition_penalty = 0.0, "repetition_penalty"),
            (|p| p.repetition_penalty = f32::INFINITY, "repetition_penalty"),
            (|p| p.presence_penalty = 2.1, "presence_penalty: found 2.1, expected a number from -2 to 2"),
            (|p| p.frequency_penalty = f32::NAN, "frequency_penalty"),
            (|p| p.logit_bias = vec![(1, f32::INFINITY)], "logit_bias: found inf"),
            (|p| p.logit_bias = vec![(1, f32::NAN)], "logit_bias: found NaN"),
            (|p| p.logit_bias = vec![(10, 1.0)], "token id 10 is outside the vocabulary (0 to 9)"),
            (|p| p.stop_ids = vec![3, 11], "token id 11 is outside"),
        ];
        for (change, message) in cases {
            let mut params = SamplingParams::default();
            change(&mut params);
            let error = params.validate(10).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}: expected {message}");
        }
    }
}
