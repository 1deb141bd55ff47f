//! Muon: a matrix of weights moves by its momentum, made orthogonal, so that every direction of the matrix
//! moves equally far, not only the few that dominate the gradient (Jordan et al. 2024).
//!
//! ```text
//! M ← μ M + (1 − μ) G                      U = μ M + (1 − μ) G               (Nesterov)
//! X = U / ‖U‖;   five times:  A = X · Xᵀ,  X ← a X + (b A + c A²) · X        (Newton and Schulz)
//! W ← W − lr · (√max(1, out / in) · X + λ W)
//! ```
//!
//! An iteration maps every singular value s of X to a s + b s³ + c s⁵; five of them bring all but the
//! smallest close to 1, between about 0.7 and 1.2, with a = 3.4445, b = −4.7750, c = 2.0315. For W, `[in,
//! out]`, with r the smaller and n the larger dimension, that takes 20 · r² · n + 10 · r³ FLOPs, all of them
//! GEMM, on the transpose if there are more inputs than outputs.
//!
//! Queries, keys and values are three matrices side by side in `c_attn`: such a tensor has three `parts`.

use super::gradient_norm::gradient_norm;
use crate::gemm::{gemm, gemm_nt};
use crate::linear::Epilogue;
use crate::rows::{Rows, RowsMut};
use crate::simd::{Kernel, LANES, Simd};
use crate::thread_pool::ThreadPool;

/// The coefficients of an iteration.
const COEFFICIENTS: [f32; 3] = [3.4445, -4.7750, 2.0315];
const ITERATIONS: usize = 5;
/// Added to the norm, so that a matrix of zeros stays one.
const EPSILON: f64 = 1e-7;
/// Elements per chunk of elementwise work.
const ELEMENTS_PER_CHUNK: usize = 4096;

/// The Newton-Schulz iteration in f64: `x` is `[rows, columns]`, and so is the result.
pub fn reference(x: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    let [a, b, c] = COEFFICIENTS.map(f64::from);
    let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt() + EPSILON;
    let mut x: Vec<f64> = x.iter().map(|x| x / norm).collect();
    let product = |x: &[f64], y: &dyn Fn(usize, usize) -> f64, depth: usize, n: usize| -> Vec<f64> {
        let element = |i: usize, j: usize| (0..depth).map(|k| x[i * depth + k] * y(k, j)).sum::<f64>();
        (0..rows * n).map(|i| element(i / n, i % n)).collect()
    };
    for _ in 0..ITERATIONS {
        let xxt = product(&x, &|k, j| x[j * columns + k], columns, rows);
        let squared = product(&xxt, &|k, j| xxt[k * rows + j], rows, rows);
        let sum: Vec<f64> = xxt.iter().zip(&squared).map(|(x, squared)| b * x + c * squared).collect();
        let rest = product(&sum, &|k, j| x[k * columns + j], rows, columns);
        x = x.iter().zip(&rest).map(|(x, rest)| a * x + rest).collect();
    }
    x
}

/// Buffers for one matrix, reused between calls.
#[derive(Debug, Default)]
pub struct Workspace {
    /// `[rows, columns]` each, with rows ≤ columns.
    x: Vec<f32>,
    product: Vec<f32>,
    /// `[rows, rows]` each.
    xxt: Vec<f32>,
    squared: Vec<f32>,
}

impl Workspace {
    /// Makes `x`, `[rows, columns]` with rows ≤ columns, orthogonal.
    fn orthogonalize(&mut self, pool: &ThreadPool, rows: usize, columns: usize) {
        let Workspace { x, product, xxt, squared } = self;
        let [a, b, c] = COEFFICIENTS;
        product.resize(rows * columns, 0.0);
        [&mut *xxt, squared].into_iter().for_each(|buffer| buffer.resize(rows * rows, 0.0));
        let bias = vec![0.0; columns];
        product.fill(0.0);
        let norm = gradient_norm(pool, &[x]) + EPSILON;
        combine(pool, 0.0, product, (1.0 / norm) as f32, x);
        for _ in 0..ITERATIONS {
            gemm_nt(pool, Rows::dense(x, columns), Rows::dense(x, columns), &mut RowsMut::dense(xxt, rows));
            let square = &mut RowsMut::dense(squared, rows);
            gemm(pool, Rows::dense(xxt, rows), xxt, &bias[..rows], Epilogue::Store, square);
            combine(pool, b, xxt, c, squared);
            let rest = &mut RowsMut::dense(product, columns);
            gemm(pool, Rows::dense(squared, rows), x, &bias, Epilogue::Store, rest);
            combine(pool, 1.0, product, a, x);
        }
    }
}

/// Computes `y ← a x + b y`.
fn combine(pool: &ThreadPool, a: f32, x: &[f32], b: f32, y: &mut [f32]) {
    pool.for_each_chunk(y, ELEMENTS_PER_CHUNK, |i, y| {
        pool.isa().run(Combine { a, x: &x[i * ELEMENTS_PER_CHUNK..][..y.len()], b, y });
    });
}

struct Combine<'a> {
    a: f32,
    x: &'a [f32],
    b: f32,
    y: &'a mut [f32],
}

impl Kernel for Combine<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (a, b) = (simd.splat(self.a), simd.splat(self.b));
        for (x, y) in self.x.chunks(LANES).zip(self.y.chunks_mut(LANES)) {
            let scaled = simd.mul(simd.load_partial(y), b);
            simd.store_partial(simd.mul_add(simd.load_partial(x), a, scaled), y);
        }
    }
}

/// The hyperparameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Muon {
    /// lr
    pub learning_rate: f32,
    /// μ
    pub momentum: f32,
    /// λ
    pub weight_decay: f32,
}

/// A matrix of weights with its gradient and its momentum, which starts at zero.
#[derive(Debug)]
pub struct Parameters<'a> {
    /// W, `[inputs, outputs]`
    pub weights: &'a mut [f32],
    /// G
    pub gradient: &'a [f32],
    /// M
    pub momentum: &'a mut [f32],
    /// The number of inputs.
    pub inputs: usize,
    /// The number of matrices side by side, each made orthogonal by itself.
    pub parts: usize,
}

impl Muon {
    /// Takes a step with gradients multiplied by `gradient_factor`. Panics if the shapes do not match.
    pub fn step(
        &self,
        pool: &ThreadPool,
        gradient_factor: f32,
        parameters: Parameters,
        workspace: &mut Workspace,
    ) {
        let Parameters { weights, gradient, momentum, inputs, parts } = parameters;
        let n = weights.len();
        assert_eq!((gradient.len(), momentum.len()), (n, n), "one gradient and momentum for each weight");
        assert!(n.is_multiple_of(inputs * parts), "weights are [inputs, outputs]");
        combine(pool, (1.0 - self.momentum) * gradient_factor, gradient, self.momentum, momentum);
        let (outputs, width) = (n / inputs, n / inputs / parts);
        let transposed = inputs > width;
        let (rows, columns) = if transposed { (width, inputs) } else { (inputs, width) };
        let scale = self.learning_rate * (width as f32 / inputs as f32).max(1.0).sqrt();
        for part in 0..parts {
            workspace.x.resize(n / parts, 0.0);
            pool.for_each_chunk(&mut workspace.x, columns, |row, x| {
                for (column, x) in x.iter_mut().enumerate() {
                    let (k, j) = if transposed { (column, row) } else { (row, column) };
                    let i = k * outputs + part * width + j;
                    let nesterov = (1.0 - self.momentum) * gradient_factor * gradient[i];
                    *x = self.momentum * momentum[i] + nesterov;
                }
            });
            workspace.orthogonalize(pool, rows, columns);
            pool.for_each_chunk(weights, outputs, |k, weights| {
                for (j, w) in weights[part * width..][..width].iter_mut().enumerate() {
                    let (row, column) = if transposed { (j, k) } else { (k, j) };
                    let x = workspace.x[row * columns + column];
                    *w = *w * (1.0 - self.learning_rate * self.weight_decay) - scale * x;
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_relative, assert_same_bits, random_values, to_f64};

    #[test]
    fn iteration_makes_rows_orthogonal() {
        let (rows, columns) = (6, 40);
        let x = reference(&to_f64(&random_values(1, rows * columns)), rows, columns);
        for (i, j) in (0..rows).flat_map(|i| (0..rows).map(move |j| (i, j))) {
            let dot: f64 = (0..columns).map(|k| x[i * columns + k] * x[j * columns + k]).sum();
            let range = if i == j { 0.5..1.5 } else { -0.4..0.4 };
            assert!(range.contains(&dot), "rows {i} and {j}: {dot}");
        }
    }

    #[test]
    fn steps_match_reference_with_identical_bits_on_every_isa_and_thread_count() {
        let muon = Muon { learning_rate: 0.02, momentum: 0.9, weight_decay: 0.1 };
        let [learning_rate, mu, decay] = [0.02f32, 0.9, 0.1].map(f64::from);
        for (inputs, width, parts) in
            [(1, 1, 1), (5, 20, 1), (20, 5, 1), (16, 16, 3), (33, 70, 2), (70, 33, 2)]
        {
            let (n, outputs) = (inputs * width * parts, width * parts);
            let [before, gradient, momentum] = [1, 2, 3].map(|seed| random_values(seed, n));
            let found = assert_same_bits(|pool| {
                let (mut weights, mut momentum) = (before.clone(), momentum.clone());
                let parameters = Parameters {
                    weights: &mut weights,
                    gradient: &gradient,
                    momentum: &mut momentum,
                    inputs,
                    parts,
                };
                muon.step(pool, 0.5, parameters, &mut Workspace::default());
                [weights, momentum].concat()
            });
            let [before, gradient, momentum] = [before, gradient, momentum].map(|x| to_f64(&x));
            let moved = |(m, g): (&f64, &f64)| mu * m + (1.0 - mu) * 0.5 * g;
            let new_momentum: Vec<f64> = momentum.iter().zip(&gradient).map(moved).collect();
            let nesterov: Vec<f64> = new_momentum.iter().zip(&gradient).map(moved).collect();
            let mut expected: Vec<f64> = before.iter().map(|w| w * (1.0 - learning_rate * decay)).collect();
            for part in 0..parts {
                let index = |i: usize| i / width * outputs + part * width + i % width;
                let u: Vec<f64> = (0..inputs * width).map(|i| nesterov[index(i)]).collect();
                let scale = learning_rate * (width as f64 / inputs as f64).max(1.0).sqrt();
                for (i, x) in reference(&u, inputs, width).into_iter().enumerate() {
                    expected[index(i)] -= scale * x;
                }
            }
            assert_relative(&found[..n], &expected, 1e-5);
            assert_relative(&found[n..], &new_momentum, 1e-6);
        }
    }

    #[test]
    fn zero_gradient_only_decays() {
        let muon = Muon { learning_rate: 0.5, momentum: 0.9, weight_decay: 0.1 };
        let found = assert_same_bits(|pool| {
            let (mut weights, mut momentum) = (vec![1.0; 12], vec![0.0; 12]);
            let parameters = Parameters {
                weights: &mut weights,
                gradient: &[0.0; 12],
                momentum: &mut momentum,
                inputs: 3,
                parts: 1,
            };
            muon.step(pool, 1.0, parameters, &mut Workspace::default());
            weights
        });
        assert_relative(&found, &[0.95; 12], 1e-6);
    }
}
