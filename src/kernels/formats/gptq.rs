//! GPTQ (Frantar et al. 2022, <https://arxiv.org/abs/2210.17323>): a rounding error is made up for by the
//! weights that are rounded after it.
//!
//! Rounding every weight `w` of a column to the nearest `ŵ` makes the smallest errors of weights, not of the
//! layer's output. With δ = w − ŵ, the output's squared error over some tokens x is
//!
//! ```text
//! Σ_t (x_t · δ)² = δᵀ H δ,   H = Σ_t x_tᵀ x_t
//! ```
//!
//! H is not diagonal, as inputs are correlated: the error of one weight can be cancelled by others. With
//! H = U D Uᵀ, where U is upper triangular with ones on its diagonal, the error is a sum of squares,
//!
//! ```text
//! δᵀ H δ = Σ_k D_k · (δ_k + Σ_{i<k} U[i, k] · δ_i)²
//! ```
//!
//! so that, one input after the other, the weight to be rounded is the one that makes its square small:
//!
//! ```text
//! ŵ_k = round(w_k + Σ_{i<k} U[i, k] · δ_i)
//! ```
//!
//! In this form, with the errors of the original weights, the algorithm is LDLQ of Chee et al. 2023
//! (<https://arxiv.org/abs/2307.13304>), who prove that it rounds as GPTQ does.

use crate::isa::Isa;
use crate::parallel::*;
use crate::simd::{Kernel, LANES, Simd};

/// How far each input makes up for the rounding errors of those before it: U of the inputs' H.
pub struct Feedback {
    inputs: usize,
    /// Uᵀ, `[inputs, inputs]`, of which the elements below the diagonal are used.
    coefficients: Vec<f32>,
}

/// What is added to the diagonal of H, as a fraction of its mean, so that inputs that are always zero, or
/// always equal, have a solution.
const DAMPING: f64 = 0.01;
/// Rows that are eliminated together, while they are in the cache.
const BLOCK_ROWS: usize = 64;

impl Feedback {
    /// Decomposes H, `[inputs, inputs]` and symmetric.
    ///
    /// # Panics
    /// If H is not square.
    pub fn new(hessian: &[f32], inputs: usize) -> Self {
        assert_eq!(hessian.len(), inputs * inputs, "H is [inputs, inputs]");
        let mut h: Vec<f64> = hessian.iter().map(|&x| f64::from(x)).collect();
        let trace: f64 = (0..inputs).map(|k| h[k * (inputs + 1)]).sum();
        // If all is zero, any number is as good as another.
        let damping = if trace > 0.0 { DAMPING * trace / inputs as f64 } else { 1.0 };
        (0..inputs).for_each(|k| h[k * (inputs + 1)] += damping);
        decompose(&mut h, inputs);
        Self { inputs, coefficients: h.into_iter().map(|x| x as f32).collect() }
    }

    /// The number of inputs.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Returns what input `k` makes up for the errors of the inputs in `errors`, which are those from `first`
    /// on, of a vector of columns: the sum of U\[i, k\] · δ_i in the order of the inputs.
    #[inline(always)]
    pub(super) fn sum(&self, k: usize, first: usize, errors: &[[f32; LANES]]) -> [f32; LANES] {
        let mut sum = [0.0; LANES];
        if k < self.inputs {
            let coefficients = &self.coefficients[k * self.inputs + first..][..errors.len()];
            for (c, error) in coefficients.iter().zip(errors) {
                (0..LANES).for_each(|lane| sum[lane] += c * error[lane]);
            }
        }
        sum
    }
}

/// Replaces the lower triangle of H, `[n, n]`, by D on the diagonal and Uᵀ below it: from the last input on,
/// what an input explains is subtracted from those before it.
fn decompose(h: &mut [f64], n: usize) {
    let isa = Isa::of_process();
    let mut end = n;
    while end > 0 {
        let first = end.saturating_sub(BLOCK_ROWS);
        let (above, block) = h[..end * n].split_at_mut(first * n);
        for k in (0..end - first).rev() {
            let (before, row) = block.split_at_mut(k * n);
            let row = &mut row[..first + k + 1];
            let d = row[first + k];
            row[..first + k].iter_mut().for_each(|x| *x /= d);
            for (i, before) in before.chunks_exact_mut(n).enumerate() {
                isa.run(Eliminate { to: &mut before[..=first + i], row, d, i: first + i });
            }
        }
        let block = &*block;
        above.par_chunks_mut(n).enumerate().for_each(|(i, to)| {
            for k in (0..end - first).rev() {
                let row = &block[k * n..][..first + k + 1];
                isa.run(Eliminate { to: &mut to[..=i], row, d: row[first + k], i });
            }
        });
        end = first;
    }
}

/// Subtracts from input `i`'s row what a later input explains: `to[j] −= U[i, k] · D_k · U[j, k]`.
struct Eliminate<'a> {
    to: &'a mut [f64],
    row: &'a [f64],
    d: f64,
    i: usize,
}

impl Kernel for Eliminate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let factor = self.row[self.i] * self.d;
        self.to.iter_mut().zip(self.row).for_each(|(to, u)| *to -= factor * u);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::testing::random_values;

    /// H of random correlated inputs.
    pub(in super::super) fn hessian(n: usize, tokens: usize) -> Vec<f32> {
        let (x, mix) = (random_values(1, tokens * n), random_values(2, n * n));
        let mut h = vec![0.0f32; n * n];
        for x in x.chunks_exact(n) {
            let mixed: Vec<f32> =
                (0..n).map(|k| x.iter().zip(&mix[k * n..]).map(|(x, m)| x * m).sum()).collect();
            for i in 0..n {
                (0..n).for_each(|j| h[i * n + j] += mixed[i] * mixed[j]);
            }
        }
        h
    }

    #[test]
    fn decomposition_is_that_of_h() {
        for n in [1, 2, 63, 64, 65, 150] {
            let h = hessian(n, 2 * n);
            let mut decomposed: Vec<f64> = h.iter().map(|&x| f64::from(x)).collect();
            decompose(&mut decomposed, n);
            let u = |i: usize, k: usize| match i.cmp(&k) {
                std::cmp::Ordering::Less => decomposed[k * n + i],
                std::cmp::Ordering::Equal => 1.0,
                std::cmp::Ordering::Greater => 0.0,
            };
            let largest = h.iter().fold(0.0f32, |max, x| max.max(x.abs()));
            for i in 0..n {
                for j in 0..n {
                    let sum: f64 = (0..n).map(|k| u(i, k) * decomposed[k * n + k] * u(j, k)).sum();
                    let error = (sum - f64::from(h[i * n + j])).abs();
                    assert!(error <= 1e-6 * f64::from(largest), "{n}: [{i}, {j}] is off by {error}");
                }
            }
        }
    }

    /// Against the original algorithm: after each weight is rounded, all later ones are set to the optimum,
    /// and the input is eliminated from the inverse of H.
    #[test]
    fn rounds_as_gptq_does() {
        let n = 40;
        let h = hessian(n, 3 * n);
        let feedback = Feedback::new(&h, n);
        let damping = DAMPING * (0..n).map(|k| f64::from(h[k * n + k])).sum::<f64>() / n as f64;
        let mut inverse = inverse(&h, damping, n);
        let original = random_values(3, n);
        let mut w: Vec<f64> = original.iter().map(|&x| f64::from(x)).collect();
        let mut errors: Vec<[f32; LANES]> = vec![];
        let mut differs_from_nearest = 0;
        for k in 0..n {
            let round = |x: f64| (x * 8.0).round() / 8.0;
            let gptq = round(w[k]);
            let x = original[k] + feedback.sum(k, 0, &errors)[0];
            assert!((f64::from(x) - w[k]).abs() < 1e-4, "{k}: {x}, by the original algorithm {}", w[k]);
            differs_from_nearest += usize::from(gptq != round(f64::from(original[k])));
            errors.push([original[k] - gptq as f32; LANES]);
            let error = (w[k] - gptq) / inverse[k * n + k];
            (k + 1..n).for_each(|j| w[j] -= error * inverse[k * n + j]);
            let row = inverse[k * n..][..n].to_vec();
            for i in k + 1..n {
                (k + 1..n).for_each(|j| inverse[i * n + j] -= row[i] * row[j] / row[k]);
            }
        }
        assert!(differs_from_nearest > 5, "the test tests nothing");
    }

    /// The inverse of H + damping · I, by Gauss-Jordan elimination.
    fn inverse(h: &[f32], damping: f64, n: usize) -> Vec<f64> {
        let mut a: Vec<f64> = h.iter().map(|&x| f64::from(x)).collect();
        let mut inverse = vec![0.0; n * n];
        for k in 0..n {
            a[k * n + k] += damping;
            inverse[k * n + k] = 1.0;
        }
        for k in 0..n {
            let pivot = a[k * n + k];
            for j in 0..n {
                (a[k * n + j], inverse[k * n + j]) = (a[k * n + j] / pivot, inverse[k * n + j] / pivot);
            }
            for i in (0..n).filter(|&i| i != k) {
                let factor = a[i * n + k];
                for j in 0..n {
                    a[i * n + j] -= factor * a[k * n + j];
                    inverse[i * n + j] -= factor * inverse[k * n + j];
                }
            }
        }
        inverse
    }
}
