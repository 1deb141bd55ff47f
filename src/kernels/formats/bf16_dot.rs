//! bf16 weights and activations: 2 bytes each, rounded to bfloat16, multiplied exactly, accumulated in f32.
//!
//! ```text
//! y[t, j] = Σ_k bf16(x[t, k]) · bf16(w[k, j]) + bias[j]
//! ```
//!
//! AMD's processors with AVX-512 BF16 multiply two inputs of sixteen outputs in one instruction, twice the
//! f32 rate. It computes `fma(x₀, w₀, fma(x₁, w₁, acc))`, which other machines compute with f32
//! multiply-adds; results could differ only in accumulators below 1e-38, which the instruction flushes to
//! zero.
//!
//! Intel's AMX (`tile_gemm.rs`) computes 8192 products in one instruction and sums them in its own order:
//! there the last bits differ from other machines, but not between batch sizes.
//!
//! Layout: `[out / 32, in / 64, 32, 2, 16, 2]`, that is column panel, block of inputs, two inputs, vector of
//! outputs, output, input; zero-padded.

use super::Properties;
use super::gptq::Feedback;
use super::packed::PackedFormat;
use crate::elements::Dtype;
use crate::isa::Isa;
use crate::parallel::*;
use crate::quantized::activations::{ActivationBlock, SideTable};
use crate::quantized::{
    AmxMode, BLOCK, Layout, PANEL_VECTORS, PackedMatrix, PackedRow, WeightFormat, load_vectors,
};
use crate::simd::{LANES, Simd};
use half::bf16;
use std::cell::RefCell;

/// A block of 64 activations rounded to bf16.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Bf16Block {
    /// The values, in pairs as the kernels read them.
    pairs: [[bf16; 2]; BLOCK / 2],
}

/// Rounds to nearest even and flushes subnormal results to zero.
fn round(x: f32) -> bf16 {
    let x = bf16::from_f32(x);
    if x.is_normal() || !x.is_finite() { x } else { bf16::ZERO }
}

thread_local! {
    static BLOCKS: RefCell<Vec<Bf16Block>> = const { RefCell::new(Vec::new()) };
    static PAIRS: RefCell<Vec<F32Pairs>> = const { RefCell::new(Vec::new()) };
}

impl ActivationBlock for Bf16Block {
    const ZERO: Self = Self { pairs: [[bf16::ZERO; 2]; BLOCK / 2] };

    fn dequantized(x: &[f32]) -> Vec<f64> {
        x.iter().map(|&x| round(x).to_f64()).collect()
    }

    #[inline(always)]
    fn quantize<S: Simd>(&mut self, _simd: S, x: &[f32; BLOCK]) {
        for (to, x) in self.pairs.as_flattened_mut().iter_mut().zip(x) {
            *to = round(*x);
        }
    }

    fn with_scratch<R>(work: impl FnOnce(&mut Vec<Self>) -> R) -> R {
        BLOCKS.with_borrow_mut(work)
    }
}

/// The activations of a block widened to f32, for machines without a bf16 dot product.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub struct F32Pairs([[f32; 2]; BLOCK / 2]);

impl SideTable<Bf16Block> for F32Pairs {
    const EMPTY: Self = Self([[0.0; 2]; BLOCK / 2]);

    #[inline(always)]
    fn from_block(block: &Bf16Block) -> Self {
        Self(block.pairs.map(|pair| pair.map(bf16::to_f32)))
    }

    fn with_scratch<R>(work: impl FnOnce(&mut Vec<Self>) -> R) -> R {
        PAIRS.with_borrow_mut(work)
    }
}

/// Pairs of bfloat16, multiplied with activations in bfloat16; faster than [`Bf16`](super::Bf16) for many
/// tokens per pass.
#[derive(Clone, Copy, Debug)]
pub struct Bf16Dot;

impl PackedFormat for Bf16Dot {
    const PROPERTIES: Properties = Properties {
        name: "bf16-dot",
        is_quantized: true,
        max_magnitude: bf16::MAX.to_f32_const(),
        lm_head: None,
        file_help: None,
        uses_feedback: false,
    };
    const DTYPE: Dtype = Dtype::Bf16;

    fn scales(_: Layout) -> Option<(Dtype, Vec<usize>)> {
        None
    }

    fn quantize(
        layout: Layout,
        weight: impl Fn(usize, usize) -> f32 + Sync,
        _: Option<&Feedback>,
        packed: &mut [PackedRow],
        _: &mut [u8],
    ) {
        packed.par_chunks_mut(Self::PACKED_ROWS).enumerate().for_each(|(i, block)| {
            let (k0, j0) = layout.origin(i);
            let elements = block.as_flattened_mut().as_flattened_mut().as_chunks_mut::<2>().0;
            for (at, to) in elements.iter_mut().enumerate() {
                let (pair, column) = (at / (PANEL_VECTORS * 2 * LANES), at / 2 % (PANEL_VECTORS * LANES));
                let (k, j) = (k0 + 2 * pair + at % 2, j0 + column);
                let x = if k < layout.rows && j < layout.columns { round(weight(k, j)) } else { bf16::ZERO };
                *to = x.to_ne_bytes();
            }
        });
    }
}

impl WeightFormat for Bf16Dot {
    const PACKED_ROWS: usize = BLOCK / 2;
    const USES_BF16_DOT: bool = true;
    const AMX: AmxMode = AmxMode::Bf16;

    type Scales = u8;
    type Block = Bf16Block;
    type Side = F32Pairs;

    fn needs_side_table(isa: Isa) -> bool {
        !isa.has_bf16_dot()
    }

    fn weight(w: &PackedMatrix<Self>, k: usize, j: usize) -> f32 {
        let vector = &w.packed_block(k / BLOCK, j / LANES)[k % BLOCK / 2][j / LANES % PANEL_VECTORS];
        bf16::from_ne_bytes(vector.as_chunks().0[j % LANES * 2 + k % 2]).to_f32()
    }

    #[inline(always)]
    fn accumulate_block<S: Simd, const MR: usize, const NR_VECS: usize>(
        w: &PackedMatrix<Self>,
        simd: S,
        block: usize,
        vector: usize,
        (x, pairs): (&[Bf16Block; MR], &[F32Pairs]),
        acc: &mut [[S::F32s; NR_VECS]; MR],
    ) {
        let rows = w.packed_block(block, vector);
        let pairs: &[F32Pairs; MR] = pairs.as_array().unwrap_or(const { &[F32Pairs::EMPTY; MR] });
        let mut sums = *acc; // in registers
        for pair in 0..Self::PACKED_ROWS {
            let w: [S::Bytes; NR_VECS] = load_vectors(simd, &rows[pair], vector);
            if S::HAS_BF16_DOT {
                for m in 0..MR {
                    for v in 0..NR_VECS {
                        sums[m][v] = simd.dot_bf16(w[v], x[m].pairs[pair], sums[m][v]);
                    }
                }
                continue;
            }
            // The second elements of all pairs before the first, which halves the registers for weights.
            for (i, w) in [(1, w.map(|w| simd.high_bf16s(w))), (0, w.map(|w| simd.low_bf16s(w)))] {
                for m in 0..MR {
                    let x = simd.splat(pairs[m].0[pair][i]);
                    for v in 0..NR_VECS {
                        sums[m][v] = simd.mul_add(x, w[v], sums[m][v]);
                    }
                }
            }
        }
        *acc = sums;
    }
}
