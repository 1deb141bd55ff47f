//! Sliding-window attention: a token attends to the 256 tokens that end with itself.
//!
//! ```text
//! out[i] = Σ_j p[i, j] · v[j]     for i − 256 < j ≤ i      (Beltagy et al. 2020; Jiang et al. 2023)
//! ```
//!
//! The cost per token no longer grows with the context. Information still travels further, 256 tokens per
//! layer. This is another function than full attention: the results agree for the first 256 tokens of a text;
//! beyond that, the output of a model that was not trained with a window gets worse.
//!
//! - Memory: a row of at most 256 scores plus the block's height for each query of a block.
//! - Cost: 4 · head_dim FLOPs per query-key pair in the window; in decode at most 256 keys and values are
//!   read.

use super::kernel::{AttentionKernel, AttentionParams, Mask, QueryBlock};
use super::two_pass;
use crate::simd::LANES;
use std::ops::Range;

/// Two-pass attention to the last tokens.
#[derive(Clone, Copy, Debug)]
pub struct SlidingWindow {
    /// Tokens that a token attends to, itself included; at least one.
    pub tokens: usize,
}

impl SlidingWindow {
    /// Returns the positions that the queries of a block attend to together, rounded down to a multiple of
    /// sixteen.
    fn positions(&self, block: &QueryBlock) -> Range<usize> {
        let first = self.mask().visible(block.position).start;
        first / LANES * LANES..block.kv_len()
    }
}

impl AttentionKernel for SlidingWindow {
    fn name(&self) -> &'static str {
        "window"
    }

    fn description(&self) -> &'static str {
        "last 256 tokens only; results differ from the other kernels"
    }

    fn mask(&self) -> Mask {
        Mask::SlidingWindow(self.tokens)
    }

    fn attend(&self, params: &mut AttentionParams) {
        let workspace_len = |block: &QueryBlock| two_pass::workspace_len(block, self.positions(block));
        params.for_each_query_block(params.mr(), workspace_len, |block, workspace, out| {
            let visible = |m| self.mask().visible(block.position + m);
            two_pass::attend(block, self.positions(block), visible, workspace, out);
        });
    }
}
