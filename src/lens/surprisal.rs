//! Predictions: the most likely tokens, the entropy, and the surprisal of the actual next token.
//!
//! ```text
//! surprisal(token) = −ln p(token | the tokens before it)      in nats; divide by ln 2 for bits
//! entropy          = −Σ p(v) ln p(v)                          the expected surprisal
//! ```
//!
//! A surprisal of b bits is that of guessing b coin flips in a row. e^entropy is the number of equally likely
//! tokens with the same entropy.

use super::ActivationCache;
use crate::model::Model;
use crate::sampling::{LogSoftmax, top_logprobs};

/// Nats per bit.
pub const NATS_PER_BIT: f32 = std::f32::consts::LN_2;

/// A summary of one vector of logits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prediction {
    /// The most likely tokens with their logprobs, in descending order.
    pub top: Vec<(u32, f32)>,
    /// The entropy, in nats.
    pub entropy: f32,
    /// The actual next token, if known.
    pub target: Option<Target>,
}

/// The prediction of one given token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// The token id.
    pub id: u32,
    /// The logprob.
    pub logprob: f32,
    /// The number of tokens with a larger logit.
    pub rank: usize,
}

impl Target {
    /// The surprisal, in nats.
    pub fn surprisal(&self) -> f32 {
        -self.logprob
    }
}

impl Prediction {
    /// Summarizes logits, `[vocab_size]`: the `n` most likely tokens, the entropy, and the prediction of
    /// `target`.
    ///
    /// # Panics
    /// Panics if `target >= logits.len()`.
    pub fn from_logits(logits: &[f32], n: usize, target: Option<u32>) -> Self {
        let softmax = LogSoftmax::new(logits);
        let term = |&logit: &f32| {
            let logprob = f64::from(softmax.logprob(logit));
            if logprob == f64::NEG_INFINITY { 0.0 } else { -logprob * libm::exp(logprob) }
        };
        let entropy = logits.iter().map(term).sum::<f64>() as f32;
        let target = target.map(|id| {
            let logit = logits[id as usize];
            let rank = logits.iter().filter(|&&other| other > logit).count();
            Target { id, logprob: softmax.logprob(logit), rank }
        });
        Self { top: top_logprobs(logits, n), entropy, target }
    }
}

/// Returns the predictions at every token of a text, `[n]`: the `top` most likely next tokens, and the
/// logprob and rank of the actual next token (`after` for the last one). The surprisal of token t is in
/// prediction t − 1.
pub fn predictions(
    model: &Model,
    cache: &ActivationCache,
    top: usize,
    after: Option<u32>,
) -> Vec<Prediction> {
    let rows: Vec<&[f32]> = cache.logits.rows().into_iter().filter_map(|row| row.to_slice()).collect();
    let targets = next_tokens(&cache.tokens, after);
    let mut predictions = vec![Prediction::default(); rows.len()];
    model.pool().for_each_chunk(&mut predictions, 1, |t, prediction| {
        prediction[0] = Prediction::from_logits(rows[t], top, targets[t]);
    });
    predictions
}

/// Returns the next token of each token; `after` for the last one.
pub(super) fn next_tokens(tokens: &[u32], after: Option<u32>) -> Vec<Option<u32>> {
    tokens.iter().skip(1).copied().map(Some).chain([after]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_logits_have_maximum_entropy() {
        let prediction = Prediction::from_logits(&[1.5; 8], 2, Some(7));
        assert!((prediction.entropy - 8f32.ln()).abs() < 1e-6);
        assert_eq!((prediction.top[0].0, prediction.top[1].0), (0, 1));
        let target = prediction.target.unwrap();
        assert!((target.surprisal() / NATS_PER_BIT - 3.0).abs() < 1e-6, "three bits");
        assert_eq!(target.rank, 0);
    }

    #[test]
    fn infinite_logits_have_zero_entropy() {
        let prediction = Prediction::from_logits(&[f32::NEG_INFINITY, 100.0, 0.0], 1, Some(2));
        assert!(prediction.entropy < 1e-6);
        assert_eq!(prediction.target.unwrap().rank, 1);
        assert!((prediction.target.unwrap().surprisal() - 100.0).abs() < 1e-4);
    }
}
