//! Softmax: turns scores into probabilities, positive and with sum 1; a score higher by 1 gets e times the
//! probability.
//!
//! ```text
//! p[i] = e^(x[i] − max(x)) / Σ_j e^(x[j] − max(x))
//! ```
//!
//! Subtracting the maximum leaves the result unchanged and keeps e^x from overflowing. About 20 FLOPs per
//! element.

use super::exp::exp;
use super::isa::Isa;
use super::simd::{Kernel, LANES, Simd};

/// Evaluates the formula in f64.
pub fn reference(x: &[f32]) -> Vec<f32> {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let e: Vec<f64> = x.iter().map(|&x| libm::exp(f64::from(x) - f64::from(max))).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|e| (e / sum) as f32).collect()
}

/// Computes the softmax of `x` in place.
pub fn softmax(isa: Isa, x: &mut [f32]) {
    isa.run(Softmax(x));
}

/// The first pass: the maximum of `max` and the scores, lane by lane.
#[inline(always)]
pub(super) fn max_of<S: Simd>(simd: S, max: S::F32s, scores: &[[f32; LANES]]) -> S::F32s {
    scores.iter().fold(max, |max, score| simd.max(max, simd.load(score)))
}

/// The second pass: replaces the scores by e^(score − max) and adds these to `sum`, lane by lane.
#[inline(always)]
pub(super) fn exp_and_add<S: Simd>(
    simd: S,
    scores: &mut [[f32; LANES]],
    max: S::F32s,
    mut sum: S::F32s,
) -> S::F32s {
    for score in scores {
        let e = exp(simd, simd.sub(simd.load(score), max));
        sum = simd.add(sum, e);
        simd.store(e, score);
    }
    sum
}

struct Softmax<'a>(&'a mut [f32]);

impl Kernel for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (xs, tail) = self.0.as_chunks_mut::<LANES>();
        let mut padded_tail = [[f32::NEG_INFINITY; LANES]];
        padded_tail[0][..tail.len()].copy_from_slice(tail);
        let max = simd.splat(simd.reduce_max(max_of(simd, simd.load(&padded_tail[0]), xs)));
        let sum = exp_and_add(simd, xs, max, simd.splat(0.0));
        let sum = simd.splat(simd.reduce_add(exp_and_add(simd, &mut padded_tail, max, sum)));
        for x in xs {
            simd.store(simd.div(simd.load(x), sum), x);
        }
        simd.store_partial(simd.div(simd.load(&padded_tail[0]), sum), tail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, random_values};

    #[test]
    fn softmax_matches_reference_on_every_isa() {
        for n in [1, 2, 15, 16, 17, 64, 100, 1000] {
            for scale in [0.1, 10.0, 300.0] {
                let x: Vec<f32> = random_values(n as u64, n).iter().map(|x| x * scale).collect();
                let mut portable = x.clone();
                softmax(Isa::Portable, &mut portable);
                assert_close(&portable, &reference(&x), 1e-6);
                for isa in Isa::available() {
                    let mut y = x.clone();
                    softmax(isa, &mut y);
                    assert_eq!(y, portable, "{isa}");
                }
            }
        }
    }
}
