//! The textbook a block of queries at a time: the same three matrices, of which only 64 rows exist at once.
//!
//! ```text
//! for every block of 64 queries:   S = Q[block] · K[0..end]ᵀ · scale,   P = softmax(S + mask),   Z[block] = P · V
//! ```
//!
//! A softmax needs its whole row and no other, so rows may be cut apart freely. What lies behind the mask of the block's
//! last query is never computed, which is nearly half of the matrix.
//!
//! - Memory: 64 · (past + n) scores a thread: 1 MiB for 4096 tokens, so that they stay in the second-level cache to
//!   about 2000.
//! - Cost: 4 · head_dim operations for every pair that the mask leaves, and half a block's width beyond.

use super::kernel::{AttentionKernel, Call};
use super::textbook::{attend, scratch};

/// Queries of a block.
const QUERIES: usize = 64;

/// The textbook's matrices, 64 rows at a time.
#[derive(Clone, Copy, Debug)]
pub struct Blocks;

impl AttentionKernel for Blocks {
    fn name(&self) -> &'static str {
        "blocks"
    }

    fn about(&self) -> &'static str {
        "the textbook, 64 queries at a time"
    }

    fn attend(&self, call: &mut Call) {
        call.for_each_tile(QUERIES, scratch, attend);
    }
}
