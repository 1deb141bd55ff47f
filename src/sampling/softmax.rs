//! Softmax weights and their sums, bit-identical on every machine and in any order.
//!
//! The exponential is that of the kernels ([`exp`]), whose bits do not depend on the instruction set. The
//! largest score has weight 1, and each weight is rounded to a multiple of 2^-36. f64 sums of up to 2^17
//! weights are then *exact*: summing blockwise, sorted or left to right gives the same value. Tokens less
//! than 2^-37 (7e-12) times as probable as the best one get weight 0. Attention's softmax has neither: it
//! sums in f32, in a fixed order, and a NaN spreads, which here is a token that cannot be drawn.
//!
//! Loops over the vocabulary are kernels, run with the instruction set of the process.

use crate::kernels::exp::exp;
use crate::kernels::isa::Isa;
use crate::kernels::simd::{Kernel, LANES, Simd};

/// Replaces NaN with negative infinity, and positive infinity with the largest finite value.
pub fn sanitize(logit: f32) -> f32 {
    if logit.is_nan() { f32::NEG_INFINITY } else { logit.min(f32::MAX) }
}

/// The largest score after [`sanitize`]; negative infinity if there is none above it.
pub fn max_logit(scores: &[f32]) -> f32 {
    Isa::of_process().run(MaxLogit(scores))
}

struct MaxLogit<'a>(&'a [f32]);

impl Kernel for MaxLogit<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let (chunks, rest) = self.0.as_chunks::<LANES>();
        let mut max = simd.splat(f32::NEG_INFINITY);
        for chunk in chunks {
            max = simd.max(simd.load(chunk), max); // in this order, NaN is ignored
        }
        let mut lanes = [0.0; LANES];
        simd.store(max, &mut lanes);
        sanitize(lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a }))
    }
}

/// `exp(x)` of each lane for x at most 0, rounded to a multiple of 2^-36: 1 for positive x and 0 for NaN.
#[inline(always)]
fn exp_weight_lanes<S: Simd>(simd: S, x: S::F32s) -> S::F32s {
    // Between 2^-13 and 2^-12 an f32's last bit is 2^-36: adding 2^-13 rounds smaller values, and larger
    // values are multiples already.
    let step = simd.splat(1.0 / 8192.0);
    let x = simd.min(simd.max(x, simd.splat(-40.0)), simd.splat(0.0));
    simd.sub(simd.add(exp(simd, x), step), step)
}

/// Replaces every score by its weight.
#[inline(always)]
fn to_weights<S: Simd>(simd: S, scores: &mut [f32]) {
    let (chunks, rest) = scores.as_chunks_mut::<LANES>();
    for chunk in chunks {
        simd.store(exp_weight_lanes(simd, simd.load(chunk)), chunk);
    }
    simd.store_partial(exp_weight_lanes(simd, simd.load_partial(rest)), rest);
}

/// The exact sum of up to 2^17 weights.
pub fn sum(weights: &[f32]) -> f64 {
    Isa::of_process().run(Sum(weights))
}

struct Sum<'a>(&'a [f32]);

impl Kernel for Sum<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) -> f64 {
        let mut lanes = [0.0; 8];
        let (chunks, rest) = self.0.as_chunks::<8>();
        for chunk in chunks {
            for (lane, &w) in lanes.iter_mut().zip(chunk) {
                *lane += f64::from(w);
            }
        }
        lanes.iter().sum::<f64>() + rest.iter().map(|&w| f64::from(w)).sum::<f64>()
    }
}

/// The dot product of scores and weights, accumulated in eight lanes on every machine. Weights of 0 are
/// skipped.
pub fn weighted_sum(scores: &[f32], weights: &[f32]) -> f64 {
    Isa::of_process().run(WeightedSum { scores, weights })
}

struct WeightedSum<'a> {
    scores: &'a [f32],
    weights: &'a [f32],
}

impl Kernel for WeightedSum<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) -> f64 {
        let product = |s: f32, w: f32| {
            if w > 0.0 { f64::from(s) * f64::from(w) } else { 0.0 }
        };
        let mut lanes = [0.0; 8];
        let ((s8, s_rest), (w8, w_rest)) = (self.scores.as_chunks::<8>(), self.weights.as_chunks::<8>());
        for (s, w) in s8.iter().zip(w8) {
            for i in 0..8 {
                lanes[i] += product(s[i], w[i]);
            }
        }
        let rest = s_rest.iter().zip(w_rest).map(|(&s, &w)| product(s, w));
        lanes.iter().sum::<f64>() + rest.sum::<f64>()
    }
}

/// The sum of `exp(l - max)` over raw logits, where `max` is their [`max_logit`].
pub fn sum_exp(logits: &[f32], max: f32) -> f64 {
    Isa::of_process().run(SumExp { logits, max })
}

struct SumExp<'a> {
    logits: &'a [f32],
    max: f32,
}

impl Kernel for SumExp<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f64 {
        // Blockwise, so that the weights stay in L1.
        let mut weights = [0.0; 1024];
        let mut total = 0.0;
        for block in self.logits.chunks(weights.len()) {
            let weights = &mut weights[..block.len()];
            for (w, &l) in weights.iter_mut().zip(block) {
                *w = l - self.max;
            }
            to_weights(simd, weights);
            total += Sum(weights).run(simd);
        }
        total
    }
}

/// Appends `(s - max) / temperature` for every score, where `max` is the largest: at most 0. NaN stays,
/// infinity gives 0.
pub fn apply_temperature(scores: &[f32], max: f32, temperature: f32, out: &mut Vec<f32>) {
    Isa::of_process().run(ApplyTemperature { scores, max, temperature, out });
}

struct ApplyTemperature<'a> {
    scores: &'a [f32],
    max: f32,
    temperature: f32,
    out: &'a mut Vec<f32>,
}

impl Kernel for ApplyTemperature<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        let start = self.out.len();
        self.out.extend_from_slice(self.scores);
        for score in &mut self.out[start..] {
            let scaled = (*score - self.max) / self.temperature;
            *score = if scaled > 0.0 { 0.0 } else { scaled };
        }
    }
}

/// Appends the weight of every score.
pub fn exp_weights(scores: &[f32], out: &mut Vec<f32>) {
    Isa::of_process().run(ExpWeights { scores, out });
}

struct ExpWeights<'a> {
    scores: &'a [f32],
    out: &'a mut Vec<f32>,
}

impl Kernel for ExpWeights<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let start = self.out.len();
        self.out.extend_from_slice(self.scores);
        to_weights(simd, &mut self.out[start..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The weight of one score.
    fn exp_weight(x: f32) -> f32 {
        let mut out = vec![];
        exp_weights(&[x], &mut out);
        out[0]
    }

    #[test]
    fn sums_and_weights_are_the_same_on_every_isa() {
        let scores: Vec<f32> = (0..2021).map(|i| ((i * 7919) % 3001) as f32 * 0.013 - 39.0).collect();
        let mut scores_with_nan = scores.clone();
        (scores_with_nan[5], scores_with_nan[700]) = (f32::NAN, f32::NEG_INFINITY);
        let mut first = None;
        for isa in Isa::available() {
            let mut weights = vec![];
            isa.run(ExpWeights { scores: &scores, out: &mut weights });
            let found = (
                isa.run(MaxLogit(&scores_with_nan)).to_bits(),
                isa.run(Sum(&weights)).to_bits(),
                isa.run(WeightedSum { scores: &scores, weights: &weights }).to_bits(),
                isa.run(SumExp { logits: &scores_with_nan, max: 0.0 }).to_bits(),
                weights,
            );
            assert_eq!(first.get_or_insert_with(|| found.clone()), &found, "{isa}");
        }
    }

    #[test]
    fn exp_weight_is_exp_rounded_to_step() {
        assert_eq!(exp_weight(0.0), 1.0);
        for x in [-26.0, -41.0, -1e30, f32::NEG_INFINITY, f32::NAN] {
            assert_eq!(exp_weight(x), 0.0, "{x}");
        }
        assert_eq!(exp_weight(f32::INFINITY), 1.0);
        for i in 0..400_000 {
            let x = i as f32 * -1e-4;
            let exact = libm::exp(f64::from(x));
            let w = f64::from(exp_weight(x));
            let step = 2f64.powi(-36);
            assert!((w - exact).abs() <= 2.4e-7 * exact + step / 2.0, "{x}: {w}, expected {exact}");
            assert_eq!((w / step).fract(), 0.0, "{x}");
            assert!(w <= 1.0);
        }
    }

    proptest! {
        #[test]
        fn sums_do_not_depend_on_order(
            mut xs in prop::collection::vec(-30f32..=0.0, 0..3000),
            seed in any::<u64>(),
        ) {
            let weights = |xs: &[f32]| xs.iter().map(|&x| exp_weight(x)).collect::<Vec<_>>();
            let total = sum(&weights(&xs));
            prop_assert_eq!(sum_exp(&xs, 0.0), total);
            prop_assert_eq!(weights(&xs).iter().fold(0.0, |s, &w| s + f64::from(w)), total);
            let rotation = seed as usize % xs.len().max(1);
            xs.rotate_left(rotation);
            xs.reverse();
            prop_assert_eq!(sum(&weights(&xs)), total);
            xs.sort_by(f32::total_cmp);
            prop_assert_eq!(sum(&weights(&xs)), total);
        }
    }
}
