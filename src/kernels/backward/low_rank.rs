//! Backward of a low-rank change of a linear layer (LoRA, Hu et al. 2021), whose matrix `W` does not change.
//!
//! ```text
//! y  = x · V,   V = W + s · Aᵀ · Bᵀ      A is [r, in], B is [out, r], as peft stores them
//! dA = s · (dy · B)ᵀ · x        dA[i, k] = s · Σ_t u[t, i] · x[t, k],   u = dy · B
//! dB = s · dyᵀ · (x · Aᵀ)       dB[j, i] = s · Σ_t dy[t, j] · h[t, i],  h = x · Aᵀ
//! dx = dy · Vᵀ                  as that of any [linear layer](super::linear)
//! ```
//!
//! With the sum V at hand, the forward pass and dx take no more time than without the change. dA and dB take
//! 4 · n_tokens · r · (in + out) FLOPs together; for small r that is far less than the gradient of `W`.
//!
//! The gradients are *added to* `da` and `db`, so that a batch can be processed in parts.

use crate::epilogue::Epilogue;
use crate::gemm::{gemm, gemm_nt, gemm_tn};
use crate::rows::{Rows, RowsMut};
use crate::thread_pool::ThreadPool;

/// The matrices of a change.
#[derive(Clone, Copy, Debug)]
pub struct LowRank<'a> {
    /// A, `[r, in]`
    pub a: &'a [f32],
    /// B, `[out, r]`
    pub b: &'a [f32],
    /// The rank r.
    pub r: usize,
    /// s
    pub scaling: f32,
}

/// The sum V, `[in, out]`, in f64: `w` is `[in, out]`.
pub fn sum_reference(w: &[f64], change: LowRank) -> Vec<f64> {
    let LowRank { a, b, r, scaling } = change;
    let (inputs, outputs) = (a.len() / r, b.len() / r);
    let product = |k: usize, j: usize| -> f64 {
        (0..r).map(|i| f64::from(a[i * inputs + k]) * f64::from(b[j * r + i])).sum()
    };
    (0..inputs * outputs).map(|i| w[i] + f64::from(scaling) * product(i / outputs, i % outputs)).collect()
}

/// The formulas: `x` is `[n_tokens, in]`, `dy` is `[n_tokens, out]`. Returns dA and dB.
pub fn reference(x: &[f64], dy: &[f64], change: LowRank) -> [Vec<f64>; 2] {
    let LowRank { a, b, r, scaling } = change;
    let (inputs, outputs, s) = (a.len() / r, b.len() / r, f64::from(scaling));
    let (mut da, mut db) = (vec![0.0; a.len()], vec![0.0; b.len()]);
    for (x, dy) in x.chunks(inputs).zip(dy.chunks(outputs)) {
        for i in 0..r {
            let u: f64 = (0..outputs).map(|j| dy[j] * f64::from(b[j * r + i])).sum();
            let h: f64 = (0..inputs).map(|k| x[k] * f64::from(a[i * inputs + k])).sum();
            (0..inputs).for_each(|k| da[i * inputs + k] += s * u * x[k]);
            (0..outputs).for_each(|j| db[j * r + i] += s * dy[j] * h);
        }
    }
    [da, db]
}

/// Buffers, reused between calls.
#[derive(Debug, Default)]
pub struct Workspace(Vec<f32>);

/// Computes the sum V from `w`, `[in, out]`. Panics if the shapes do not match.
pub fn sum(pool: &ThreadPool, w: &[f32], change: LowRank, v: &mut [f32], workspace: &mut Workspace) {
    let LowRank { a, b, r, scaling } = change;
    let (inputs, outputs) = (a.len() / r, b.len() / r);
    assert_eq!((w.len(), v.len()), (inputs * outputs, inputs * outputs), "w and v are [in, out]");
    workspace.0.resize(b.len(), 0.0);
    let transposed = &mut workspace.0[..];
    pool.for_each_chunk(transposed, outputs, |i, row| {
        row.iter_mut().enumerate().for_each(|(j, x)| *x = scaling * b[j * r + i]);
    });
    v.copy_from_slice(w);
    gemm_tn(pool, Rows::dense(a, inputs), Rows::dense(transposed, outputs), &mut RowsMut::dense(v, outputs));
}

/// Adds dA to `da` and dB to `db`: `x` is `[n_tokens, in]`, `dy` is `[n_tokens, out]`. Panics if the shapes
/// do not match.
pub fn gradients(
    pool: &ThreadPool,
    x: Rows,
    dy: Rows,
    change: LowRank,
    [da, db]: [&mut [f32]; 2],
    workspace: &mut Workspace,
) {
    let LowRank { a, b, r, scaling } = change;
    assert_eq!((x.len(), x.width() * r, dy.width() * r), (dy.len(), a.len(), b.len()), "x and dy are rows");
    assert_eq!((a.len(), b.len()), (da.len(), db.len()), "one gradient for each weight");
    workspace.0.resize(x.len() * r, 0.0);
    let product = &mut workspace.0[..];
    let scale = |product: &mut [f32]| product.iter_mut().for_each(|product| *product *= scaling);

    gemm_nt(pool, x, Rows::dense(a, x.width()), &mut RowsMut::dense(product, r)); // h, [n_tokens, r]
    scale(product);
    gemm_tn(pool, dy, Rows::dense(product, r), &mut RowsMut::dense(db, r));

    let (bias, u) = (vec![0.0; r], &mut RowsMut::dense(product, r));
    gemm(pool, dy, b, &bias, Epilogue::Store, u); // [n_tokens, r]
    scale(product);
    gemm_tn(pool, Rows::dense(product, r), x, &mut RowsMut::dense(da, x.width()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::row_stride;
    use crate::testing::{assert_gradient, assert_relative, assert_same_bits, random_values, to_f64};

    const SHAPES: [(usize, usize, usize, usize); 5] =
        [(1, 1, 1, 1), (3, 7, 2, 5), (40, 33, 8, 70), (100, 48, 3, 130), (70, 130, 16, 17)];

    /// A and B of a shape.
    fn matrices(inputs: usize, r: usize, outputs: usize) -> [Vec<f32>; 2] {
        [random_values(1, r * inputs), random_values(2, outputs * r)]
    }

    #[test]
    fn reference_is_the_derivative_of_the_sum() {
        let (n, inputs, r, outputs) = (4, 5, 2, 3);
        let [a, b] = matrices(inputs, r, outputs);
        let [w, x, dy] = [(3, inputs * outputs), (4, n * inputs), (5, n * outputs)]
            .map(|(seed, n)| to_f64(&random_values(seed, n)));
        let loss = |a: &[f64], b: &[f64]| -> f64 {
            let v = |k: usize, j: usize| -> f64 {
                let product: f64 = (0..r).map(|i| a[i * inputs + k] * b[j * r + i]).sum();
                w[k * outputs + j] + 0.75 * product
            };
            let y = |t: usize, j: usize| (0..inputs).map(|k| x[t * inputs + k] * v(k, j)).sum::<f64>();
            (0..n * outputs).map(|i| y(i / outputs, i % outputs) * dy[i]).sum()
        };
        let change = LowRank { a: &a, b: &b, r, scaling: 0.75 };
        let [da, db] = reference(&x, &dy, change);
        let [a, b] = [&a, &b].map(|x| to_f64(x));
        assert_gradient(|a| loss(a, &b), &a, &da);
        assert_gradient(|b| loss(&a, b), &b, &db);
        let v = sum_reference(&w, change);
        let y = |i: usize| -> f64 {
            (0..inputs).map(|k| x[i / outputs * inputs + k] * v[k * outputs + i % outputs]).sum()
        };
        let expected = (0..n * outputs).map(|i| y(i) * dy[i]).sum::<f64>();
        assert!((loss(&a, &b) - expected).abs() < 1e-9);
    }

    #[test]
    fn sum_and_gradients_match_reference_with_identical_bits_on_every_isa_and_thread_count() {
        for (n, inputs, r, outputs) in SHAPES {
            let [a, b] = matrices(inputs, r, outputs);
            let change = LowRank { a: &a, b: &b, r, scaling: 0.75 };
            let w = random_values(3, inputs * outputs);
            let found = assert_same_bits(|pool| {
                let mut v = vec![f32::NAN; w.len()];
                sum(pool, &w, change, &mut v, &mut Workspace::default());
                v
            });
            assert_relative(&found, &sum_reference(&to_f64(&w), change), 1e-6);

            let (x_stride, dy_stride) = (row_stride(inputs), row_stride(outputs));
            let (x, dy) = (random_values(4, n * x_stride), random_values(5, n * dy_stride));
            let (x, dy) = (Rows::new(&x, n, inputs, x_stride), Rows::new(&dy, n, outputs, dy_stride));
            let dense = |x: Rows| (0..n).flat_map(|t| to_f64(x.row(t))).collect::<Vec<f64>>();
            let found = assert_same_bits(|pool| {
                let (mut da, mut db) = (vec![1.0; a.len()], vec![1.0; b.len()]);
                gradients(pool, x, dy, change, [&mut da, &mut db], &mut Workspace::default());
                [da, db].concat()
            });
            let expected: Vec<f64> = reference(&dense(x), &dense(dy), change)
                .concat()
                .iter()
                .map(|gradient| 1.0 + gradient)
                .collect();
            assert_relative(&found, &expected, 1e-5);
        }
    }
}
