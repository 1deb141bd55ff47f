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
use super::key_values::with_panels;
use super::panels::Panels;
use super::primitives::{P_STRIDE, following_keys};
use crate::elements::Element;
use crate::exp::exp_scalar;
use crate::gemm::blocking::mr;
use crate::rows::{Rows, RowsMut};
use crate::simd::{Kernel, LANES, Simd};
use crate::softmax::{exp_and_add, max_of};

/// Positions in a KV block: the scores of a query block fit in the L1 cache, and maxima and rescalings, once
/// per query and block, take little of the time.
const BLOCK: usize = P_STRIDE;

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
            with_panels!(&block.kv.storage, kv => attend(block, kv, workspace, out));
        });
    }
}

/// Computes one query block, of at most MR queries.
fn attend<E: Element>(block: &QueryBlock, kv: &Panels<E>, workspace: &mut [f32], out: &mut OutputBlock) {
    let mut next_keys = following_keys(kv, block.head, BLOCK..block.kv_len());
    let n = block.q.len();
    let (p, acc) = workspace.split_at_mut(n * BLOCK);
    let mut acc = RowsMut::dense(acc, block.kv.padded_head_dim()); // unnormalized outputs
    for m in 0..n {
        acc.row_mut(m).fill(0.0);
    }
    let mut running = [Running { max: f32::NEG_INFINITY, sum: [0.0; LANES] }; mr(true)];
    for start in (0..block.kv_len()).step_by(BLOCK) {
        let positions = BLOCK.min(block.kv_len() - start);
        let width = positions.next_multiple_of(LANES); // panels masked for every query are skipped
        block.scores_of(kv, true, start, &mut RowsMut::new(p, n, width, BLOCK));
        let scores = RowsMut::new(p, n, width, BLOCK);
        let position = block.position;
        block.isa.run(OnlineSoftmaxUpdate { scores, start, position, acc: &mut acc, running: &mut running });
        let p = Rows::new(p, n, positions, BLOCK);
        block.accumulate_values_of(kv, Some(&mut next_keys), p, start, &mut acc);
    }
    block.isa.run(Normalize { acc: acc.as_rows(), running: &running, out });
}

/// A query's running maximum and sum.
#[derive(Clone, Copy)]
struct Running {
    max: f32,
    sum: [f32; LANES],
}

/// Turns the scores of a KV block into e^(score − max), and updates the queries' running maxima and sums; a
/// new maximum rescales the sum and the unnormalized output.
struct OnlineSoftmaxUpdate<'a, 'b> {
    scores: RowsMut<'a>,
    /// The first position of the block.
    start: usize,
    /// The position of the first query.
    position: usize,
    acc: &'a mut RowsMut<'b>,
    running: &'a mut [Running],
}

impl Kernel for OnlineSoftmaxUpdate<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        for m in 0..self.scores.len() {
            let (p, running) = (self.scores.row_mut(m), &mut self.running[m]);
            // Causal mask: a query attends to its own position and those before it.
            let visible = (self.position + m + 1).saturating_sub(self.start).min(p.len());
            p[visible..].fill(f32::NEG_INFINITY);
            if visible == 0 {
                p.fill(0.0);
                continue;
            }
            let p = p.as_chunks_mut::<LANES>().0;
            let block_max = simd.reduce_max(max_of(simd, simd.load(&p[0]), &p[1..]));
            let mut sum = simd.load(&running.sum);
            if block_max > running.max {
                let rescale = simd.splat(exp_scalar(simd, running.max - block_max));
                running.max = block_max;
                sum = simd.mul(sum, rescale);
                for acc in self.acc.row_mut(m).as_chunks_mut().0 {
                    simd.store(simd.mul(simd.load(acc), rescale), acc);
                }
            }
            simd.store(exp_and_add(simd, p, simd.splat(running.max), sum), &mut running.sum);
        }
    }
}

/// Divides the unnormalized outputs by their running sums.
struct Normalize<'a, 'o> {
    acc: Rows<'a>,
    running: &'a [Running],
    out: &'a mut OutputBlock<'o>,
}

impl Kernel for Normalize<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for m in 0..self.acc.len() {
            let sum = simd.splat(simd.reduce_add(simd.load(&self.running[m].sum)));
            let acc = self.acc.row(m).as_chunks::<LANES>().0;
            for (acc, out) in acc.iter().zip(self.out.row_mut(m).chunks_mut(LANES)) {
                let normalized = simd.div(simd.load(acc), sum);
                match out.as_mut_array() {
                    Some(whole) => simd.store(normalized, whole),
                    None => simd.store_partial(normalized, out),
                }
            }
        }
    }
}
