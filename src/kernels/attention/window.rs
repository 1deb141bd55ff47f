//! A sliding window: a token sees the 256 tokens up to itself and none before.
//!
//! ```text
//! z[i] = Σ_j p[i, j] · v[j]     for i − 256 < j ≤ i      (Beltagy et al. 2020; Jiang et al. 2023)
//! ```
//!
//! What it costs no longer grows with the past. Information still travels further, 256 tokens a layer. This is another
//! function than full attention: for the first 256 tokens of a text the results agree, beyond that a model that was not
//! trained so writes worse.
//!
//! - Memory: a row of at most 256 scores and a tile's height for each query of a tile.
//! - Cost: 4 · head_dim operations for every pair in the window; in decode at most 256 keys and values are read.

use super::kernel::{AttentionKernel, Call, Mask, Tile};
use super::two_pass;
use crate::kernels::simd::LANES;
use std::ops::Range;

/// Two passes over the last tokens.
#[derive(Clone, Copy, Debug)]
pub struct SlidingWindow {
    /// Tokens that a token sees, itself among them; at least one.
    pub tokens: usize,
}

impl SlidingWindow {
    /// What the queries of a tile see together, from a multiple of sixteen on.
    fn positions(&self, tile: &Tile) -> Range<usize> {
        let first = self.mask().seen(tile.position).start;
        first / LANES * LANES..tile.end()
    }
}

impl AttentionKernel for SlidingWindow {
    fn name(&self) -> &'static str {
        "window"
    }

    fn about(&self) -> &'static str {
        "the last 256 tokens only: another function than the others"
    }

    fn mask(&self) -> Mask {
        Mask::Window(self.tokens)
    }

    fn attend(&self, call: &mut Call) {
        let scratch = |tile: &Tile| two_pass::scratch(tile, self.positions(tile));
        call.for_each_tile(call.tile_rows(), scratch, |tile, scratch, z| {
            let seen = |m| self.mask().seen(tile.position + m);
            two_pass::attend(tile, self.positions(tile), seen, scratch, z);
        });
    }
}
