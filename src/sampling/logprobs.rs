//! Logprobs of the raw distribution: `log_softmax(logits)` at temperature 1, before any penalty or filter.

use super::select::Best;
use super::softmax;

/// What turns any of one position's logits into its logprob: `l - max - ln(sum(exp(l - max)))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogSoftmax {
    max: f32,
    log_sum: f64,
}

impl LogSoftmax {
    /// Looks at all logits once, `[vocab_size]`. NaN counts as ruled out.
    pub fn of(logits: &[f32]) -> Self {
        let max = softmax::max_tame(logits);
        let log_sum = match max {
            f32::NEG_INFINITY => 0.0, // nothing is possible
            max => libm::log(softmax::sum_of_weights(logits, max)),
        };
        Self { max, log_sum }
    }

    /// The logprob of a token with this logit.
    pub fn at(&self, logit: f32) -> f32 {
        let logit = softmax::tame(logit);
        if logit == f32::NEG_INFINITY {
            return logit;
        }
        (f64::from(logit) - f64::from(self.max) - self.log_sum) as f32
    }
}

/// The logprob of one token. For several of the same position make one [`LogSoftmax`].
///
/// # Panics
/// Where `id` is not below `logits.len()`.
pub fn log_softmax_at(logits: &[f32], id: u32) -> f32 {
    LogSoftmax::of(logits).at(logits[id as usize])
}

/// The `n` likeliest tokens and their logprobs, best first, the lower id first among equals.
pub fn top_logprobs(logits: &[f32], n: usize) -> Vec<(u32, f32)> {
    if n == 0 {
        return Vec::new();
    }
    let log_softmax = LogSoftmax::of(logits);
    let mut best = Best::default();
    best.reset(n);
    best.look(0, logits);
    let logprob = |&(logit, id): &(f32, u32)| (id, log_softmax.at(logit));
    best.sorted().iter().map(logprob).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn logprobs_are_log_softmax(logits in prop::collection::vec(-100f32..100.0, 1..300)) {
            let sum: f64 = logits.iter().map(|&l| libm::exp(f64::from(l))).sum();
            for (id, &l) in (0u32..).zip(&logits) {
                let expected = f64::from(l) - libm::log(sum);
                let found = f64::from(log_softmax_at(&logits, id));
                prop_assert!((found - expected).abs() <= 1e-6 + expected.abs() * 1e-6, "{found} {expected}");
            }
        }
    }

    #[test]
    fn the_best_come_first() {
        let top = top_logprobs(&[0.0, 2.0, f32::NAN, 2.0, 1.0], 3);
        let ids: Vec<u32> = top.iter().map(|&(id, _)| id).collect();
        assert_eq!(ids, [1, 3, 4]);
        assert_eq!(top[2].1, log_softmax_at(&[0.0, 2.0, 2.0, 1.0], 3));
        assert_eq!(top_logprobs(&[1.0], 5), [(0, 0.0)]);
        assert_eq!(top_logprobs(&[1.0, 2.0], 0), []);
    }

    #[test]
    fn impossible_and_infinite_logits_have_a_logprob() {
        let inf = f32::INFINITY;
        assert_eq!(log_softmax_at(&[0.0, -inf], 0), 0.0);
        assert_eq!(log_softmax_at(&[0.0, -inf], 1), -inf);
        assert_eq!(log_softmax_at(&[f32::NAN, 3.0], 0), -inf);
        assert_eq!(log_softmax_at(&[-inf, -inf], 0), -inf);
        assert!((log_softmax_at(&[inf, inf, 1.0], 0) + 2f32.ln()).abs() < 1e-6);
        assert!(log_softmax_at(&[inf, 1.0], 1) < -1e38);
        assert_eq!(top_logprobs(&[-inf, f32::NAN], 2), []);
    }
}
