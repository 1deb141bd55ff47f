//! Online softmax, a query at a time: the past goes by in blocks, and what was found so far is brought to each new
//! maximum. The idea of [`flash`](super::Flash) in plain words.
//!
//! ```text
//! m' = max(m, m_block),   l' = l · e^(m − m') + l_block · e^(m_block − m'),   z likewise;   at the end z / l
//! ```
//!
//! - Memory: 64 scores and a mixture a thread, whatever the length.
//! - Cost: 4 · head_dim operations for every pair that the mask leaves; every query reads all of its past.

use super::kernel::{AttentionKernel, Call, Tile};
use super::pieces::weigh;
use crate::kernels::rows::{Rows, RowsMut};

/// Positions of a block. Blocks begin at position 0 for every query, so that chunks do not change a bit.
const BLOCK: usize = 64;

/// Online softmax, a query at a time.
#[derive(Clone, Copy, Debug)]
pub struct Streaming;

impl AttentionKernel for Streaming {
    fn name(&self) -> &'static str {
        "streaming"
    }

    fn about(&self) -> &'static str {
        "online softmax, a query at a time"
    }

    fn attend(&self, call: &mut Call) {
        let scratch = |tile: &Tile| BLOCK + tile.past.mixture_width();
        call.for_each_tile(1, scratch, |tile, scratch, z| {
            let (p, mixture) = scratch.split_at_mut(BLOCK);
            let (mut max, mut sum) = (f32::NEG_INFINITY, 0.0f32);
            mixture.fill(0.0);
            for start in (0..tile.end()).step_by(BLOCK) {
                tile.scores(start, &mut RowsMut::dense(p, BLOCK));
                let (highest, total) = weigh(tile.isa, p, 0..BLOCK.min(tile.end() - start));
                let higher = highest.max(max);
                let (shrink, share) = (libm::expf(max - higher), libm::expf(highest - higher));
                max = higher;
                sum = sum * shrink + total * share;
                mixture.iter_mut().for_each(|z| *z *= shrink);
                p.iter_mut().for_each(|p| *p *= share);
                let seen = Rows::dense(p, BLOCK).columns(0, BLOCK.min(tile.end() - start));
                tile.mix(seen, start, &mut RowsMut::dense(mixture, tile.past.mixture_width()));
            }
            z.row_mut(0).iter_mut().zip(mixture).for_each(|(z, mixed)| *z = *mixed / sum);
        });
    }
}
