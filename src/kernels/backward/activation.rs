//! Backward of the [activations](crate::activation): every element of the gradient is multiplied with the
//! derivative at its input. The activation itself, which the gradient of the next layer needs, is computed
//! again in the same pass: that takes less time than to read and write it once more.
//!
//! ```text
//! dx = dy · f'(x)
//!
//! gelu'(x)     = Φ(x) + x · φ(x)                  φ(x) = e^(−x²/2) / √(2π)
//! gelu_new'(x) = s + x · s · (1 − s) · 2u'        s = 1 / (1 + e^(−2u)),  2u' = 2 √(2/π) · (1 + 0.134145 x²)
//! relu'(x)     = 1 where x > 0, else 0
//! silu'(x)     = s + x · s · (1 − s)              s = 1 / (1 + e^(−x))
//! ```
//!
//! gelu_new and silu are x · sigmoid(z), whose derivative is s + x · s' · z' with s' = s · (1 − s). As in the
//! forward pass one exponential and one division suffice; Φ and φ share theirs.

use crate::activation::{Activation, erfc_factor};
use crate::exp::exp;
use crate::rows::{Rows, RowsMut};
use crate::simd::{Kernel, LANES, Simd};
use crate::thread_pool::ThreadPool;
use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// The derivative of the activation at `x`.
pub fn reference(activation: Activation, x: f64) -> f64 {
    let sigmoid = |z: f64| 1.0 / (1.0 + libm::exp(-z));
    match activation {
        Activation::GeluTanh => {
            let s = sigmoid(2.0 * (2.0 / PI).sqrt() * (x + 0.044715 * x * x * x));
            s + x * s * (1.0 - s) * 2.0 * (2.0 / PI).sqrt() * (1.0 + 3.0 * 0.044715 * x * x)
        }
        Activation::GeluErf => {
            let density = libm::exp(-x * x / 2.0) / (2.0 * PI).sqrt();
            0.5 * libm::erfc(-x * FRAC_1_SQRT_2) + x * density
        }
        Activation::Relu => f64::from(u8::from(x > 0.0)),
        Activation::Silu => sigmoid(x) + x * sigmoid(x) * (1.0 - sigmoid(x)),
    }
}

/// Writes the activations at `x` to `y`, and multiplies `dy` with the derivatives at `x`. Panics if the
/// shapes do not match.
pub fn activation(pool: &ThreadPool, activation: Activation, x: Rows, mut y: RowsMut, mut dy: RowsMut) {
    assert_eq!((x.len(), x.width()), (dy.len(), dy.width()), "dy has the shape of x");
    assert_eq!((x.len(), x.width()), (y.len(), y.width()), "y has the shape of x");
    let (y, dy) = (y.as_disjoint(), dy.as_disjoint());
    pool.run(x.len(), |t| {
        // SAFETY: only this chunk of work writes row `t` of both.
        let [y, dy] = [&y, &dy].map(|rows| unsafe { rows.row_slice(t, 0, x.width()) });
        pool.isa().run(Backward { activation, x: x.row(t), y, dy });
    });
}

struct Backward<'a> {
    activation: Activation,
    x: &'a [f32],
    y: &'a mut [f32],
    dy: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let outputs = self.y.chunks_mut(LANES).zip(self.dy.chunks_mut(LANES));
        for (x, (y, dy)) in self.x.chunks(LANES).zip(outputs) {
            let x = simd.load_partial(x);
            simd.store_partial(self.activation.apply_lanes(simd, x), y);
            let derivative = derivative(simd, self.activation, x);
            simd.store_partial(simd.mul(simd.load_partial(dy), derivative), dy);
        }
    }
}

/// Returns the derivatives at sixteen inputs.
#[inline(always)]
fn derivative<S: Simd>(simd: S, activation: Activation, x: S::F32s) -> S::F32s {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    const FRAC_1_SQRT_TAU: f32 = 0.398_942_3;
    /// Beyond, every derivative is 0 or 1, and x² must not overflow.
    const LIMIT: f32 = 64.0;
    let (zero, one) = (simd.splat(0.0), simd.splat(1.0));
    // In this order, NaN stays NaN.
    let x = simd.max(simd.splat(-LIMIT), simd.min(simd.splat(LIMIT), x));
    match activation {
        Activation::GeluTanh => {
            let square = simd.mul(x, x);
            let inner = simd.mul_add(square, simd.splat(0.044715), one);
            let minus_z = simd.mul(simd.mul(simd.splat(-2.0 * SQRT_2_OVER_PI), x), inner);
            let slope = simd.mul_add(square, simd.splat(3.0 * 0.044715), one);
            gate_derivative(simd, minus_z, simd.mul(simd.mul(simd.splat(2.0 * SQRT_2_OVER_PI), x), slope))
        }
        Activation::GeluErf => {
            let magnitude = simd.max(x, simd.sub(zero, x));
            let z = simd.mul(magnitude, simd.splat(FRAC_1_SQRT_2 as f32));
            let e = exp(simd, simd.mul(simd.sub(zero, z), z)); // e^(−x²/2)
            let tail = simd.mul(simd.mul(simd.splat(0.5), erfc_factor(simd, z)), e); // Φ(−|x|)
            let rest = simd.mul_add(simd.splat(-2.0), tail, one);
            let cdf = simd.add(tail, simd.zero_below(rest, x, 0.0));
            simd.mul_add(simd.mul(x, simd.splat(FRAC_1_SQRT_TAU)), e, cdf)
        }
        // The least positive number: zero where x ≤ 0. The sum keeps NaN.
        Activation::Relu => simd.zero_below(simd.add(simd.mul(x, zero), one), x, f32::from_bits(1)),
        Activation::Silu => gate_derivative(simd, simd.sub(zero, x), x),
    }
}

/// Returns s + s · (1 − s) · xz' with s = sigmoid(z), given −z and x · z'. As e^(−z) · s, 1 − s has no
/// cancellation.
#[inline(always)]
fn gate_derivative<S: Simd>(simd: S, minus_z: S::F32s, x_slope: S::F32s) -> S::F32s {
    let (one, e) = (simd.splat(1.0), exp(simd, minus_z));
    let s = simd.div(one, simd.add(one, e));
    simd.mul_add(simd.mul(s, simd.mul(e, s)), x_slope, s)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::testing::{assert_gradient, assert_same_bits, random_values};

    const ALL: [Activation; 4] =
        [Activation::GeluTanh, Activation::GeluErf, Activation::Relu, Activation::Silu];

    /// The activation in f64.
    fn forward(f: Activation, x: f64) -> f64 {
        match f {
            Activation::GeluTanh => {
                0.5 * x * (1.0 + libm::tanh((2.0 / PI).sqrt() * (x + 0.044715 * x * x * x)))
            }
            Activation::GeluErf => 0.5 * x * (1.0 + libm::erf(x * FRAC_1_SQRT_2)),
            Activation::Relu => x.max(0.0),
            Activation::Silu => x / (1.0 + libm::exp(-x)),
        }
    }

    #[test]
    fn reference_is_the_derivative_of_the_activation() {
        for f in ALL {
            for i in -80..80 {
                let x = (f64::from(i) + 0.5) / 10.0;
                assert_eq!(forward(f, f64::from(x as f32)) as f32, f.reference(x as f32));
                if reference(f, x) != 0.0 {
                    assert_gradient(|x| forward(f, x[0]), &[x], &[reference(f, x)]);
                }
            }
        }
    }

    #[test]
    fn derivatives_match_reference_with_identical_bits_on_every_isa_and_thread_count() {
        for width in [1, 16, 21, 400] {
            let x: Vec<f32> = (0..24 * width).map(|i| -12.0 + i as f32 / width as f32).collect();
            let dy = random_values(1, x.len());
            for f in ALL {
                let found = assert_same_bits(|pool| {
                    let (mut y, mut dy) = (vec![f32::NAN; x.len()], dy.clone());
                    let [y_rows, dy_rows] = [&mut y, &mut dy].map(|data| RowsMut::dense(data, width));
                    activation(pool, f, Rows::dense(&x, width), y_rows, dy_rows);
                    [y, dy].concat()
                });
                let (y, found) = found.split_at(x.len());
                let mut forward = x.clone();
                f.apply(Isa::Portable, &mut forward);
                assert_eq!(y, forward, "{f:?}");
                for ((&found, &x), dy) in found.iter().zip(&x).zip(&dy) {
                    let expected = f64::from(*dy) * reference(f, f64::from(x));
                    let difference = (f64::from(found) - expected).abs();
                    assert!(difference <= 1e-6, "{f:?}'({x}) · {dy} = {found}, expected {expected}");
                }
            }
        }
    }

    #[test]
    fn derivatives_of_huge_inputs_are_0_or_1_and_of_nan_nan() {
        for f in ALL {
            let x =
                [f32::NEG_INFINITY, f32::MIN, -1e10, -100.0, 100.0, 1e10, f32::MAX, f32::INFINITY, f32::NAN];
            let found = assert_same_bits(|pool| {
                let (mut y, mut dy) = (vec![0.0; x.len()], vec![1.0; x.len()]);
                let [y, dy_rows] = [&mut y, &mut dy].map(|data| RowsMut::dense(data, x.len()));
                activation(pool, f, Rows::dense(&x, x.len()), y, dy_rows);
                dy.iter().map(|dy| if dy.is_nan() { f32::NAN } else { *dy }).collect()
            });
            for (i, found) in found[..8].iter().enumerate() {
                assert!((found - f32::from(u8::from(i >= 4))).abs() < 1e-20, "{f:?}'({}) = {found}", x[i]);
            }
            assert!(found[8].is_nan(), "{f:?}");
        }
    }
}
