//! How sure the model was, and how surprised by what came.
//!
//! ```text
//! surprise(token) = −ln p(token | the tokens before it)       nats; divided by ln 2, bits
//! entropy         = −Σ p(v) ln p(v)                           the surprise it expected
//! ```
//!
//! A surprise of b bits is that of a coin falling b times as guessed; e^entropy is the number of equally likely tokens
//! that would leave it as unsure.

use super::ActivationCache;
use crate::model::Model;
use crate::sampling::{LogSoftmax, top_logprobs};

/// Nats in a bit.
pub const NATS_PER_BIT: f32 = std::f32::consts::LN_2;

/// What one vector of logits says, in few numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prediction {
    /// The likeliest tokens and their logprobs, the best first.
    pub best: Vec<(u32, f32)>,
    /// How unsure it is, in nats.
    pub entropy: f32,
    /// What it thinks of the token that was asked about, where one was.
    pub target: Option<Target>,
}

/// What a reading says of one token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// The token.
    pub id: u32,
    /// Its logprob.
    pub logprob: f32,
    /// How many tokens have a larger logit.
    pub rank: usize,
}

impl Target {
    /// Its surprise, in nats.
    pub fn surprisal(&self) -> f32 {
        -self.logprob
    }
}

impl Prediction {
    /// Reads logits, `[vocab_size]`: the `n` likeliest tokens, and what they say of `target`.
    ///
    /// # Panics
    /// Where `target` is not below `logits.len()`.
    pub fn from_logits(logits: &[f32], n: usize, target: Option<u32>) -> Self {
        let softmax = LogSoftmax::new(logits);
        let share = |&logit: &f32| {
            let logprob = f64::from(softmax.logprob(logit));
            if logprob == f64::NEG_INFINITY { 0.0 } else { -logprob * libm::exp(logprob) }
        };
        let entropy = logits.iter().map(share).sum::<f64>() as f32;
        let target = target.map(|id| {
            let logit = logits[id as usize];
            let rank = logits.iter().filter(|&&other| other > logit).count();
            Target { id, logprob: softmax.logprob(logit), rank }
        });
        Self { best: top_logprobs(logits, n), entropy, target }
    }
}

/// What the model thought at every token of a text, `[n]`: its `best` likeliest next tokens, and how it saw the one that
/// came next (`after` for the last). Token t's surprise is in reading t − 1.
pub fn predictions(
    model: &Model,
    capture: &ActivationCache,
    best: usize,
    after: Option<u32>,
) -> Vec<Prediction> {
    let rows: Vec<&[f32]> = capture.logits.rows().into_iter().filter_map(|row| row.to_slice()).collect();
    let targets = targets(&capture.tokens, after);
    let mut readings = vec![Prediction::default(); rows.len()];
    model.pool().for_each_chunk(&mut readings, 1, |t, reading| {
        reading[0] = Prediction::from_logits(rows[t], best, targets[t]);
    });
    readings
}

/// What came after each token: the next, and `after` for the last.
pub(super) fn targets(tokens: &[u32], after: Option<u32>) -> Vec<Option<u32>> {
    tokens.iter().skip(1).copied().map(Some).chain([after]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_even_choice_is_as_unsure_as_it_has_tokens() {
        let reading = Prediction::from_logits(&[1.5; 8], 2, Some(7));
        assert!((reading.entropy - 8f32.ln()).abs() < 1e-6);
        assert_eq!((reading.best[0].0, reading.best[1].0), (0, 1));
        let target = reading.target.unwrap();
        assert!((target.surprisal() / NATS_PER_BIT - 3.0).abs() < 1e-6, "three bits");
        assert_eq!(target.rank, 0);
    }

    #[test]
    fn a_sure_answer_has_no_entropy_and_the_impossible_no_share_in_it() {
        let reading = Prediction::from_logits(&[f32::NEG_INFINITY, 100.0, 0.0], 1, Some(2));
        assert!(reading.entropy < 1e-6);
        assert_eq!(reading.target.unwrap().rank, 1);
        assert!((reading.target.unwrap().surprisal() - 100.0).abs() < 1e-4);
    }
}
