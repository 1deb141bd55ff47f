//! The sizes of blocks, in one place, and why they are what they are.
//!
//! | size | value | because |
//! | --- | --- | --- |
//! | MR | 14 or 6 rows | the accumulators of a register tile leave a few of 32 or 16 registers free |
//! | NR | 32 or 16 columns | two panels, or one: so many columns share every element of x that is loaded |
//! | KC | up to 512 of k | the panels of a K-block, `[KC, 16]` each, stay in the L2 cache |
//! | MC | 84 tokens | a K-block of their inputs stays in the L2 cache beside the panels |
//! | NC | 128 columns | an input, once in the L2 cache, is used for so many outputs |
//!
//! The *K-blocks* partition k, the summation index. A K-block's weights, `[KC, out]`, are contiguous in
//! memory. Threads that process different K-blocks read whole rows; if they split the columns instead, each
//! would read a few kilobytes of every row, too short for hardware prefetching. K-blocks alone affect the
//! bits.

use crate::simd::{LANES, Simd};
use std::ops::Range;

/// Panels per register tile where there are 32 registers; one elsewhere.
pub(super) const MAX_NR_VECS: usize = 2;
/// NC, the maximum columns of a column block, in panels: an input, once in the L2 cache, is used for 128
/// outputs.
pub(super) const NC_PANELS: usize = 8;
/// MC, the maximum tokens of a block: a multiple of 14 and of 6, the two values of MR.
pub(super) const MC: usize = 84;

/// Evaluates `$call` with `$n` as a constant named `$mr`: `with_mr!(n, MR => f::<MR>(…))`, for n from 1 to
/// 14. Every arm is a copy of the kernel: where fewer rows occur, [`with_reduced_mr`] makes fewer copies.
macro_rules! with_mr {
    ($n:expr, $mr:ident => $call:expr) => {
        with_mr!(@ $n, $mr, $call, 1 2 3 4 5 6 7 8 9 10 11 12 13 14)
    };
    (@ $n:expr, $mr:ident, $call:expr, $($literal:literal)*) => {
        match $n {
            $($literal => {
                const $mr: usize = $literal;
                $call
            })*
            n => unreachable!("a register tile of {n} rows"),
        }
    };
}
pub(crate) use with_mr;

/// [`with_mr`] for n from 1 to [`REDUCED_MR`].
macro_rules! with_reduced_mr {
    ($n:expr, $mr:ident => $call:expr) => {
        with_mr!(@ $n, $mr, $call, 1 2 3 4)
    };
}
pub(crate) use with_reduced_mr;

/// MR, the maximum rows of a register tile: 14 with two panels, for 28 of AVX-512's 32 registers, or 6 with
/// one panel, for 12 of AVX2's 16. Kernels are compiled for every MR up to 14; [`assert_mr`] prunes those
/// that an instruction set does not use.
pub(crate) const fn mr(wide: bool) -> usize {
    if wide { 14 } else { 6 }
}

/// MR of GEMV and of quantized layers where there are only sixteen registers: fewer accumulators than
/// [`mr`] allows, as loading or unpacking the weights takes registers too.
pub(crate) const REDUCED_MR: usize = 4;

/// Prevents the compiler from generating register tiles taller than `S` uses.
#[inline(always)]
pub(crate) fn assert_mr<S: Simd, const MR: usize>() {
    if const { MR > mr(S::WIDE) } {
        unreachable!("a register tile of {MR} rows");
    }
}

/// Returns the start and length of block `i` when `n` items are split into `n.div_ceil(max)` blocks of nearly
/// equal length, at most `max`.
pub(crate) fn block_range(n: usize, max: usize, i: usize) -> (usize, usize) {
    let blocks = n.div_ceil(max);
    let (start, end) = (i * n / blocks, (i + 1) * n / blocks);
    (start, end - start)
}

/// The partition of tokens, the rows of the left operand, into row blocks, which are packed and multiplied as
/// a unit: in GEMM the rows of one register tile.
#[derive(Clone, Copy, Debug)]
pub struct RowBlocks {
    tokens: usize,
    max_height: usize,
}

impl RowBlocks {
    /// Partitions `tokens` into as few blocks as possible, of nearly equal height and at most `max_height`
    /// tokens.
    pub fn new(tokens: usize, max_height: usize) -> Self {
        Self { tokens, max_height }
    }

    /// The number of blocks.
    pub fn count(self) -> usize {
        self.tokens.div_ceil(self.max_height)
    }

    /// The number of tokens in the tallest block.
    pub fn height(self) -> usize {
        self.tokens.div_ceil(self.count().max(1))
    }

    /// Returns the first token of block `i` and the number of its tokens.
    pub fn block(self, i: usize) -> (usize, usize) {
        block_range(self.tokens, self.max_height, i)
    }
}

/// The maximum length of a K-block.
const MAX_KC: usize = 512;

/// Returns the K-blocks of `inputs` inputs in order. All have the same length, a multiple of sixteen, except
/// for the last, which may be shorter. Their number is even where the inputs suffice, since thread counts
/// usually are.
pub(crate) fn k_blocks(inputs: usize) -> impl ExactSizeIterator<Item = Range<usize>> + Clone {
    let kc = kc(inputs);
    (0..inputs.div_ceil(kc)).map(move |i| i * kc..inputs.min((i + 1) * kc))
}

fn kc(inputs: usize) -> usize {
    let blocks = inputs.div_ceil(MAX_KC).next_multiple_of(2).max(2);
    inputs.div_ceil(blocks).next_multiple_of(LANES).max(LANES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k_blocks_cover_all_inputs_in_order() {
        for inputs in 0..3000 {
            let mut next = 0;
            for block in k_blocks(inputs) {
                assert_eq!(block.start, next);
                assert!(block.start < block.end && block.len() <= MAX_KC);
                next = block.end;
            }
            assert_eq!(next, inputs);
        }
    }

    #[test]
    fn gpt2_layers_have_k_blocks_of_equal_length() {
        for (inputs, n, kc) in [(768, 2, 384), (1024, 2, 512), (1280, 4, 320), (1600, 4, 400), (3072, 6, 512)]
        {
            let lengths: Vec<usize> = k_blocks(inputs).map(|block| block.len()).collect();
            assert_eq!(lengths, vec![kc; n]);
        }
    }
}
