//! One head of one sequence: a loop over blocks of queries, and within it one over blocks of keys.

use super::products::{Accumulate, Block, KEYS, Panels, QUERIES, Scores};
use crate::gemm::{pack_rows, pack_transposed_rows};
use crate::isa::Isa;
use crate::rows::{DisjointRows, Rows};
use crate::simd::{AlignedLanes, Kernel, LANES, Simd};
use crate::softmax::{exp_and_add, max_of};
use std::ops::Range;

/// Elements of a block.
const BLOCK_LEN: usize = QUERIES * KEYS;

/// A head of a sequence: its columns of the sequence's rows, `[n, head_dim]` each.
pub(super) struct Head<'a> {
    pub isa: Isa,
    pub q: Rows<'a>,
    pub k: Rows<'a>,
    pub v: Rows<'a>,
    pub out: Rows<'a>,
    pub dout: Rows<'a>,
    pub scale: f32,
    pub dqkv: &'a DisjointRows<'a>,
    /// The sequence's first row in `dqkv`.
    pub first_row: usize,
    /// The first columns of dQ, dK and dV.
    pub columns: [usize; 3],
}

impl Head<'_> {
    /// Computes dQ, dK and dV. The workspace grows if it is too small.
    pub fn backward(&self, workspace: &mut Vec<AlignedLanes>) {
        let (isa, n, head_dim) = (self.isa, self.q.len(), self.q.width());
        let panels = head_dim.div_ceil(LANES);
        let mut split = Split::new(workspace, Self::workspace_len(n, head_dim));
        let [q, k, dout, dk, dv] = [(); 5].map(|()| split.take(panels * n));
        let [k_transposed, v_transposed] = [(); 2].map(|()| split.take(n.div_ceil(LANES) * head_dim));
        let dq = split.take(panels * QUERIES);
        let (p, ds) = (split.take_floats(n.div_ceil(KEYS) * BLOCK_LEN), split.take_floats(BLOCK_LEN));
        for (x, packed) in [(self.q, &mut *q), (self.k, k), (self.dout, dout)] {
            pack_rows(isa, x, packed);
        }
        for (x, packed) in [(self.k, &mut *k_transposed), (self.v, v_transposed)] {
            pack_transposed_rows(isa, x, packed);
        }
        let [q, k, dout] = [&*q, k, dout].map(|data| Panels { data, n });
        for sums in [&mut *dk, dv] {
            sums.fill(AlignedLanes::ZERO);
        }

        for first_query in (0..n).step_by(QUERIES) {
            let queries = QUERIES.min(n - first_query);
            let visible = first_query + queries;
            let block = |i| {
                let first_key = i * KEYS;
                Block { first_query, queries, first_key, keys: KEYS.min(visible - first_key) }
            };
            let p = &mut p[..visible.div_ceil(KEYS) * BLOCK_LEN];
            for (i, scores) in p.chunks_mut(BLOCK_LEN).enumerate() {
                let (block, factor) = (block(i), self.scale);
                isa.run(Scores { block, x: q, y: k_transposed, head_dim, factor, elements: scores });
            }
            let mut rows = [RowStatistics::default(); QUERIES];
            let [out, dout_rows] = [self.out, self.dout].map(|x| x.row_range(first_query, queries));
            isa.run(Softmax { first_query, out, dout: dout_rows, p, rows: &mut rows });
            dq.fill(AlignedLanes::ZERO);
            for (i, p) in p.chunks_mut(BLOCK_LEN).enumerate() {
                let block = block(i);
                let dp = Scores { block, x: dout, y: v_transposed, head_dim, factor: 1.0, elements: ds };
                isa.run(dp);
                isa.run(ScoreGradients { block, rows: &rows, scale: self.scale, p, dp_to_ds: ds });
                let (sums, sum_rows) = (&mut *dv, n);
                isa.run(Accumulate::<true> { block, elements: p, y: dout, sums, sum_rows });
                let (sums, sum_rows) = (&mut *dk, n);
                isa.run(Accumulate::<true> { block, elements: ds, y: q, sums, sum_rows });
                let (sums, sum_rows) = (&mut *dq, QUERIES);
                isa.run(Accumulate::<false> { block, elements: ds, y: k, sums, sum_rows });
            }
            self.store(dq, QUERIES, first_query..visible, self.columns[0]);
        }
        self.store(dk, n, 0..n, self.columns[1]);
        self.store(dv, n, 0..n, self.columns[2]);
    }

    /// Returns the number of vectors that a head of `n` tokens needs.
    fn workspace_len(n: usize, head_dim: usize) -> usize {
        let panels = head_dim.div_ceil(LANES);
        let blocks = (n.div_ceil(KEYS) + 1) * BLOCK_LEN / LANES;
        5 * panels * n + 2 * n.div_ceil(LANES) * head_dim + panels * QUERIES + blocks
    }

    /// Copies panels of `n` rows to some rows of the sequence and the columns from `column`.
    fn store(&self, panels: &[AlignedLanes], n: usize, rows: Range<usize>, column: usize) {
        for (i, t) in rows.enumerate() {
            // SAFETY: only this head of this sequence writes these columns of these rows.
            let to = unsafe { self.dqkv.row_slice(self.first_row + t, column, self.q.width()) };
            for (panel, to) in panels.chunks(n).zip(to.chunks_mut(LANES)) {
                // A copy of constant length is one store; any other, a call to `memcpy`.
                match to.as_mut_array() {
                    Some(whole) => *whole = panel[i].0,
                    None => to.copy_from_slice(&panel[i].0[..to.len()]),
                }
            }
        }
    }
}

/// A workspace that is split into buffers.
struct Split<'a>(&'a mut [AlignedLanes]);

impl<'a> Split<'a> {
    fn new(workspace: &'a mut Vec<AlignedLanes>, len: usize) -> Self {
        workspace.resize(len.max(workspace.len()), AlignedLanes::ZERO);
        Self(workspace)
    }

    fn take(&mut self, len: usize) -> &'a mut [AlignedLanes] {
        self.0.split_off_mut(..len).expect("the workspace is large enough")
    }

    fn take_floats(&mut self, len: usize) -> &'a mut [f32] {
        bytemuck::cast_slice_mut(self.take(len / LANES))
    }
}

/// What the gradients of a query's scores need beyond the scores.
#[derive(Clone, Copy, Default)]
struct RowStatistics {
    /// The reciprocal of the sum of e^(score − max).
    reciprocal_sum: f32,
    /// dO[i] · O[i]
    d: f32,
}

/// Turns the scores of all visible keys of a block of queries into e^(score − max).
struct Softmax<'a> {
    first_query: usize,
    out: Rows<'a>,
    dout: Rows<'a>,
    /// `[blocks, QUERIES, KEYS]`
    p: &'a mut [f32],
    rows: &'a mut [RowStatistics],
}

impl Kernel for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for i in 0..self.out.len() {
            let visible = self.first_query + i + 1;
            let mut max = simd.splat(f32::NEG_INFINITY);
            for (block, first_key) in self.p.chunks_mut(BLOCK_LEN).zip((0..visible).step_by(KEYS)) {
                let row = &mut block[i * KEYS..][..KEYS];
                row[KEYS.min(visible - first_key)..].fill(f32::NEG_INFINITY); // causal mask
                max = max_of(simd, max, row.as_chunks().0);
            }
            let (max, mut sum) = (simd.splat(simd.reduce_max(max)), simd.splat(0.0));
            for (block, _) in self.p.chunks_mut(BLOCK_LEN).zip((0..visible).step_by(KEYS)) {
                sum = exp_and_add(simd, block[i * KEYS..][..KEYS].as_chunks_mut().0, max, sum);
            }
            let mut d = simd.splat(0.0);
            for (out, dout) in self.out.row(i).chunks(LANES).zip(self.dout.row(i).chunks(LANES)) {
                d = simd.mul_add(simd.load_partial(out), simd.load_partial(dout), d);
            }
            self.rows[i] =
                RowStatistics { reciprocal_sum: 1.0 / simd.reduce_add(sum), d: simd.reduce_add(d) };
        }
    }
}

/// Turns e^(score − max) into P, and dP into dS · scale = P · (dP − D) · scale.
struct ScoreGradients<'a> {
    block: Block,
    rows: &'a [RowStatistics],
    scale: f32,
    /// `[QUERIES, KEYS]`
    p: &'a mut [f32],
    /// `[QUERIES, KEYS]`
    dp_to_ds: &'a mut [f32],
}

impl Kernel for ScoreGradients<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let rows = self.p.chunks_mut(KEYS).zip(self.dp_to_ds.chunks_mut(KEYS)).zip(self.rows);
        for (i, ((p, ds), row)) in rows.enumerate().take(self.block.queries) {
            let vectors = self.block.visible(i).div_ceil(LANES);
            let (reciprocal_sum, d) = (simd.splat(row.reciprocal_sum), simd.splat(row.d));
            let (p, masked_p) = p.as_chunks_mut::<LANES>().0.split_at_mut(vectors);
            let (ds, masked_ds) = ds.as_chunks_mut::<LANES>().0.split_at_mut(vectors);
            for (p, ds) in p.iter_mut().zip(ds) {
                let weight = simd.mul(simd.load(p), reciprocal_sum);
                let gradient = simd.mul(weight, simd.sub(simd.load(ds), d));
                simd.store(weight, p);
                simd.store(simd.mul(gradient, simd.splat(self.scale)), ds);
            }
            // Where no query of a register tile sees a key, nothing was computed.
            masked_p.as_flattened_mut().fill(0.0);
            masked_ds.as_flattened_mut().fill(0.0);
        }
    }
}
