//! Logprobs of the model's own distribution: `log_softmax(logits)` at temperature 1, before any penalty or
//! filter.

use super::softmax;
use super::top_n::TopN;

/// The log-softmax of one position's logits: `l - max - ln(sum(exp(l - max)))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogSoftmax {
    max: f32,
    log_sum: f64,
}

impl LogSoftmax {
    /// Computes the normalizer of `logits`, `[vocab_size]`. NaN counts as negative infinity.
    pub fn new(logits: &[f32]) -> Self {
        let max = softmax::max_logit(logits);
        let log_sum = match max {
            f32::NEG_INFINITY => 0.0, // every logit is negative infinity
            max => libm::log(softmax::sum_exp(logits, max)),
        };
        Self { max, log_sum }
    }

    /// The logprob of a token with this logit.
    pub fn logprob(&self, logit: f32) -> f32 {
        let logit = softmax::sanitize(logit);
        if logit == f32::NEG_INFINITY {
            return logit;
        }
        (f64::from(logit) - f64::from(self.max) - self.log_sum) as f32
    }
}

/// The logprob of one token. For several tokens of one position, use a [`LogSoftmax`].
///
/// # Panics
/// If `id` is not below `logits.len()`.
pub fn token_logprob(logits: &[f32], id: u32) -> f32 {
    LogSoftmax::new(logits).logprob(logits[id as usize])
}

/// The `n` most probable tokens and their logprobs, best first, the lower id first among ties.
pub fn top_logprobs(logits: &[f32], n: usize) -> Vec<(u32, f32)> {
    if n == 0 {
        return Vec::new();
    }
    let log_softmax = LogSoftmax::new(logits);
    let mut top_n = TopN::default();
    top_n.reset(n);
    top_n.scan(0, logits);
    let logprob = |&(logit, id): &(f32, u32)| (id, log_softmax.logprob(logit));
    top_n.sorted().iter().map(logprob).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn token_logprob_matches_f64_log_softmax(logits in prop::collection::vec(-100f32..100.0, 1..300)) {
            let sum: f64 = logits.iter().map(|&l| libm::exp(f64::from(l))).sum();
            for (id, &l) in (0u32..).zip(&logits) {
                let expected = f64::from(l) - libm::log(sum);
                let found = f64::from(token_logprob(&logits, id));
                prop_assert!((found - expected).abs() <= 1e-6 + expected.abs() * 1e-6, "{found} {expected}");
            }
        }
    }

    #[test]
    fn top_logprobs_are_sorted_with_ties_by_id() {
        let top = top_logprobs(&[0.0, 2.0, f32::NAN, 2.0, 1.0], 3);
        let ids: Vec<u32> = top.iter().map(|&(id, _)| id).collect();
        assert_eq!(ids, [1, 3, 4]);
        assert_eq!(top[2].1, token_logprob(&[0.0, 2.0, 2.0, 1.0], 3));
        assert_eq!(top_logprobs(&[1.0], 5), [(0, 0.0)]);
        assert_eq!(top_logprobs(&[1.0, 2.0], 0), []);
    }

    #[test]
    fn infinite_and_nan_logits_have_a_logprob() {
        let inf = f32::INFINITY;
        assert_eq!(token_logprob(&[0.0, -inf], 0), 0.0);
        assert_eq!(token_logprob(&[0.0, -inf], 1), -inf);
        assert_eq!(token_logprob(&[f32::NAN, 3.0], 0), -inf);
        assert_eq!(token_logprob(&[-inf, -inf], 0), -inf);
        assert!((token_logprob(&[inf, inf, 1.0], 0) + 2f32.ln()).abs() < 1e-6);
        assert!(token_logprob(&[inf, 1.0], 1) < -1e38);
        assert_eq!(top_logprobs(&[-inf, f32::NAN], 2), []);
    }
}
