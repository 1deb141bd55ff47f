//! GEMV and skinny GEMM for a few tokens: every weight is read from memory once.
//!
//! The K-blocks are distributed among the threads (split-K). A thread reads eight or sixteen rows of `W` in
//! parallel, from left to right: for every few columns it loads their accumulators, which stay in the L2
//! cache, adds `x[k] · W[k, :]` for these rows with the shared microkernel, and stores them again. Once all
//! K-blocks are done, their partial sums are reduced, in order.

use super::{Element, Epilogue, LANES, Rows, RowsMut, Simd, ThreadPool, apply_epilogue};
use crate::elements::load_partial;
use crate::gemm::blocking::{REDUCED_MR, block_range, k_blocks, mr, with_mr, with_reduced_mr};
use crate::gemm::microkernel::{StridedLhs, microkernel};
use crate::rows::DisjointRows;
use crate::simd::{AlignedLanes, Kernel};
use crate::thread_pool::DisjointSlice;
use std::cell::RefCell;
use std::ops::Range;

/// Rows of `W` per pass over the accumulators. Rows are often a multiple of 4 KiB apart, and most L1 caches
/// hold eight such cache lines.
const K_UNROLL: usize = 8;
/// Rows of `W` per pass on AVX-512 where loading and storing the accumulators is the bottleneck.
const WIDE_K_UNROLL: usize = 16;
/// Vectors of columns that all tokens of a row block are multiplied with, a few tokens at a time, where there
/// are sixteen registers: with [`K_UNROLL`] rows, 8 KiB of the L1 cache in f32.
const NARROW_VECTORS: usize = 16;
/// The maximum number of accumulators of a chunk of work: 128 KiB, which stay in the L2 cache.
const MAX_ACCUMULATORS: usize = 32 << 10;
/// Outputs per chunk of the reduction.
const OUTPUTS_PER_CHUNK: usize = 1024;

thread_local! {
    /// The calling thread's buffer for the partial sums, reused between calls: the accumulators of one
    /// [`PartialProduct`] per K-block and column block, `[k_blocks, column_blocks]`.
    static PARTIALS: RefCell<Vec<AlignedLanes>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn linear<E: Element>(
    pool: &ThreadPool,
    x: Rows,
    w: &[E],
    bias: &[f32],
    epilogue: Epilogue,
    y: &mut RowsMut,
) {
    let (tokens, columns) = (x.len(), bias.len());
    let k_blocks = k_blocks(x.width());
    let vectors = columns.div_ceil(LANES);
    // Unless the K-blocks divide evenly among the threads, the columns are split too.
    let (n, column_splits) = (k_blocks.len(), pool.threads() / gcd(k_blocks.len(), pool.threads()));
    let block_vectors = vectors.div_ceil(column_splits).min(MAX_ACCUMULATORS / LANES / tokens);
    let column_blocks = vectors.div_ceil(block_vectors);
    PARTIALS.with_borrow_mut(|partials| {
        partials.resize((n * vectors * tokens).max(partials.len()), AlignedLanes::ZERO);
        let partials = &mut partials[..n * vectors * tokens];
        let shared = DisjointSlice::new(partials);
        pool.run(n * column_blocks, |i| {
            let (k_block, column_block) = (i / column_blocks, i % column_blocks);
            let block = column_block * block_vectors..vectors.min((column_block + 1) * block_vectors);
            let offset = k_block * vectors * tokens;
            // SAFETY: each pair of K-block and column block is processed once, with accumulators of its own.
            let accumulators =
                unsafe { shared.slice(offset + block.start * tokens..offset + block.end * tokens) };
            let rows = k_blocks.clone().nth(k_block).expect("one of the K-blocks");
            pool.isa().run(PartialProduct { x, w, columns, rows, start: block.start * LANES, accumulators });
        });
        let partials = &*partials;
        let y = y.as_disjoint();
        let chunk = (OUTPUTS_PER_CHUNK / LANES).div_ceil(tokens);
        pool.run(vectors.div_ceil(chunk), |i| {
            let vectors = i * chunk..vectors.min((i + 1) * chunk);
            pool.isa().run(ReducePartials {
                partials,
                k_blocks: n,
                tokens,
                block_vectors,
                bias,
                epilogue,
                y: &y,
                vectors,
            });
        });
    });
}

/// Whether the multiply-adds for this many tokens take longer than reading the weights.
const fn is_compute_bound<E>(tokens: usize) -> bool {
    size_of::<E>() == 2 && tokens > 4
}

/// The greatest common divisor.
fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Splits the tokens into row blocks of at most 14, whose inputs are interleaved. Yields each block's first
/// token and length.
fn row_blocks(tokens: usize) -> impl Iterator<Item = (usize, usize)> {
    let max = mr(true);
    (0..tokens.div_ceil(max)).map(move |i| block_range(tokens, max, i))
}

/// The product of all tokens with a K-block of `W`, in the columns from `start`. The accumulators are
/// `[columns / 16, TOKENS, 16]` for each row block of `TOKENS` tokens.
struct PartialProduct<'a, E> {
    x: Rows<'a>,
    w: &'a [E],
    columns: usize,
    rows: Range<usize>,
    start: usize,
    accumulators: &'a mut [AlignedLanes],
}

impl<E: Element> Kernel for PartialProduct<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        self.accumulators.fill(AlignedLanes::ZERO);
        if S::WIDE && takes_wide_passes::<E>(self.x.len()) {
            self.passes::<S, WIDE_K_UNROLL>(simd);
        } else {
            self.passes::<S, K_UNROLL>(simd);
        }
    }
}

/// Whether a pass on AVX-512 covers [`WIDE_K_UNROLL`] rows for this many tokens: for one token, or where
/// multiply-adds are the bottleneck.
const fn takes_wide_passes<E>(tokens: usize) -> bool {
    tokens == 1 || is_compute_bound::<E>(tokens)
}

impl<E: Element> PartialProduct<'_, E> {
    /// Processes all rows, `KU` (K-unroll) per pass and the remaining ones singly.
    #[inline(always)]
    fn passes<S: Simd, const KU: usize>(&mut self, simd: S) {
        let end = self.rows.start + self.rows.len() / KU * KU;
        for k in (self.rows.start..end).step_by(KU) {
            for (first, n) in row_blocks(self.x.len()) {
                self.row_block::<S, KU>(simd, k, first, n);
            }
        }
        for k in end..self.rows.end {
            self.single_row(simd, k);
        }
    }

    /// Adds the products of rows `k..k + KU` of `W` for the `n` tokens from `first`, one cache line of every
    /// row at a time. The first row block brings the rows into the L2 cache, where the others find them.
    #[inline(always)]
    fn row_block<S: Simd, const KU: usize>(&mut self, simd: S, k: usize, first: usize, n: usize) {
        let vectors = self.accumulators.len() / self.x.len();
        let accumulators = &mut self.accumulators[first * vectors..][..n * vectors];
        let width = (vectors * LANES).min(self.columns - self.start);
        let rows = &self.w[k * self.columns + self.start..][..(KU - 1) * self.columns + width];
        // Interleaved, so that all inputs are addressed through one register.
        let mut x = [[0.0; mr(true)]; KU];
        for m in 0..n {
            let row: &[f32; KU] = self.x.row(first + m)[k..k + KU].as_array().expect("KU inputs");
            for d in 0..KU {
                x[d][m] = row[d];
            }
        }
        // The row segments are too short for the hardware prefetcher to detect a sequential read, so the rows
        // of the next pass are prefetched, into L2, which sustains more outstanding requests than L1.
        let prefetch_distance = if first == 0 && k + 2 * KU <= self.rows.end { KU * self.columns } else { 0 };
        let weights = WeightRows { columns: self.columns, rows, prefetch_distance };
        let whole = width / LANES;
        if S::WIDE {
            with_mr!(n, MR => weights.accumulate_all::<S, MR, KU>(simd, &x, accumulators, whole));
        } else {
            // As many tokens as fit in registers; the others find the same weights in the L1 cache.
            for start in (0..whole).step_by(NARROW_VECTORS) {
                for i in 0..n.div_ceil(REDUCED_MR) {
                    let (first, height) = block_range(n, REDUCED_MR, i);
                    with_reduced_mr!(height, MR => {
                        for v in start..whole.min(start + NARROW_VECTORS) {
                            weights.accumulate::<S, MR, KU, 1>(simd, &x, first, v, n, accumulators);
                        }
                    });
                }
            }
        }
        if whole < vectors {
            for d in 0..KU {
                let w = load_partial(simd, &rows[d * self.columns..][whole * LANES..width]);
                add_products(simd, &x[d][..n], w, &mut accumulators[whole * n..]);
            }
        }
    }

    /// Adds the products of row `k` of `W` for all tokens: the rows that are left when the K-block is no
    /// multiple of the K-unroll.
    #[inline(always)]
    fn single_row<S: Simd>(&mut self, simd: S, k: usize) {
        let vectors = self.accumulators.len() / self.x.len();
        let width = (vectors * LANES).min(self.columns - self.start);
        let row = &self.w[k * self.columns + self.start..][..width];
        for (first, n) in row_blocks(self.x.len()) {
            let mut x = [0.0; mr(true)];
            for m in 0..n {
                x[m] = self.x.row(first + m)[k];
            }
            let accumulators = self.accumulators[first * vectors..].chunks_mut(n);
            for (w, accumulators) in row.chunks(LANES).zip(accumulators) {
                let w = match w.as_array() {
                    Some(whole) => E::load(simd, whole),
                    None => load_partial(simd, w),
                };
                add_products(simd, &x[..n], w, accumulators);
            }
        }
    }
}

/// Adds the products of one vector of weights and one input of each token to the tokens' accumulators.
#[inline(always)]
fn add_products<S: Simd>(simd: S, x: &[f32], w: S::F32s, accumulators: &mut [AlignedLanes]) {
    for (x, acc) in x.iter().zip(accumulators) {
        simd.store(simd.mul_add(simd.splat(*x), w, simd.load(&acc.0)), &mut acc.0);
    }
}

/// The column block's weights in `KU` rows of `W`, `columns` elements apart.
struct WeightRows<'a, E> {
    columns: usize,
    rows: &'a [E],
    /// In elements; 0 for no prefetching.
    prefetch_distance: usize,
}

impl<E: Element> WeightRows<'_, E> {
    /// Adds the products of all `whole` vectors of columns for a row block of `MR` tokens that fits in
    /// registers.
    #[inline(always)]
    fn accumulate_all<S: Simd, const MR: usize, const KU: usize>(
        &self,
        simd: S,
        x: &[[f32; mr(true)]; KU],
        accumulators: &mut [AlignedLanes],
        whole: usize,
    ) {
        if const { takes_wide_passes::<E>(MR) != (KU == WIDE_K_UNROLL) } {
            unreachable!("{KU} rows for {MR} tokens");
        }
        let mut v = 0;
        // Three vectors spread the loads of inputs and accumulators over more multiply-adds than two.
        if const { is_compute_bound::<E>(MR) && MR < 10 } {
            while v + 3 <= whole {
                self.accumulate::<S, MR, KU, 3>(simd, x, 0, v, MR, accumulators);
                v += 3;
            }
        }
        // One cache line of each row: two vectors of 16-bit weights, one of f32. Two adjacent lines would
        // make the hardware prefetcher fetch more of the row before it is needed.
        if const { size_of::<E>() == 2 } {
            while v + 2 <= whole {
                self.accumulate::<S, MR, KU, 2>(simd, x, 0, v, MR, accumulators);
                v += 2;
            }
        }
        while v < whole {
            self.accumulate::<S, MR, KU, 1>(simd, x, 0, v, MR, accumulators);
            v += 1;
        }
    }

    /// Adds the products of `NR_VECS` vectors of columns from vector `v` and `MR` tokens of a row block of
    /// `tokens`, from its token `first` on. The accumulators are `[vectors, tokens, 16]`.
    #[inline(always)]
    fn accumulate<S: Simd, const MR: usize, const KU: usize, const NR_VECS: usize>(
        &self,
        simd: S,
        x: &[[f32; mr(true)]; KU],
        first: usize,
        v: usize,
        tokens: usize,
        accumulators: &mut [AlignedLanes],
    ) {
        let stored: [*mut AlignedLanes; NR_VECS] = std::array::from_fn(|i| {
            accumulators[(v + i) * tokens + first..].first_chunk_mut::<MR>().expect("MR tokens").as_mut_ptr()
        });
        let mut acc = [[simd.splat(0.0); NR_VECS]; MR];
        for m in 0..MR {
            for i in 0..NR_VECS {
                // SAFETY: `stored[i]` points to `MR` accumulators, which are borrowed mutably.
                acc[m][i] = simd.load(unsafe { &(*stored[i].add(m)).0 });
            }
        }
        assert!(first + MR <= mr(true));
        let x = StridedLhs { ptr: x.as_flattened()[first..].as_ptr(), row_stride: 1, k_stride: mr(true) };
        let panels: [*const E; NR_VECS] =
            std::array::from_fn(|i| self.rows.as_ptr().wrapping_add((v + i) * LANES));
        let prefetch = |d| {
            if first == 0 {
                for offset in (0..NR_VECS * LANES).step_by(64 / size_of::<E>()) {
                    let ahead = d * self.columns + offset + self.prefetch_distance;
                    simd.prefetch(panels[0].wrapping_add(ahead));
                }
            }
        };
        // SAFETY: `x` has `KU` inputs of `mr(true)` tokens, and `rows` whole vectors `v..v + NR_VECS` of `KU`
        // rows, `columns` apart.
        unsafe { microkernel(simd, x, KU, panels, self.columns, &mut acc, prefetch) };
        for m in 0..MR {
            for i in 0..NR_VECS {
                // SAFETY: as for the loads.
                simd.store(acc[m][i], unsafe { &mut (*stored[i].add(m)).0 });
            }
        }
    }
}

/// Reduces the partial sums of all K-blocks for some vectors of outputs, and applies the epilogue.
struct ReducePartials<'a> {
    partials: &'a [AlignedLanes],
    k_blocks: usize,
    tokens: usize,
    /// Vectors per column block; the last one may have fewer.
    block_vectors: usize,
    bias: &'a [f32],
    epilogue: Epilogue,
    y: &'a DisjointRows<'a>,
    vectors: Range<usize>,
}

impl Kernel for ReducePartials<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let k_block_len = self.partials.len() / self.k_blocks;
        for vector in self.vectors {
            let column = vector * LANES;
            let bias = &self.bias[column..self.bias.len().min(column + LANES)];
            let block_start = vector / self.block_vectors * self.block_vectors;
            let block_vectors = self.block_vectors.min(k_block_len / self.tokens - block_start);
            for (first, n) in row_blocks(self.tokens) {
                let offset = block_start * self.tokens + first * block_vectors + (vector - block_start) * n;
                for m in 0..n {
                    let mut sum = simd.load(&self.partials[offset + m].0);
                    for i in 1..self.k_blocks {
                        sum = simd.add(sum, simd.load(&self.partials[i * k_block_len + offset + m].0));
                    }
                    // SAFETY: only this chunk of work writes these columns.
                    let y = unsafe { self.y.row_slice(first + m, column, bias.len()) };
                    apply_epilogue(simd, sum, bias, self.epilogue, y);
                }
            }
        }
    }
}
