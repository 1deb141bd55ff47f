//! The pieces that kernels are put together from, each a fast inner loop behind a plain function: the scores of some
//! queries and keys, the weights that come of scores, the mixture of values in given weights.
//!
//! Positions may be taken in any stretches: a score is one chain of multiply-adds over head_dim, a mixture one over
//! positions that goes on where the last stretch left it, so the bits do not depend on where they are cut.

use super::key_values::{BLOCK, Store, with_panels};
use super::panels::Panels;
use super::{KeyValues, Tile};
use crate::kernels::elements::Element;
use crate::kernels::exp::exp;
use crate::kernels::isa::Isa;
use crate::kernels::rows::{Rows, RowsMut};
use crate::kernels::simd::{Kernel, LANES, Simd};
use crate::kernels::tile::{Factors, multiply_add, reaches, tile_range, tile_rows, with_rows};
use std::ops::Range;

impl Tile<'_> {
    /// `scores[m, j] = (q[m] · k[start + j]) · scale` for as many positions as `scores` is wide. Both `start` and the
    /// width are multiples of sixteen; scores of positions that hold no token mean nothing.
    pub fn scores(&self, start: usize, scores: &mut RowsMut) {
        let (width, capacity) = (scores.width(), self.past.capacity());
        assert!(scores.len() == self.q.len() && start.is_multiple_of(LANES) && width.is_multiple_of(LANES));
        assert!(start + width <= capacity, "positions {start} to {} of {capacity}", start + width);
        with_panels!(&self.past.store, past => {
            self.each_band(|first, n| {
                let q = self.q.range(first, n);
                let (head, scale) = (self.head, self.scale);
                with_rows!(n, M => {
                    self.isa.run(Scores::<_, M> { q, past, head, start, scale, first, scores: &mut *scores });
                });
            });
        });
    }

    /// `mixture[m] += Σ_j p[m, j] · v[start + j]` for as many positions as `p` is wide. The mixtures are as wide as
    /// [`KeyValues::mixture_width`] says.
    pub fn mix(&self, p: Rows, start: usize, mixture: &mut RowsMut) {
        assert!(p.len() == self.q.len() && mixture.len() == self.q.len());
        assert!(mixture.width() == self.past.mixture_width() && start + p.width() <= self.past.capacity());
        with_panels!(&self.past.store, past => {
            self.each_band(|first, n| {
                let p = p.range(first, n);
                let head = self.head;
                with_rows!(n, M => {
                    self.isa.run(Mix::<_, M> { p, past, head, start, first, mixture: &mut *mixture });
                });
            });
        });
    }

    /// Bands of rows whose sums stay in registers: the first row, and how many.
    fn each_band(&self, mut band: impl FnMut(usize, usize)) {
        let most = tile_rows(self.isa.is_wide());
        for i in 0..self.q.len().div_ceil(most) {
            let (first, n) = tile_range(self.q.len(), most, i);
            band(first, n);
        }
    }
}

impl KeyValues {
    /// Numbers of a mixture: head_dim, filled up to whole vectors.
    pub fn mixture_width(&self) -> usize {
        self.head_dim().next_multiple_of(LANES)
    }
}

/// The scores of `M` queries.
struct Scores<'a, 's, E: Element, const M: usize> {
    q: Rows<'a>,
    past: &'a Panels<E>,
    head: usize,
    start: usize,
    scale: f32,
    /// The row of the first of them in `scores`.
    first: usize,
    scores: &'a mut RowsMut<'s>,
}

impl<E: Element, const M: usize> Kernel for Scores<'_, '_, E, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        reaches::<S, M>();
        let panels = self.scores.width() / LANES;
        let pairs = if S::WIDE { panels / 2 * 2 } else { 0 };
        for panel in (0..pairs).step_by(2) {
            self.panels::<S, 2>(simd, panel);
        }
        for panel in pairs..panels {
            self.panels::<S, 1>(simd, panel);
        }
    }
}

impl<E: Element, const M: usize> Scores<'_, '_, E, M> {
    #[inline(always)]
    fn panels<S: Simd, const V: usize>(&mut self, simd: S, panel: usize) {
        let at = self.start / LANES + panel;
        let keys: [*const E; V] = std::array::from_fn(|v| self.past.keys(self.head, at + v).as_ptr());
        let mut acc = [[simd.splat(0.0); V]; M];
        let q = Factors { at: self.q.row(0).as_ptr(), row: self.q.stride(), step: 1 };
        // SAFETY: `q` has `M` rows of `head_dim` numbers, and `keys` returns whole panels `[head_dim, 16]`.
        unsafe { multiply_add(simd, q, self.q.width(), keys, &mut acc) };
        for m in 0..M {
            let row = self.scores.row_mut(self.first + m)[panel * LANES..].as_chunks_mut().0;
            for v in 0..V {
                let mut score = acc[m][v];
                if E::SCALED {
                    score = simd.mul(score, simd.load(self.past.key_scales(self.head, at + v)));
                }
                simd.store(simd.mul(score, simd.splat(self.scale)), &mut row[v]);
            }
        }
    }
}

/// The mixtures of `M` queries.
struct Mix<'a, 's, E: Element, const M: usize> {
    p: Rows<'a>,
    past: &'a Panels<E>,
    head: usize,
    start: usize,
    /// The row of the first of them in `mixture`.
    first: usize,
    mixture: &'a mut RowsMut<'s>,
}

impl<E: Element, const M: usize> Kernel for Mix<'_, '_, E, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        reaches::<S, M>();
        let positions = self.p.width();
        if !E::SCALED {
            return self.stretch(simd, self.p.row(0).as_ptr(), self.p.stride(), 0..positions);
        }
        // Weights times scales, a block at a time.
        for start in (0..positions).step_by(BLOCK) {
            let n = BLOCK.min(positions - start);
            let mut scaled = [[0.0; BLOCK]; M];
            for m in 0..M {
                let scales = self.past.value_scales(self.head, self.start + start);
                let p = self.p.row(m)[start..][..n].iter().zip(scales);
                scaled[m].iter_mut().zip(p).for_each(|(to, (p, scale))| *to = p * scale);
            }
            self.stretch(simd, scaled.as_ptr().cast(), BLOCK, start..start + n);
        }
    }
}

impl<E: Element, const M: usize> Mix<'_, '_, E, M> {
    /// `positions`, counted from the first; `p` are their weights, `[M, stride]`.
    #[inline(always)]
    fn stretch<S: Simd>(&mut self, simd: S, p: *const f32, stride: usize, positions: Range<usize>) {
        let panels = self.mixture.width() / LANES;
        let pairs = if S::WIDE { panels / 2 * 2 } else { 0 };
        for panel in (0..pairs).step_by(2) {
            self.panels::<S, 2>(simd, panel, p, stride, positions.clone());
        }
        for panel in pairs..panels {
            self.panels::<S, 1>(simd, panel, p, stride, positions.clone());
        }
    }

    #[inline(always)]
    fn panels<S: Simd, const V: usize>(
        &mut self,
        simd: S,
        panel: usize,
        p: *const f32,
        stride: usize,
        positions: Range<usize>,
    ) {
        let start = self.start + positions.start;
        let n = positions.len();
        let values: [*const E; V] =
            std::array::from_fn(|v| self.past.values(self.head, panel + v, start)[..n * LANES].as_ptr());
        let mut acc = [[simd.splat(0.0); V]; M];
        for m in 0..M {
            let row = self.mixture.row_mut(self.first + m)[panel * LANES..].as_chunks().0;
            for v in 0..V {
                acc[m][v] = simd.load(&row[v]);
            }
        }
        // SAFETY: `p` has `M` rows of `n` weights, and the panels `n` rows of sixteen.
        unsafe { multiply_add(simd, Factors { at: p, row: stride, step: 1 }, n, values, &mut acc) };
        for m in 0..M {
            let row = self.mixture.row_mut(self.first + m)[panel * LANES..].as_chunks_mut().0;
            for v in 0..V {
                simd.store(acc[m][v], &mut row[v]);
            }
        }
    }
}

/// Turns a query's scores into weights e^(score − max) of what it sees and zeros for the rest, in place; returns the
/// maximum and the sum of the weights. Scores are whole vectors, at least one of them seen.
pub fn weigh(isa: Isa, scores: &mut [f32], seen: Range<usize>) -> (f32, f32) {
    assert!(scores.len().is_multiple_of(LANES) && !seen.is_empty());
    scores[..seen.start].fill(f32::NEG_INFINITY);
    scores[seen.end..].fill(f32::NEG_INFINITY);
    isa.run(Weigh(scores))
}

struct Weigh<'a>(&'a mut [f32]);

impl Kernel for Weigh<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> (f32, f32) {
        let scores = self.0.as_chunks_mut::<LANES>().0;
        let mut max = simd.splat(f32::NEG_INFINITY);
        for score in scores.iter() {
            max = simd.max(max, simd.load(score));
        }
        let highest = simd.reduce_max(max);
        let (max, mut sum) = (simd.splat(highest), simd.splat(0.0));
        for score in scores {
            let e = exp(simd, simd.sub(simd.load(score), max));
            sum = simd.add(sum, e);
            simd.store(e, score);
        }
        (highest, simd.reduce_add(sum))
    }
}
