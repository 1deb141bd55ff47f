//! Softmax weights and their sums, bit-identical on every machine and in any order.
//!
//! `exp(x) = 2^n * exp(r)` with `n` the nearest integer to `x / ln 2`, and a polynomial of degree 6 for
//! `exp(r)` (coefficients from Cephes' `expf`; relative error at most 2e-7). It uses only IEEE 754 additions
//! and multiplications and integer shifts, so vectorization at any width gives the same bits.
//!
//! The largest score has weight 1, and each weight is rounded to a multiple of 2^-36. f64 sums of up to 2^17
//! weights are then *exact*: summing blockwise, sorted or left to right gives the same value. Tokens less
//! than 2^-37 (7e-12) times as probable as the best one get weight 0.
//!
//! Loops over the vocabulary are compiled for several instruction sets and dispatched at run time.

use multiversion::multiversion;

/// Replaces NaN with negative infinity, and positive infinity with the largest finite value.
pub fn sanitize(logit: f32) -> f32 {
    if logit.is_nan() { f32::NEG_INFINITY } else { logit.min(f32::MAX) }
}

/// The largest score after [`sanitize`]; negative infinity if there is none above it.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw", "x86_64+avx2"))]
pub fn max_logit(scores: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a }; // never NaN
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = scores.as_chunks::<16>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, x);
        }
    }
    sanitize(lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, larger))
}

/// `exp(x)` for x at most 0, rounded to a multiple of 2^-36. Returns 1 for positive x and 0 for NaN.
#[inline(always)]
pub fn exp_weight(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // ln 2 in two parts: n * LN2_HIGH is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding 1.5 * 2^23 rounds to an integer, which is then in the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    let x = if x > -40.0 { x } else { -40.0 };
    let x = if x < 0.0 { x } else { 0.0 };
    let shifted = x * LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 0.166_666_66;
    p = p * r + 0.5;
    let exp_r = p * (r * r) + r + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    let exp = exp_r * f32::from_bits(exponent << 23);
    // Between 2^-13 and 2^-12 an f32's last bit is 2^-36: adding 2^-13 rounds smaller values, and larger
    // values are multiples already.
    const STEP: f32 = 1.0 / 8192.0;
    (exp + STEP) - STEP
}

/// The exact sum of up to 2^17 weights.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw", "x86_64+avx2"))]
pub fn sum(weights: &[f32]) -> f64 {
    let mut lanes = [0.0; 8];
    let (chunks, rest) = weights.as_chunks::<8>();
    for chunk in chunks {
        for (lane, &w) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(w);
        }
    }
    lanes.iter().sum::<f64>() + rest.iter().map(|&w| f64::from(w)).sum::<f64>()
}

/// The dot product of scores and weights, accumulated in eight lanes on every machine. Weights of 0 are
/// skipped.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw", "x86_64+avx2"))]
pub fn weighted_sum(scores: &[f32], weights: &[f32]) -> f64 {
    let product = |s: f32, w: f32| {
        if w > 0.0 { f64::from(s) * f64::from(w) } else { 0.0 }
    };
    let mut lanes = [0.0; 8];
    let ((s8, s_rest), (w8, w_rest)) = (scores.as_chunks::<8>(), weights.as_chunks::<8>());
    for (s, w) in s8.iter().zip(w8) {
        for i in 0..8 {
            lanes[i] += product(s[i], w[i]);
        }
    }
    let rest = s_rest.iter().zip(w_rest).map(|(&s, &w)| product(s, w));
    lanes.iter().sum::<f64>() + rest.sum::<f64>()
}

/// The sum of `exp(l - max)` over raw logits, where `max` is their [`max_logit`].
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw", "x86_64+avx2"))]
pub fn sum_exp(logits: &[f32], max: f32) -> f64 {
    // Blockwise, so that the weights stay in L1.
    let mut weights = [0.0; 1024];
    logits
        .chunks(weights.len())
        .map(|block| {
            let weights = &mut weights[..block.len()];
            for (w, &l) in weights.iter_mut().zip(block) {
                *w = exp_weight(l - max);
            }
            sum(weights)
        })
        .sum()
}

/// Appends `(s - max) / temperature` for every score, where `max` is the largest: at most 0. NaN stays,
/// infinity gives 0.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw", "x86_64+avx2"))]
pub fn apply_temperature(scores: &[f32], max: f32, temperature: f32, out: &mut Vec<f32>) {
    out.extend(scores.iter().map(|&s| match (s - max) / temperature {
        above if above > 0.0 => 0.0,
        score => score,
    }));
}

/// Appends the weight of every score.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw", "x86_64+avx2"))]
pub fn exp_weights(scores: &[f32], out: &mut Vec<f32>) {
    out.extend(scores.iter().map(|&s| exp_weight(s)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
