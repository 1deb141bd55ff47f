//! A token's inputs, rounded to whole numbers from -127 to 127 with a scale for every 64.
//!
//! One scale for a whole row would not do: a few of GPT-2's dimensions are a hundred times larger than the rest.

use super::BLOCK;
use crate::kernels::rows::Rows;
use crate::kernels::simd::{Kernel, LANES, Simd};
use crate::kernels::threads::Team;
use std::cell::RefCell;

/// Sixty-four inputs of one token, rounded.
pub trait Block: Copy + Send + Sync + 'static {
    /// Nothing but zeros.
    const ZERO: Self;

    /// Rounds them.
    fn of<S: Simd>(simd: S, x: &[f32; BLOCK]) -> Self;

    /// Lends the caller's rounded inputs, kept from one call to the next.
    fn with_scratch<R>(work: impl FnOnce(&mut Vec<Self>) -> R) -> R;
}

/// Sixty-four inputs of one token as whole numbers.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
pub struct QuantisedBlock {
    /// The whole numbers, four at a time as the kernels take them.
    pub q: [[i8; 4]; BLOCK / 4],
    /// The same, of every four the first and third, then the others.
    pub pairs: [[[i16; 2]; 2]; BLOCK / 4],
    /// What they are multiplied by.
    pub scale: f32,
    /// What takes off again the 128 that were added to eight-bit weights: -128 · Σ q.
    pub less_128: i32,
    /// The same for the 8 of four-bit weights, of the first and the last 32: -8 · Σ of the first two of every four, and
    /// of the others.
    pub less_8: [[i16; 2]; 2],
}

impl QuantisedBlock {
    /// Rounds up to 64 inputs; missing ones are zero. The formula as it stands.
    pub fn textbook(x: &[f32]) -> Self {
        let mut block = Self::ZERO;
        let max = x.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        if x.iter().any(|x| !x.is_finite()) {
            block.scale = f32::NAN; // not a number in, not a number out
        } else if max > 0.0 {
            block.scale = max / 127.0;
            let inverse = 127.0 / max;
            for (q, x) in block.q.as_flattened_mut().iter_mut().zip(x) {
                *q = (x * inverse).round_ties_even() as i8;
            }
        }
        block.add_up();
        block
    }

    #[inline(always)]
    fn add_up(&mut self) {
        for (pairs, &[q0, q1, q2, q3]) in self.pairs.iter_mut().zip(&self.q) {
            *pairs = [[q0.into(), q2.into()], [q1.into(), q3.into()]];
        }
        let mut sums = [[0i16; 2]; 2];
        for (i, &[q0, q1, q2, q3]) in self.q.iter().enumerate() {
            let [first, others] = &mut sums[i / (BLOCK / 8)];
            *first += i16::from(q0) + i16::from(q1);
            *others += i16::from(q2) + i16::from(q3);
        }
        self.less_128 = -128 * sums.as_flattened().iter().map(|&sum| i32::from(sum)).sum::<i32>();
        self.less_8 = sums.map(|sums| sums.map(|sum| -8 * sum));
    }
}

thread_local! {
    static SCRATCH: RefCell<Vec<QuantisedBlock>> = const { RefCell::new(Vec::new()) };
}

impl Block for QuantisedBlock {
    const ZERO: Self = Self {
        q: [[0; 4]; BLOCK / 4],
        pairs: [[[0; 2]; 2]; BLOCK / 4],
        scale: 0.0,
        less_128: 0,
        less_8: [[0; 2]; 2],
    };

    /// The same as [`QuantisedBlock::textbook`], sixteen at a time.
    #[inline(always)]
    fn of<S: Simd>(simd: S, x: &[f32; BLOCK]) -> Self {
        // Adding 1.5 · 2^23 rounds to a whole number, ties to even, and leaves it in the low bits.
        const SHIFT: f32 = 12_582_912.0;
        let (vectors, _) = x.as_chunks::<LANES>();
        let (mut max, mut zero) = (simd.splat(0.0), simd.splat(0.0));
        for v in vectors {
            let v = simd.load(v);
            max = simd.max(max, simd.max(v, simd.sub(simd.splat(0.0), v)));
            zero = simd.mul_add(v, simd.splat(0.0), zero); // unless some input is infinite or not a number
        }
        let (max, zero) = (simd.reduce_max(max), simd.reduce_add(zero));
        let mut block = Self::ZERO;
        if zero.is_nan() {
            block.scale = f32::NAN;
            return block;
        }
        if max > 0.0 {
            block.scale = max / 127.0;
            let inverse = simd.splat(127.0 / max);
            let mut shifted = [0.0f32; BLOCK];
            for (v, to) in vectors.iter().zip(shifted.as_chunks_mut().0) {
                simd.store(simd.add(simd.mul(simd.load(v), inverse), simd.splat(SHIFT)), to);
            }
            for (q, x) in block.q.as_flattened_mut().iter_mut().zip(shifted) {
                *q = x.to_bits() as i8;
            }
        }
        block.add_up();
        block
    }

    fn with_scratch<R>(work: impl FnOnce(&mut Vec<Self>) -> R) -> R {
        SCRATCH.with_borrow_mut(work)
    }
}

/// Rounds every row of `x` to `blocks`, `[n_tokens, in / 64]`.
pub fn quantise<B: Block>(team: &Team, x: Rows, blocks: &mut Vec<B>) {
    let in_row = x.width().div_ceil(BLOCK);
    blocks.resize((x.len() * in_row).max(blocks.len()), B::ZERO);
    // One or two rows take less time than handing them to another thread.
    const ROWS: usize = 4;
    team.for_each_piece(&mut blocks[..x.len() * in_row], ROWS * in_row, |i, blocks| {
        for (t, blocks) in blocks.chunks_mut(in_row).enumerate() {
            team.isa().run(Row { x: x.row(i * ROWS + t), blocks });
        }
    });
}

struct Row<'a, B> {
    x: &'a [f32],
    blocks: &'a mut [B],
}

impl<B: Block> Kernel for Row<'_, B> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (whole, rest) = self.x.as_chunks::<BLOCK>();
        let (blocks, last) = self.blocks.split_at_mut(whole.len());
        for (x, block) in whole.iter().zip(blocks) {
            *block = B::of(simd, x);
        }
        if let Some(block) = last.first_mut() {
            let mut padded = [0.0; BLOCK];
            padded[..rest.len()].copy_from_slice(rest);
            *block = B::of(simd, &padded);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::check::numbers;
    use crate::kernels::isa::Isa;

    #[test]
    fn sixteen_at_a_time_rounds_as_the_formula_does() {
        let mut x = numbers(1, 64 * 40 + 17);
        x[100..164].fill(0.0);
        (x[200], x[300], x[500]) = (f32::NAN, f32::INFINITY, 1e30);
        for isa in Isa::available() {
            let mut blocks: Vec<QuantisedBlock> = vec![];
            quantise(&Team::new(1, isa), Rows::dense(&x, x.len()), &mut blocks);
            for (block, x) in blocks.iter().zip(x.chunks(BLOCK)) {
                let expected = QuantisedBlock::textbook(x);
                assert_eq!((block.q, block.pairs), (expected.q, expected.pairs), "{isa}");
                assert_eq!((block.less_128, block.less_8), (expected.less_128, expected.less_8), "{isa}");
                assert_eq!(block.scale.to_bits(), expected.scale.to_bits(), "{isa}");
            }
        }
    }
}
