//! e^x for sixteen elements at once, bitwise the same on every ISA.
//!
//! e^x = 2^n · e^r with n = round(x / ln 2) and |r| ≤ ln 2 / 2, where a short polynomial approximates e^r.
//! The reduction is Cody and Waite's, with ln 2 in two parts so that n · ln 2 is subtracted without loss. The
//! error is at most 2 ulp; results below the smallest normal number are flushed to zero, and arguments are
//! clamped to at most 88.38.

use super::simd::{LANES, ROUND_MAGIC, Simd};

/// e^x in f64, rounded.
pub fn reference(x: f32) -> f32 {
    libm::exp(f64::from(x)) as f32
}

/// Returns the exponential of each lane.
#[inline(always)]
pub fn exp<S: Simd>(simd: S, x: S::F32s) -> S::F32s {
    const MIN_ARG: f32 = -87.336_54; // ln of the smallest normal number
    const MAX_ARG: f32 = 88.376_26; // so that n stays at 127
    const LN_2_HIGH: f32 = 0.693_145_75;
    const LN_2_LOW: f32 = 1.428_606_8e-6;

    let clamped = simd.max(simd.splat(MIN_ARG), simd.min(simd.splat(MAX_ARG), x));
    let shifted = simd.mul_add(clamped, simd.splat(std::f32::consts::LOG2_E), simd.splat(ROUND_MAGIC));
    let n = simd.sub(shifted, simd.splat(ROUND_MAGIC));
    let r = simd.mul_add(n, simd.splat(-LN_2_HIGH), clamped);
    let r = simd.mul_add(n, simd.splat(-LN_2_LOW), r);
    // 1 + r + r² · P(r), with P as in Moshier's Cephes library
    let mut p = simd.splat(1.987_569_1e-4);
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = simd.mul_add(p, r, simd.splat(c));
    }
    let p = simd.add(simd.mul_add(simd.mul(p, r), r, r), simd.splat(1.0));
    simd.zero_below(simd.scale_by_pow2(p, shifted), x, MIN_ARG)
}

/// Returns the exponential of a scalar, computed as in [`exp`].
#[inline(always)]
pub fn exp_scalar<S: Simd>(simd: S, x: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    simd.store(exp(simd, simd.splat(x)), &mut lanes);
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::simd::Kernel;

    struct Exp<'a>(&'a [[f32; LANES]]);
    impl Kernel for Exp<'_> {
        type Output = Vec<[f32; LANES]>;
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> Self::Output {
            let exp_lanes = |x: &[f32; LANES]| {
                let mut y = [0.0; LANES];
                simd.store(exp(simd, simd.load(x)), &mut y);
                y
            };
            self.0.iter().map(exp_lanes).collect()
        }
    }

    #[test]
    fn exp_is_within_two_ulp_on_every_isa() {
        let xs: Vec<f32> = (0..1 << 18).map(|i| -90.0 + i as f32 * (178.0 / (1 << 18) as f32)).collect();
        let xs = xs.as_chunks().0;
        let portable = Isa::Portable.run(Exp(xs));
        for isa in Isa::available() {
            assert_eq!(isa.run(Exp(xs)), portable, "{isa}");
        }
        for (&x, &y) in xs.as_flattened().iter().zip(portable.as_flattened()) {
            let exact = reference(x);
            if x < -87.336_54 {
                assert_eq!(y, 0.0, "exp({x})");
            } else if x < 88.376_26 {
                let ulp = y.next_up() - y;
                assert!((y - exact).abs() <= 2.0 * ulp, "exp({x}) = {y}, exact {exact}");
            }
        }
    }

    #[test]
    fn exp_handles_infinities_nan_and_zeros() {
        let mut x = [0.0; LANES];
        x[..5].copy_from_slice(&[f32::NEG_INFINITY, f32::INFINITY, f32::NAN, 0.0, -0.0]);
        let y = Isa::Portable.run(Exp(&[x]))[0];
        assert_eq!((y[0], y[3], y[4]), (0.0, 1.0, 1.0));
        assert!(y[1] > 2e38 && y[2].is_nan());
    }
}
