//! A token's inputs, rounded to whole numbers from -127 to 127 with a scale for every 64.
//!
//! One scale for a whole row would not do: a few of GPT-2's dimensions are a hundred times larger than the rest.

use super::BLOCK;
use crate::kernels::rows::Rows;
use crate::kernels::simd::{Kernel, Simd};
use crate::kernels::threads::Team;

/// Sixty-four inputs of one token.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
pub struct QuantisedBlock {
    /// The whole numbers, four at a time as the kernels take them.
    pub q: [[i8; 4]; BLOCK / 4],
    /// What they are multiplied by.
    pub scale: f32,
    /// The sums of the first and the last 32.
    pub sums: [i32; 2],
}

impl QuantisedBlock {
    const ZERO: Self = Self { q: [[0; 4]; BLOCK / 4], scale: 0.0, sums: [0; 2] };

    /// Rounds up to 64 inputs; missing ones are zero.
    #[inline(always)]
    pub fn of(x: &[f32]) -> Self {
        // Adding 1.5 · 2^23 rounds to a whole number, ties to even, and leaves it in the low bits.
        const SHIFT: f32 = 12_582_912.0;
        let mut block = Self::ZERO;
        let mut padded = [0.0f32; BLOCK];
        padded[..x.len()].copy_from_slice(x);
        let max = padded.iter().fold(0.0f32, |max, x| if x.abs() > max { x.abs() } else { max });
        if max > 0.0 && max.is_finite() {
            block.scale = max / 127.0;
            let inverse = 127.0 / max;
            let q = block.q.as_flattened_mut();
            for (q, x) in q.iter_mut().zip(padded) {
                *q = (x * inverse + SHIFT).to_bits().wrapping_sub(SHIFT.to_bits()) as i8;
            }
            let sum = |q: &[i8]| q.iter().map(|&q| i32::from(q)).sum();
            block.sums = [sum(&q[..BLOCK / 2]), sum(&q[BLOCK / 2..])];
        } else if max != 0.0 || padded.iter().any(|x| x.is_nan()) {
            block.scale = f32::NAN; // not a number in, not a number out
        }
        block
    }
}

/// Rounds every row of `x` to `blocks`, `[n_tokens, in / 64]`.
pub fn quantise(team: &Team, x: Rows, blocks: &mut Vec<QuantisedBlock>) {
    let in_row = x.width().div_ceil(BLOCK);
    blocks.resize((x.len() * in_row).max(blocks.len()), QuantisedBlock::ZERO);
    // One or two rows take less time than handing them to another thread.
    const ROWS: usize = 4;
    team.for_each_piece(&mut blocks[..x.len() * in_row], ROWS * in_row, |i, blocks| {
        for (t, blocks) in blocks.chunks_mut(in_row).enumerate() {
            team.isa().run(Row { x: x.row(i * ROWS + t), blocks });
        }
    });
}

struct Row<'a> {
    x: &'a [f32],
    blocks: &'a mut [QuantisedBlock],
}

impl Kernel for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        for (x, block) in self.x.chunks(BLOCK).zip(self.blocks) {
            *block = QuantisedBlock::of(x);
        }
    }
}
