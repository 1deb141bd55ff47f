//! GEMM for many tokens: packs the weights into panels, then multiplies these with register tiles of tokens.
//!
//! Rows of `W` are kilobytes apart, so a register tile that read them in place would touch a new page at
//! every k. Each thread therefore packs a column block of a K-block into panels `[KC, 16]`, converted to f32;
//! the cost is small because all tokens use every panel. While one K-block is multiplied, the weights of the
//! next are prefetched, so that arithmetic and memory transfers overlap.
//!
//! In reading order: `microkernel.rs` computes one register tile, `blocking.rs` has all sizes of blocks,
//! `pack.rs` brings both operands into the order in which the microkernel reads them, `prefetch.rs` fetches
//! the weights that come next, and this file has the loops around them.
//!
//! The blocking follows Goto and van de Geijn (2008). The packed panels, and a K-block of the inputs of MC
//! tokens, fit in the L2 cache together. For each block of MC tokens, the macro-kernel loops over pairs of
//! panels, and for each pair over the block's register tiles. Between K-blocks, the accumulators are in
//! memory.

pub(super) mod blocking;
pub(super) mod microkernel;
mod pack;
pub(super) mod prefetch;

use super::elements::Element;
use super::epilogue::{Epilogue, apply_epilogue};
use super::isa::Isa;
use super::rows::{DisjointRows, Rows, RowsMut};
use super::simd::{AlignedLanes, Kernel, LANES, Simd};
use super::thread_pool::ThreadPool;
use blocking::{MAX_NR_VECS, MC, NC_PANELS, RowBlocks, assert_mr, block_range, k_blocks, mr, with_mr};
use microkernel::{StridedLhs, microkernel};
use pack::{PackedLhs, Rhs, RowMajor, Transposed};
use prefetch::Prefetcher;
use std::cell::RefCell;
use std::ops::Range;

/// The minimum of column blocks per thread, if there are enough panels, to balance the load of the threads.
const BLOCKS_PER_THREAD: usize = 4;
/// Steps of k between prefetches of the next weights.
const PREFETCH_INTERVAL: usize = 16;

/// A thread's buffers, reused between calls.
#[derive(Default)]
struct Buffers {
    /// The packed panels of a K-block, `[n, KC, 16]`.
    panels: Vec<AlignedLanes>,
    /// The sums over the K-blocks so far, `[n, n_tokens, 16]`.
    accumulators: Vec<AlignedLanes>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// Computes `y = epilogue(x · w + bias)` for many tokens.
pub(super) fn gemm<E: Element>(
    pool: &ThreadPool,
    x: Rows,
    w: &[E],
    bias: &[f32],
    epilogue: Epilogue,
    y: &mut RowsMut,
) {
    let w = RowMajor { elements: w, stride: bias.len() };
    PackedLhs::with(pool, x, row_blocks(pool, y), |x| multiply(pool, x, w, bias, epilogue, y));
}

/// Computes `y = x · wᵀ`: `x` is `[rows, k]`, `w` is `[columns, k]`.
pub(super) fn gemm_nt(pool: &ThreadPool, x: Rows, w: Rows, y: &mut RowsMut) {
    assert_eq!((x.len(), x.width(), w.len()), (y.len(), w.width(), y.width()), "x is [rows, k]");
    if y.is_empty() || y.width() == 0 {
        return;
    }
    let bias = vec![0.0; y.width()];
    PackedLhs::with(pool, x, row_blocks(pool, y), |x| {
        multiply(pool, x, Transposed(w), &bias, Epilogue::Store, y);
    });
}

/// Computes `y += xᵀ · w`: `x` is `[k, rows]`, `w` is `[k, columns]`.
pub(super) fn gemm_tn(pool: &ThreadPool, x: Rows, w: Rows, y: &mut RowsMut) {
    assert_eq!((x.width(), x.len(), w.width()), (y.len(), w.len(), y.width()), "x is [k, rows]");
    if y.is_empty() || y.width() == 0 {
        return;
    }
    let (bias, (elements, stride)) = (vec![0.0; y.width()], w.into_parts());
    PackedLhs::with_transposed(pool, x, row_blocks(pool, y), |x| {
        multiply(pool, x, RowMajor { elements, stride }, &bias, Epilogue::Add, y);
    });
}

/// Packs `x`, `[n, width]`, into panels of sixteen columns, `[width / 16, n, 16]`, padded with zeros.
pub(super) fn pack_rows(isa: Isa, x: Rows, panels: &mut [AlignedLanes]) {
    let (elements, stride) = x.into_parts();
    RowMajor { elements, stride }.pack(isa, 0..x.len(), 0..x.width(), panels);
}

/// Packs `x`, `[n, width]`, into panels of sixteen rows, `[n / 16, width, 16]`, padded with zeros.
pub(super) fn pack_transposed_rows(isa: Isa, x: Rows, panels: &mut [AlignedLanes]) {
    Transposed(x).pack(isa, 0..x.width(), 0..x.len(), panels);
}

/// Returns the partition of the output's rows into register tiles.
fn row_blocks(pool: &ThreadPool, y: &RowsMut) -> RowBlocks {
    RowBlocks::new(y.len(), mr(pool.isa().is_wide()))
}

/// Multiplies a packed left operand with a right operand, one column block after another.
fn multiply(pool: &ThreadPool, x: PackedLhs, w: impl Rhs, bias: &[f32], epilogue: Epilogue, y: &mut RowsMut) {
    let (columns, isa, tokens) = (bias.len(), pool.isa(), y.len());
    let panels = columns.div_ceil(LANES);
    let nc_panels =
        panels.div_ceil(BLOCKS_PER_THREAD * pool.threads()).next_multiple_of(MAX_NR_VECS).min(NC_PANELS);
    let (k_blocks, y) = (k_blocks(x.inputs), y.as_disjoint());
    let first_k_block = k_blocks.clone().next().unwrap_or(0..0);
    pool.run(panels.div_ceil(nc_panels), |i| {
        let start = i * nc_panels * LANES;
        let end = columns.min(start + nc_panels * LANES);
        let n = (end - start).div_ceil(LANES).next_multiple_of(MAX_NR_VECS);
        BUFFERS.with_borrow_mut(|buffers| {
            for k_block in k_blocks.clone() {
                let (panels, accumulators) = buffers.resize(n * k_block.len(), n * tokens);
                // A thread usually processes adjacent column blocks in succession.
                let next = match k_blocks.clone().find(|next| next.start == k_block.end) {
                    Some(next) => w.prefetcher(next, start..end),
                    None => w.prefetcher(first_k_block.clone(), end..columns.min(2 * end - start)),
                };
                w.pack(isa, k_block.clone(), start..end, panels);
                let y = &y;
                isa.run(MacroKernel { x, k_block, panels, n, accumulators, bias, epilogue, y, start, next });
            }
        });
    });
}

impl Buffers {
    /// Returns buffers of the given numbers of vectors, with unspecified contents.
    fn resize(&mut self, panels: usize, accumulators: usize) -> (&mut [AlignedLanes], &mut [AlignedLanes]) {
        self.panels.resize(panels.max(self.panels.len()), AlignedLanes::ZERO);
        self.accumulators.resize(accumulators.max(self.accumulators.len()), AlignedLanes::ZERO);
        (&mut self.panels[..panels], &mut self.accumulators[..accumulators])
    }
}

/// The macro-kernel: multiplies a K-block of all tokens with `n` panels, whose columns begin at `start`.
struct MacroKernel<'a> {
    x: PackedLhs<'a>,
    k_block: Range<usize>,
    /// `[n, KC, 16]`
    panels: &'a [AlignedLanes],
    n: usize,
    /// `[n, n_tokens, 16]`
    accumulators: &'a mut [AlignedLanes],
    bias: &'a [f32],
    epilogue: Epilogue,
    y: &'a DisjointRows<'a>,
    start: usize,
    next: Prefetcher,
}

impl Kernel for MacroKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        if S::WIDE {
            self.loops::<S, MAX_NR_VECS>(simd);
        } else {
            self.loops::<S, 1>(simd);
        }
    }
}

impl MacroKernel<'_> {
    /// Loops over blocks of MC tokens, within them over groups of `NR_VECS` panels, within these over
    /// register tiles.
    #[inline(always)]
    fn loops<S: Simd, const NR_VECS: usize>(&mut self, simd: S) {
        let tiles_per_mc = MC / mr(S::WIDE);
        let tiles = self.x.row_blocks.count();
        let prefetches = tiles * (self.n / NR_VECS) * self.k_block.len().div_ceil(PREFETCH_INTERVAL);
        let lines_per_prefetch = self.next.total_lines().div_ceil(prefetches);
        for mc_block in 0..tiles.div_ceil(tiles_per_mc) {
            let (first, n) = block_range(tiles, tiles_per_mc, mc_block);
            for panel in (0..self.n).step_by(NR_VECS) {
                for tile in first..first + n {
                    let (_, rows) = self.x.row_blocks.block(tile);
                    with_mr!(rows, MR => self.tile::<S, MR, NR_VECS>(simd, tile, panel, lines_per_prefetch));
                }
            }
        }
    }

    /// Multiplies a register tile of `MR` tokens with the `NR_VECS` panels from `panel`, and prefetches
    /// `lines_per_prefetch` cache lines of the next weights every [`PREFETCH_INTERVAL`] steps of k.
    #[inline(always)]
    fn tile<S: Simd, const MR: usize, const NR_VECS: usize>(
        &mut self,
        simd: S,
        tile: usize,
        panel: usize,
        lines_per_prefetch: usize,
    ) {
        assert_mr::<S, MR>();
        let (token, x) = self.x.block(tile, self.k_block.clone());
        let (depth, tokens) = (self.k_block.len(), self.accumulators.len() / self.n);
        let x = x.as_chunks::<MR>().0;
        let mut acc = [[simd.splat(0.0); NR_VECS]; MR];
        for k in (0..depth).step_by(PREFETCH_INTERVAL) {
            for _ in 0..lines_per_prefetch {
                self.next.prefetch_line(simd);
            }
            let x = &x[k..depth.min(k + PREFETCH_INTERVAL)];
            let lhs = StridedLhs { ptr: x.as_ptr().cast(), row_stride: 1, k_stride: MR };
            // A loop: a call to `array::map` that is not inlined would spill all accumulators.
            let mut panels = [std::ptr::null(); NR_VECS];
            for v in 0..NR_VECS {
                panels[v] = self.panels[(panel + v) * depth + k..][..x.len()].as_ptr().cast::<f32>();
            }
            // SAFETY: `x` has the interleaved inputs of `MR` tokens, and each panel as many vectors.
            unsafe { microkernel(simd, lhs, x.len(), panels, LANES, &mut acc, |_| {}) };
        }
        // Stores the accumulators before the epilogue: in a loop with further work, the compiler would keep
        // them in memory from the start.
        let first = self.k_block.start == 0;
        for v in 0..NR_VECS {
            let stored =
                self.accumulators[(panel + v) * tokens + token..].first_chunk_mut::<MR>().expect("MR tokens");
            for m in 0..MR {
                if !first {
                    acc[m][v] = simd.add(simd.load(&stored[m].0), acc[m][v]);
                }
                simd.store(acc[m][v], &mut stored[m].0);
            }
        }
        if self.k_block.end == self.x.inputs {
            for v in 0..NR_VECS {
                let finished = &self.accumulators[(panel + v) * tokens + token..][..MR];
                self.finish(simd, token, panel + v, finished);
            }
        }
    }

    /// Applies the epilogue to a panel's finished accumulators, one for each of the tokens from `token` on.
    #[inline(always)]
    fn finish<S: Simd>(&self, simd: S, token: usize, panel: usize, finished: &[AlignedLanes]) {
        let column = self.start + panel * LANES;
        let Some(bias) = self.bias.get(column..self.bias.len().min(column + LANES)) else { return };
        for (m, acc) in finished.iter().enumerate() {
            // SAFETY: only this chunk of work writes these columns.
            let y = unsafe { self.y.row_slice(token + m, column, bias.len()) };
            apply_epilogue(simd, simd.load(&acc.0), bias, self.epilogue, y);
        }
    }
}
