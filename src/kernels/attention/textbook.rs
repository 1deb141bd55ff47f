//! Attention as the formula stands: the whole score matrix, then a softmax of every row, then the mixtures.
//!
//! ```text
//! S = Q · Kᵀ · scale     P = softmax(S + mask)     Z = P · V          (Vaswani et al. 2017, section 3.2.1)
//! ```
//!
//! - Memory: n · (past + n) scores a head, on every thread: 4 MiB for 1024 tokens, 64 MiB for 4096.
//! - Cost: 4 · head_dim operations for every pair of tokens, those behind the mask included, and the matrix goes through
//!   memory four times (written, normalised, read). In decode the matrix is one row.

use super::kernel::{AttentionKernel, Call, Mixtures, Tile};
use crate::kernels::rows::{Rows, RowsMut, row_stride};
use crate::kernels::simd::LANES;
use crate::kernels::softmax::softmax;

/// The whole score matrix.
#[derive(Clone, Copy, Debug)]
pub struct Textbook;

impl AttentionKernel for Textbook {
    fn name(&self) -> &'static str {
        "textbook"
    }

    fn about(&self) -> &'static str {
        "the whole score matrix, as the formula stands"
    }

    fn attend(&self, call: &mut Call) {
        call.for_each_tile(usize::MAX, scratch, attend);
    }
}

/// Numbers for the scores and mixtures of a tile.
pub(super) fn scratch(tile: &Tile) -> usize {
    let width = tile.end().next_multiple_of(LANES);
    tile.q.len() * (row_stride(width) + tile.past.mixture_width())
}

/// The formula, matrix by matrix, for the queries of a tile.
pub(super) fn attend(tile: &Tile, scratch: &mut [f32], z: &mut Mixtures) {
    let (n, seen, width) = (tile.q.len(), tile.end(), tile.end().next_multiple_of(LANES));
    let stride = row_stride(width);
    let (p, mixture) = scratch.split_at_mut(n * stride);

    tile.scores(0, &mut RowsMut::new(p, n, width, stride)); // S
    for (m, p) in p.chunks_mut(stride).enumerate() {
        let own = tile.position + m + 1;
        softmax(tile.isa, &mut p[..own]); // P
        p[own..].fill(0.0); // no token sees the future
    }
    mixture.fill(0.0);
    let mut mixture = RowsMut::dense(mixture, tile.past.mixture_width());
    tile.mix(Rows::new(p, n, seen, stride), 0, &mut mixture); // Z
    for m in 0..n {
        let z = z.row_mut(m);
        z.copy_from_slice(&mixture.row_mut(m)[..z.len()]);
    }
}
