//! FlashAttention: the score matrix is never stored; an online softmax is updated with one KV block after
//! another.
//!
//! ```text
//! for every KV block:  m' = max(m, max_j s[j])
//!                      l ← l · e^(m − m') + Σ_j e^(s[j] − m')
//!                      o ← o · e^(m − m') + Σ_j e^(s[j] − m') · v[j]
//! finally:             out = o / l                     (Milakov and Gimelshein 2018; Dao et al. 2022)
//! ```
//!
//! A query block reads its keys and values in KV blocks of 256 positions and keeps, per query, the running
//! maximum m, the running sum l and the unnormalized output o. Scores are used while they are in the L1
//! cache.
//!
//! - Memory: one KV block of scores and one output row per query of a query block, whatever the length.
//! - Cost: 4 · head_dim FLOPs per unmasked query-key pair, plus the masked part of the last KV block; one
//!   exponential per pair; a rescaling where a KV block raises the maximum.
//!
//! KV blocks start at position 0 for every query, and each query's arithmetic is independent of the others,
//! so decode (a query block of one) and prefill in any chunks give the same bits.

use super::kernel::{AttentionKernel, AttentionParams, OutputBlock, QueryBlock};
use super::key_values::{Storage, with_panels};
use super::panels::Panels;
use super::prefetch::Prefetcher;
use crate::elements::Element;
use crate::exp::{exp, exp_scalar};
use crate::isa::Isa;
use crate::microkernel::{StridedLhs, assert_mr, microkernel_with_prefetch, with_mr};
use crate::rows::Rows;
use crate::simd::{Kernel, LANES, Simd};

/// Positions in a KV block: the scores of a query block fit in the L1 cache, and maxima and rescalings, once
/// per query and block, take little of the time.
const BLOCK: usize = 256;
/// Panels of key positions in a KV block.
const PANELS: usize = BLOCK / LANES;
/// Panels that a single query processes at a time: each is a chain of dependent multiply-adds, and four
/// chains keep up with memory.
const DECODE_PANELS: usize = 4;
/// The scores of `MR` queries for a KV block.
type Scores<const MR: usize> = [[[f32; LANES]; PANELS]; MR];

/// FlashAttention: an online softmax on query blocks. The default.
#[derive(Clone, Copy, Debug)]
pub struct Flash;

impl AttentionKernel for Flash {
    fn name(&self) -> &'static str {
        "flash"
    }

    fn description(&self) -> &'static str {
        "FlashAttention: online softmax, no stored score matrix"
    }

    fn attend(&self, params: &mut AttentionParams) {
        let workspace_len = |block: &QueryBlock| block.q.len() * (BLOCK + block.kv.padded_head_dim());
        params.for_each_query_block(params.mr(), workspace_len, |block, workspace, out| {
            let (p, acc) = workspace.as_chunks_mut().0.split_at_mut(block.q.len() * PANELS);
            let &QueryBlock { q, head, position, scale, .. } = block;
            with_panels!(&block.kv.storage, kv => {
                let prefetcher = Prefetcher::new(kv, head, block.kv_len(), BLOCK);
                FlashBlock { q, kv, prefetcher, head, position, scale, acc, out }.run(block.isa, p);
            });
        });
    }
}

/// The online softmax of one query block.
struct FlashBlock<'a, 'o, E: Element> {
    /// `[n, head_dim]`
    q: Rows<'a>,
    kv: &'a Panels<E>,
    prefetcher: Prefetcher<E>,
    head: usize,
    /// The position of the first query.
    position: usize,
    scale: f32,
    /// Unnormalized outputs, `[head_dim / 16, n]` vectors.
    acc: &'a mut [[f32; LANES]],
    out: &'a mut OutputBlock<'o>,
}

/// A query block of `MR` queries, with its scores.
struct FlashKernel<'a, 'o, E: Element, const MR: usize>(FlashBlock<'a, 'o, E>, &'a mut Scores<MR>);

impl<E: Element, const MR: usize> Kernel for FlashKernel<'_, '_, E, MR> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        assert_mr::<S, MR>();
        self.0.attend::<S, MR>(simd, self.1);
    }
}

impl<'a, 'o, E: Element> FlashBlock<'a, 'o, E> {
    fn run(self, isa: Isa, p: &'a mut [[f32; LANES]]) {
        let p = p.as_chunks_mut().0;
        with_mr!(self.q.len(), MR => {
            isa.run(FlashKernel::<'a, 'o, E, MR>(self, p.as_mut_array().expect("MR queries")))
        });
    }

    #[inline(always)]
    fn attend<S: Simd, const MR: usize>(&mut self, simd: S, p: &mut Scores<MR>) {
        let mut max = [f32::NEG_INFINITY; MR];
        let mut sum = [[0.0f32; LANES]; MR];
        self.acc.fill([0.0; LANES]);
        let kv_len = self.position + MR;
        for start in (0..kv_len).step_by(BLOCK) {
            let positions = BLOCK.min(kv_len - start);
            let panels = positions.div_ceil(LANES); // panels masked for every query are skipped
            self.scores::<S, MR>(simd, start, panels, p);
            for m in 0..MR {
                // Causal mask: a query attends to its own position and those before it.
                let visible = (self.position + m + 1).saturating_sub(start).min(BLOCK);
                self.online_softmax_update(simd, m, visible, &mut p[m][..panels], &mut max[m], &mut sum[m]);
            }
            if E::SCALED {
                let scales = self.kv.value_scales(self.head, start);
                for p in &mut *p {
                    p.as_flattened_mut()[..positions].iter_mut().zip(scales).for_each(|(p, s)| *p *= s);
                }
            }
            self.accumulate_values::<S, MR>(simd, start, positions, p);
        }
        self.normalize(simd, &sum);
    }

    /// Computes the scores of `MR` queries for the first `panels` panels of a KV block.
    #[inline(always)]
    fn scores<S: Simd, const MR: usize>(
        &self,
        simd: S,
        start: usize,
        panels: usize,
        scores: &mut Scores<MR>,
    ) {
        let mut panel = 0;
        while MR == 1 && panel + DECODE_PANELS <= panels {
            self.score_panels::<S, MR, DECODE_PANELS>(simd, start, panel, scores);
            panel += DECODE_PANELS;
        }
        while S::WIDE && panel + 2 <= panels {
            self.score_panels::<S, MR, 2>(simd, start, panel, scores);
            panel += 2;
        }
        while panel < panels {
            self.score_panels::<S, MR, 1>(simd, start, panel, scores);
            panel += 1;
        }
    }

    /// Scores `NR_VECS` panels of keys, the first of them `panel`.
    #[inline(always)]
    fn score_panels<S: Simd, const MR: usize, const NR_VECS: usize>(
        &self,
        simd: S,
        start: usize,
        panel: usize,
        scores: &mut Scores<MR>,
    ) {
        let first = start / LANES + panel;
        let keys: [*const E; NR_VECS] = std::array::from_fn(|v| self.kv.keys(self.head, first + v).as_ptr());
        let prefetch = |d| {
            for v in 0..if MR == 1 { NR_VECS } else { 0 } {
                self.prefetcher.prefetch_values(simd, (first + v) * LANES, d);
            }
        };
        let mut acc = [[simd.splat(0.0); NR_VECS]; MR];
        let q = StridedLhs { ptr: self.q.row(0).as_ptr(), row_stride: self.q.stride(), k_stride: 1 };
        // SAFETY: `q` has `MR` rows of `head_dim` elements, and `keys` returns whole panels `[head_dim, 16]`.
        unsafe { microkernel_with_prefetch(simd, q, self.q.width(), keys, &mut acc, prefetch) };
        let scale = simd.splat(self.scale);
        for m in 0..MR {
            for v in 0..NR_VECS {
                let mut score = acc[m][v];
                if E::SCALED {
                    score = simd.mul(score, simd.load(self.kv.key_scales(self.head, first + v)));
                }
                simd.store(simd.mul(score, scale), &mut scores[m][panel + v]);
            }
        }
    }

    /// Turns query `m`'s scores for a KV block, of which the first `visible` are not masked, into e^(score −
    /// max), and updates its running maximum and sum; a new maximum rescales the sum and the unnormalized
    /// output.
    #[inline(always)]
    fn online_softmax_update<S: Simd>(
        &mut self,
        simd: S,
        m: usize,
        visible: usize,
        p: &mut [[f32; LANES]],
        max: &mut f32,
        sum: &mut [f32; LANES],
    ) {
        p.as_flattened_mut()[visible..].fill(f32::NEG_INFINITY);
        if visible == 0 {
            p.fill([0.0; LANES]);
            return;
        }
        let mut block_max = simd.load(&p[0]);
        for scores in &p[1..] {
            block_max = simd.max(block_max, simd.load(scores));
        }
        let block_max = simd.reduce_max(block_max);
        let mut running_sum = simd.load(sum);
        if block_max > *max {
            let rescale = simd.splat(exp_scalar(simd, *max - block_max));
            *max = block_max;
            running_sum = simd.mul(running_sum, rescale);
            let n = self.q.len();
            for acc in self.acc.iter_mut().skip(m).step_by(n) {
                simd.store(simd.mul(simd.load(acc), rescale), acc);
            }
        }
        let max = simd.splat(*max);
        for p in p {
            let e = exp(simd, simd.sub(simd.load(p), max));
            running_sum = simd.add(running_sum, e);
            simd.store(e, p);
        }
        simd.store(running_sum, sum);
    }

    /// Adds P·V of a KV block to the unnormalized outputs.
    #[inline(always)]
    fn accumulate_values<S: Simd, const MR: usize>(
        &mut self,
        simd: S,
        start: usize,
        positions: usize,
        p: &Scores<MR>,
    ) {
        let panels = self.q.width().div_ceil(LANES);
        let mut panel = 0;
        while MR == 1 && panel + DECODE_PANELS <= panels {
            self.accumulate_panels::<S, MR, DECODE_PANELS>(simd, panel, start, positions, p);
            panel += DECODE_PANELS;
        }
        while S::WIDE && panel + 2 <= panels {
            self.accumulate_panels::<S, MR, 2>(simd, panel, start, positions, p);
            panel += 2;
        }
        while panel < panels {
            self.accumulate_panels::<S, MR, 1>(simd, panel, start, positions, p);
            panel += 1;
        }
    }

    /// Accumulates `NR_VECS` panels of values, the first of them `panel`.
    #[inline(always)]
    fn accumulate_panels<S: Simd, const MR: usize, const NR_VECS: usize>(
        &mut self,
        simd: S,
        panel: usize,
        start: usize,
        positions: usize,
        p: &Scores<MR>,
    ) {
        let vectors_before = start * self.q.width().div_ceil(LANES) + panel * positions;
        let prefetch = |j| {
            for v in 0..if MR == 1 { NR_VECS } else { 0 } {
                self.prefetcher.prefetch_keys(simd, vectors_before + j * NR_VECS + v);
            }
        };
        let values: [*const E; NR_VECS] = std::array::from_fn(|v| {
            self.kv.values(self.head, panel + v, start)[..positions * LANES].as_ptr()
        });
        let mut acc = [[simd.splat(0.0); NR_VECS]; MR];
        for m in 0..MR {
            for v in 0..NR_VECS {
                acc[m][v] = simd.load(&self.acc[(panel + v) * MR + m]);
            }
        }
        let p = StridedLhs { ptr: p.as_ptr().cast(), row_stride: BLOCK, k_stride: 1 };
        // SAFETY: `p` has `MR` rows of `BLOCK >= positions` weights, and the panels `positions` rows of
        // sixteen.
        unsafe { microkernel_with_prefetch(simd, p, positions, values, &mut acc, prefetch) };
        for m in 0..MR {
            for v in 0..NR_VECS {
                simd.store(acc[m][v], &mut self.acc[(panel + v) * MR + m]);
            }
        }
    }

    /// Divides the unnormalized outputs by their running sums.
    #[inline(always)]
    fn normalize<S: Simd, const MR: usize>(&mut self, simd: S, sum: &[[f32; LANES]; MR]) {
        for m in 0..MR {
            let sum = simd.splat(simd.reduce_add(simd.load(&sum[m])));
            for (panel, out) in self.out.row_mut(m).chunks_mut(LANES).enumerate() {
                let normalized = simd.div(simd.load(&self.acc[panel * MR + m]), sum);
                match out.as_mut_array() {
                    Some(whole) => simd.store(normalized, whole),
                    None => simd.store_partial(normalized, out),
                }
            }
        }
    }
}
