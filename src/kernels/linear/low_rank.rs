//! Low-rank change of a linear layer (LoRA, Hu et al. 2021): what an adapter adds to the output.
//!
//! ```text
//! y[t] += scaling · (x[t] · A) · B + b
//! ```
//!
//! `A` is `[in, r]`, `B` is `[r, out]`, with a rank `r` far smaller than either; `b`, `[out]`, is the change
//! of the bias. It takes 2 · n_tokens · r · (in + out) FLOPs, at rank 8 about a hundredth of the layer's own.
//! So the layer's product is computed once for all tokens of a batch, and each token adds the change of its
//! own adapter, or none.
//!
//! The fast form is two [linear layers](linear()), whose bits do not depend on batch or threads.

use super::{Epilogue, Matrix, linear};
use crate::elements::Elements;
use crate::rows::{Rows, RowsMut};
use crate::thread_pool::ThreadPool;
use std::cell::RefCell;

/// The change of a linear layer.
#[derive(Clone, Copy, Debug)]
pub struct LowRank<'a> {
    /// `[in, r]`
    pub a: &'a [f32],
    /// `[r, out]`
    pub b: &'a [f32],
    /// The factor of the product.
    pub scaling: f32,
    /// `[out]`
    pub bias: &'a [f32],
}

/// The multiply-adds below which the calling thread is done before others could begin: a token's at rank 8
/// take a microsecond.
const MIN_PARALLEL_PRODUCTS: usize = 1 << 18;

thread_local! {
    /// The calling thread's buffer for a bias of zeros, `[r]`, and the products with `A`, `[n_tokens, r]`.
    static PRODUCTS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

impl LowRank<'_> {
    /// The rank.
    pub fn r(&self) -> usize {
        self.b.len() / self.bias.len()
    }
}

/// The formula in f64 for one token: `x` is `[in]`, the result `[out]`, which is to be added.
pub fn reference(x: &[f32], w: LowRank) -> Vec<f32> {
    let (r, outputs) = (w.r(), w.bias.len());
    let dot = |i| x.iter().enumerate().map(|(k, &x)| f64::from(x) * f64::from(w.a[k * r + i])).sum::<f64>();
    let products: Vec<f64> = (0..r).map(|i| f64::from(w.scaling) * dot(i)).collect();
    let output = |j| {
        let sum: f64 = products.iter().enumerate().map(|(i, p)| p * f64::from(w.b[i * outputs + j])).sum();
        (sum + f64::from(w.bias[j])) as f32
    };
    (0..outputs).map(output).collect()
}

/// Adds the change to the outputs of all tokens.
///
/// # Panics
/// If the shapes do not match.
pub fn add_low_rank(pool: &ThreadPool, x: Rows, w: LowRank, y: RowsMut) {
    let (n, r, inputs, outputs) = (x.len(), w.r(), x.width(), y.width());
    let (a, b) = (Matrix::new(Elements::F32(w.a), inputs, r), Matrix::new(Elements::F32(w.b), r, outputs));
    let add = || {
        PRODUCTS.with_borrow_mut(|buffer| {
            buffer.resize(buffer.len().max((n + 1) * r), 0.0);
            let (zeros, products) = buffer.split_at_mut(r);
            zeros.fill(0.0);
            let products = &mut products[..n * r];
            linear(pool, x, a, zeros, Epilogue::Store, RowsMut::dense(products, r));
            products.iter_mut().for_each(|product| *product *= w.scaling);
            linear(pool, Rows::dense(products, r), b, w.bias, Epilogue::Add, y);
        });
    };
    if n * r * (inputs + outputs) < MIN_PARALLEL_PRODUCTS { pool.sequentially(add) } else { add() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, assert_same_bits, random_values};

    #[test]
    fn two_linear_layers_match_reference_on_every_instruction_set() {
        for (n, inputs, r, outputs) in [
            (1, 7, 1, 5),
            (1, 64, 8, 192),
            (3, 33, 4, 70),
            (29, 40, 16, 20),
            (70, 300, 3, 50),
            (90, 60, 64, 61),
        ] {
            let (a, b) = (random_values(1, inputs * r), random_values(2, r * outputs));
            let (bias, x) = (random_values(3, outputs), random_values(4, n * inputs));
            let before = random_values(5, n * outputs);
            let w = LowRank { a: &a, b: &b, scaling: 0.75, bias: &bias };
            let run = |pool: &ThreadPool, rows: std::ops::Range<usize>| {
                let mut y = before[rows.start * outputs..rows.end * outputs].to_vec();
                let x = Rows::dense(&x, inputs).row_range(rows.start, rows.len());
                add_low_rank(pool, x, w, RowsMut::dense(&mut y, outputs));
                y
            };
            let added = x.chunks(inputs).flat_map(|x| reference(x, w));
            let expected: Vec<f32> = before.iter().zip(added).map(|(y, added)| y + added).collect();
            let together = assert_same_bits(|pool| run(pool, 0..n));
            assert_close(&together, &expected, 1e-4);
            let one_by_one = assert_same_bits(|pool| (0..n).flat_map(|t| run(pool, t..t + 1)).collect());
            assert_eq!(together, one_by_one, "{n} x {inputs} x {r} x {outputs}");
        }
    }
}
