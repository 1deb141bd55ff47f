//! Attention that never holds the score matrix (flash attention): the softmax is kept up as the keys go by.
//!
//! ```text
//! for every block of keys:  m' = max(m, max_j s[j])
//!                           l ← l · e^(m − m') + Σ_j e^(s[j] − m')
//!                           z ← z · e^(m − m') + Σ_j e^(s[j] − m') · v[j]
//! at the end:               z / l                     (Milakov and Gimelshein 2018; Dao et al. 2022)
//! ```
//!
//! A tile of queries goes through its past in blocks of 256 positions and remembers, for every query, the largest score
//! so far (m), the sum of weights so far (l) and the mixture so far (z). Scores are used while they are in the
//! first-level cache.
//!
//! - Memory: a block of scores and a mixture for each query of a tile, whatever the length.
//! - Cost: the 4 · head_dim operations of every pair that the mask leaves, and the part of the last block that it hides;
//!   an exponential a pair; a rescaling where a block raises the maximum.
//!
//! Blocks start at position 0 for every query, and a query's arithmetic within a block is its own, so decode (a tile
//! of one) and prefill in any chunks give the same bits.

use super::ahead::Ahead;
use super::kernel::{AttentionKernel, Call, Mixtures};
use super::key_values::{Store, with_panels};
use super::panels::Panels;
use crate::kernels::elements::Element;
use crate::kernels::exp::{exp, exp_one};
use crate::kernels::isa::Isa;
use crate::kernels::rows::Rows;
use crate::kernels::simd::{Kernel, LANES, Simd};
use crate::kernels::tile::{Factors, multiply_add_while, reaches, with_rows};

/// Positions in a block: the scores of a tile fit in the first-level cache, and each query's largest score, its shrinking
/// and the way to its mixture are seldom (with 64 they took a third of the time).
const BLOCK: usize = 256;
/// Panels of key positions in a block.
const PANELS: usize = BLOCK / LANES;
/// Panels that one query meets at a time: each is a chain of multiply-adds that wait for one another, and four chains keep
/// up with memory (two took a tenth more time).
const OF_ONE: usize = 4;
/// The scores of `M` queries for a block.
type Scores<const M: usize> = [[[f32; LANES]; PANELS]; M];

/// Online softmax in tiles: the default.
#[derive(Clone, Copy, Debug)]
pub struct Flash;

impl AttentionKernel for Flash {
    fn name(&self) -> &'static str {
        "flash"
    }

    fn about(&self) -> &'static str {
        "online softmax in tiles: never holds the scores"
    }

    fn attend(&self, call: &mut Call) {
        let scratch = |tile: &super::Tile| tile.q.len() * (BLOCK + tile.past.mixture_width());
        call.for_each_tile(call.tile_rows(), scratch, |tile, scratch, z| {
            let (p, mixture) = scratch.as_chunks_mut().0.split_at_mut(tile.q.len() * PANELS);
            let &super::Tile { q, head, position, scale, .. } = tile;
            with_panels!(&tile.past.store, past => {
                let ahead = Ahead::new(past, head, tile.end(), BLOCK);
                Tile { q, past, ahead, head, position, scale, mixture, z }.run(tile.isa, p);
            });
        });
    }
}

/// Some queries of one head.
struct Tile<'a, 'z, E: Element> {
    /// `[n, head_dim]`
    q: Rows<'a>,
    past: &'a Panels<E>,
    ahead: Ahead<E>,
    head: usize,
    /// The position of the first query.
    position: usize,
    scale: f32,
    /// `[head_dim / 16, n]` vectors.
    mixture: &'a mut [[f32; LANES]],
    z: &'a mut Mixtures<'z>,
}

/// A tile of `M` queries.
struct Of<'a, 'z, E: Element, const M: usize>(Tile<'a, 'z, E>, &'a mut Scores<M>);

impl<E: Element, const M: usize> Kernel for Of<'_, '_, E, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        reaches::<S, M>();
        self.0.attend::<S, M>(simd, self.1);
    }
}

impl<'a, 'z, E: Element> Tile<'a, 'z, E> {
    fn run(self, isa: Isa, p: &'a mut [[f32; LANES]]) {
        let p = p.as_chunks_mut().0;
        with_rows!(self.q.len(), M => isa.run(Of::<'a, 'z, E, M>(self, p.as_mut_array().expect("M queries"))));
    }

    #[inline(always)]
    fn attend<S: Simd, const M: usize>(&mut self, simd: S, p: &mut Scores<M>) {
        let mut max = [f32::NEG_INFINITY; M];
        let mut sum = [[0.0f32; LANES]; M];
        self.mixture.fill([0.0; LANES]);
        // The last query of the tile sees the most.
        let end = self.position + M;
        for start in (0..end).step_by(BLOCK) {
            let positions = BLOCK.min(end - start);
            let panels = positions.div_ceil(LANES); // what lies beyond the last query is left out
            self.scores::<S, M>(simd, start, panels, p);
            for m in 0..M {
                // A query sees itself and what came before it.
                let seen = (self.position + m + 1).saturating_sub(start).min(BLOCK);
                self.weigh(simd, m, seen, &mut p[m][..panels], &mut max[m], &mut sum[m]);
            }
            if E::SCALED {
                let scales = self.past.value_scales(self.head, start);
                for p in &mut *p {
                    p.as_flattened_mut()[..positions].iter_mut().zip(scales).for_each(|(p, s)| *p *= s);
                }
            }
            self.mix::<S, M>(simd, start, positions, p);
        }
        self.finish(simd, &sum);
    }

    /// The scores of `M` queries and a block's first panels of keys.
    #[inline(always)]
    fn scores<S: Simd, const M: usize>(&self, simd: S, start: usize, panels: usize, scores: &mut Scores<M>) {
        let mut panel = 0;
        while M == 1 && panel + OF_ONE <= panels {
            self.score_panels::<S, M, OF_ONE>(simd, start, panel, scores);
            panel += OF_ONE;
        }
        while S::WIDE && panel + 2 <= panels {
            self.score_panels::<S, M, 2>(simd, start, panel, scores);
            panel += 2;
        }
        while panel < panels {
            self.score_panels::<S, M, 1>(simd, start, panel, scores);
            panel += 1;
        }
    }

    /// The same for `V` panels from a block's panel `panel`.
    #[inline(always)]
    fn score_panels<S: Simd, const M: usize, const V: usize>(
        &self,
        simd: S,
        start: usize,
        panel: usize,
        scores: &mut Scores<M>,
    ) {
        let first = start / LANES + panel;
        let keys: [*const E; V] = std::array::from_fn(|v| self.past.keys(self.head, first + v).as_ptr());
        let ask = |d| {
            for v in 0..if M == 1 { V } else { 0 } {
                self.ahead.values(simd, (first + v) * LANES, d);
            }
        };
        let mut acc = [[simd.splat(0.0); V]; M];
        let q = Factors { at: self.q.row(0).as_ptr(), row: self.q.stride(), step: 1 };
        // SAFETY: `q` has `M` rows of `head_dim` numbers, and `keys` returns whole panels `[head_dim, 16]`.
        unsafe { multiply_add_while(simd, q, self.q.width(), keys, &mut acc, ask) };
        let scale = simd.splat(self.scale);
        for m in 0..M {
            for v in 0..V {
                let mut score = acc[m][v];
                if E::SCALED {
                    score = simd.mul(score, simd.load(self.past.key_scales(self.head, first + v)));
                }
                simd.store(simd.mul(score, scale), &mut scores[m][panel + v]);
            }
        }
    }

    /// Turns a query's scores for a block, of which it sees the first `seen`, into weights e^(score − max).
    #[inline(always)]
    fn weigh<S: Simd>(
        &mut self,
        simd: S,
        m: usize,
        seen: usize,
        p: &mut [[f32; LANES]],
        max: &mut f32,
        sum: &mut [f32; LANES],
    ) {
        p.as_flattened_mut()[seen..].fill(f32::NEG_INFINITY);
        if seen == 0 {
            p.fill([0.0; LANES]);
            return;
        }
        let mut highest = simd.load(&p[0]);
        for scores in &p[1..] {
            highest = simd.max(highest, simd.load(scores));
        }
        let highest = simd.reduce_max(highest);
        let mut total = simd.load(sum);
        if highest > *max {
            let shrink = simd.splat(exp_one(simd, *max - highest));
            *max = highest;
            total = simd.mul(total, shrink);
            let n = self.q.len();
            for z in self.mixture.iter_mut().skip(m).step_by(n) {
                simd.store(simd.mul(simd.load(z), shrink), z);
            }
        }
        let max = simd.splat(*max);
        for p in p {
            let e = exp(simd, simd.sub(simd.load(p), max));
            total = simd.add(total, e);
            simd.store(e, p);
        }
        simd.store(total, sum);
    }

    /// Adds the block's values in their weights to the mixtures.
    #[inline(always)]
    fn mix<S: Simd, const M: usize>(&mut self, simd: S, start: usize, positions: usize, p: &Scores<M>) {
        let panels = self.q.width().div_ceil(LANES);
        let mut panel = 0;
        while M == 1 && panel + OF_ONE <= panels {
            self.mix_panels::<S, M, OF_ONE>(simd, panel, start, positions, p);
            panel += OF_ONE;
        }
        while S::WIDE && panel + 2 <= panels {
            self.mix_panels::<S, M, 2>(simd, panel, start, positions, p);
            panel += 2;
        }
        while panel < panels {
            self.mix_panels::<S, M, 1>(simd, panel, start, positions, p);
            panel += 1;
        }
    }

    /// The same for the values' panels `panel..panel + V`.
    #[inline(always)]
    fn mix_panels<S: Simd, const M: usize, const V: usize>(
        &mut self,
        simd: S,
        panel: usize,
        start: usize,
        positions: usize,
        p: &Scores<M>,
    ) {
        let done = start * self.q.width().div_ceil(LANES) + panel * positions;
        let ask = |j| {
            for v in 0..if M == 1 { V } else { 0 } {
                self.ahead.keys(simd, done + j * V + v);
            }
        };
        let values: [*const E; V] = std::array::from_fn(|v| {
            self.past.values(self.head, panel + v, start)[..positions * LANES].as_ptr()
        });
        let mut acc = [[simd.splat(0.0); V]; M];
        for m in 0..M {
            for v in 0..V {
                acc[m][v] = simd.load(&self.mixture[(panel + v) * M + m]);
            }
        }
        let p = Factors { at: p.as_ptr().cast(), row: BLOCK, step: 1 };
        // SAFETY: `p` has `M` rows of `BLOCK >= positions` weights, and the panels `positions` rows of sixteen.
        unsafe { multiply_add_while(simd, p, positions, values, &mut acc, ask) };
        for m in 0..M {
            for v in 0..V {
                simd.store(acc[m][v], &mut self.mixture[(panel + v) * M + m]);
            }
        }
    }

    /// Divides the mixtures by the sums of their weights.
    #[inline(always)]
    fn finish<S: Simd, const M: usize>(&mut self, simd: S, sum: &[[f32; LANES]; M]) {
        for m in 0..M {
            let sum = simd.splat(simd.reduce_add(simd.load(&sum[m])));
            for (panel, z) in self.z.row_mut(m).chunks_mut(LANES).enumerate() {
                let mixed = simd.div(simd.load(&self.mixture[panel * M + m]), sum);
                match z.as_mut_array() {
                    Some(whole) => simd.store(mixed, whole),
                    None => simd.store_partial(mixed, z),
                }
            }
        }
    }
}
