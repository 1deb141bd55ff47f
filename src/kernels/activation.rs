//! Activations: the nonlinearity between the two linear layers of an MLP, without which they would collapse
//! into one.
//!
//! ```text
//! gelu(x)     = x · Φ(x) = x/2 · (1 + erf(x / √2))   (Hendrycks and Gimpel 2016)
//! gelu_new(x) = x/2 · (1 + tanh(u)) = x / (1 + e^(−2u)),   u = √(2/π) · (x + 0.044715 x³)  (GPT-2)
//! relu(x)     = max(x, 0)
//! silu(x)     = x / (1 + e^(−x))
//! ```
//!
//! The fast forms need one exponential and one division, no tanh. erf uses formula 7.1.26 of Abramowitz and
//! Stegun, whose error is at most 1.5e-7.

use super::exp::exp;
use super::isa::Isa;
use super::rows::{Rows, RowsMut};
use super::simd::{Kernel, LANES, Simd};
use super::thread_pool::ThreadPool;

/// An activation function, documented with its names in `config.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `gelu_new`, `gelu_pytorch_tanh`: the tanh approximation of GELU, used by GPT-2.
    GeluTanh,
    /// `gelu`: GELU with the error function.
    GeluErf,
    /// `relu`
    Relu,
    /// `silu`: x · sigmoid(x)
    Silu,
}

const SQRT_2_OVER_PI: f32 = 0.797_884_6;

impl Activation {
    /// Evaluates the formula in f64.
    pub fn reference(self, x: f32) -> f32 {
        let x = f64::from(x);
        let y = match self {
            Activation::GeluTanh => {
                let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
                0.5 * x * (1.0 + libm::tanh(u))
            }
            Activation::GeluErf => 0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2)),
            Activation::Relu => x.max(0.0),
            Activation::Silu => x / (1.0 + libm::exp(-x)),
        };
        y as f32
    }

    /// Applies the activation to a vector of sixteen elements.
    #[inline(always)]
    pub fn apply_lanes<S: Simd>(self, simd: S, x: S::F32s) -> S::F32s {
        let one = simd.splat(1.0);
        match self {
            Activation::GeluTanh => {
                let square = simd.mul(x, x);
                let inner = simd.mul_add(square, simd.splat(0.044715), one);
                gate(simd, x, simd.mul(simd.mul(simd.splat(-2.0 * SQRT_2_OVER_PI), x), inner))
            }
            Activation::GeluErf => {
                let zero = simd.splat(0.0);
                let magnitude = simd.max(x, simd.sub(zero, x));
                let z = simd.mul(magnitude, simd.splat(std::f32::consts::FRAC_1_SQRT_2));
                let square = simd.mul(simd.sub(zero, z), z);
                let tail = simd.mul(erfc_factor(simd, z), exp(simd, square));
                // x Φ(x) = max(x, 0) − |x|/2 · erfc(|x| / √2), without cancellation on either side
                let half = simd.mul(magnitude, simd.splat(-0.5));
                simd.mul_add(half, tail, simd.max(x, zero))
            }
            Activation::Relu => simd.max(simd.splat(0.0), x), // in this order, NaN stays NaN
            Activation::Silu => gate(simd, x, simd.sub(simd.splat(0.0), x)),
        }
    }
}

impl Activation {
    /// Applies the activation to all elements in place.
    pub fn apply(self, isa: Isa, x: &mut [f32]) {
        isa.run(Apply(self, x));
    }
}

struct Apply<'a>(Activation, &'a mut [f32]);

impl Kernel for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (xs, tail) = self.1.as_chunks_mut::<LANES>();
        for x in xs {
            simd.store(self.0.apply_lanes(simd, simd.load(x)), x);
        }
        simd.store_partial(self.0.apply_lanes(simd, simd.load_partial(tail)), tail);
    }
}

/// Writes the activation of every element of `x` to `y`. Panics if the shapes do not match.
pub fn activation(pool: &ThreadPool, activation: Activation, x: Rows, mut y: RowsMut) {
    assert_eq!((x.len(), x.width()), (y.len(), y.width()), "y has the shape of x");
    let y = y.as_disjoint();
    pool.run(x.len(), |t| {
        // SAFETY: only this chunk of work writes row `t`.
        let y = unsafe { y.row_slice(t, 0, x.width()) };
        pool.isa().run(ApplyRow { activation, x: x.row(t), y });
    });
}

struct ApplyRow<'a> {
    activation: Activation,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for ApplyRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (x, y) in self.x.chunks(LANES).zip(self.y.chunks_mut(LANES)) {
            simd.store_partial(self.activation.apply_lanes(simd, simd.load_partial(x)), y);
        }
    }
}

/// Returns erfc(z) · e^(z²) for z ≥ 0: a₁ t + … + a₅ t⁵ with t = 1 / (1 + p z).
#[inline(always)]
pub(super) fn erfc_factor<S: Simd>(simd: S, z: S::F32s) -> S::F32s {
    let one = simd.splat(1.0);
    let t = simd.div(one, simd.mul_add(z, simd.splat(0.327_591_1), one));
    let mut p = simd.splat(1.061_405_4);
    for a in [-1.453_152, 1.421_413_8, -0.284_496_74, 0.254_829_6] {
        p = simd.mul_add(p, t, simd.splat(a));
    }
    simd.mul(p, t)
}

/// Returns x · sigmoid(z), given −z.
#[inline(always)]
fn gate<S: Simd>(simd: S, x: S::F32s, minus_z: S::F32s) -> S::F32s {
    simd.div(x, simd.add(simd.splat(1.0), exp(simd, minus_z)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_match_reference_on_every_isa() {
        let xs: Vec<f32> = (0..(1 << 16) + 7).map(|i| -30.0 + i as f32 * (60.0 / 65536.0)).collect();
        for f in [Activation::GeluTanh, Activation::GeluErf, Activation::Relu, Activation::Silu] {
            let mut portable = xs.clone();
            f.apply(Isa::Portable, &mut portable);
            for isa in Isa::available() {
                let mut ys = xs.clone();
                f.apply(isa, &mut ys);
                assert_eq!(ys, portable, "{f:?} on {isa}");
                let (pool, width) = (ThreadPool::new(3, isa), xs.len() / 3);
                let mut rows = vec![0.0; 3 * width];
                activation(&pool, f, Rows::dense(&xs[..3 * width], width), RowsMut::dense(&mut rows, width));
                assert_eq!(rows, portable[..3 * width], "{f:?} on {isa}");
            }
            for (&x, &y) in xs.iter().zip(&portable) {
                let expected = f.reference(x);
                let tolerance = 1e-6f32.max(x.abs() * 3e-7);
                assert!((y - expected).abs() <= tolerance, "{f:?}({x}) = {y}, expected {expected}");
            }
        }
    }
}
