//! Two bytes a weight and two a token's input: both rounded to bfloat16, multiplied exactly, added in f32.
//!
//! ```text
//! y[t, j] = Σ_k bf16(x[t, k]) · bf16(w[k, j]) + bias[j]
//! ```
//!
//! AMD's processors with AVX-512 BF16 take two inputs of sixteen outputs in one instruction, twice what f32 allows. The
//! chain of a pair is `fma(x₀, w₀, fma(x₁, w₁, sum))`, which others compute as just that; only sums below 1e-38, which
//! the instruction takes for zero, could differ.
//!
//! Intel's tiles (AMX, `amx_gemm.rs`) take eight thousand such products in one instruction, in an order of their own: there
//! the last bits differ from other machines', but not from one number of tokens to another.
//!
//! Stored `[out / 32, in / 64, 32, 2, 16, 2]`: group of vectors, block of inputs, two inputs, vector of outputs, output,
//! input; missing ones are zero.

use super::activations::{Beside, Block};
use super::{BLOCK, Bytes64, InTiles, Layout, PANEL_VECTORS, PackedRow, WeightFormat, load_vectors};
use crate::kernels::isa::Isa;
use crate::kernels::simd::{LANES, Simd};
use half::bf16;
use rayon::prelude::*;
use std::cell::RefCell;

/// Sixty-four inputs of one token.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Bf16Block {
    /// The numbers, two at a time as the kernels take them.
    pairs: [[bf16; 2]; BLOCK / 2],
}

/// Rounded to nearest even; what is too small for a normal number is zero.
fn round(x: f32) -> bf16 {
    let x = bf16::from_f32(x);
    if x.is_normal() || !x.is_finite() { x } else { bf16::ZERO }
}

thread_local! {
    static SCRATCH: RefCell<Vec<Bf16Block>> = const { RefCell::new(Vec::new()) };
    static WIDENED: RefCell<Vec<Widened>> = const { RefCell::new(Vec::new()) };
}

impl Block for Bf16Block {
    const ZERO: Self = Self { pairs: [[bf16::ZERO; 2]; BLOCK / 2] };

    #[inline(always)]
    fn round<S: Simd>(&mut self, _simd: S, x: &[f32; BLOCK]) {
        for (to, x) in self.pairs.as_flattened_mut().iter_mut().zip(x) {
            *to = round(*x);
        }
    }

    fn with_scratch<R>(work: impl FnOnce(&mut Vec<Self>) -> R) -> R {
        SCRATCH.with_borrow_mut(work)
    }
}

/// The numbers of a block once more, as machines without the instruction multiply them.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub struct Widened([[f32; 2]; BLOCK / 2]);

impl Beside<Bf16Block> for Widened {
    const NONE: Self = Self([[0.0; 2]; BLOCK / 2]);

    #[inline(always)]
    fn of(block: &Bf16Block) -> Self {
        Self(block.pairs.map(|pair| pair.map(bf16::to_f32)))
    }

    fn with_scratch<R>(work: impl FnOnce(&mut Vec<Self>) -> R) -> R {
        WIDENED.with_borrow_mut(work)
    }
}

/// A borrowed matrix of bfloat16 pairs, `[rows, columns]`.
#[derive(Clone, Copy, Debug)]
pub struct Bf16Dot<'a> {
    lines: &'a [PackedRow],
    layout: Layout,
}

impl<'a> Bf16Dot<'a> {
    /// `lines` are as many as [`Bf16Dot::packed_len`] says. Panics where they are not.
    pub fn new(lines: &'a [Bytes64], rows: usize, columns: usize) -> Self {
        assert_eq!(lines.len(), Self::packed_len(rows, columns));
        Self { lines: lines.as_chunks().0, layout: Layout { rows, columns } }
    }

    /// How many lines a matrix takes.
    pub fn packed_len(rows: usize, columns: usize) -> usize {
        Layout { rows, columns }.packed_blocks() * Self::PACKED_ROWS * PANEL_VECTORS
    }

    /// Rounds a matrix, of which `weight(k, j)` are the elements, to `lines`, as many as [`Bf16Dot::new`] takes.
    pub fn quantize(
        rows: usize,
        columns: usize,
        weight: impl Fn(usize, usize) -> f32 + Sync,
        lines: &mut [Bytes64],
    ) {
        let layout = Layout { rows, columns };
        lines.par_chunks_mut(Self::PACKED_ROWS * PANEL_VECTORS).enumerate().for_each(|(i, lines)| {
            let (k0, j0) = layout.origin(i);
            for (at, to) in lines.as_flattened_mut().as_chunks_mut::<2>().0.iter_mut().enumerate() {
                let (pair, column) = (at / (PANEL_VECTORS * 2 * LANES), at / 2 % (PANEL_VECTORS * LANES));
                let (k, j) = (k0 + 2 * pair + at % 2, j0 + column);
                let x = if k < rows && j < columns { round(weight(k, j)) } else { bf16::ZERO };
                *to = x.to_ne_bytes();
            }
        });
    }

    /// One weight, as it was rounded.
    pub fn weight(&self, k: usize, j: usize) -> f32 {
        let line = &self.packed_block(k / BLOCK, j / LANES)[k % BLOCK / 2][j / LANES % PANEL_VECTORS];
        bf16::from_ne_bytes(line.as_chunks().0[j % LANES * 2 + k % 2]).to_f32()
    }
}

impl WeightFormat for Bf16Dot<'_> {
    const PACKED_ROWS: usize = BLOCK / 2;
    const USES_BF16_DOT: bool = true;
    type Input = Bf16Block;
    type Beside = Widened;

    fn needs_beside(isa: Isa) -> bool {
        !isa.has_bf16_dot()
    }

    #[inline(always)]
    fn layout(&self) -> Layout {
        self.layout
    }

    #[inline(always)]
    fn lines(&self) -> &[PackedRow] {
        self.lines
    }

    #[inline(always)]
    fn add_block<S: Simd, const M: usize, const V: usize>(
        &self,
        simd: S,
        block: usize,
        vector: usize,
        (x, widened): (&[Bf16Block; M], &[Widened]),
        sums: &mut [[S::F32s; V]; M],
    ) {
        let lines = self.packed_block(block, vector);
        let widened: &[Widened; M] = widened.as_array().unwrap_or(const { &[Widened::NONE; M] });
        let mut acc = *sums; // in registers
        for pair in 0..Self::PACKED_ROWS {
            let w: [S::Bytes; V] = load_vectors(simd, &lines[pair], vector);
            if S::HAS_BF16_DOT {
                for m in 0..M {
                    for v in 0..V {
                        acc[m][v] = simd.dot_bf16(w[v], x[m].pairs[pair], acc[m][v]);
                    }
                }
                continue;
            }
            // The second of all pairs before the first: half as many registers for the weights.
            for (i, w) in [(1, w.map(|w| simd.high_bf16s(w))), (0, w.map(|w| simd.low_bf16s(w)))] {
                for m in 0..M {
                    let x = simd.splat(widened[m].0[pair][i]);
                    for v in 0..V {
                        acc[m][v] = simd.mul_add(x, w[v], acc[m][v]);
                    }
                }
            }
        }
        *sums = acc;
    }

    #[inline(always)]
    fn scale<S: Simd>(&self, simd: S, _vector: usize) -> S::F32s {
        simd.splat(1.0)
    }

    const IN_TILES: InTiles = InTiles::Bf16;
}
