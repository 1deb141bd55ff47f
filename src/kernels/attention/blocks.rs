//! The textbook kernel, one block of queries at a time: the same three matrices, but only 64 of their rows
//! are in memory at once.
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

use super::kernel::{AttentionKernel, AttentionParams};
use super::textbook::{attend, workspace_len};

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
        "textbook, in blocks of 64 queries"
    }

    fn attend(&self, params: &mut AttentionParams) {
        params.for_each_query_block(QUERIES, workspace_len, attend);
    }
}
