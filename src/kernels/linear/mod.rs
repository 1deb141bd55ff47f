//! Linear layer: each output is a weighted sum of all inputs, plus a bias.
//!
//! ```text
//! y[t, j] = Σ_k x[t, k] · W[k, j] + b[j]
//! ```
//!
//! `x` is `[n_tokens, in]`, `W` is `[in, out]` (GPT-2's Conv1D layout, as the checkpoint stores it), `y` is
//! `[n_tokens, out]`. The layer takes 2 · n_tokens · in · out FLOPs over in · out weights. One token uses
//! each weight for two FLOPs, so decode is memory-bound; five hundred tokens use each weight for a thousand,
//! so prefill is compute-bound. Hence two implementations: `gemv.rs` reads the weights once, where they are;
//! `gemm` packs them into panels that stay in the cache while all tokens are multiplied with them.
//!
//! The inputs are split into K-blocks of a few hundred. The partial sum of a K-block is one chain of fused
//! multiply-adds in the order of k; the partial sums are added in the order of the K-blocks, then the bias.
//! The K-blocks depend only on the number of inputs, so the result is bitwise the same for any batch size,
//! thread count and vector width. The `[in, out]` layout makes this order fast: sixteen adjacent outputs
//! share every `x[k]`, and no horizontal sums occur.

mod gemv;
pub mod low_rank;

use super::elements::{Element, Elements};
pub use super::epilogue::Epilogue;
use super::epilogue::apply_epilogue;
use super::gemm::gemm;
use super::rows::{Rows, RowsMut};
use super::simd::{LANES, Simd};
use super::thread_pool::ThreadPool;

/// A matrix of weights `[rows, columns]`, row-major, as in the checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// The weights.
    pub elements: Elements<'a>,
    /// The number of rows: in a linear layer, inputs.
    pub rows: usize,
    /// The number of columns: in a linear layer, outputs.
    pub columns: usize,
}

impl<'a> Matrix<'a> {
    /// Creates a matrix. Panics unless it has `rows · columns` elements.
    pub fn new(elements: Elements<'a>, rows: usize, columns: usize) -> Self {
        assert_eq!(elements.len(), rows * columns);
        Self { elements, rows, columns }
    }

    /// Returns the weight at row `k` and column `j`.
    pub fn weight(&self, k: usize, j: usize) -> f32 {
        self.elements.get(k * self.columns + j)
    }
}

/// The formula in f64 for one token: `x` is `[in]`, the result `[out]`.
pub fn reference(x: &[f32], w: Matrix, bias: &[f32]) -> Vec<f32> {
    let output = |j| {
        let products = x.iter().enumerate().map(|(k, &x)| f64::from(x) * f64::from(w.weight(k, j)));
        (products.sum::<f64>() + f64::from(bias[j])) as f32
    };
    (0..w.columns).map(output).collect()
}

/// The maximum token count for which GEMV is used, two full row blocks of 14: at 16 tokens it takes 0.83 of
/// GEMM's time, at 35 tokens 1 to 1.25 times as long.
const MAX_GEMV_TOKENS: usize = 28;

/// Computes `y = epilogue(x · w + bias)`.
///
/// # Panics
/// If the shapes do not match.
pub fn linear(pool: &ThreadPool, x: Rows, w: Matrix, bias: &[f32], epilogue: Epilogue, mut y: RowsMut) {
    assert_eq!((x.width(), x.len()), (w.rows, y.len()), "x is [n_tokens, in]");
    assert_eq!((y.width(), bias.len()), (w.columns, w.columns), "y is [n_tokens, out]");
    if x.is_empty() || w.columns == 0 {
        return;
    }
    match w.elements {
        Elements::F32(e) => gemv_or_gemm(pool, x, e, bias, epilogue, &mut y),
        Elements::F16(e) => gemv_or_gemm(pool, x, e, bias, epilogue, &mut y),
        Elements::Bf16(e) => gemv_or_gemm(pool, x, e, bias, epilogue, &mut y),
    }
}

fn gemv_or_gemm<E: Element>(
    pool: &ThreadPool,
    x: Rows,
    w: &[E],
    bias: &[f32],
    epilogue: Epilogue,
    y: &mut RowsMut,
) {
    if x.len() <= MAX_GEMV_TOKENS {
        gemv::linear(pool, x, w, bias, epilogue, y);
    } else {
        gemm(pool, x, w, bias, epilogue, y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::Activation;
    use crate::isa::Isa;
    use crate::rows::row_stride;
    use crate::testing::{assert_close, random_values};
    use half::{bf16, f16};

    /// Asserts for one shape that every precision, instruction set, thread count and batch gives the same
    /// bits, those of one token at a time on one thread of the portable instruction set, and that these are
    /// close to the reference.
    fn assert_matches_reference(n: usize, inputs: usize, outputs: usize, epilogue: Epilogue) {
        let weights = random_values(1, inputs * outputs);
        let f16s: Vec<f16> = weights.iter().map(|&w| f16::from_f32(w)).collect();
        let bf16s: Vec<bf16> = weights.iter().map(|&w| bf16::from_f32(w)).collect();
        let (bias, before) = (random_values(2, outputs), random_values(3, n * outputs));
        let stride = row_stride(inputs);
        let data = random_values(4, n * stride);
        let x = Rows::new(&data, n, inputs, stride);
        for elements in [Elements::F32(&weights), Elements::F16(&f16s), Elements::Bf16(&bf16s)] {
            let w = Matrix::new(elements, inputs, outputs);
            let expected = (0..n).flat_map(|t| {
                let y = reference(x.row(t), w, &bias);
                y.into_iter().zip(&before[t * outputs..]).map(|(y, before)| match epilogue {
                    Epilogue::Store => y,
                    Epilogue::Activate(f) => f.reference(y),
                    Epilogue::Add => before + y,
                })
            });
            let run = |pool: &ThreadPool, x: Rows, y: &mut [f32]| {
                linear(pool, x, w, &bias, epilogue, RowsMut::dense(y, outputs));
            };
            let (mut one_by_one, pool) = (before.clone(), ThreadPool::new(1, Isa::Portable));
            for (t, y) in one_by_one.chunks_mut(outputs).enumerate() {
                run(&pool, x.row_range(t, 1), y);
            }
            assert_close(&one_by_one, &expected.collect::<Vec<_>>(), 5e-5);
            for (isa, threads) in Isa::available().into_iter().flat_map(|isa| [(isa, 1), (isa, 3)]) {
                let mut y = before.clone();
                run(&ThreadPool::new(threads, isa), x, &mut y);
                assert_eq!(y, one_by_one, "{n} x {inputs} x {outputs}, {isa}, {threads} threads");
            }
        }
    }

    #[test]
    fn small_shapes_match_reference() {
        for n in [1, 2, 3, 6, 8, 12, 13, 14, 15, 29, 42, 43, 47, 85] {
            for (inputs, outputs) in [(1, 1), (7, 5), (8, 16), (20, 60), (33, 70), (64, 192)] {
                assert_matches_reference(n, inputs, outputs, Epilogue::Store);
            }
        }
    }

    #[test]
    fn blocked_shapes_match_reference() {
        assert_matches_reference(1, 24, 1200, Epilogue::Store);
        assert_matches_reference(5, 24, 1200, Epilogue::Add);
        assert_matches_reference(14, 20, 2400, Epilogue::Add);
        assert_matches_reference(20, 24, 300, Epilogue::Add);
        assert_matches_reference(42, 20, 1200, Epilogue::Add);
        assert_matches_reference(50, 24, 300, Epilogue::Add);
        assert_matches_reference(1, 600, 100, Epilogue::Add);
        assert_matches_reference(3, 1040, 40, Epilogue::Store);
        assert_matches_reference(15, 1040, 40, Epilogue::Store);
        assert_matches_reference(43, 1040, 40, Epilogue::Store);
        assert_matches_reference(90, 300, 40, Epilogue::Add);
        assert_matches_reference(171, 1040, 20, Epilogue::Store);
        assert_matches_reference(100, 1000, 20, Epilogue::Add);
    }

    #[test]
    fn matrix_without_columns_gives_empty_rows() {
        for n in [1, 2, 40] {
            let x = random_values(1, n * 32);
            let w = Matrix::new(Elements::F32(&[]), 32, 0);
            let y = RowsMut::new(&mut [], n, 0, 0);
            linear(&ThreadPool::new(3, Isa::Portable), Rows::dense(&x, 32), w, &[], Epilogue::Store, y);
        }
    }

    #[test]
    fn epilogues_match_reference() {
        for n in [1, 17, 45] {
            assert_matches_reference(n, 20, 50, Epilogue::Add);
            assert_matches_reference(n, 20, 50, Epilogue::Activate(Activation::GeluTanh));
            assert_matches_reference(n, 20, 50, Epilogue::Activate(Activation::Relu));
        }
    }
}
