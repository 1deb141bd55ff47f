//! Split-KV: different threads attend to different splits of the KV cache, and the partial results are
//! merged.
//!
//! ```text
//! split s:  m_s = max_j s[j],   l_s = Σ_j e^(s[j] − m_s),   o_s = Σ_j e^(s[j] − m_s) · v[j]
//! merged:   m = max_s m_s,      out = Σ_s e^(m_s − m) · o_s / Σ_s e^(m_s − m) · l_s        (Dao et al. 2023)
//! ```
//!
//! Decode has one query per head: with more threads than heads, or heads that do not divide evenly among
//! threads, some threads would idle. Splits of 256 positions spread a long context over all of them. The
//! splits are the same for every query and any number of threads, and are merged in order, so the bits are
//! the same, too.
//!
//! - Memory: head_dim + 2 elements for every query, head and split, and one split's scores per thread. Meant
//!   for decode; a 512-token chunk of a long prompt takes 6 MiB for every 1000 tokens before it.
//! - Cost: as [`two-pass`](super::TwoPass), and head_dim multiply-adds to merge each split.

use super::kernel::{AttentionKernel, AttentionParams, OutputBlock, QueryBlock};
use super::primitives::exp_and_sum;
use crate::exp::exp_scalar;
use crate::rows::{Rows, RowsMut, row_stride};
use crate::simd::{Kernel, LANES, Simd, mul_add};

/// Positions in a split.
const SPLIT: usize = 256;

/// Attention with the KV cache split among threads.
#[derive(Clone, Copy, Debug)]
pub struct SplitKv;

impl AttentionKernel for SplitKv {
    fn name(&self) -> &'static str {
        "split-kv"
    }

    fn description(&self) -> &'static str {
        "splits of 256 positions in parallel, then merged"
    }

    fn attend(&self, params: &mut AttentionParams) {
        let block_rows = params.mr().min(params.max_query_len());
        let splits = params.max_kv_len().div_ceil(SPLIT);
        let partial_len = block_rows * (params.padded_head_dim() + 2);
        let len = params.query_blocks(block_rows) * splits * partial_len;
        params.with_shared_workspace(len, |params, partials| {
            params.pool().for_each_chunk(partials, partial_len, |i, partial| {
                let (block, split) = (params.query_block(block_rows, i / splits), i % splits);
                attend(params, &block, split * SPLIT, partial);
            });
            let partials: &[f32] = partials;
            params.for_each_query_block(
                block_rows,
                |_| 0,
                |block, _, out| {
                    let partials = &partials[block.index * splits * partial_len..][..splits * partial_len];
                    block.isa.run(Merge { block, partials, partial_len, out });
                },
            );
        });
    }
}

/// Computes one split of a query block: leaves unnormalized outputs `[n, head_dim]`, maxima `[n]` and sums
/// `[n]` in `partial`.
fn attend(params: &AttentionParams, block: &QueryBlock, start: usize, partial: &mut [f32]) {
    let n = block.q.len();
    let visible = |m: usize| (block.position + m + 1).saturating_sub(start).min(SPLIT);
    let positions = visible(n - 1);
    if positions == 0 {
        return; // only longer sequences of the batch have this split
    }
    let (acc, rest) = partial.split_at_mut(n * block.kv.padded_head_dim());
    let (max, sum) = rest.split_at_mut(n);
    let (stride, width) = (row_stride(SPLIT), positions.next_multiple_of(LANES));
    params.with_workspace(n * stride, |p| {
        block.scores(start, &mut RowsMut::new(p, n, width, stride));
        for (m, p) in p.chunks_mut(stride).enumerate() {
            match visible(m) {
                0 => p[..width].fill(0.0),
                visible => (max[m], sum[m]) = exp_and_sum(block.isa, &mut p[..width], 0..visible),
            }
        }
        acc.fill(0.0);
        let mut acc = RowsMut::dense(acc, block.kv.padded_head_dim());
        block.accumulate_values(Rows::new(p, n, positions, stride), start, &mut acc);
    });
}

/// Merges the partial results of a query block's splits.
struct Merge<'a, 'o> {
    block: &'a QueryBlock<'a>,
    /// As [`attend`] left them, `partial_len` elements per split.
    partials: &'a [f32],
    partial_len: usize,
    out: &'a mut OutputBlock<'o>,
}

impl Kernel for Merge<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (n, width) = (self.block.q.len(), self.block.kv.padded_head_dim());
        for m in 0..n {
            // The splits that are not wholly masked for this query.
            let partials =
                || self.partials.chunks(self.partial_len).take((self.block.position + m) / SPLIT + 1);
            let [max, sum] = [n * width + m, n * width + n + m];
            let global_max = partials().map(|partial| partial[max]).fold(f32::NEG_INFINITY, f32::max);
            let out = self.out.row_mut(m);
            out.fill(0.0);
            let mut total = 0.0f32;
            for partial in partials() {
                let rescale = exp_scalar(simd, partial[max] - global_max);
                total = mul_add(rescale, partial[sum], total);
                for (out, acc) in out.iter_mut().zip(&partial[m * width..]) {
                    *out = mul_add(rescale, *acc, *out);
                }
            }
            out.iter_mut().for_each(|out| *out /= total);
        }
    }
}
