//! Two passes over the past: the keys first, the values second, and in between the weights of all of it.
//!
//! ```text
//! pass 1:   s[j] = (q · k[j]) · scale,   m = max_j s[j]
//!           e[j] = e^(s[j] − m),         l = Σ_j e[j]
//! pass 2:   z = (Σ_j e[j] · v[j]) / l
//! ```
//!
//! The maximum is known before the first value is read, so nothing is ever rescaled, and the division waits until
//! head_dim numbers are left to divide instead of one for every position. In decode, keys and values are each read from
//! front to back in one go, which is what memory is fastest at.
//!
//! - Memory: a row of past + 1 scores for each query of a tile (6 with AVX2, 14 with AVX-512): 4 KiB a query for 1024
//!   tokens.
//! - Cost: as [`flash`](super::Flash) without its rescaling; long rows of scores leave the first-level cache between the
//!   passes.

use super::kernel::{AttentionKernel, Call, Mixtures, Tile};
use super::pieces::weigh;
use crate::kernels::rows::{Rows, RowsMut, row_stride};
use crate::kernels::simd::LANES;
use std::ops::Range;

/// Keys first, values second.
#[derive(Clone, Copy, Debug)]
pub struct TwoPass;

impl AttentionKernel for TwoPass {
    fn name(&self) -> &'static str {
        "two-pass"
    }

    fn about(&self) -> &'static str {
        "all keys, then all values: one row of scores a query"
    }

    fn attend(&self, call: &mut Call) {
        let scratch = |tile: &Tile| scratch(tile, 0..tile.end());
        call.for_each_tile(call.tile_rows(), scratch, |tile, scratch, z| {
            attend(tile, 0..tile.end(), |m| 0..tile.position + m + 1, scratch, z);
        });
    }
}

/// Numbers for the scores of some positions, the mixtures and the sums of weights of a tile.
pub(super) fn scratch(tile: &Tile, positions: Range<usize>) -> usize {
    let width = positions.len().next_multiple_of(LANES);
    tile.q.len() * (row_stride(width) + tile.past.mixture_width() + 1)
}

/// Both passes over `positions`, of which query `m` sees `seen(m)`; they begin at a multiple of sixteen.
pub(super) fn attend(
    tile: &Tile,
    positions: Range<usize>,
    seen: impl Fn(usize) -> Range<usize>,
    scratch: &mut [f32],
    z: &mut Mixtures,
) {
    let (n, start, width) = (tile.q.len(), positions.start, positions.len().next_multiple_of(LANES));
    let stride = row_stride(width);
    let (p, rest) = scratch.split_at_mut(n * stride);
    let (mixture, sums) = rest.split_at_mut(n * tile.past.mixture_width());

    tile.scores(start, &mut RowsMut::new(p, n, width, stride));
    for (m, p) in p.chunks_mut(stride).enumerate() {
        let seen = seen(m);
        (_, sums[m]) = weigh(tile.isa, &mut p[..width], seen.start - start..seen.end - start);
    }
    mixture.fill(0.0);
    let mut mixture = RowsMut::dense(mixture, tile.past.mixture_width());
    tile.mix(Rows::new(p, n, positions.len(), stride), start, &mut mixture);
    for (m, sum) in sums.iter().enumerate() {
        z.row_mut(m).iter_mut().zip(mixture.row_mut(m)).for_each(|(z, mixed)| *z = *mixed / sum);
    }
}
