//! Perplexity of a text, and the KL divergence of one model's predictions from another's.
//!
//! ```text
//! loss       = −mean ln p(token | the tokens before it)      nats per token
//! perplexity = e^loss                                        equivalent number of equally likely tokens
//! ```
//!
//! A text longer than the context is split into sliding windows, and every token but the first is predicted
//! exactly once. With a stride equal to the context the windows do not overlap, and a window's first tokens
//! are predicted from little context. With a shorter stride they overlap, and each predicts only its last
//! `stride` tokens: slower by context/stride, and closer to the model's true perplexity. The algorithm is
//! that of <https://huggingface.co/docs/transformers/perplexity>, except that a window's last token also
//! predicts the one that follows it: there, windows without overlap leave out one token each.

use crate::kernels::attention::KvPrecision;
use crate::model::{Model, Session};
use crate::sampling::LogSoftmax;
use crate::{Error, Result};
use std::ops::Range;

/// Tokens whose logits are buffered at once, for comparison with another model's.
const CHUNK: usize = 32;

/// Sliding windows over a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlidingWindows {
    /// Tokens per window.
    pub context: usize,
    /// Tokens from one window's start to the next, at most `context`.
    pub stride: usize,
}

/// One window of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The tokens the model computes.
    pub tokens: Range<usize>,
    /// Index of the first token whose successor is scored.
    pub first_scored: usize,
}

impl SlidingWindows {
    /// Returns the windows of a text of `n` tokens.
    pub fn split(self, n: usize) -> impl Iterator<Item = Window> {
        let n_inputs = n.saturating_sub(1); // the last token has no successor
        let mut first_scored = 0;
        (0..n_inputs).step_by(self.stride).map_while(move |start| {
            let end = n_inputs.min(start + self.context);
            let window = Window { tokens: start..end, first_scored };
            first_scored = end;
            (window.first_scored < end).then_some(window)
        })
    }
}

/// The result of scoring a text.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// Tokens scored.
    pub tokens: usize,
    /// Total negative log-likelihood, Σ −ln p, in nats.
    pub nll: f64,
    /// Divergence from the baseline model, if one was given.
    pub divergence: Option<Divergence>,
}

/// Divergence of a model's predictions from a baseline model's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Divergence {
    /// Mean Kullback-Leibler divergence per token, Σ p_baseline · ln(p_baseline / p), in nats.
    pub kl: f64,
    /// Fraction of positions at which both models predict the same most likely token.
    pub top1_agreement: f64,
}

impl Score {
    /// Mean negative log-likelihood in nats per token.
    pub fn loss(&self) -> f64 {
        self.nll / self.tokens as f64
    }

    /// e^loss.
    pub fn perplexity(&self) -> f64 {
        libm::exp(self.loss())
    }

    /// Bits per byte of a text of `bytes` bytes, which compares models with different vocabularies.
    pub fn bits_per_byte(&self, bytes: usize) -> f64 {
        self.nll / std::f64::consts::LN_2 / bytes as f64
    }
}

/// Scores every token of a text but the first. `on_progress` is called with the number of tokens scored since
/// its last call.
///
/// # Errors
/// [`Error::Parameter`] for windows beyond a model's context, [`Error::Prompt`] for fewer than two tokens,
/// [`Error::Unsupported`] for a baseline with a different vocabulary, [`Error::TokenId`].
pub fn score(
    model: &Model,
    baseline: Option<&Model>,
    ids: &[u32],
    windows: SlidingWindows,
    kv_precision: impl Into<Option<KvPrecision>>,
    mut on_progress: impl FnMut(usize),
) -> Result<Score> {
    validate(model, baseline, ids, windows)?;
    let kv_precision = kv_precision.into();
    let mut session = Session::new(model, windows.context, kv_precision);
    let mut baseline_session = baseline.map(|model| Session::new(model, windows.context, kv_precision));
    let vocab_size = model.config().vocab_size;
    let (mut score, mut kl, mut agreed) = (Score::default(), 0.0, 0usize);
    let (mut logits_chunk, mut baseline_chunk) = (vec![], vec![]);
    for Window { tokens, first_scored } in windows.split(ids.len()) {
        for session in baseline_session.iter_mut().chain([&mut session]) {
            session.truncate(0);
            if tokens.start < first_scored {
                session.feed(&ids[tokens.start..first_scored])?;
            }
        }
        for first in (first_scored..tokens.end).step_by(CHUNK) {
            let end = tokens.end.min(first + CHUNK);
            logits_chunk.clear();
            session.score(&ids[first..end], |t, logits| {
                let next = ids[first + t + 1];
                score.nll -= f64::from(LogSoftmax::new(logits).logprob(logits[next as usize]));
                if baseline.is_some() {
                    logits_chunk.extend_from_slice(logits);
                }
            })?;
            if let Some(baseline) = &mut baseline_session {
                baseline_chunk.clear();
                baseline.score(&ids[first..end], |_, logits| baseline_chunk.extend_from_slice(logits))?;
                let mut divergences = vec![(0.0, false); end - first];
                model.pool().for_each_chunk(&mut divergences, 1, |t, divergence| {
                    let row = t * vocab_size..(t + 1) * vocab_size;
                    divergence[0] = kl_divergence(&baseline_chunk[row.clone()], &logits_chunk[row]);
                });
                kl += divergences.iter().map(|(kl, _)| kl).sum::<f64>();
                agreed += divergences.iter().filter(|(_, same_top1)| *same_top1).count();
            }
            score.tokens += end - first;
            on_progress(end - first);
        }
    }
    let n = score.tokens as f64;
    score.divergence = baseline.map(|_| Divergence { kl: kl / n, top1_agreement: agreed as f64 / n });
    Ok(score)
}

fn validate(model: &Model, baseline: Option<&Model>, ids: &[u32], windows: SlidingWindows) -> Result<()> {
    let baseline_positions = baseline.map_or(usize::MAX, |baseline| baseline.config().n_positions);
    let n_positions = model.config().n_positions.min(baseline_positions);
    let check_range = |name: &str, n: usize, max: usize| match (1..=max).contains(&n) {
        true => Ok(()),
        false => Err(Error::Parameter {
            name: name.into(),
            found: n.to_string(),
            expected: format!("an integer from 1 to {max}"),
        }),
    };
    check_range("--context", windows.context, n_positions)?;
    check_range("--stride", windows.stride, windows.context)?;
    if ids.len() < 2 {
        return Err(Error::Prompt(format!("the text has {} tokens, expected at least 2", ids.len())));
    }
    let (vocab_size, baseline_size) =
        (model.config().vocab_size, baseline.unwrap_or(model).config().vocab_size);
    if vocab_size != baseline_size {
        return Err(Error::Unsupported(format!(
            "the other model has a vocabulary of {baseline_size} tokens, expected {vocab_size} as in \
             this model"
        )));
    }
    Ok(())
}

/// Returns the KL divergence of logits `q` from logits `p`, and whether their most likely token is the same.
///
/// With d = p − q elementwise, KL = Σ softmax(p) · d + ln Σ softmax(p) · e^(−d), which avoids cancellation if
/// the two are close. In f64, as divergences of interest are below f32's resolution of a logit.
pub fn kl_divergence(p: &[f32], q: &[f32]) -> (f64, bool) {
    let (best_p, best_q) = (argmax(p), argmax(q));
    let max = f64::from(p[best_p]);
    // Softmax is invariant to a shift of all logits; this one keeps e^(−d) within range.
    let shift = max - f64::from(q[best_p]);
    let (mut sum_p, mut sum_d, mut sum_q) = (0.0, 0.0, 0.0);
    for (&p, &q) in p.iter().zip(q) {
        let (p, q) = (f64::from(p), f64::from(q));
        let weight = libm::exp(p - max);
        sum_p += weight;
        if weight > 0.0 {
            sum_d += weight * (p - q - shift);
        }
        sum_q += libm::exp(q + shift - max); // weight · e^(−d)
    }
    (sum_d / sum_p + libm::log(sum_q / sum_p), best_p == best_q)
}

/// Returns the index of the largest logit, the first among equals.
fn argmax(logits: &[f32]) -> usize {
    let larger = |best: usize, (i, logit): (usize, &f32)| if *logit > logits[best] { i } else { best };
    logits.iter().enumerate().fold(0, larger)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::kernels::isa::Isa;
    use crate::kernels::thread_pool::ThreadPool;

    fn fable() -> Model {
        Model::new(Checkpoint::open("fable").unwrap(), ThreadPool::new(2, Isa::available()[0]))
    }

    /// The loss of each token after the first, all from the start of `ids`.
    fn losses(model: &Model, ids: &[u32]) -> Vec<f64> {
        let mut losses = vec![];
        let mut session = Session::new(model, ids.len(), KvPrecision::F32);
        let score = |t: usize, logits: &[f32]| {
            losses.push(-f64::from(LogSoftmax::new(logits).logprob(logits[ids[t + 1] as usize])));
        };
        session.score(&ids[..ids.len() - 1], score).unwrap();
        losses
    }

    fn ids(n: usize) -> Vec<u32> {
        (0..n as u32).map(|i| i * i * 7919 % 4096).collect()
    }

    #[test]
    fn sliding_windows_score_every_token_once() {
        for (n, context, stride) in
            [(2, 8, 8), (50, 8, 8), (50, 8, 3), (49, 8, 1), (9, 8, 4), (8, 8, 2), (10, 1, 1)]
        {
            let mut counts = vec![0; n];
            for Window { tokens, first_scored } in (SlidingWindows { context, stride }).split(n) {
                let start = tokens.start;
                assert!(tokens.len() <= context && start <= first_scored && first_scored < tokens.end);
                assert!(first_scored == start || tokens.end - first_scored <= stride || start == 0);
                (first_scored..tokens.end).for_each(|t| counts[t + 1] += 1);
            }
            assert_eq!(counts[0], 0);
            assert!(counts[1..].iter().all(|&count| count == 1), "{n}, {context}, {stride}: {counts:?}");
        }
        assert_eq!((SlidingWindows { context: 8, stride: 8 }).split(1).count(), 0);
    }

    #[test]
    fn windows_without_overlap_are_scored_independently() {
        let (model, ids) = (fable(), ids(100));
        let windows = SlidingWindows { context: 40, stride: 40 };
        let actual = score(&model, None, &ids, windows, KvPrecision::F32, |_| {}).unwrap();
        let reference: f64 =
            [0..41, 40..81, 80..100].map(|w| losses(&model, &ids[w]).iter().sum::<f64>()).iter().sum();
        assert_eq!(actual.tokens, 99);
        assert!((actual.nll - reference).abs() < 1e-9 * reference, "{} {reference}", actual.nll);
    }

    #[test]
    fn overlapping_windows_score_their_last_tokens() {
        let (model, ids) = (fable(), ids(70));
        let mut progress = 0;
        let windows = SlidingWindows { context: 40, stride: 12 };
        let actual = score(&model, None, &ids, windows, KvPrecision::F32, |n| progress += n).unwrap();
        // Windows start at 0, 12, 24 and 36, and end before 40, 52, 64 and 69.
        let mut reference: f64 = losses(&model, &ids[0..41]).iter().sum();
        for (window, n_scored) in [(12..53, 12), (24..65, 12), (36..70, 5)] {
            let losses = losses(&model, &ids[window]);
            reference += losses[losses.len() - n_scored..].iter().sum::<f64>();
        }
        assert_eq!((actual.tokens, progress), (69, 69));
        assert!((actual.nll - reference).abs() < 1e-9 * reference);
    }

    #[test]
    fn divergence_of_a_model_from_itself_is_zero() {
        let (model, ids) = (fable(), ids(50));
        let windows = SlidingWindows { context: 40, stride: 20 };
        let actual = score(&model, Some(&model), &ids, windows, KvPrecision::F32, |_| {}).unwrap();
        let Divergence { kl, top1_agreement } = actual.divergence.unwrap();
        assert!(kl.abs() < 1e-12 && top1_agreement == 1.0, "{kl} {top1_agreement}");
    }

    #[test]
    fn kl_divergence_equals_its_definition() {
        let p = [1.0f32, 2.5, -3.0, 0.25, 90.0, 89.5];
        let q = [0.0f32, 2.5, 4.0, -700.0, 12.0, 12.25];
        let softmax = |x: &[f32]| -> Vec<f64> {
            let max = x.iter().copied().fold(f32::MIN, f32::max);
            let e: Vec<f64> = x.iter().map(|x| f64::from(x - max).exp()).collect();
            let sum: f64 = e.iter().sum();
            e.iter().map(|e| e / sum).collect()
        };
        let definition: f64 = softmax(&p).iter().zip(softmax(&q)).map(|(p, q)| p * (p / q).ln()).sum();
        let (kl, same_top1) = kl_divergence(&p, &q);
        assert!((kl - definition).abs() < 1e-9, "{kl}, by definition {definition}");
        assert!(!same_top1 && kl_divergence(&p, &p).1);
        let shifted: Vec<f32> = p.iter().map(|x| x + 16.0).collect();
        assert!(kl_divergence(&p, &shifted).0.abs() < 1e-12, "softmax is invariant to a shift");
    }

    #[test]
    fn invalid_windows_and_texts_are_errors() {
        let model = fable();
        let error = |ids: &[u32], context, stride| {
            let windows = SlidingWindows { context, stride };
            score(&model, None, ids, windows, KvPrecision::F32, |_| {}).unwrap_err().to_string()
        };
        assert_eq!(error(&[1, 2], 513, 1), "--context: found 513, expected an integer from 1 to 512");
        assert_eq!(error(&[1, 2], 100, 101), "--stride: found 101, expected an integer from 1 to 100");
        assert_eq!(error(&[1], 100, 100), "the text has 1 tokens, expected at least 2");
        assert!(error(&[1, 5000, 1], 100, 100).contains("5000"));
    }
}
