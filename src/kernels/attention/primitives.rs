//! The primitives that kernels are built from: Q·Kᵀ scores, the softmax numerator and its sum, and P·V
//! accumulation.
//!
//! Positions may be processed in any blocks: a score is one chain of multiply-adds over head_dim, an output
//! element one chain over positions that continues where the last block ended, so the bits do not depend on
//! the block boundaries.

use super::key_values::{BLOCK, with_panels};
use super::panels::Panels;
use super::{KeyValues, QueryBlock};
use crate::elements::Element;
use crate::gemm::blocking::{assert_mr, block_range, mr, with_mr};
use crate::gemm::microkernel::{StridedLhs, microkernel};
use crate::gemm::prefetch::Prefetcher;
use crate::isa::Isa;
use crate::rows::{Rows, RowsMut};
use crate::simd::{Kernel, LANES, Simd};
use crate::softmax::{exp_and_add, max_of};
use std::mem::MaybeUninit;
use std::ops::Range;

/// Panels that a single query processes at a time: each is a chain of dependent multiply-adds, and four
/// chains keep up with memory.
const DECODE_PANELS: usize = 4;
/// The stride of attention weights that are multiplied with values where they are: a constant, so that all
/// rows are addressed through one register. Others are copied first, this many positions at a time.
pub(super) const P_STRIDE: usize = 4 * BLOCK;
/// Prefetch distance, in bytes, for the panels of a single query if no others are prefetched.
const PREFETCH_DISTANCE_BYTES: usize = 8 << 10;

impl QueryBlock<'_> {
    /// Writes `scores[m, j] = (q[m] · k[start + j]) · scale` for as many positions as `scores` is wide. Both
    /// `start` and the width are multiples of sixteen; scores of positions that hold no token are undefined.
    pub fn scores(&self, start: usize, scores: &mut RowsMut) {
        with_panels!(&self.kv.storage, kv => self.scores_of(kv, false, start, scores));
    }

    /// Adds `Σ_j p[m, j] · v[start + j]` to `acc[m]`, for as many positions as `p` is wide. The accumulators
    /// are [`KeyValues::padded_head_dim`] wide.
    pub fn accumulate_values(&self, p: Rows, start: usize, acc: &mut RowsMut) {
        with_panels!(&self.kv.storage, kv => self.accumulate_values_of(kv, None, p, start, acc));
    }

    /// [`QueryBlock::scores`] of the given keys. For a single query, prefetches the values of the same
    /// positions if `prefetches_values`, else keys.
    pub(super) fn scores_of<E: Element>(
        &self,
        kv: &Panels<E>,
        prefetches_values: bool,
        start: usize,
        scores: &mut RowsMut,
    ) {
        let (width, capacity) = (scores.width(), self.kv.capacity());
        assert!(scores.len() == self.q.len() && start.is_multiple_of(LANES) && width.is_multiple_of(LANES));
        assert!(
            start + width <= capacity,
            "a KV block from {start} to {} exceeds the capacity of {capacity} positions, a multiple of 64: \
             shorten the last block",
            start + width
        );
        self.for_each_register_tile(|first, n| {
            let (q, head, scale) = (self.q.row_range(first, n), self.head, self.scale);
            let scores = &mut *scores;
            with_mr!(n, MR => {
                self.isa.run(Scores::<_, MR> { q, kv, prefetches_values, head, start, scale, first, scores });
            });
        });
    }

    /// [`QueryBlock::accumulate_values`] of the given values. For a single query, prefetches the next keys if
    /// they are given, else values.
    pub(super) fn accumulate_values_of<E: Element>(
        &self,
        kv: &Panels<E>,
        mut next_keys: Option<&mut Prefetcher>,
        p: Rows,
        start: usize,
        acc: &mut RowsMut,
    ) {
        assert!(p.len() == self.q.len() && acc.len() == self.q.len());
        assert!(acc.width() == self.kv.padded_head_dim() && start + p.width() <= self.kv.capacity());
        self.for_each_register_tile(|first, n| {
            let (p, head, acc) = (p.row_range(first, n), self.head, &mut *acc);
            let next_keys = next_keys.as_deref_mut();
            with_mr!(n, MR => {
                self.isa.run(AccumulateValues::<_, MR> { p, kv, next_keys, head, start, first, acc });
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
    prefetches_values: bool,
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
        let mut panel = 0;
        while MR == 1 && panel + DECODE_PANELS <= panels {
            self.panels::<S, DECODE_PANELS>(simd, panel);
            panel += DECODE_PANELS;
        }
        while S::WIDE && panel + 2 <= panels {
            self.panels::<S, 2>(simd, panel);
            panel += 2;
        }
        while panel < panels {
            self.panels::<S, 1>(simd, panel);
            panel += 1;
        }
    }
}

impl<E: Element, const MR: usize> Scores<'_, '_, E, MR> {
    /// Scores `NR_VECS` panels of keys, the first of them `panel`.
    #[inline(always)]
    fn panels<S: Simd, const NR_VECS: usize>(&mut self, simd: S, panel: usize) {
        let first = self.start / LANES + panel;
        let keys: [*const E; NR_VECS] = std::array::from_fn(|v| self.kv.keys(self.head, first + v).as_ptr());
        let values = self.kv.values(self.head, 0, first * LANES).as_ptr();
        let (stride, value_panels) = (self.kv.capacity() * LANES, self.kv.head_dim().div_ceil(LANES));
        let mut next_values = Prefetcher::of_rows(values, NR_VECS * LANES * LANES, stride, value_panels);
        let prefetch = |d| {
            if MR > 1 {
            } else if self.prefetches_values {
                next_values.prefetch_vectors::<S, E, NR_VECS>(simd, d);
            } else {
                keys.iter().for_each(|keys| prefetch_ahead(simd, *keys, d));
            }
        };
        let mut acc = [[simd.splat(0.0); NR_VECS]; MR];
        let q = StridedLhs { ptr: self.q.row(0).as_ptr(), row_stride: self.q.stride(), k_stride: 1 };
        // SAFETY: `q` has `MR` rows of `head_dim` elements, and `keys` returns whole panels `[head_dim, 16]`.
        unsafe { microkernel(simd, q, self.q.width(), keys, LANES, &mut acc, prefetch) };
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

/// Returns a prefetcher of a head's keys at `positions`, then of the first keys of the next head, which
/// usually runs on the same thread.
///
/// A single query uses every key and value once, so attention takes as long as memory takes to deliver them.
/// They lie in more streams, on more pages, than the hardware prefetchers can track. While a block's keys are
/// multiplied, the values of the same positions are prefetched; while values are accumulated, the keys one
/// block ahead. No cache line is prefetched twice, and few go unused.
pub(super) fn following_keys<E: Element>(kv: &Panels<E>, h: usize, positions: Range<usize>) -> Prefetcher {
    let first = kv.keys(h, 0).as_ptr().wrapping_add(positions.start * kv.head_dim());
    let n = positions.len().next_multiple_of(LANES) * kv.head_dim();
    // After the last head, its own keys, which are cached.
    Prefetcher::chained(first, n, kv.keys((h + 1).min(kv.n_head() - 1), 0).as_ptr())
}

/// Prefetches what row `k` of a panel will be followed by.
#[inline(always)]
fn prefetch_ahead<S: Simd, E>(simd: S, panel: *const E, k: usize) {
    simd.prefetch(panel.wrapping_add(k * LANES + PREFETCH_DISTANCE_BYTES / size_of::<E>()));
}

/// P·V of `MR` queries.
struct AccumulateValues<'a, 'o, E: Element, const MR: usize> {
    p: Rows<'a>,
    kv: &'a Panels<E>,
    next_keys: Option<&'a mut Prefetcher>,
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
        let panels = self.acc.width() / LANES;
        let mut copy = [[MaybeUninit::uninit(); P_STRIDE]; MR];
        for start in (0..self.p.width()).step_by(P_STRIDE) {
            let positions = start..self.p.width().min(start + P_STRIDE);
            let p = if !E::SCALED && (MR == 1 || self.p.stride() == P_STRIDE) {
                self.p.row(0)[start..].as_ptr()
            } else {
                self.copy_scaled(&positions, &mut copy)
            };
            let mut panel = 0;
            while MR == 1 && panel + DECODE_PANELS <= panels {
                self.panels::<S, DECODE_PANELS>(simd, panel, p, &positions);
                panel += DECODE_PANELS;
            }
            while S::WIDE && panel + 2 <= panels {
                self.panels::<S, 2>(simd, panel, p, &positions);
                panel += 2;
            }
            while panel < panels {
                self.panels::<S, 1>(simd, panel, p, &positions);
                panel += 1;
            }
        }
    }
}

impl<E: Element, const MR: usize> AccumulateValues<'_, '_, E, MR> {
    /// Copies the attention weights of some positions, multiplied by the scales of the values, if these have
    /// any. Returns a pointer to `MR` rows, [`P_STRIDE`] apart.
    #[inline(always)]
    fn copy_scaled(
        &self,
        positions: &Range<usize>,
        copy: &mut [[MaybeUninit<f32>; P_STRIDE]; MR],
    ) -> *const f32 {
        for (m, to) in copy.iter_mut().enumerate() {
            let from = to.iter_mut().zip(&self.p.row(m)[positions.clone()]);
            if E::SCALED {
                let scales = self.kv.value_scales(self.head, self.start + positions.start);
                from.zip(scales).for_each(|((to, p), scale)| _ = to.write(p * scale));
            } else {
                from.for_each(|(to, p)| _ = to.write(*p));
            }
        }
        copy.as_ptr().cast()
    }

    /// Accumulates `NR_VECS` panels of values, the first of them `panel`, with the weights `p` of some
    /// positions, relative to `start`: `[MR, P_STRIDE]`.
    #[inline(always)]
    fn panels<S: Simd, const NR_VECS: usize>(
        &mut self,
        simd: S,
        panel: usize,
        p: *const f32,
        positions: &Range<usize>,
    ) {
        let (start, n) = (self.start + positions.start, positions.len());
        let values: [*const E; NR_VECS] =
            std::array::from_fn(|v| self.kv.values(self.head, panel + v, start)[..n * LANES].as_ptr());
        let mut next_keys = self.next_keys.as_deref().copied();
        let prefetch = |j| {
            if MR > 1 {
            } else if let Some(next_keys) = &mut next_keys {
                next_keys.prefetch_vectors::<S, E, NR_VECS>(simd, j);
            } else {
                values.iter().for_each(|values| prefetch_ahead(simd, *values, j));
            }
        };
        let mut acc = [[simd.splat(0.0); NR_VECS]; MR];
        for m in 0..MR {
            let row = self.acc.row_mut(self.first + m)[panel * LANES..].as_chunks().0;
            for v in 0..NR_VECS {
                acc[m][v] = simd.load(&row[v]);
            }
        }
        let p = StridedLhs { ptr: p, row_stride: P_STRIDE, k_stride: 1 };
        // SAFETY: `p` has `MR` rows of `n` weights, and the panels `n` rows of sixteen.
        unsafe { microkernel(simd, p, n, values, LANES, &mut acc, prefetch) };
        if let (Some(to), Some(advanced)) = (&mut self.next_keys, next_keys) {
            **to = advanced;
        }
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
        let max = simd.reduce_max(max_of(simd, simd.splat(f32::NEG_INFINITY), scores));
        let sum = exp_and_add(simd, scores, simd.splat(max), simd.splat(0.0));
        (max, simd.reduce_add(sum))
    }
}
