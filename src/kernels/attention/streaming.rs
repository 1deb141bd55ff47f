//! Online softmax, one query at a time: keys and values are read block by block, and the running sum and
//! output are rescaled whenever the running maximum grows. The idea of [`flash`](super::Flash) in plain code.
//!
//! ```text
//! m' = max(m, m_block),  l' = l · e^(m − m') + l_block · e^(m_block − m'),  o' likewise;  out = o / l
//! ```
//!
//! - Memory: 64 scores and one output row per thread, whatever the length.
//! - Cost: 4 · head_dim FLOPs per unmasked query-key pair; every query reads all of its keys and values.

use super::kernel::{AttentionKernel, AttentionParams, QueryBlock};
use super::primitives::exp_and_sum;
use crate::rows::{Rows, RowsMut};

/// Positions in a KV block. Blocks start at position 0 for every query, so that chunked prefill gives the
/// same bits.
const BLOCK: usize = 64;

/// Online softmax, one query at a time.
#[derive(Clone, Copy, Debug)]
pub struct Streaming;

impl AttentionKernel for Streaming {
    fn name(&self) -> &'static str {
        "streaming"
    }

    fn description(&self) -> &'static str {
        "online softmax, one query at a time"
    }

    fn attend(&self, params: &mut AttentionParams) {
        let workspace_len = |query: &QueryBlock| BLOCK + query.kv.padded_head_dim();
        params.for_each_query_block(1, workspace_len, |query, workspace, out| {
            let (p, acc) = workspace.split_at_mut(BLOCK);
            let (mut max, mut sum) = (f32::NEG_INFINITY, 0.0f32);
            acc.fill(0.0);
            for start in (0..query.kv_len()).step_by(BLOCK) {
                let visible = BLOCK.min(query.kv_len() - start); // causal mask
                query.scores(start, &mut RowsMut::dense(p, BLOCK));
                let (block_max, block_sum) = exp_and_sum(query.isa, p, 0..visible);
                let new_max = block_max.max(max);
                let (rescale, block_rescale) = (libm::expf(max - new_max), libm::expf(block_max - new_max));
                max = new_max;
                sum = sum * rescale + block_sum * block_rescale;
                acc.iter_mut().for_each(|acc| *acc *= rescale);
                p.iter_mut().for_each(|p| *p *= block_rescale);
                let p = Rows::dense(p, BLOCK).columns(0, visible);
                query.accumulate_values(p, start, &mut RowsMut::dense(acc, query.kv.padded_head_dim()));
            }
            out.row_mut(0).iter_mut().zip(acc).for_each(|(out, acc)| *out = *acc / sum);
        });
    }
}
