//! Packs both operands of a GEMM: the inputs of many tokens, interleaved within each row block, and the
//! weights, as panels of sixteen columns, converted to f32. Either may be stored transposed.
//!
//! Every panel of the weights is multiplied with every input, so packing each input once pays off: the
//! microkernel then addresses the inputs of all its tokens through one register.

use super::blocking::{RowBlocks, assert_mr, with_mr};
use super::prefetch::Prefetcher;
use crate::elements::{Element, load_partial};
use crate::isa::Isa;
use crate::rows::Rows;
use crate::simd::{AlignedLanes, Kernel, LANES, Simd};
use crate::thread_pool::{DisjointSlice, ThreadPool};
use std::cell::RefCell;
use std::ops::Range;

/// Inputs of a row block that one chunk of work packs.
const INPUTS_PER_CHUNK: usize = 256;
/// Rows of a transposed left operand that one chunk of work packs; they stay in the L2 cache meanwhile.
const TRANSPOSED_ROWS_PER_CHUNK: usize = 32;
/// Prefetch distance of panel packing, in rows of `W`.
const PREFETCH_DISTANCE_ROWS: usize = 8;

thread_local! {
    /// The calling thread's packing buffer, reused between calls.
    static PACK_BUFFER: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// A packed left operand.
#[derive(Clone, Copy)]
pub(super) struct PackedLhs<'a> {
    /// One `[inputs, MR]` matrix per row block.
    data: &'a [f32],
    /// The number of inputs per token.
    pub inputs: usize,
    /// The partition of the tokens.
    pub row_blocks: RowBlocks,
}

impl PackedLhs<'_> {
    /// Packs `x` and passes the result to `work`.
    pub fn with<R>(
        pool: &ThreadPool,
        x: Rows,
        row_blocks: RowBlocks,
        work: impl FnOnce(PackedLhs) -> R,
    ) -> R {
        with_buffer(x.len() * x.width(), |data| {
            pack(pool, x, row_blocks, data);
            work(PackedLhs { data, inputs: x.width(), row_blocks })
        })
    }

    /// Packs the transpose of `x`, whose columns are then the rows of the left operand.
    pub fn with_transposed<R>(
        pool: &ThreadPool,
        x: Rows,
        row_blocks: RowBlocks,
        work: impl FnOnce(PackedLhs) -> R,
    ) -> R {
        with_buffer(x.len() * x.width(), |data| {
            pack_transposed(pool, x, row_blocks, data);
            work(PackedLhs { data, inputs: x.len(), row_blocks })
        })
    }

    /// Returns the first token of row block `i` and the given range of the block's inputs, `[range, MR]`.
    #[inline(always)]
    pub fn block(&self, i: usize, inputs: Range<usize>) -> (usize, &[f32]) {
        let (token, height) = self.row_blocks.block(i);
        (token, &self.data[token * self.inputs..][inputs.start * height..inputs.end * height])
    }
}

/// Calls `work` with `n` elements of the calling thread's packing buffer.
fn with_buffer<R>(n: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    PACK_BUFFER.with_borrow_mut(|data| {
        data.resize(n.max(data.len()), 0.0);
        work(&mut data[..n])
    })
}

fn pack(pool: &ThreadPool, x: Rows, row_blocks: RowBlocks, data: &mut [f32]) {
    let inputs = x.width();
    let chunks_per_block = inputs.div_ceil(INPUTS_PER_CHUNK);
    let data = DisjointSlice::new(data);
    pool.run(row_blocks.count() * chunks_per_block, |i| {
        let (token, height) = row_blocks.block(i / chunks_per_block);
        let first = i % chunks_per_block * INPUTS_PER_CHUNK;
        let n = INPUTS_PER_CHUNK.min(inputs - first);
        let start = token * inputs + first * height;
        // SAFETY: each chunk of each row block is processed once, and no two chunks overlap.
        let packed = unsafe { data.slice(start..start + n * height) };
        let x = x.row_range(token, height).columns(first, n);
        with_mr!(height, MR => pool.isa().run(Interleave::<MR> { x, packed }));
    });
}

/// Each row of `x` has the elements of all row blocks for one k: pieces of MR elements are copied.
fn pack_transposed(pool: &ThreadPool, x: Rows, row_blocks: RowBlocks, data: &mut [f32]) {
    let inputs = x.len();
    let data = DisjointSlice::new(data);
    pool.run(inputs.div_ceil(TRANSPOSED_ROWS_PER_CHUNK), |i| {
        let first = i * TRANSPOSED_ROWS_PER_CHUNK;
        let n = TRANSPOSED_ROWS_PER_CHUNK.min(inputs - first);
        for block in 0..row_blocks.count() {
            let (column, height) = row_blocks.block(block);
            let start = column * inputs + first * height;
            // SAFETY: each range of k of each row block is processed once, and no two overlap.
            let packed = unsafe { data.slice(start..start + n * height) };
            let x = x.row_range(first, n).columns(column, height);
            with_mr!(height, MR => copy_rows::<MR>(x, packed));
        }
    });
}

/// Copies rows of `MR` elements.
fn copy_rows<const MR: usize>(x: Rows, to: &mut [f32]) {
    for (k, to) in to.as_chunks_mut::<MR>().0.iter_mut().enumerate() {
        *to = *x.row(k).first_chunk().expect("rows of MR elements");
    }
}

/// Transposes `[MR, n]` to `[n, MR]`.
struct Interleave<'a, const MR: usize> {
    x: Rows<'a>,
    packed: &'a mut [f32],
}

impl<const MR: usize> Kernel for Interleave<'_, MR> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        assert_mr::<S, MR>();
        let (packed, _) = self.packed.as_chunks_mut::<MR>();
        for (i, packed) in packed.chunks_mut(LANES).enumerate() {
            let mut rows = [simd.splat(0.0); LANES];
            for m in 0..MR {
                rows[m] = simd.load_partial(&self.x.row(m)[i * LANES..][..packed.len()]);
            }
            let columns = simd.transpose(rows);
            for k in 0..packed.len() {
                simd.store_partial(columns[k], &mut packed[k]);
            }
        }
    }
}

/// The right operand of a product, `[k, columns]`, as it lies in memory.
pub(super) trait Rhs: Copy + Sync {
    /// Packs a K-block of the given columns into panels, `[n, KC, 16]`; missing columns are zero.
    fn pack(self, isa: Isa, k_block: Range<usize>, columns: Range<usize>, panels: &mut [AlignedLanes]);
    /// Returns a prefetcher of a K-block of the given columns.
    fn prefetcher(self, k_block: Range<usize>, columns: Range<usize>) -> Prefetcher;
}

/// A right operand with one row for each k, `stride` elements apart.
#[derive(Clone, Copy)]
pub(super) struct RowMajor<'a, E> {
    pub elements: &'a [E],
    pub stride: usize,
}

impl<E: Element> Rhs for RowMajor<'_, E> {
    fn pack(self, isa: Isa, k_block: Range<usize>, columns: Range<usize>, panels: &mut [AlignedLanes]) {
        isa.run(PackPanels { w: self, k_block, columns, panels });
    }

    fn prefetcher(self, k_block: Range<usize>, columns: Range<usize>) -> Prefetcher {
        Prefetcher::new(self.elements, self.stride, k_block, columns)
    }
}

/// A right operand stored with one row for each column.
#[derive(Clone, Copy)]
pub(super) struct Transposed<'a>(pub Rows<'a>);

impl Rhs for Transposed<'_> {
    fn pack(self, isa: Isa, k_block: Range<usize>, columns: Range<usize>, panels: &mut [AlignedLanes]) {
        isa.run(PackTransposedPanels { w: self.0, k_block, columns, panels });
    }

    fn prefetcher(self, k_block: Range<usize>, columns: Range<usize>) -> Prefetcher {
        let (elements, stride) = self.0.into_parts();
        Prefetcher::new(elements, stride, columns, k_block)
    }
}

struct PackPanels<'a, E> {
    w: RowMajor<'a, E>,
    k_block: Range<usize>,
    columns: Range<usize>,
    panels: &'a mut [AlignedLanes],
}

impl<E: Element> Kernel for PackPanels<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let depth = self.k_block.len();
        let n = self.panels.len() / depth;
        for (i, k) in self.k_block.enumerate() {
            let row = &self.w.elements[k * self.w.stride..][self.columns.clone()];
            let (vectors, tail) = row.as_chunks::<LANES>();
            // The block's columns of a row are too few for the hardware prefetcher to detect a sequential
            // read.
            let prefetched = row.as_ptr().wrapping_add(PREFETCH_DISTANCE_ROWS * self.w.stride);
            simd.prefetch(prefetched.wrapping_add(row.len() - 1));
            for p in 0..n {
                let lanes = match vectors.get(p) {
                    Some(vector) => {
                        simd.prefetch(prefetched.wrapping_add(p * LANES));
                        E::load(simd, vector)
                    }
                    None if p == vectors.len() => load_partial(simd, tail),
                    None => simd.splat(0.0),
                };
                simd.store(lanes, &mut self.panels[p * depth + i].0);
            }
        }
    }
}

/// Packs a K-block of the rows `columns` of `w`: transposes sixteen of them at a time.
struct PackTransposedPanels<'a> {
    w: Rows<'a>,
    k_block: Range<usize>,
    columns: Range<usize>,
    panels: &'a mut [AlignedLanes],
}

impl Kernel for PackTransposedPanels<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let w = self.w.columns(self.k_block.start, self.k_block.len());
        for (p, panel) in self.panels.chunks_mut(self.k_block.len()).enumerate() {
            let first = (self.columns.start + p * LANES).min(self.columns.end);
            let w = w.row_range(first, LANES.min(self.columns.end - first));
            for (i, panel) in panel.chunks_mut(LANES).enumerate() {
                let mut rows = [simd.splat(0.0); LANES];
                for m in 0..w.len() {
                    rows[m] = simd.load_partial(&w.row(m)[i * LANES..][..panel.len()]);
                }
                let columns = simd.transpose(rows);
                for k in 0..panel.len() {
                    simd.store(columns[k], &mut panel[k].0);
                }
            }
        }
    }
}
