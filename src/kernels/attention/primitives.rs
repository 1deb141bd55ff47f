//! The primitives that kernels are built from: Q·Kᵀ scores, the softmax numerator and its sum, and P·V
//! accumulation. [`Flash`](super::Flash) alone has its own.
//!
//! Positions may be processed in any blocks: a score is one chain of multiply-adds over head_dim, an output
//! element one chain over positions that continues where the last block ended, so the bits do not depend on
//! the block boundaries.

use super::key_values::{BLOCK, Storage, with_panels};
use super::panels::Panels;
use super::{KeyValues, QueryBlock};
use crate::elements::Element;
use crate::exp::exp;
use crate::isa::Isa;
use crate::microkernel::{StridedLhs, assert_mr, block_range, microkernel, mr, with_mr};
use crate::rows::{Rows, RowsMut};
use crate::simd::{Kernel, LANES, Simd};
use std::ops::Range;

impl QueryBlock<'_> {
    /// Writes `scores[m, j] = (q[m] · k[start + j]) · scale` for as many positions as `scores` is wide. Both
    /// `start` and the width are multiples of sixteen; scores of positions that hold no token are undefined.
    pub fn scores(&self, start: usize, scores: &mut RowsMut) {
        let (width, capacity) = (scores.width(), self.kv.capacity());
        assert!(scores.len() == self.q.len() && start.is_multiple_of(LANES) && width.is_multiple_of(LANES));
        assert!(start + width <= capacity, "positions {start} to {} of {capacity}", start + width);
        with_panels!(&self.kv.storage, kv => {
            self.for_each_register_tile(|first, n| {
                let q = self.q.row_range(first, n);
                let (head, scale) = (self.head, self.scale);
                with_mr!(n, MR => {
                    self.isa.run(Scores::<_, MR> { q, kv, head, start, scale, first, scores: &mut *scores });
                });
            });
        });
    }

    /// Adds `Σ_j p[m, j] · v[start + j]` to `acc[m]`, for as many positions as `p` is wide. The accumulators
    /// are [`KeyValues::padded_head_dim`] wide.
    pub fn accumulate_values(&self, p: Rows, start: usize, acc: &mut RowsMut) {
        assert!(p.len() == self.q.len() && acc.len() == self.q.len());
        assert!(acc.width() == self.kv.padded_head_dim() && start + p.width() <= self.kv.capacity());
        with_panels!(&self.kv.storage, kv => {
            self.for_each_register_tile(|first, n| {
                let p = p.row_range(first, n);
                let head = self.head;
                with_mr!(n, MR => {
                    self.isa.run(AccumulateValues::<_, MR> { p, kv, head, start, first, acc: &mut *acc });
                });
            });
        });
    }

    /// Splits the block's rows into register tiles; calls `tile` with the first row and the number of rows of
    /// each.
    fn for_each_register_tile(&self, mut tile: impl FnMut(usize, usize)) {
        let mr = mr(self.isa.is_wide());
        for i in 0..self.q.len().div_ceil(mr) {
            let (first, n) = block_range(self.q.len(), mr, i);
            tile(first, n);
        }
    }
}

impl KeyValues {
    /// Returns head_dim, rounded up to whole vectors: the width of an output accumulator.
    pub fn padded_head_dim(&self) -> usize {
        self.head_dim().next_multiple_of(LANES)
    }
}

/// The scores of `MR` queries.
struct Scores<'a, 's, E: Element, const MR: usize> {
    q: Rows<'a>,
    kv: &'a Panels<E>,
    head: usize,
    start: usize,
    scale: f32,
    /// The first query's row in `scores`.
    first: usize,
    scores: &'a mut RowsMut<'s>,
}

impl<E: Element, const MR: usize> Kernel for Scores<'_, '_, E, MR> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        assert_mr::<S, MR>();
        let panels = self.scores.width() / LANES;
        let paired = if S::WIDE { panels / 2 * 2 } else { 0 };
        for panel in (0..paired).step_by(2) {
            self.panels::<S, 2>(simd, panel);
        }
        for panel in paired..panels {
            self.panels::<S, 1>(simd, panel);
        }
    }
}

impl<E: Element, const MR: usize> Scores<'_, '_, E, MR> {
    /// Scores `NR_VECS` panels of keys, the first of them `panel`.
    #[inline(always)]
    fn panels<S: Simd, const NR_VECS: usize>(&mut self, simd: S, panel: usize) {
        let first = self.start / LANES + panel;
        let keys: [*const E; NR_VECS] = std::array::from_fn(|v| self.kv.keys(self.head, first + v).as_ptr());
        let mut acc = [[simd.splat(0.0); NR_VECS]; MR];
        let q = StridedLhs { ptr: self.q.row(0).as_ptr(), row_stride: self.q.stride(), k_stride: 1 };
        // SAFETY: `q` has `MR` rows of `head_dim` elements, and `keys` returns whole panels `[head_dim, 16]`.
        unsafe { microkernel(simd, q, self.q.width(), keys, &mut acc) };
        for m in 0..MR {
            let row = self.scores.row_mut(self.first + m)[panel * LANES..].as_chunks_mut().0;
            for v in 0..NR_VECS {
                let mut score = acc[m][v];
                if E::SCALED {
                    score = simd.mul(score, simd.load(self.kv.key_scales(self.head, first + v)));
                }
                simd.store(simd.mul(score, simd.splat(self.scale)), &mut row[v]);
            }
        }
    }
}

/// P·V of `MR` queries.
struct AccumulateValues<'a, 'o, E: Element, const MR: usize> {
    p: Rows<'a>,
    kv: &'a Panels<E>,
    head: usize,
    start: usize,
    /// The first query's row in `acc`.
    first: usize,
    acc: &'a mut RowsMut<'o>,
}

impl<E: Element, const MR: usize> Kernel for AccumulateValues<'_, '_, E, MR> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        assert_mr::<S, MR>();
        let positions = self.p.width();
        if !E::SCALED {
            return self.block(simd, self.p.row(0).as_ptr(), self.p.stride(), 0..positions);
        }
        // The values' scales are multiplied into the attention weights, one block at a time.
        for start in (0..positions).step_by(BLOCK) {
            let n = BLOCK.min(positions - start);
            let mut scaled = [[0.0; BLOCK]; MR];
            for m in 0..MR {
                let scales = self.kv.value_scales(self.head, self.start + start);
                let p = self.p.row(m)[start..][..n].iter().zip(scales);
                scaled[m].iter_mut().zip(p).for_each(|(to, (p, scale))| *to = p * scale);
            }
            self.block(simd, scaled.as_ptr().cast(), BLOCK, start..start + n);
        }
    }
}

impl<E: Element, const MR: usize> AccumulateValues<'_, '_, E, MR> {
    /// Accumulates a block of `positions`, relative to `start`, with weights `p`, `[MR, stride]`.
    #[inline(always)]
    fn block<S: Simd>(&mut self, simd: S, p: *const f32, stride: usize, positions: Range<usize>) {
        let panels = self.acc.width() / LANES;
        let paired = if S::WIDE { panels / 2 * 2 } else { 0 };
        for panel in (0..paired).step_by(2) {
            self.panels::<S, 2>(simd, panel, p, stride, positions.clone());
        }
        for panel in paired..panels {
            self.panels::<S, 1>(simd, panel, p, stride, positions.clone());
        }
    }

    /// Accumulates `NR_VECS` panels of values, the first of them `panel`.
    #[inline(always)]
    fn panels<S: Simd, const NR_VECS: usize>(
        &mut self,
        simd: S,
        panel: usize,
        p: *const f32,
        stride: usize,
        positions: Range<usize>,
    ) {
        let start = self.start + positions.start;
        let n = positions.len();
        let values: [*const E; NR_VECS] =
            std::array::from_fn(|v| self.kv.values(self.head, panel + v, start)[..n * LANES].as_ptr());
        let mut acc = [[simd.splat(0.0); NR_VECS]; MR];
        for m in 0..MR {
            let row = self.acc.row_mut(self.first + m)[panel * LANES..].as_chunks().0;
            for v in 0..NR_VECS {
                acc[m][v] = simd.load(&row[v]);
            }
        }
        // SAFETY: `p` has `MR` rows of `n` weights, and the panels `n` rows of sixteen.
        unsafe {
            microkernel(simd, StridedLhs { ptr: p, row_stride: stride, k_stride: 1 }, n, values, &mut acc)
        };
        for m in 0..MR {
            let row = self.acc.row_mut(self.first + m)[panel * LANES..].as_chunks_mut().0;
            for v in 0..NR_VECS {
                simd.store(acc[m][v], &mut row[v]);
            }
        }
    }
}

/// Replaces a query's scores by e^(score − max) where `visible` and by 0 elsewhere, in place; returns the
/// maximum and the sum of the exponentials. `scores` is whole vectors, with at least one visible position.
pub fn exp_and_sum(isa: Isa, scores: &mut [f32], visible: Range<usize>) -> (f32, f32) {
    assert!(scores.len().is_multiple_of(LANES) && !visible.is_empty());
    scores[..visible.start].fill(f32::NEG_INFINITY);
    scores[visible.end..].fill(f32::NEG_INFINITY);
    isa.run(ExpAndSum(scores))
}

struct ExpAndSum<'a>(&'a mut [f32]);

impl Kernel for ExpAndSum<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> (f32, f32) {
        let scores = self.0.as_chunks_mut::<LANES>().0;
        let mut lane_max = simd.splat(f32::NEG_INFINITY);
        for score in scores.iter() {
            lane_max = simd.max(lane_max, simd.load(score));
        }
        let max = simd.reduce_max(lane_max);
        let (max_vector, mut sum) = (simd.splat(max), simd.splat(0.0));
        for score in scores {
            let e = exp(simd, simd.sub(simd.load(score), max_vector));
            sum = simd.add(sum, e);
            simd.store(e, score);
        }
        (max, simd.reduce_add(sum))
    }
}
