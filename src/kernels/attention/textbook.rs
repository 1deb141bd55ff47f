//! Attention as the formula is written: the whole score matrix, a softmax of every row, then the weighted
//! values.
//!
//! ```text
//! S = Q · Kᵀ · scale     P = softmax(S + mask)     O = P · V          (Vaswani et al. 2017, section 3.2.1)
//! ```
//!
//! - Memory: n · kv_len scores per head on every thread: 4 MiB for 1024 tokens, 64 MiB for 4096.
//! - Cost: 4 · head_dim FLOPs per query-key pair, masked ones included; the matrix goes through memory four
//!   times (written; read and written by the softmax; read). In decode the matrix is one row.

use super::kernel::{AttentionKernel, AttentionParams, OutputBlock, QueryBlock};
use crate::kernels::rows::{Rows, RowsMut, row_stride};
use crate::kernels::simd::LANES;
use crate::kernels::softmax::softmax;

/// Attention with the whole score matrix.
#[derive(Clone, Copy, Debug)]
pub struct Textbook;

impl AttentionKernel for Textbook {
    fn name(&self) -> &'static str {
        "textbook"
    }

    fn description(&self) -> &'static str {
        "full score matrix, as the formula is written"
    }

    fn score_matrix_len(&self, queries: usize, kv_len: usize) -> usize {
        queries * row_stride(kv_len.next_multiple_of(LANES))
    }

    fn attend(&self, params: &mut AttentionParams) {
        params.for_each_query_block(usize::MAX, workspace_len, attend);
    }
}

/// Returns the elements that a query block's scores and output accumulators take.
pub(super) fn workspace_len(block: &QueryBlock) -> usize {
    let width = block.kv_len().next_multiple_of(LANES);
    block.q.len() * (row_stride(width) + block.kv.padded_head_dim())
}

/// Computes the formula, matrix by matrix, for one query block.
pub(super) fn attend(block: &QueryBlock, workspace: &mut [f32], out: &mut OutputBlock) {
    let (n, kv_len, width) = (block.q.len(), block.kv_len(), block.kv_len().next_multiple_of(LANES));
    let stride = row_stride(width);
    let (p, acc) = workspace.split_at_mut(n * stride);

    block.scores(0, &mut RowsMut::new(p, n, width, stride)); // S
    for (m, p) in p.chunks_mut(stride).enumerate() {
        let visible = block.position + m + 1;
        softmax(block.isa, &mut p[..visible]); // P
        p[visible..].fill(0.0); // causal mask
    }
    acc.fill(0.0);
    let mut acc = RowsMut::dense(acc, block.kv.padded_head_dim());
    block.accumulate_values(Rows::new(p, n, kv_len, stride), 0, &mut acc); // O
    for m in 0..n {
        let out = out.row_mut(m);
        out.copy_from_slice(&acc.row_mut(m)[..out.len()]);
    }
}
