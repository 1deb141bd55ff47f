//! The score matrix, one block of queries at a time: the three matrices of [`textbook`](super::Textbook), of
//! which only 64 rows are in memory at once, multiplied by the microkernel.
//!
//! ```text
//! for every block of 64 queries:
//!     S = Q[block] · K[0..kv_len]ᵀ · scale     P = softmax(S + mask)     O[block] = P · V
//! ```
//!
//! A softmax needs its whole row and no other, so rows can be computed in any blocks. Columns that are masked
//! for the last query of the block are never computed, which is nearly half of the matrix.
//!
//! - Memory: 64 · kv_len scores per thread: 1 MiB for 4096 tokens, so they stay in a 1 MiB L2 cache up to
//!   about 2000.
//! - Cost: 4 · head_dim FLOPs per query-key pair: all unmasked ones, and on average 32 masked ones per query.

use super::kernel::{AttentionKernel, AttentionParams, OutputBlock, QueryBlock};
use crate::rows::{Rows, RowsMut, row_stride};
use crate::simd::LANES;
use crate::softmax::softmax;

/// Queries in a block.
const QUERIES: usize = 64;

/// Attention with 64 rows of the score matrix at a time.
#[derive(Clone, Copy, Debug)]
pub struct Blocks;

impl AttentionKernel for Blocks {
    fn name(&self) -> &'static str {
        "blocks"
    }

    fn description(&self) -> &'static str {
        "score matrix in blocks of 64 queries"
    }

    fn attend(&self, params: &mut AttentionParams) {
        params.for_each_query_block(QUERIES, workspace_len, attend);
    }
}

/// Returns the elements that a query block's scores and output accumulators take.
fn workspace_len(block: &QueryBlock) -> usize {
    let width = block.kv_len().next_multiple_of(LANES);
    block.q.len() * (row_stride(width) + block.kv.padded_head_dim())
}

/// Computes the formula, matrix by matrix, for one query block.
fn attend(block: &QueryBlock, workspace: &mut [f32], out: &mut OutputBlock) {
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
