//! Backward of [attention](crate::attention): the attention weights are computed again from queries and keys,
//! block by block, so that no matrix of them is kept (Dao et al. 2022, algorithm 4; Dao 2023).
//!
//! ```text
//! S = Q · Kᵀ · scale     P = softmax(S + mask)     O = P · V
//!
//! dV = Pᵀ · dO
//! dP = dO · Vᵀ           dS[i, j] = P[i, j] · (dP[i, j] − D[i])
//!                        D[i] = Σ_j P[i, j] · dP[i, j] = dO[i] · O[i]
//! dQ = dS · K · scale    dK = dSᵀ · Q · scale
//! ```
//!
//! D needs no row of P: the output of the forward pass has summed it already. A head of a sequence is one
//! chunk of work; it alone writes its columns of dQ, dK and dV. `products.rs` has the matrix products,
//! `head.rs` the loop over blocks of queries: a block's scores of all visible keys are in memory at once, so
//! that softmax needs nothing from the forward pass, neither maxima nor sums.
//!
//! - Memory: per thread 84 rows of P, and seven matrices `[n, head_dim]`.
//! - Cost: 10 · head_dim FLOPs per unmasked query-key pair, 2.5 times the forward pass, and one exponential.

mod head;
mod products;

use crate::rows::{Rows, RowsMut};
use crate::simd::AlignedLanes;
use crate::thread_pool::ThreadPool;
use head::Head;
use std::cell::RefCell;
use std::ops::Range;

/// The gradients of one head, `[n, head_dim]` each.
#[derive(Clone, Debug)]
pub struct Gradients {
    /// The gradient of the queries.
    pub dq: Vec<f64>,
    /// The gradient of the keys.
    pub dk: Vec<f64>,
    /// The gradient of the values.
    pub dv: Vec<f64>,
}

/// The formulas for one head of a sequence: `q`, `k`, `v` and `dout` are `[n, head_dim]`.
pub fn reference(q: &[f64], k: &[f64], v: &[f64], dout: &[f64], head_dim: usize, scale: f64) -> Gradients {
    let row = |x: &[f64], i: usize| x[i * head_dim..][..head_dim].to_vec();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let [mut dq, mut dk, mut dv] = [q, k, v].map(|x| vec![0.0; x.len()]);
    for i in 0..q.len() / head_dim {
        let (q, dout) = (row(q, i), row(dout, i));
        let e: Vec<f64> = (0..=i).map(|j| libm::exp(dot(&q, &row(k, j)) * scale)).collect();
        let p: Vec<f64> = e.iter().map(|x| x / e.iter().sum::<f64>()).collect();
        let dp: Vec<f64> = (0..=i).map(|j| dot(&dout, &row(v, j))).collect();
        let d = dot(&p, &dp);
        for j in 0..=i {
            let ds = p[j] * (dp[j] - d) * scale;
            for c in 0..head_dim {
                dv[j * head_dim + c] += p[j] * dout[c];
                dq[i * head_dim + c] += ds * k[j * head_dim + c];
                dk[j * head_dim + c] += ds * q[c];
            }
        }
    }
    Gradients { dq, dk, dv }
}

/// The heads and sequences of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The rows of each sequence, from its first token on. Rows outside of all are not touched.
    pub sequences: &'a [Range<usize>],
    /// The number of heads.
    pub n_head: usize,
    /// The factor of the scores.
    pub scale: f32,
}

thread_local! {
    /// A thread's workspace, reused from one head to the next.
    static WORKSPACE: RefCell<Vec<AlignedLanes>> = const { RefCell::new(Vec::new()) };
}

/// Computes the gradients `dqkv` of `qkv`: queries, keys and values of all heads side by side, as `c_attn`
/// computes them, `[n_tokens, 3 · n_embd]`. `out` is the output of attention, `dout` its gradient, both
/// `[n_tokens, n_embd]`.
///
/// # Panics
/// If the shapes do not match, or sequences overlap.
pub fn attention(pool: &ThreadPool, batch: Batch, qkv: Rows, out: Rows, dout: Rows, mut dqkv: RowsMut) {
    let (n_head, n_embd) = (batch.n_head, out.width());
    assert_eq!((qkv.len(), qkv.width()), (out.len(), 3 * n_embd), "qkv is [n_tokens, 3 * n_embd]");
    assert_eq!((dout.len(), dout.width()), (out.len(), n_embd), "dout is [n_tokens, n_embd]");
    assert_eq!((dqkv.len(), dqkv.width()), (qkv.len(), qkv.width()), "dqkv has the shape of qkv");
    assert!(n_embd.is_multiple_of(n_head), "n_embd is a multiple of n_head");
    let mut ordered: Vec<&Range<usize>> = batch.sequences.iter().filter(|rows| !rows.is_empty()).collect();
    ordered.sort_by_key(|rows| rows.start);
    assert!(ordered.windows(2).all(|pair| pair[0].end <= pair[1].start), "sequences do not overlap");
    assert!(ordered.last().is_none_or(|last| last.end <= out.len()), "sequences are rows of the batch");

    let head_dim = n_embd / n_head;
    let dqkv = dqkv.as_disjoint();
    pool.run(ordered.len() * n_head, |i| {
        let (rows, head) = (ordered[i / n_head], i % n_head);
        let columns = [0, 1, 2].map(|part| part * n_embd + head * head_dim);
        let of_head =
            |x, column| Rows::columns(&Rows::row_range(x, rows.start, rows.len()), column, head_dim);
        let [q, k, v] = columns.map(|column| of_head(&qkv, column));
        let [out, dout] = [&out, &dout].map(|x| of_head(x, columns[0]));
        WORKSPACE.with_borrow_mut(|workspace| {
            let (isa, scale, first_row) = (pool.isa(), batch.scale, rows.start);
            let head = Head { isa, q, k, v, out, dout, scale, dqkv: &dqkv, first_row, columns };
            head.backward(workspace);
        });
    });
}

#[cfg(test)]
mod tests;
