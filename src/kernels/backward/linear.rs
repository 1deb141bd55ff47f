//! Backward of a [linear layer](crate::linear): each gradient is one more matrix product.
//!
//! ```text
//! y  = x · W + b
//! dx = dy · Wᵀ        dx[t, k] = Σ_j dy[t, j] · W[k, j]
//! dW = xᵀ · dy        dW[k, j] = Σ_t x[t, k] · dy[t, j]
//! db = Σ_t dy[t, ·]
//! ```
//!
//! `x` is `[n_tokens, in]`, `W` is `[in, out]`, `y` is `[n_tokens, out]`. dx and dW take 2 · n_tokens · in ·
//! out FLOPs each, as many as the layer itself, so training costs three times the forward pass. Both are the
//! GEMM of prefill; only packing differs: for dx, rows of W are transposed into panels; for dW, rows of x are
//! already in the order in which the microkernel reads its left operand.
//!
//! The gradients of weights are *added to* `dw` and `db`, so that a batch can be processed in parts.

use crate::gemm::{gemm_nt, gemm_tn};
use crate::rows::{Rows, RowsMut};
use crate::simd::{Kernel, LANES, Simd};
use crate::thread_pool::ThreadPool;

/// The gradients of a linear layer.
#[derive(Clone, Debug)]
pub struct Gradients {
    /// `[n_tokens, in]`
    pub dx: Vec<f64>,
    /// `[in, out]`
    pub dw: Vec<f64>,
    /// `[out]`
    pub db: Vec<f64>,
}

/// The formulas: `x` is `[n_tokens, inputs]`, `w` is `[inputs, outputs]`, `dy` is `[n_tokens, outputs]`.
pub fn reference(x: &[f64], w: &[f64], dy: &[f64], inputs: usize, outputs: usize) -> Gradients {
    let (mut dx, mut dw, mut db) = (vec![0.0; x.len()], vec![0.0; w.len()], vec![0.0; outputs]);
    for t in 0..x.len() / inputs {
        for j in 0..outputs {
            let dy = dy[t * outputs + j];
            for k in 0..inputs {
                dx[t * inputs + k] += dy * w[k * outputs + j];
                dw[k * outputs + j] += dy * x[t * inputs + k];
            }
            db[j] += dy;
        }
    }
    Gradients { dx, dw, db }
}

/// Computes `dx = dy · wᵀ` for `w`, `[in, out]`. Panics if the shapes do not match.
pub fn input_gradient(pool: &ThreadPool, dy: Rows, w: &[f32], mut dx: RowsMut) {
    assert_eq!((dy.len(), dy.width() * dx.width()), (dx.len(), w.len()), "w is [in, out]");
    gemm_nt(pool, dy, Rows::new(w, dx.width(), dy.width(), dy.width()), &mut dx);
}

/// Adds `xᵀ · dy` to `dw`, `[in, out]`. Panics if the shapes do not match.
pub fn weight_gradient(pool: &ThreadPool, x: Rows, dy: Rows, dw: &mut [f32]) {
    assert_eq!((x.len(), x.width() * dy.width()), (dy.len(), dw.len()), "dw is [in, out]");
    gemm_tn(pool, x, dy, &mut RowsMut::new(dw, x.width(), dy.width(), dy.width()));
}

/// The maximum of columns that one chunk of work sums: a kilobyte of every row.
pub(super) const MAX_COLUMNS_PER_CHUNK: usize = 256;
/// Tokens whose sum is computed by itself, so that rounding errors do not grow with the number of tokens.
pub(super) const TOKENS_PER_BLOCK: usize = 64;
/// Prefetch distance, in rows: part of a row is too short for the hardware prefetcher.
const PREFETCH_DISTANCE_ROWS: usize = 8;

/// Returns the number of columns in a chunk of work: at least a chunk per thread, but no narrow ones.
pub(super) fn columns_per_chunk(pool: &ThreadPool, width: usize) -> usize {
    width.div_ceil(pool.threads()).next_multiple_of(LANES).clamp(4 * LANES, MAX_COLUMNS_PER_CHUNK)
}

/// Prefetches the vector that lies some rows below this one.
#[inline(always)]
pub(super) fn prefetch_below<S: Simd>(simd: S, vector: &[f32], stride: usize) {
    simd.prefetch(vector.as_ptr().wrapping_add(PREFETCH_DISTANCE_ROWS * stride));
}

/// Adds the sum of the rows of `dy` to `db`, `[out]`. Panics if the shapes do not match.
pub fn bias_gradient(pool: &ThreadPool, dy: Rows, db: &mut [f32]) {
    assert_eq!(dy.width(), db.len(), "db is [out]");
    let columns_per_chunk = columns_per_chunk(pool, db.len());
    pool.for_each_chunk(db, columns_per_chunk, |i, db| {
        let dy = dy.columns(i * columns_per_chunk, db.len());
        pool.isa().run(ColumnSums { dy, db });
    });
}

/// The sums of at most [`MAX_COLUMNS_PER_CHUNK`] columns.
struct ColumnSums<'a> {
    dy: Rows<'a>,
    db: &'a mut [f32],
}

impl Kernel for ColumnSums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for first in (0..self.dy.len()).step_by(TOKENS_PER_BLOCK) {
            let mut sums = [simd.splat(0.0); MAX_COLUMNS_PER_CHUNK / LANES];
            for t in first..self.dy.len().min(first + TOKENS_PER_BLOCK) {
                for (sum, dy) in sums.iter_mut().zip(self.dy.row(t).chunks(LANES)) {
                    prefetch_below(simd, dy, self.dy.stride());
                    *sum = simd.add(*sum, simd.load_partial(dy));
                }
            }
            for (sum, db) in sums.into_iter().zip(self.db.chunks_mut(LANES)) {
                simd.store_partial(simd.add(simd.load_partial(db), sum), db);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elements::Elements;
    use crate::linear::{self, Matrix};
    use crate::rows::row_stride;
    use crate::testing::{assert_gradient, assert_relative, assert_same_bits, random_values, to_f32, to_f64};

    const SHAPES: [(usize, usize, usize); 7] =
        [(1, 1, 1), (3, 7, 5), (14, 16, 32), (17, 20, 33), (40, 33, 70), (100, 48, 130), (70, 130, 17)];

    /// The layer in f64, without bias: `[n_tokens, outputs]`.
    fn forward(x: &[f64], w: &[f64], b: &[f64], inputs: usize) -> Vec<f64> {
        let outputs = b.len();
        let y = |i: usize| -> f64 {
            let (t, j) = (i / outputs, i % outputs);
            b[j] + (0..inputs).map(|k| x[t * inputs + k] * w[k * outputs + j]).sum::<f64>()
        };
        (0..x.len() / inputs * outputs).map(y).collect()
    }

    #[test]
    fn reference_is_the_derivative_of_the_layer() {
        for (n, inputs, outputs) in [(1, 1, 1), (3, 7, 5), (5, 4, 9)] {
            let [x, w, b, dy] = [(1, n * inputs), (2, inputs * outputs), (3, outputs), (4, n * outputs)]
                .map(|(seed, n)| random_values(seed, n));
            let elements = Matrix::new(Elements::F32(&w), inputs, outputs);
            let layer: Vec<f32> = x.chunks(inputs).flat_map(|x| linear::reference(x, elements, &b)).collect();
            let [x, w, b, dy] = [x, w, b, dy].map(|x| to_f64(&x));
            assert_eq!(to_f32(&forward(&x, &w, &b, inputs)), layer);
            let loss = |x: &[f64], w: &[f64], b: &[f64]| -> f64 {
                forward(x, w, b, inputs).iter().zip(&dy).map(|(y, dy)| y * dy).sum()
            };
            let Gradients { dx, dw, db } = reference(&x, &w, &dy, inputs, outputs);
            assert_gradient(|x| loss(x, &w, &b), &x, &dx);
            assert_gradient(|w| loss(&x, w, &b), &w, &dw);
            assert_gradient(|b| loss(&x, &w, b), &b, &db);
        }
    }

    #[test]
    fn gradients_match_reference_with_identical_bits_on_every_isa_and_thread_count() {
        for (n, inputs, outputs) in SHAPES.into_iter().chain([(1100, 20, 40), (30, 20, 1100)]) {
            let (x_stride, dy_stride) = (row_stride(inputs), row_stride(outputs));
            let (x, dy) = (random_values(1, n * x_stride), random_values(2, n * dy_stride));
            let (x, dy) = (Rows::new(&x, n, inputs, x_stride), Rows::new(&dy, n, outputs, dy_stride));
            let (w, before) = (random_values(3, inputs * outputs), random_values(4, inputs * outputs));
            let dense = |x: Rows| (0..n).flat_map(|t| to_f64(x.row(t))).collect::<Vec<f64>>();
            let expected = reference(&dense(x), &to_f64(&w), &dense(dy), inputs, outputs);
            let found = assert_same_bits(|pool| {
                let mut dx = vec![f32::NAN; n * inputs];
                input_gradient(pool, dy, &w, RowsMut::dense(&mut dx, inputs));
                dx
            });
            assert_relative(&found, &expected.dx, 1e-5);
            let found = assert_same_bits(|pool| {
                let mut dw = before.clone();
                weight_gradient(pool, x, dy, &mut dw);
                dw
            });
            let added = |gradient: &[f64]| -> Vec<f64> {
                gradient.iter().zip(&before).map(|(gradient, &before)| gradient + f64::from(before)).collect()
            };
            assert_relative(&found, &added(&expected.dw), 1e-5);
            let found = assert_same_bits(|pool| {
                let mut db = before[..outputs].to_vec();
                bias_gradient(pool, dy, &mut db);
                db
            });
            assert_relative(&found, &added(&expected.db), 1e-5);
        }
    }

    #[test]
    fn no_tokens_add_nothing() {
        assert_same_bits(|pool| {
            let (mut dw, mut db) = (vec![1.0; 15], vec![2.0; 5]);
            let (x, dy) = (Rows::new(&[], 0, 3, 3), Rows::new(&[], 0, 5, 5));
            input_gradient(pool, dy, &[0.0; 15], RowsMut::new(&mut [], 0, 3, 3));
            weight_gradient(pool, x, dy, &mut dw);
            bias_gradient(pool, dy, &mut db);
            assert_eq!((&dw[..], &db[..]), (&[1.0; 15][..], &[2.0; 5][..]));
            dw
        });
    }
}
