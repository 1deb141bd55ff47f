//! Split-KV: the past is cut into stretches that different threads attend to, and what they find is merged.
//!
//! ```text
//! stretch:  m_s = max_j s[j],   l_s = Σ_j e^(s[j] − m_s),   z_s = Σ_j e^(s[j] − m_s) · v[j]
//! merged:   m = max_s m_s,      z = Σ_s e^(m_s − m) · z_s / Σ_s e^(m_s − m) · l_s          (Dao et al. 2023)
//! ```
//!
//! Decode has one query a head: with more threads than heads, or heads that do not divide evenly among threads, some
//! would have nothing to do. Stretches of 256 positions give every thread its share of a long past. They are the same
//! for every query and any number of threads, and are merged in their order: so the bits are the same, too.
//!
//! - Memory: head_dim + 2 numbers for every query, head and stretch of the call, and a stretch's scores a thread. Meant
//!   for decode; the 512 tokens of a long prompt's piece take 6 MiB for every 1000 tokens that came before.
//! - Cost: as [`two-pass`](super::TwoPass), and head_dim multiply-adds to merge each stretch.

use super::kernel::{AttentionKernel, Call, Mixtures, Tile};
use super::pieces::weigh;
use crate::kernels::exp::exp_one;
use crate::kernels::rows::{Rows, RowsMut, row_stride};
use crate::kernels::simd::{Kernel, LANES, Simd};

/// Positions of a stretch.
const STRETCH: usize = 256;

/// Stretches of the past in parallel.
#[derive(Clone, Copy, Debug)]
pub struct SplitKv;

impl AttentionKernel for SplitKv {
    fn name(&self) -> &'static str {
        "split-kv"
    }

    fn about(&self) -> &'static str {
        "stretches of 256 positions in parallel, then merged"
    }

    fn attend(&self, call: &mut Call) {
        let (rows, stretches) = (call.tile_rows().min(call.most_queries()), call.longest().div_ceil(STRETCH));
        let width = call.mixture_width();
        let size = rows * (width + 2);
        let shared = call.tiles(rows) * stretches * size;
        call.with_shared(shared, |call, found| {
            call.team().for_each_piece(found, size, |i, found| {
                let (tile, stretch) = (call.tile(rows, i / stretches), i % stretches);
                attend(call, &tile, stretch * STRETCH, found);
            });
            let found: &[f32] = found;
            call.for_each_tile(
                rows,
                |_| 0,
                |tile, _, z| {
                    let found = &found[tile.index * stretches * size..][..stretches * size];
                    tile.isa.run(Merge { tile, found, size, z });
                },
            );
        });
    }
}

/// One stretch of a tile: leaves mixtures `[n, head_dim]`, maxima `[n]` and sums `[n]` in `found`.
fn attend(call: &Call, tile: &Tile, start: usize, found: &mut [f32]) {
    let n = tile.q.len();
    let seen = |m: usize| (tile.position + m + 1).saturating_sub(start).min(STRETCH);
    let positions = seen(n - 1);
    if positions == 0 {
        return; // longer pasts than this one have this stretch
    }
    let (mixture, rest) = found.split_at_mut(n * tile.past.mixture_width());
    let (max, sum) = rest.split_at_mut(n);
    let (stride, width) = (row_stride(STRETCH), positions.next_multiple_of(LANES));
    call.with_scratch(n * stride, |p| {
        tile.scores(start, &mut RowsMut::new(p, n, width, stride));
        for (m, p) in p.chunks_mut(stride).enumerate() {
            match seen(m) {
                0 => p[..width].fill(0.0),
                seen => (max[m], sum[m]) = weigh(tile.isa, &mut p[..width], 0..seen),
            }
        }
        mixture.fill(0.0);
        let mut mixture = RowsMut::dense(mixture, tile.past.mixture_width());
        tile.mix(Rows::new(p, n, positions, stride), start, &mut mixture);
    });
}

/// What the stretches found, brought together.
struct Merge<'a, 'z> {
    tile: &'a Tile<'a>,
    /// As [`attend`] left it, `size` numbers a stretch.
    found: &'a [f32],
    size: usize,
    z: &'a mut Mixtures<'z>,
}

impl Kernel for Merge<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (n, width) = (self.tile.q.len(), self.tile.past.mixture_width());
        for m in 0..n {
            // The stretches that this query sees something of.
            let stretches = || self.found.chunks(self.size).take((self.tile.position + m) / STRETCH + 1);
            let [max, sum] = [n * width + m, n * width + n + m];
            let highest = stretches().map(|found| found[max]).fold(f32::NEG_INFINITY, f32::max);
            let z = self.z.row_mut(m);
            z.fill(0.0);
            let mut total = 0.0f32;
            for found in stretches() {
                let share = exp_one(simd, found[max] - highest);
                total = share.mul_add(found[sum], total);
                for (z, mixed) in z.iter_mut().zip(&found[m * width..]) {
                    *z = share.mul_add(*mixed, *z);
                }
            }
            z.iter_mut().for_each(|z| *z /= total);
        }
    }
}
