//! A token's inputs, rounded to whole numbers from -127 to 127 with a scale for every 64.
//!
//! One scale for a whole row would not do: a few of GPT-2's dimensions are a hundred times larger than the rest.

use super::BLOCK;
use crate::kernels::microkernel::RowBlocks;
use crate::kernels::rows::Rows;
use crate::kernels::simd::{Kernel, LANES, ROUND_MAGIC, Simd};
use crate::kernels::thread_pool::{DisjointSlice, ThreadPool};
use std::cell::RefCell;

/// Sixty-four inputs of one token, rounded.
pub trait Block: Copy + Send + Sync + 'static {
    /// Nothing but zeros.
    const ZERO: Self;

    /// Becomes them, rounded.
    fn round<S: Simd>(&mut self, simd: S, x: &[f32; BLOCK]);

    /// Lends the caller's rounded inputs, kept from one call to the next.
    fn with_scratch<R>(work: impl FnOnce(&mut Vec<Self>) -> R) -> R;
}

/// Sixty-four inputs of one token as whole numbers.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
pub struct QuantizedBlock {
    /// The whole numbers, four at a time as the kernels take them.
    pub q: [[i8; 4]; BLOCK / 4],
    /// What they are multiplied by.
    pub scale: f32,
    /// What takes off again the 128 that were added to eight-bit weights: -128 · Σ q.
    pub less_128: i32,
    /// The same for the 8 of four-bit weights, of the first and the last 32: -8 · Σ of the first two of every four, and
    /// of the others.
    pub less_8: [[i16; 2]; 2],
}

/// A block whose largest input is smaller counts as zeros: 127 divided by that input might not fit in an f32.
const LEAST: f32 = 1e-36;

/// A whole number below 2^22.
#[inline(always)]
fn whole(x: f32) -> i32 {
    (x + ROUND_MAGIC).to_bits().wrapping_sub(ROUND_MAGIC.to_bits()) as i32
}

impl QuantizedBlock {
    /// Not a number in, not a number out.
    const NAN: Self = Self { scale: f32::NAN, ..Self::ZERO };

    /// Rounds up to 64 inputs; missing ones are zero. The formula as it stands.
    pub fn textbook(x: &[f32]) -> Self {
        if x.iter().any(|x| !x.is_finite()) {
            return Self::NAN;
        }
        let mut block = Self::ZERO;
        let max = x.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        if max >= LEAST {
            block.scale = max / 127.0;
            let inverse = 127.0 / max;
            for (q, x) in block.q.as_flattened_mut().iter_mut().zip(x) {
                *q = (x * inverse).round_ties_even() as i8;
            }
        }
        let (halves, _) = block.q.as_chunks::<{ BLOCK / 8 }>();
        block.add_up([0, 1].map(|i| {
            let column = |j: usize| halves[i].iter().map(|four| f32::from(four[j])).sum();
            std::array::from_fn(column)
        }));
        block
    }

    /// What follows from the sums of the whole numbers: of either half, those at the four places of every four.
    #[inline(always)]
    fn add_up(&mut self, sums: [[f32; 4]; 2]) {
        let sums = sums.map(|[q0, q1, q2, q3]| [q0 + q1, q2 + q3]);
        let sum = (sums[0][0] + sums[0][1]) + (sums[1][0] + sums[1][1]);
        if sum.is_nan() {
            // An input was infinite or not a number.
            *self = Self::NAN;
            return;
        }
        self.less_8 = sums.map(|sums| sums.map(|sum| whole(-8.0 * sum) as i16));
        self.less_128 = whole(-128.0 * sum);
    }

    /// Where no number is large enough to be the largest.
    #[cold]
    fn nothing(x: &[f32]) -> Self {
        if x.iter().any(|x| x.is_nan()) { Self::NAN } else { Self::ZERO }
    }
}

/// Of four numbers the first and third, and the others.
#[inline(always)]
fn apart([q0, q1, q2, q3]: [i8; 4]) -> [[i16; 2]; 2] {
    // As two wider numbers, which shifts take apart.
    let both = [i16::from_le_bytes([q0 as u8, q1 as u8]), i16::from_le_bytes([q2 as u8, q3 as u8])];
    [both.map(|both| both << 8 >> 8), both.map(|both| both >> 8)]
}

/// What a machine without products of bytes needs of a block beside itself. Apart from it, because it is larger than the
/// block, and would keep other blocks out of the first-level cache of a machine that never reads it.
pub trait Beside<B>: Copy + Send + Sync + 'static {
    /// Before anything is known.
    const NONE: Self;

    /// What is needed beside `block`.
    fn of(block: &B) -> Self;

    /// Lends the caller's, kept from one call to the next.
    fn with_scratch<R>(work: impl FnOnce(&mut Vec<Self>) -> R) -> R;
}

impl<B> Beside<B> for () {
    const NONE: Self = ();

    fn of(_: &B) -> Self {}

    fn with_scratch<R>(work: impl FnOnce(&mut Vec<Self>) -> R) -> R {
        work(&mut vec![])
    }
}

/// The whole numbers of a block once more, of every four the first and third, then the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pairs(pub [[[i16; 2]; 2]; BLOCK / 4]);

impl Beside<QuantizedBlock> for Pairs {
    const NONE: Self = Self([[[0; 2]; 2]; BLOCK / 4]);

    #[inline(always)]
    fn of(block: &QuantizedBlock) -> Self {
        Self(block.q.map(apart))
    }

    fn with_scratch<R>(work: impl FnOnce(&mut Vec<Self>) -> R) -> R {
        PAIRS.with_borrow_mut(work)
    }
}

thread_local! {
    static SCRATCH: RefCell<Vec<QuantizedBlock>> = const { RefCell::new(Vec::new()) };
    static PAIRS: RefCell<Vec<Pairs>> = const { RefCell::new(Vec::new()) };
}

impl Block for QuantizedBlock {
    const ZERO: Self = Self { q: [[0; 4]; BLOCK / 4], scale: 0.0, less_128: 0, less_8: [[0; 2]; 2] };

    /// The same as [`QuantizedBlock::textbook`], sixteen at a time.
    #[inline(always)]
    fn round<S: Simd>(&mut self, simd: S, x: &[f32; BLOCK]) {
        let (vectors, _) = x.as_chunks::<LANES>();
        let (zero, shift) = (simd.splat(0.0), simd.splat(ROUND_MAGIC));
        let mut max = zero;
        for v in vectors {
            let v = simd.load(v);
            max = simd.max(max, simd.max(v, simd.sub(zero, v)));
        }
        let max = simd.reduce_max(max);
        if max < LEAST {
            *self = Self::nothing(x);
            return;
        }
        self.scale = max / 127.0;
        let inverse = simd.splat(127.0 / max);
        let (q, _) = self.q.as_flattened_mut().as_chunks_mut::<LANES>();
        let mut sums = [zero; 2];
        for v in 0..vectors.len() {
            let shifted = simd.add(simd.mul(simd.load(&vectors[v]), inverse), shift);
            sums[v / 2] = simd.add(sums[v / 2], simd.sub(shifted, shift)); // exact
            let mut lanes = [0.0f32; LANES];
            simd.store(shifted, &mut lanes);
            q[v] = lanes.map(|x| x.to_bits() as i8);
        }
        self.add_up(sums.map(|sum| simd.reduce_add_to_4(sum)));
    }

    fn with_scratch<R>(work: impl FnOnce(&mut Vec<Self>) -> R) -> R {
        SCRATCH.with_borrow_mut(work)
    }
}

/// Rounds every row of `x` to `blocks`, and, where it is asked for, writes down what is needed beside them. The blocks of a
/// tile lie side by side so that a kernel finds all of them from one address: `[tiles, in / 64, height]`, of which a lower
/// tile leaves the last of every `height` as they are.
pub fn quantize<B: Block, C: Beside<B>>(
    pool: &ThreadPool,
    x: Rows,
    tiles: RowBlocks,
    blocks: &mut Vec<B>,
    beside: Option<&mut Vec<C>>,
) {
    let (in_row, height) = (x.width().div_ceil(BLOCK), tiles.height());
    let n = tiles.count() * in_row * height;
    blocks.resize(n.max(blocks.len()), B::ZERO);
    let beside = beside.map_or(&mut [][..], |beside| {
        beside.resize(n.max(beside.len()), C::NONE);
        &mut beside[..n]
    });
    // Fewer blocks take less time than handing them to another thread.
    const PIECE: usize = 48;
    let in_tile = if tiles.count() < pool.threads() { in_row.div_ceil(pool.threads()) } else { in_row };
    let in_piece = in_tile.max(PIECE / height.max(1));
    let (n_beside, beside) = (beside.len(), DisjointSlice::new(beside));
    pool.for_each_chunk(&mut blocks[..n], in_piece * height, |i, blocks| {
        let start = (i * in_piece * height).min(n_beside);
        // SAFETY: as the pieces of `blocks` do not overlap, these do not.
        let beside = unsafe { beside.slice(start..n_beside.min(start + blocks.len())) };
        pool.isa().run(Piece { x, tiles, first: i * in_piece, blocks, beside });
    });
}

/// Some columns of blocks, from the one numbered `first` of all tiles' columns.
struct Piece<'a, B, C> {
    x: Rows<'a>,
    tiles: RowBlocks,
    first: usize,
    blocks: &'a mut [B],
    /// As many, or none.
    beside: &'a mut [C],
}

impl<B: Block, C: Beside<B>> Kernel for Piece<'_, B, C> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (in_row, height) = (self.x.width().div_ceil(BLOCK), self.tiles.height());
        let columns = self.blocks.len() / height;
        let mut done = 0;
        while done < columns {
            // What is of one tile, row by row: inputs are read in the order they lie in memory.
            let (tile, column) = ((self.first + done) / in_row, (self.first + done) % in_row);
            let n = (in_row - column).min(columns - done);
            let (token, rows) = self.tiles.block(tile);
            for m in 0..rows {
                let x = self.x.row(token + m)[column * BLOCK..].chunks(BLOCK).take(n);
                for (x, i) in x.zip((done * height + m..).step_by(height)) {
                    // In place: what a block is put together from would have to reach the cache before it can be copied.
                    let block = &mut self.blocks[i];
                    match x.as_array() {
                        Some(whole) => block.round(simd, whole),
                        None => {
                            let mut padded = [0.0; BLOCK];
                            padded[..x.len()].copy_from_slice(x);
                            block.round(simd, &padded);
                        }
                    }
                    if let Some(beside) = self.beside.get_mut(i) {
                        *beside = C::of(block);
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
    use crate::kernels::isa::Isa;
    use crate::kernels::testing::random_values;

    #[test]
    fn sixteen_at_a_time_rounds_as_the_formula_does() {
        let mut x = random_values(1, 64 * 40 + 17);
        x[100..164].fill(0.0);
        // Too small to be told from zero, and one of these not a number, as whole blocks and at the limit.
        x[640..704].fill(1e-38);
        x[704..768].fill(1e-38);
        x[710] = f32::NAN;
        x[768..832].fill(1e-36);
        (x[200], x[300], x[500]) = (f32::NAN, f32::INFINITY, 1e30);
        for isa in Isa::available() {
            let (mut blocks, mut pairs): (Vec<QuantizedBlock>, Vec<Pairs>) = (vec![], vec![]);
            quantize(
                &ThreadPool::new(1, isa),
                Rows::dense(&x, x.len()),
                RowBlocks::new(1, 1),
                &mut blocks,
                Some(&mut pairs),
            );
            for ((block, pairs), x) in blocks.iter().zip(pairs).zip(x.chunks(BLOCK)) {
                let expected = QuantizedBlock::textbook(x);
                let apart = block.q.map(|four| {
                    let [q0, q1, q2, q3] = four.map(i16::from);
                    [[q0, q2], [q1, q3]]
                });
                assert_eq!(pairs.0, apart, "{isa}");
                assert_eq!(block.q, expected.q, "{isa}");
                assert_eq!((block.less_128, block.less_8), (expected.less_128, expected.less_8), "{isa}");
                assert_eq!(block.scale.to_bits(), expected.scale.to_bits(), "{isa}");
            }
        }
    }
}
