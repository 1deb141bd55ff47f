//! Packs both operands of a GEMM: the inputs of many tokens, interleaved within each row block, and the
//! weights, as panels of sixteen columns, converted to f32.
//!
//! Every panel of the weights is multiplied with every input, so packing each input once pays off: the
//! microkernel then addresses the inputs of all its tokens through one register.

use super::blocking::{RowBlocks, assert_mr, with_mr};
use crate::elements::{Element, load_partial};
use crate::rows::Rows;
use crate::simd::{AlignedLanes, Kernel, LANES, Simd};
use crate::thread_pool::{DisjointSlice, ThreadPool};
use std::cell::RefCell;
use std::ops::Range;

/// Inputs of a row block that one chunk of work packs.
const INPUTS_PER_CHUNK: usize = 256;
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
        let (inputs, n) = (x.width(), x.len() * x.width());
        PACK_BUFFER.with_borrow_mut(|data| {
            data.resize(n.max(data.len()), 0.0);
            let data = &mut data[..n];
            pack(pool, x, row_blocks, data);
            work(PackedLhs { data, inputs, row_blocks })
        })
    }

    /// Returns the first token of row block `i` and the given range of the block's inputs, `[range, MR]`.
    #[inline(always)]
    pub fn block(&self, i: usize, inputs: Range<usize>) -> (usize, &[f32]) {
        let (token, height) = self.row_blocks.block(i);
        (token, &self.data[token * self.inputs..][inputs.start * height..inputs.end * height])
    }
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

/// Packs a K-block of the columns `start..end` of `w` into panels, `[n, KC, 16]`; missing columns are zero.
pub(super) struct PackPanels<'a, E> {
    pub w: &'a [E],
    pub columns: usize,
    pub k_block: Range<usize>,
    pub start: usize,
    pub end: usize,
    pub panels: &'a mut [AlignedLanes],
}

impl<E: Element> Kernel for PackPanels<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let depth = self.k_block.len();
        let n = self.panels.len() / depth;
        for (i, k) in self.k_block.enumerate() {
            let row = &self.w[k * self.columns..][self.start..self.end];
            let (vectors, tail) = row.as_chunks::<LANES>();
            // The block's columns of a row are too few for the hardware prefetcher to detect a sequential
            // read.
            let prefetched = row.as_ptr().wrapping_add(PREFETCH_DISTANCE_ROWS * self.columns);
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
