//! AdamW: every weight moves by its gradient's running mean, relative to the running mean of its square, and
//! decays towards zero independently of the gradient (Loshchilov and Hutter 2019, algorithm 2).
//!
//! ```text
//! m ← β₁ m + (1 − β₁) g                  v ← β₂ v + (1 − β₂) g²
//! m̂ = m / (1 − β₁ᵗ)                      v̂ = v / (1 − β₂ᵗ)              since m and v start at 0
//! w ← w − lr · (m̂ / (√v̂ + ε) + λ w)
//! ```
//!
//! Seven streams over the weights, four read and three written, 28 bytes per weight: bound by memory. A
//! factor for the gradients, which clips them, is part of the same pass.

use crate::simd::{Kernel, LANES, Simd};
use crate::thread_pool::{DisjointSlice, ThreadPool};

/// Weights per chunk of work.
const WEIGHTS_PER_CHUNK: usize = 4096;

/// The hyperparameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// lr
    pub learning_rate: f32,
    /// β₁
    pub beta1: f32,
    /// β₂
    pub beta2: f32,
    /// ε
    pub epsilon: f32,
    /// λ
    pub weight_decay: f32,
}

/// A tensor of weights with its gradient and its moments, which start at zero.
#[derive(Debug)]
pub struct Parameters<'a> {
    /// w
    pub weights: &'a mut [f32],
    /// g
    pub gradient: &'a [f32],
    /// m
    pub m: &'a mut [f32],
    /// v
    pub v: &'a mut [f32],
}

/// The formula for one weight at step t, counted from 1: returns w, m and v.
pub fn reference(adamw: &AdamW, t: u32, g: f64, [w, m, v]: [f64; 3]) -> [f64; 3] {
    let [lr, beta1, beta2, epsilon, decay] =
        [adamw.learning_rate, adamw.beta1, adamw.beta2, adamw.epsilon, adamw.weight_decay].map(f64::from);
    let m = beta1 * m + (1.0 - beta1) * g;
    let v = beta2 * v + (1.0 - beta2) * g * g;
    let m_hat = m / (1.0 - libm::pow(beta1, f64::from(t)));
    let v_hat = v / (1.0 - libm::pow(beta2, f64::from(t)));
    [w - lr * (m_hat / (v_hat.sqrt() + epsilon) + decay * w), m, v]
}

impl AdamW {
    /// Takes step `t`, counted from 1, with gradients multiplied by `gradient_factor`. Panics if the shapes
    /// do not match.
    pub fn step(&self, pool: &ThreadPool, t: u32, gradient_factor: f32, parameters: Parameters) {
        let Parameters { weights, gradient, m, v } = parameters;
        let n = weights.len();
        assert_eq!((gradient.len(), m.len(), v.len()), (n, n, n), "one gradient, m and v for each weight");
        let correction = |beta: f32| 1.0 - libm::pow(f64::from(beta), f64::from(t));
        let step = Step {
            adamw: *self,
            gradient_factor,
            learning_rate: (f64::from(self.learning_rate) / correction(self.beta1)) as f32,
            v_factor: (1.0 / correction(self.beta2)) as f32,
        };
        let [weights, m, v] = [weights, m, v].map(DisjointSlice::new);
        pool.run(n.div_ceil(WEIGHTS_PER_CHUNK), |i| {
            let range = i * WEIGHTS_PER_CHUNK..n.min((i + 1) * WEIGHTS_PER_CHUNK);
            // SAFETY: only this chunk of work uses these elements.
            let [weights, m, v] = [&weights, &m, &v].map(|x| unsafe { x.slice(range.clone()) });
            let parameters = Parameters { weights, gradient: &gradient[range], m, v };
            pool.isa().run(StepChunk { step, parameters });
        });
    }
}

/// The factors of a step.
#[derive(Clone, Copy)]
struct Step {
    adamw: AdamW,
    gradient_factor: f32,
    /// lr / (1 − β₁ᵗ)
    learning_rate: f32,
    /// 1 / (1 − β₂ᵗ)
    v_factor: f32,
}

struct StepChunk<'a> {
    step: Step,
    parameters: Parameters<'a>,
}

impl Kernel for StepChunk<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Step { adamw, gradient_factor, learning_rate, v_factor } = self.step;
        let [beta1, beta2] = [adamw.beta1, adamw.beta2].map(|beta| simd.splat(beta));
        let [rest1, rest2] = [adamw.beta1, adamw.beta2].map(|beta| simd.splat(1.0 - beta));
        let kept = simd.splat(1.0 - adamw.learning_rate * adamw.weight_decay);
        let [gradient_factor, v_factor, epsilon, minus_learning_rate] =
            [gradient_factor, v_factor, adamw.epsilon, -learning_rate].map(|x| simd.splat(x));
        let Parameters { weights, gradient, m, v } = self.parameters;
        let moments = m.chunks_mut(LANES).zip(v.chunks_mut(LANES));
        for ((w, g), (m, v)) in weights.chunks_mut(LANES).zip(gradient.chunks(LANES)).zip(moments) {
            let g = simd.mul(simd.load_partial(g), gradient_factor);
            let new_m = simd.mul_add(simd.load_partial(m), beta1, simd.mul(g, rest1));
            let new_v = simd.mul_add(simd.load_partial(v), beta2, simd.mul(simd.mul(g, g), rest2));
            let deviation = simd.add(simd.sqrt(simd.mul(new_v, v_factor)), epsilon);
            let decayed = simd.mul(simd.load_partial(w), kept);
            let new_w = simd.mul_add(simd.div(new_m, deviation), minus_learning_rate, decayed);
            simd.store_partial(new_m, m);
            simd.store_partial(new_v, v);
            simd.store_partial(new_w, w);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_relative, assert_same_bits, random_values};

    const ADAMW: AdamW =
        AdamW { learning_rate: 0.01, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1 };

    #[test]
    fn steps_match_reference_with_identical_bits_on_every_isa_and_thread_count() {
        for n in [0, 1, 16, 37, 5000] {
            let (w, g) = (random_values(1, n), random_values(2, n));
            let found = assert_same_bits(|pool| {
                let (mut weights, mut m, mut v) = (w.clone(), vec![0.0; n], vec![0.0; n]);
                for t in 1..=5 {
                    let gradient: Vec<f32> = g.iter().map(|g| g * t as f32).collect();
                    let parameters =
                        Parameters { weights: &mut weights, gradient: &gradient, m: &mut m, v: &mut v };
                    ADAMW.step(pool, t, 0.5, parameters);
                }
                [weights, m, v].concat()
            });
            let mut expected: [Vec<f64>; 3] = Default::default();
            for (&w, &g) in w.iter().zip(&g) {
                let mut state = [f64::from(w), 0.0, 0.0];
                for t in 1..=5 {
                    state = reference(&ADAMW, t, f64::from(g * t as f32) * 0.5, state);
                }
                expected.iter_mut().zip(state).for_each(|(all, x)| all.push(x));
            }
            for (i, expected) in expected.iter().enumerate() {
                assert_relative(&found[i * n..][..n], expected, 1e-6);
            }
        }
    }

    #[test]
    fn first_step_moves_by_the_learning_rate_whatever_the_gradient() {
        let adamw = AdamW { weight_decay: 0.0, ..ADAMW };
        for g in [1e-3, -1.0, 1e3] {
            let [w, ..] = reference(&adamw, 1, g, [0.5, 0.0, 0.0]);
            assert!((w - (0.5 - 0.01 * g.signum())).abs() < 1e-6);
        }
    }

    #[test]
    fn weight_without_gradient_decays() {
        let found = assert_same_bits(|pool| {
            let (mut weights, mut m, mut v) = ([2.0], [0.0], [0.0]);
            let parameters = Parameters { weights: &mut weights, gradient: &[0.0], m: &mut m, v: &mut v };
            ADAMW.step(pool, 1, 1.0, parameters);
            weights.to_vec()
        });
        assert_relative(&found, &[2.0 * (1.0 - 0.01 * 0.1)], 1e-7);
    }
}
