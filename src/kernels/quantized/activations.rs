//! Quantized activations: integers from -127 to 127 with a scale for every block of 64.
//!
//! One scale for a whole row is too coarse: a few of GPT-2's dimensions are a hundred times larger than the
//! rest.

use super::BLOCK;
use crate::gemm::blocking::RowBlocks;
use crate::rows::Rows;
use crate::simd::{Kernel, LANES, ROUND_MAGIC, Simd};
use crate::thread_pool::{DisjointSlice, ThreadPool};
use std::cell::RefCell;

/// A block of 64 quantized activations of one token.
pub trait ActivationBlock: Copy + Send + Sync + 'static {
    /// All zeros.
    const ZERO: Self;

    /// Returns up to 64 inputs as the block represents them: quantized and dequantized.
    fn dequantized(x: &[f32]) -> Vec<f64>;

    /// Quantizes `x` into this block.
    fn quantize<S: Simd>(&mut self, simd: S, x: &[f32; BLOCK]);

    /// Calls `work` with this thread's scratch buffer, which is reused across calls.
    fn with_scratch<R>(work: impl FnOnce(&mut Vec<Self>) -> R) -> R;
}

/// A block of 64 activations quantized to 8 bits.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
pub struct QuantizedBlock {
    /// The integers, in fours as the kernels read them.
    pub q: [[i8; 4]; BLOCK / 4],
    /// The scale.
    pub scale: f32,
    /// The zero-point correction for 8-bit weights: -128 · Σ q.
    pub correction_u8: i32,
    /// The zero-point corrections for 4-bit weights, one for each half of the block: -8 · Σ q over the first
    /// two of every four elements, and over the last two.
    pub correction_u4: [[i16; 2]; 2],
}

/// Blocks whose absolute maximum is smaller are quantized to zeros: 127 divided by it might overflow.
const MIN_ABS_MAX: f32 = 1e-36;

/// Converts an integer-valued f32 below 2^22 to i32.
#[inline(always)]
fn to_i32(x: f32) -> i32 {
    (x + ROUND_MAGIC).to_bits().wrapping_sub(ROUND_MAGIC.to_bits()) as i32
}

impl QuantizedBlock {
    /// The block of inputs that contain NaN or infinity: its outputs are NaN.
    const NAN: Self = Self { scale: f32::NAN, ..Self::ZERO };

    /// Quantizes up to 64 inputs, padded with zeros: the reference implementation.
    pub fn reference(x: &[f32]) -> Self {
        if x.iter().any(|x| !x.is_finite()) {
            return Self::NAN;
        }
        let mut block = Self::ZERO;
        let max = x.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        if max >= MIN_ABS_MAX {
            block.scale = max / 127.0;
            let inverse = 127.0 / max;
            for (q, x) in block.q.as_flattened_mut().iter_mut().zip(x) {
                *q = (x * inverse).round_ties_even() as i8;
            }
        }
        let (halves, _) = block.q.as_chunks::<{ BLOCK / 8 }>();
        block.set_corrections([0, 1].map(|i| {
            let column = |j: usize| halves[i].iter().map(|four| f32::from(four[j])).sum();
            std::array::from_fn(column)
        }));
        block
    }

    /// Computes the zero-point corrections from the sums of each half, one for each position in every four
    /// elements.
    #[inline(always)]
    fn set_corrections(&mut self, sums: [[f32; 4]; 2]) {
        let sums = sums.map(|[q0, q1, q2, q3]| [q0 + q1, q2 + q3]);
        let sum = (sums[0][0] + sums[0][1]) + (sums[1][0] + sums[1][1]);
        if sum.is_nan() {
            // An input is infinite or NaN.
            *self = Self::NAN;
            return;
        }
        self.correction_u4 = sums.map(|sums| sums.map(|sum| to_i32(-8.0 * sum) as i16));
        self.correction_u8 = to_i32(-128.0 * sum);
    }

    /// Handles a block below [`MIN_ABS_MAX`]; NaNs do not show in its maximum.
    #[cold]
    fn zero_or_nan(x: &[f32]) -> Self {
        if x.iter().any(|x| x.is_nan()) { Self::NAN } else { Self::ZERO }
    }
}

/// Widens four i8 to i16, elements 0 and 2, then 1 and 3.
#[inline(always)]
fn widen_even_odd([q0, q1, q2, q3]: [i8; 4]) -> [[i16; 2]; 2] {
    // Two 16-bit integers of two bytes each, from which shifts with sign extension extract them.
    let both = [i16::from_le_bytes([q0 as u8, q1 as u8]), i16::from_le_bytes([q2 as u8, q3 as u8])];
    [both.map(|both| both << 8 >> 8), both.map(|both| both >> 8)]
}

/// A side table entry: a block's activations widened for machines that lack the dot product of the packed
/// type. Stored apart from the blocks because it is larger, and would evict other blocks from L1 on machines
/// that do not read it.
pub trait SideTable<B>: Copy + Send + Sync + 'static {
    /// The initial value.
    const EMPTY: Self;

    /// Computes the entry of `block`.
    fn from_block(block: &B) -> Self;

    /// Calls `work` with this thread's scratch buffer, which is reused across calls.
    fn with_scratch<R>(work: impl FnOnce(&mut Vec<Self>) -> R) -> R;
}

impl<B> SideTable<B> for () {
    const EMPTY: Self = ();

    fn from_block(_: &B) -> Self {}

    fn with_scratch<R>(work: impl FnOnce(&mut Vec<Self>) -> R) -> R {
        work(&mut vec![])
    }
}

/// The activations of a block widened to i16: of every four, elements 0 and 2, then 1 and 3.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct I16Pairs(pub [[[i16; 2]; 2]; BLOCK / 4]);

impl SideTable<QuantizedBlock> for I16Pairs {
    const EMPTY: Self = Self([[[0; 2]; 2]; BLOCK / 4]);

    #[inline(always)]
    fn from_block(block: &QuantizedBlock) -> Self {
        Self(block.q.map(widen_even_odd))
    }

    fn with_scratch<R>(work: impl FnOnce(&mut Vec<Self>) -> R) -> R {
        PAIRS.with_borrow_mut(work)
    }
}

thread_local! {
    static BLOCKS: RefCell<Vec<QuantizedBlock>> = const { RefCell::new(Vec::new()) };
    static PAIRS: RefCell<Vec<I16Pairs>> = const { RefCell::new(Vec::new()) };
}

impl ActivationBlock for QuantizedBlock {
    const ZERO: Self =
        Self { q: [[0; 4]; BLOCK / 4], scale: 0.0, correction_u8: 0, correction_u4: [[0; 2]; 2] };

    fn dequantized(x: &[f32]) -> Vec<f64> {
        let block = Self::reference(x);
        let dequantize = |q: &i8| f64::from(*q) * f64::from(block.scale);
        block.q.as_flattened().iter().take(x.len()).map(dequantize).collect()
    }

    /// The SIMD form of [`QuantizedBlock::reference`], with the same result.
    #[inline(always)]
    fn quantize<S: Simd>(&mut self, simd: S, x: &[f32; BLOCK]) {
        let (vectors, _) = x.as_chunks::<LANES>();
        let (zero, magic) = (simd.splat(0.0), simd.splat(ROUND_MAGIC));
        let mut max = zero;
        for v in vectors {
            let v = simd.load(v);
            max = simd.max(max, simd.max(v, simd.sub(zero, v)));
        }
        let max = simd.reduce_max(max);
        if max < MIN_ABS_MAX {
            *self = Self::zero_or_nan(x);
            return;
        }
        self.scale = max / 127.0;
        let inverse = simd.splat(127.0 / max);
        let (q, _) = self.q.as_flattened_mut().as_chunks_mut::<LANES>();
        let mut sums = [zero; 2];
        for v in 0..vectors.len() {
            let shifted = simd.add(simd.mul(simd.load(&vectors[v]), inverse), magic);
            sums[v / 2] = simd.add(sums[v / 2], simd.sub(shifted, magic)); // exact
            let mut lanes = [0.0f32; LANES];
            simd.store(shifted, &mut lanes);
            q[v] = lanes.map(|x| x.to_bits() as i8);
        }
        self.set_corrections(sums.map(|sum| simd.reduce_add_to_4(sum)));
    }

    fn with_scratch<R>(work: impl FnOnce(&mut Vec<Self>) -> R) -> R {
        BLOCKS.with_borrow_mut(work)
    }
}

/// Quantizes every row of `x` to `blocks`, and fills the side table if there is one. The blocks of a row
/// block are interleaved, so that a kernel addresses all of them from one pointer: `[row blocks, in / 64,
/// height]`. A row block of fewer than `height` tokens leaves the last blocks of each column unchanged.
pub fn quantize<B: ActivationBlock, T: SideTable<B>>(
    pool: &ThreadPool,
    x: Rows,
    row_blocks: RowBlocks,
    blocks: &mut Vec<B>,
    side: Option<&mut Vec<T>>,
) {
    let (input_blocks, height) = (x.width().div_ceil(BLOCK), row_blocks.height());
    let n = row_blocks.count() * input_blocks * height;
    blocks.resize(n.max(blocks.len()), B::ZERO);
    let side = side.map_or(&mut [][..], |side| {
        side.resize(n.max(side.len()), T::EMPTY);
        &mut side[..n]
    });
    // Quantizing fewer blocks takes less time than dispatching them to another thread.
    const MIN_CHUNK_BLOCKS: usize = 48;
    let blocks_per_thread = if row_blocks.count() < pool.threads() {
        input_blocks.div_ceil(pool.threads())
    } else {
        input_blocks
    };
    let chunk_columns = blocks_per_thread.max(MIN_CHUNK_BLOCKS / height.max(1));
    let (side_len, side) = (side.len(), DisjointSlice::new(side));
    pool.for_each_chunk(&mut blocks[..n], chunk_columns * height, |i, blocks| {
        let start = (i * chunk_columns * height).min(side_len);
        // SAFETY: the chunks of `blocks` do not overlap, so these ranges do not either.
        let side = unsafe { side.slice(start..side_len.min(start + blocks.len())) };
        pool.isa().run(QuantizeChunk { x, row_blocks, first: i * chunk_columns, blocks, side });
    });
}

/// Quantizes a chunk of block columns: a column is one block of all tokens of a row block, and `first` is the
/// chunk's first column, counted over all row blocks.
struct QuantizeChunk<'a, B, T> {
    x: Rows<'a>,
    row_blocks: RowBlocks,
    first: usize,
    blocks: &'a mut [B],
    /// One entry per block, or empty.
    side: &'a mut [T],
}

impl<B: ActivationBlock, T: SideTable<B>> Kernel for QuantizeChunk<'_, B, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (input_blocks, height) = (self.x.width().div_ceil(BLOCK), self.row_blocks.height());
        let columns = self.blocks.len() / height;
        let mut done = 0;
        while done < columns {
            // The columns of one row block, row by row: inputs are read in memory order.
            let (row_block, column) =
                ((self.first + done) / input_blocks, (self.first + done) % input_blocks);
            let n = (input_blocks - column).min(columns - done);
            let (token, rows) = self.row_blocks.block(row_block);
            for m in 0..rows {
                let x = self.x.row(token + m)[column * BLOCK..].chunks(BLOCK).take(n);
                for (x, i) in x.zip((done * height + m..).step_by(height)) {
                    // In place: copying a block that was just built would stall on store forwarding.
                    let block = &mut self.blocks[i];
                    match x.as_array() {
                        Some(whole) => block.quantize(simd, whole),
                        None => {
                            let mut padded = [0.0; BLOCK];
                            padded[..x.len()].copy_from_slice(x);
                            block.quantize(simd, &padded);
                        }
                    }
                    if let Some(side) = self.side.get_mut(i) {
                        *side = T::from_block(block);
                    }
                }
            }
            done += n;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::testing::random_values;

    #[test]
    fn simd_quantization_equals_reference() {
        let mut x = random_values(1, 64 * 40 + 17);
        x[100..164].fill(0.0);
        // Blocks below the threshold, without and with a NaN, and at the threshold.
        x[640..704].fill(1e-38);
        x[704..768].fill(1e-38);
        x[710] = f32::NAN;
        x[768..832].fill(1e-36);
        (x[200], x[300], x[500]) = (f32::NAN, f32::INFINITY, 1e30);
        for isa in Isa::available() {
            let (mut blocks, mut pairs): (Vec<QuantizedBlock>, Vec<I16Pairs>) = (vec![], vec![]);
            quantize(
                &ThreadPool::new(1, isa),
                Rows::dense(&x, x.len()),
                RowBlocks::new(1, 1),
                &mut blocks,
                Some(&mut pairs),
            );
            for ((block, pairs), x) in blocks.iter().zip(pairs).zip(x.chunks(BLOCK)) {
                let expected = QuantizedBlock::reference(x);
                let expected_pairs = block.q.map(|four| {
                    let [q0, q1, q2, q3] = four.map(i16::from);
                    [[q0, q2], [q1, q3]]
                });
                assert_eq!(pairs.0, expected_pairs, "{isa}");
                assert_eq!(block.q, expected.q, "{isa}");
                let corrections = (block.correction_u8, block.correction_u4);
                assert_eq!(corrections, (expected.correction_u8, expected.correction_u4), "{isa}");
                assert_eq!(block.scale.to_bits(), expected.scale.to_bits(), "{isa}");
            }
        }
    }
}
