//! Attention that never holds the score matrix: the softmax is kept up as the keys go by.
//!
//! A tile of queries goes through its past in blocks of 64 positions and remembers, for every query, the largest score
//! so far (m), the sum of e^(score − m) so far (l) and the mixture so far (z). A block that raises the maximum shrinks
//! l and z by e^(old − new); at the end z is divided by l (Milakov and Gimelshein 2018; Dao et al. 2022). Memory is one
//! block of scores for each query of the tile, whatever the length.
//!
//! Blocks start at position 0 for every query, and a query's arithmetic within a block is its own, so decode (a tile
//! of one) and prefill in any chunks give the same bits.

use super::key_values::{BLOCK, Panels, Store};
use super::{Span, Spans};
use crate::kernels::elements::Element;
use crate::kernels::exp::{exp, exp_one};
use crate::kernels::isa::Isa;
use crate::kernels::rows::{Rows, SharedRows};
use crate::kernels::simd::{Kernel, LANES, Simd};
use crate::kernels::threads::Team;
use crate::kernels::tile::{multiply_add, reaches, tile_range, tile_rows, with_rows};
use std::cell::RefCell;

/// Panels of key positions in a block.
const PANELS: usize = BLOCK / LANES;

thread_local! {
    /// A thread's mixtures, kept from one call to the next.
    static MIXTURE: RefCell<Vec<[f32; LANES]>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn attention<'a>(team: &Team, q: Rows, spans: impl Spans<'a>, scale: f32, z: &SharedRows) {
    let most = tile_rows(team.isa().is_wide());
    let tiles_of = |span: &Span| span.n.div_ceil(most);
    let Some(n_head) = spans.clone().next().map(|span| span.past.n_head()) else { return };
    let tiles: usize = spans.clone().map(|span| tiles_of(&span)).sum();
    team.run(tiles * n_head, |i| {
        let (mut tile, head) = (i / n_head, i % n_head);
        let mut spans = spans.clone();
        let span = loop {
            let span = spans.next().expect("as many tiles as were counted");
            match tile.checked_sub(tiles_of(&span)) {
                Some(rest) => tile = rest,
                None => break span,
            }
        };
        let (first, rows) = tile_range(span.n, most, tile);
        let head_dim = span.past.head_dim();
        let q = q.range(span.row + first, rows).columns(head * head_dim, head_dim);
        MIXTURE.with_borrow_mut(|mixture| {
            let vectors = rows * head_dim.div_ceil(LANES);
            mixture.resize(vectors.max(mixture.len()), [0.0; LANES]);
            let mixture = &mut mixture[..vectors];
            let (row, position) = (span.row + first, span.position + first);
            match &span.past.store {
                Store::F32(past) => Tile { q, past, head, position, scale, mixture, z, row }.run(team.isa()),
                Store::F16(past) => Tile { q, past, head, position, scale, mixture, z, row }.run(team.isa()),
            }
        });
    });
}

/// Some queries of one head.
struct Tile<'a, E> {
    /// `[n, head_dim]`
    q: Rows<'a>,
    past: &'a Panels<E>,
    head: usize,
    /// The position of the first query.
    position: usize,
    scale: f32,
    /// `[head_dim / 16, n]` vectors.
    mixture: &'a mut [[f32; LANES]],
    z: &'a SharedRows<'a>,
    /// The row of the first query in `z`.
    row: usize,
}

/// A tile of `M` queries.
struct Of<'a, E, const M: usize>(Tile<'a, E>);

impl<E: Element, const M: usize> Kernel for Of<'_, E, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        reaches::<S, M>();
        self.0.attend::<S, M>(simd);
    }
}

impl<'a, E: Element> Tile<'a, E> {
    fn run(self, isa: Isa) {
        with_rows!(self.q.len(), M => isa.run(Of::<'a, E, M>(self)));
    }

    #[inline(always)]
    fn attend<S: Simd, const M: usize>(&mut self, simd: S) {
        let mut max = [f32::NEG_INFINITY; M];
        let mut sum = [[0.0f32; LANES]; M];
        self.mixture.fill([0.0; LANES]);
        // The last query of the tile sees the most.
        let end = self.position + M;
        for start in (0..end).step_by(BLOCK) {
            let mut p = self.scores::<S, M>(simd, start);
            for m in 0..M {
                // A query sees itself and what came before it.
                let seen = (self.position + m + 1).saturating_sub(start).min(BLOCK);
                self.weigh(simd, m, seen, &mut p[m], &mut max[m], &mut sum[m]);
            }
            self.mix::<S, M>(simd, start, BLOCK.min(end - start), &p);
        }
        self.finish(simd, &sum);
    }

    /// The scores of `M` queries and a block's keys.
    #[inline(always)]
    fn scores<S: Simd, const M: usize>(&self, simd: S, start: usize) -> [[[f32; LANES]; PANELS]; M] {
        let mut scores = [[[0.0; LANES]; PANELS]; M];
        if S::WIDE {
            self.score_panels::<S, M, 2>(simd, start, &mut scores);
        } else {
            self.score_panels::<S, M, 1>(simd, start, &mut scores);
        }
        scores
    }

    /// `V` panels at a time.
    #[inline(always)]
    fn score_panels<S: Simd, const M: usize, const V: usize>(
        &self,
        simd: S,
        start: usize,
        scores: &mut [[[f32; LANES]; PANELS]; M],
    ) {
        let scale = simd.splat(self.scale);
        for panel in (0..PANELS).step_by(V) {
            let keys: [*const E; V] =
                std::array::from_fn(|v| self.past.keys(self.head, start / LANES + panel + v).as_ptr());
            let mut acc = [[simd.splat(0.0); V]; M];
            let (q, stride) = (self.q.row(0).as_ptr(), self.q.stride());
            // SAFETY: `q` has `M` rows of `head_dim` numbers, and `keys` returns whole panels `[head_dim, 16]`.
            unsafe { multiply_add(simd, q, stride, self.q.width(), keys, &mut acc) };
            for m in 0..M {
                for v in 0..V {
                    simd.store(simd.mul(acc[m][v], scale), &mut scores[m][panel + v]);
                }
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
        p: &mut [[f32; LANES]; PANELS],
        max: &mut f32,
        sum: &mut [f32; LANES],
    ) {
        p.as_flattened_mut()[seen..].fill(f32::NEG_INFINITY);
        if seen == 0 {
            *p = [[0.0; LANES]; PANELS];
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
    fn mix<S: Simd, const M: usize>(
        &mut self,
        simd: S,
        start: usize,
        positions: usize,
        p: &[[[f32; LANES]; PANELS]; M],
    ) {
        let panels = self.q.width().div_ceil(LANES);
        let whole = if S::WIDE { panels / 2 * 2 } else { 0 };
        for panel in (0..whole).step_by(2) {
            self.mix_panels::<S, M, 2>(simd, panel, start, positions, p);
        }
        for panel in whole..panels {
            self.mix_panels::<S, M, 1>(simd, panel, start, positions, p);
        }
    }

    #[inline(always)]
    fn mix_panels<S: Simd, const M: usize, const V: usize>(
        &mut self,
        simd: S,
        panel: usize,
        start: usize,
        positions: usize,
        p: &[[[f32; LANES]; PANELS]; M],
    ) {
        let values: [*const E; V] = std::array::from_fn(|v| {
            self.past.values(self.head, panel + v, start)[..positions * LANES].as_ptr()
        });
        let mut acc = [[simd.splat(0.0); V]; M];
        for m in 0..M {
            for v in 0..V {
                acc[m][v] = simd.load(&self.mixture[(panel + v) * M + m]);
            }
        }
        // SAFETY: `p` has `M` rows of `BLOCK >= positions` weights, and the panels `positions` rows of sixteen.
        unsafe { multiply_add(simd, p.as_ptr().cast(), BLOCK, positions, values, &mut acc) };
        for m in 0..M {
            for v in 0..V {
                simd.store(acc[m][v], &mut self.mixture[(panel + v) * M + m]);
            }
        }
    }

    /// Divides the mixtures by the sums of their weights.
    #[inline(always)]
    fn finish<S: Simd, const M: usize>(&self, simd: S, sum: &[[f32; LANES]; M]) {
        let head_dim = self.q.width();
        for m in 0..M {
            let sum = simd.splat(simd.reduce_add(simd.load(&sum[m])));
            // SAFETY: these columns of these rows are this tile's own.
            let z = unsafe { self.z.part(self.row + m, self.head * head_dim, head_dim) };
            for (panel, z) in z.chunks_mut(LANES).enumerate() {
                let mixed = simd.div(simd.load(&self.mixture[panel * M + m]), sum);
                match z.as_mut_array() {
                    Some(whole) => simd.store(mixed, whole),
                    None => simd.store_partial(mixed, z),
                }
            }
        }
    }
}
