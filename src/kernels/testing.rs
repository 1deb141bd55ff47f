//! Inputs and comparisons for the kernels' tests.

use super::isa::Isa;
use super::thread_pool::ThreadPool;

/// Returns `n` values between -1 and 1, determined by the seed.
pub(super) fn random_values(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// Asserts that all pairs agree to `tolerance`: absolute for expected magnitudes below 1, relative above.
pub(super) fn assert_close(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= tolerance * e.abs().max(1.0), "[{i}]: found {f}, expected {e}");
    }
}

/// Converts to f64.
pub(super) fn to_f64(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// Converts to f32.
pub(super) fn to_f32(x: &[f64]) -> Vec<f32> {
    x.iter().map(|&x| x as f32).collect()
}

/// Asserts that all pairs agree to `tolerance`, relative to the largest expected magnitude.
pub(super) fn assert_relative(found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0f64, |max, x| max.max(x.abs()));
    for (i, (&f, e)) in found.iter().zip(expected).enumerate() {
        let difference = (f64::from(f) - e).abs();
        assert!(difference <= tolerance * largest, "[{i}]: found {f}, expected {e}, largest {largest}");
    }
}

/// Asserts that `gradient` is that of `loss` at `x`, by finite differences: moves each element a little to
/// both sides.
pub(super) fn assert_gradient(loss: impl Fn(&[f64]) -> f64, x: &[f64], gradient: &[f64]) {
    const STEP: f64 = 1e-5;
    assert_eq!(x.len(), gradient.len());
    let largest = gradient.iter().fold(0.0f64, |max, x| max.max(x.abs()));
    assert!(largest > 0.0, "a gradient of zeros proves nothing");
    let mut moved = x.to_vec();
    for i in 0..x.len() {
        let mut loss_at = |x| {
            moved[i] = x;
            loss(&moved)
        };
        let slope = (loss_at(x[i] + STEP) - loss_at(x[i] - STEP)) / (2.0 * STEP);
        moved[i] = x[i];
        let difference = (slope - gradient[i]).abs();
        assert!(difference <= 1e-7 * largest.max(1.0), "[{i}]: found {}, expected {slope}", gradient[i]);
    }
}

/// Asserts that `compute` gives the same bits on every instruction set and on one, two and three threads, and
/// returns its result.
pub(super) fn assert_same_bits(compute: impl Fn(&ThreadPool) -> Vec<f32>) -> Vec<f32> {
    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
    let expected = compute(&ThreadPool::new(1, Isa::Portable));
    for (isa, threads) in Isa::available().into_iter().flat_map(|isa| [1, 2, 3].map(|threads| (isa, threads)))
    {
        let found = compute(&ThreadPool::new(threads, isa));
        assert_eq!(bits(&found), bits(&expected), "{isa}, {threads} threads");
    }
    expected
}
