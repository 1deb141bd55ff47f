//! Two passes over the KV cache: all keys, then all values, with the softmax in between.
//!
//! ```text
//! pass 1:   s[j] = (q · k[j]) · scale,   m = max_j s[j]
//!           p[j] = e^(s[j] − m),         l = Σ_j p[j]
//! pass 2:   out = (Σ_j p[j] · v[j]) / l
//! ```
//!
//! The maximum is known before the first value is read, so nothing is ever rescaled, and the division is
//! deferred to the head_dim output elements instead of every position. In decode, all keys of a head are read
//! in one go, then all its values.
//!
//! - Memory: a row of kv_len scores per query of a block (6 queries with AVX2, 14 with AVX-512): 4 KiB per
//!   query for 1024 tokens.
//! - Cost: as [`flash`](super::Flash) without its rescaling; long rows of scores are evicted from the L1
//!   cache between the passes.

use super::kernel::{AttentionKernel, AttentionParams, OutputBlock, QueryBlock};
use super::primitives::exp_and_sum;
use crate::rows::{Rows, RowsMut, row_stride};
use crate::simd::LANES;
use std::ops::Range;

/// Attention in two passes: all keys, then all values.
#[derive(Clone, Copy, Debug)]
pub struct TwoPass;

impl AttentionKernel for TwoPass {
    fn name(&self) -> &'static str {
        "two-pass"
    }

    fn description(&self) -> &'static str {
        "one row of scores per query: all keys, then all values"
    }

    fn attend(&self, params: &mut AttentionParams) {
        let workspace_len = |block: &QueryBlock| workspace_len(block, 0..block.kv_len());
        params.for_each_query_block(params.mr(), workspace_len, |block, workspace, out| {
            attend(block, 0..block.kv_len(), |m| 0..block.position + m + 1, workspace, out);
        });
    }
}

/// Returns the elements that a query block's scores for `positions`, output accumulators and row sums take.
pub(super) fn workspace_len(block: &QueryBlock, positions: Range<usize>) -> usize {
    let width = positions.len().next_multiple_of(LANES);
    block.q.len() * (row_stride(width) + block.kv.padded_head_dim() + 1)
}

/// Runs both passes over `positions`, which start at a multiple of sixteen; query `m` attends to `visible(m)`
/// of them.
pub(super) fn attend(
    block: &QueryBlock,
    positions: Range<usize>,
    visible: impl Fn(usize) -> Range<usize>,
    workspace: &mut [f32],
    out: &mut OutputBlock,
) {
    let (n, start, width) = (block.q.len(), positions.start, positions.len().next_multiple_of(LANES));
    let stride = row_stride(width);
    let (p, rest) = workspace.split_at_mut(n * stride);
    let (acc, sums) = rest.split_at_mut(n * block.kv.padded_head_dim());

    block.scores(start, &mut RowsMut::new(p, n, width, stride));
    for (m, p) in p.chunks_mut(stride).enumerate() {
        let visible = visible(m);
        (_, sums[m]) = exp_and_sum(block.isa, &mut p[..width], visible.start - start..visible.end - start);
    }
    acc.fill(0.0);
    let mut acc = RowsMut::dense(acc, block.kv.padded_head_dim());
    block.accumulate_values(Rows::new(p, n, positions.len(), stride), start, &mut acc);
    for (m, sum) in sums.iter().enumerate() {
        out.row_mut(m).iter_mut().zip(acc.row_mut(m)).for_each(|(out, acc)| *out = *acc / sum);
    }
}
