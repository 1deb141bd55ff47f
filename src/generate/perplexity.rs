//! How well does a model predict a text? And how far apart are two models' predictions?
//!
//! ```text
//! loss       = −mean ln p(token | the tokens before it)      nats a token
//! perplexity = e^loss                                        as unsure as among so many equal choices
//! ```
//!
//! A text longer than the context is cut into windows, and every token but the very first is predicted exactly once.
//! With a stride as long as the context the windows follow one another, and a window's first tokens are predicted from
//! little. With a shorter stride they overlap, each predicting only its last `stride` tokens: slower by context/stride,
//! and closer to what the model can do. Loop and meaning are those of
//! <https://huggingface.co/docs/transformers/perplexity>, except that a window's last token is used to predict the one
//! that follows it: there, windows without overlap leave out one token each.

use crate::kernels::attention::KvPrecision;
use crate::model::{Model, Session};
use crate::sampling::LogSoftmax;
use crate::{Error, Result};
use std::ops::Range;

/// Tokens whose logits are held at once, to be compared with another model's.
const CHUNK: usize = 32;

/// How a text is cut up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlidingWindows {
    /// Tokens a window holds.
    pub context: usize,
    /// Tokens from one window's start to the next; at most `context`.
    pub stride: usize,
}

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The tokens that the model reads.
    pub tokens: Range<usize>,
    /// The first of them whose successor it predicts.
    pub scored: usize,
}

impl SlidingWindows {
    /// The windows of a text of `n` tokens.
    pub fn of(self, n: usize) -> impl Iterator<Item = Window> {
        let read = n.saturating_sub(1); // the last token has no successor
        let mut scored = 0;
        (0..read).step_by(self.stride).map_while(move |start| {
            let end = read.min(start + self.context);
            let window = Window { tokens: start..end, scored };
            scored = end;
            (window.scored < end).then_some(window)
        })
    }
}

/// What predicting a text came to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// Tokens predicted.
    pub tokens: usize,
    /// Their −ln p, added up.
    pub nats: f64,
    /// The distance to another model's predictions, where one was given.
    pub divergence: Option<Divergence>,
}

/// How far a model's predictions are from another's, which counts as the truth.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Divergence {
    /// Kullback-Leibler divergence, Σ p_other · ln(p_other / p), in nats, mean over tokens.
    pub kl: f64,
    /// The share of tokens for which both think the same token the most likely.
    pub top1_agreement: f64,
}

impl Score {
    /// Nats a token.
    pub fn loss(&self) -> f64 {
        self.nats / self.tokens as f64
    }

    /// e^loss
    pub fn perplexity(&self) -> f64 {
        libm::exp(self.loss())
    }

    /// Bits for each of the text's `bytes`: comparable between models of different vocabularies.
    pub fn bits_per_byte(&self, bytes: usize) -> f64 {
        self.nats / std::f64::consts::LN_2 / bytes as f64
    }
}

/// Predicts every token of a text but the first. `each` is told how many tokens were predicted since it was last
/// called.
///
/// # Errors
/// [`Error::Parameter`] for windows that no model here has room for, [`Error::Message`] for fewer than two tokens or
/// another model with another vocabulary, [`Error::TokenId`].
pub fn score(
    model: &Model,
    against: Option<&Model>,
    ids: &[u32],
    windows: SlidingWindows,
    kv_precision: impl Into<Option<KvPrecision>>,
    mut each: impl FnMut(usize),
) -> Result<Score> {
    check(model, against, ids, windows)?;
    let kv_precision = kv_precision.into();
    let mut session = Session::new(model, windows.context, kv_precision);
    let mut other = against.map(|other| Session::new(other, windows.context, kv_precision));
    let vocab_size = model.config().vocab_size;
    let (mut score, mut kl, mut agreed) = (Score::default(), 0.0, 0usize);
    let (mut held, mut theirs) = (vec![], vec![]);
    for Window { tokens, scored } in windows.of(ids.len()) {
        for session in other.iter_mut().chain([&mut session]) {
            session.truncate(0);
            if tokens.start < scored {
                session.feed(&ids[tokens.start..scored])?;
            }
        }
        for first in (scored..tokens.end).step_by(CHUNK) {
            let end = tokens.end.min(first + CHUNK);
            held.clear();
            session.score(&ids[first..end], |t, logits| {
                let next = ids[first + t + 1];
                score.nats -= f64::from(LogSoftmax::new(logits).logprob(logits[next as usize]));
                if against.is_some() {
                    held.extend_from_slice(logits);
                }
            })?;
            if let Some(other) = &mut other {
                theirs.clear();
                other.score(&ids[first..end], |_, logits| theirs.extend_from_slice(logits))?;
                let mut apart = vec![(0.0, false); end - first];
                model.pool().for_each_chunk(&mut apart, 1, |t, apart| {
                    let row = t * vocab_size..(t + 1) * vocab_size;
                    apart[0] = kl_divergence(&theirs[row.clone()], &held[row]);
                });
                kl += apart.iter().map(|(kl, _)| kl).sum::<f64>();
                agreed += apart.iter().filter(|(_, same)| *same).count();
            }
            score.tokens += end - first;
            each(end - first);
        }
    }
    let n = score.tokens as f64;
    score.divergence = against.map(|_| Divergence { kl: kl / n, top1_agreement: agreed as f64 / n });
    Ok(score)
}

fn check(model: &Model, against: Option<&Model>, ids: &[u32], windows: SlidingWindows) -> Result<()> {
    let room = model.config().n_positions.min(against.map_or(usize::MAX, |other| other.config().n_positions));
    let within = |name: &str, n: usize, most: usize| match (1..=most).contains(&n) {
        true => Ok(()),
        false => Err(Error::Parameter {
            name: name.into(),
            found: n.to_string(),
            expected: format!("a whole number from 1 to {most}"),
        }),
    };
    within("--context", windows.context, room)?;
    within("--stride", windows.stride, windows.context)?;
    if ids.len() < 2 {
        return Err(Error::Message(format!("the text has {} tokens, expected at least 2", ids.len())));
    }
    let (ours, theirs) = (model.config(), against.unwrap_or(model).config());
    if ours.vocab_size != theirs.vocab_size {
        return Err(Error::Message(format!(
            "the other model knows {} tokens, expected the same {} as this one",
            theirs.vocab_size, ours.vocab_size
        )));
    }
    Ok(())
}

/// The divergence of logits `q` from logits `p`, and whether their best token is the same.
///
/// With d = p − q token by token, KL = Σ softmax(p) · d + ln Σ softmax(p) · e^(−d): where the two are close, nothing
/// large is subtracted from anything large. In f64, as divergences of interest are below f32's resolution of a logit.
pub fn kl_divergence(p: &[f32], q: &[f32]) -> (f64, bool) {
    let (best_p, best_q) = (best(p), best(q));
    let max = f64::from(p[best_p]);
    // A shift of all logits means nothing; this one keeps e^(−d) within range.
    let shift = max - f64::from(q[best_p]);
    let (mut sum, mut mean, mut other) = (0.0, 0.0, 0.0);
    for (&p, &q) in p.iter().zip(q) {
        let (p, q) = (f64::from(p), f64::from(q));
        let weight = libm::exp(p - max);
        sum += weight;
        if weight > 0.0 {
            mean += weight * (p - q - shift);
        }
        other += libm::exp(q + shift - max); // weight · e^(−d)
    }
    (mean / sum + libm::log(other / sum), best_p == best_q)
}

/// The largest, the first among equals.
fn best(logits: &[f32]) -> usize {
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
    fn every_token_is_predicted_once() {
        for (n, context, stride) in
            [(2, 8, 8), (50, 8, 8), (50, 8, 3), (49, 8, 1), (9, 8, 4), (8, 8, 2), (10, 1, 1)]
        {
            let mut predicted = vec![0; n];
            for Window { tokens, scored } in (SlidingWindows { context, stride }).of(n) {
                assert!(tokens.len() <= context && tokens.start <= scored && scored < tokens.end);
                assert!(scored == tokens.start || tokens.end - scored <= stride || tokens.start == 0);
                (scored..tokens.end).for_each(|t| predicted[t + 1] += 1);
            }
            assert_eq!(predicted[0], 0);
            assert!(
                predicted[1..].iter().all(|&times| times == 1),
                "{n}, {context}, {stride}: {predicted:?}"
            );
        }
        assert_eq!((SlidingWindows { context: 8, stride: 8 }).of(1).count(), 0);
    }

    #[test]
    fn windows_that_follow_one_another_are_texts_of_their_own() {
        let (model, ids) = (fable(), ids(100));
        let windows = SlidingWindows { context: 40, stride: 40 };
        let found = score(&model, None, &ids, windows, KvPrecision::F32, |_| {}).unwrap();
        let by_hand: f64 =
            [0..41, 40..81, 80..100].map(|w| losses(&model, &ids[w]).iter().sum::<f64>()).iter().sum();
        assert_eq!(found.tokens, 99);
        assert!((found.nats - by_hand).abs() < 1e-9 * by_hand, "{} {by_hand}", found.nats);
    }

    #[test]
    fn windows_that_overlap_predict_their_last_tokens() {
        let (model, ids) = (fable(), ids(70));
        let mut told = 0;
        let windows = SlidingWindows { context: 40, stride: 12 };
        let found = score(&model, None, &ids, windows, KvPrecision::F32, |n| told += n).unwrap();
        // SlidingWindows start at 0, 12, 24 and 36, and end before 40, 52, 64 and 69.
        let mut by_hand: f64 = losses(&model, &ids[0..41]).iter().sum();
        for (window, fresh) in [(12..53, 12), (24..65, 12), (36..70, 5)] {
            let losses = losses(&model, &ids[window]);
            by_hand += losses[losses.len() - fresh..].iter().sum::<f64>();
        }
        assert_eq!((found.tokens, told), (69, 69));
        assert!((found.nats - by_hand).abs() < 1e-9 * by_hand);
    }

    #[test]
    fn a_model_does_not_diverge_from_itself() {
        let (model, ids) = (fable(), ids(50));
        let windows = SlidingWindows { context: 40, stride: 20 };
        let found = score(&model, Some(&model), &ids, windows, KvPrecision::F32, |_| {}).unwrap();
        let Divergence { kl, top1_agreement } = found.divergence.unwrap();
        assert!(kl.abs() < 1e-12 && top1_agreement == 1.0, "{kl} {top1_agreement}");
    }

    #[test]
    fn divergence_is_the_definition() {
        let p = [1.0f32, 2.5, -3.0, 0.25, 90.0, 89.5];
        let q = [0.0f32, 2.5, 4.0, -700.0, 12.0, 12.25];
        let softmax = |x: &[f32]| -> Vec<f64> {
            let max = x.iter().copied().fold(f32::MIN, f32::max);
            let e: Vec<f64> = x.iter().map(|x| f64::from(x - max).exp()).collect();
            let sum: f64 = e.iter().sum();
            e.iter().map(|e| e / sum).collect()
        };
        let definition: f64 = softmax(&p).iter().zip(softmax(&q)).map(|(p, q)| p * (p / q).ln()).sum();
        let (kl, same) = kl_divergence(&p, &q);
        assert!((kl - definition).abs() < 1e-9, "{kl}, by definition {definition}");
        assert!(!same && kl_divergence(&p, &p).1);
        let shifted: Vec<f32> = p.iter().map(|x| x + 16.0).collect();
        assert!(kl_divergence(&p, &shifted).0.abs() < 1e-12, "a shift means nothing");
    }

    #[test]
    fn what_cannot_be_scored_is_said() {
        let model = fable();
        let says = |ids: &[u32], context, stride| {
            let windows = SlidingWindows { context, stride };
            score(&model, None, ids, windows, KvPrecision::F32, |_| {}).unwrap_err().to_string()
        };
        assert_eq!(says(&[1, 2], 513, 1), "--context: found 513, expected a whole number from 1 to 512");
        assert_eq!(says(&[1, 2], 100, 101), "--stride: found 101, expected a whole number from 1 to 100");
        assert_eq!(says(&[1], 100, 100), "the text has 1 tokens, expected at least 2");
        assert!(says(&[1, 5000, 1], 100, 100).contains("5000"));
    }
}
