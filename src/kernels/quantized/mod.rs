//! Linear layer with quantized weights: 8 or 4 bits per weight instead of 32, so that decode reads a quarter
//! or an eighth of the bytes.
//!
//! A weight is a small integer times a scale. The activations are quantized to 8 bits at run time
//! ([`activations`]), and the products are accumulated as integers, without rounding:
//!
//! ```text
//! y[t, j] = Σ_b  sx[t, b] · sw[b, j] · (Σ_k qx[t, k] · qw[k, j])  + bias[j]        k in block b, 64 inputs
//! ```
//!
//! The inner sums are exact, and the outer sum runs over the blocks in order: the result is bit-identical on
//! every machine.
//!
//! The formats of weights are in [`formats`](super::formats), each with its arithmetic as a [`WeightFormat`].
//! `Int8` has one scale per column, which is applied to the finished sum. `Int4` has one per group of 32
//! inputs of a column, so its inner sums run over half a block. `Bf16Dot` shares the layout and the loops but
//! has no scales: weights and activations are bfloat16.
//!
//! Weights are packed for AVX-512 VNNI's `vpdpbusd`, which multiplies four pairs of bytes and accumulates
//! them in a 32-bit lane: four consecutive inputs of sixteen outputs in 64 bytes. The instruction multiplies
//! unsigned by signed bytes, so weights are stored with a zero point of 128 (8 for 4 bits), and each block's
//! accumulators start from the zero-point correction, -128 · Σ qx.

pub mod activations;
mod linear;
mod matmul;
mod tile_gemm;

pub use linear::{linear, reference};

use super::gemm::blocking::mr;
use super::isa::Isa;
use super::simd::tiles::AccumulatorTiles;
use super::simd::{LANES, Simd};
use activations::{ActivationBlock, SideTable};

/// Inputs per block: those that share a scale of the activations.
pub const BLOCK: usize = 64;

/// Sixty-four bytes: an operand of an AVX-512 instruction, or a row of an AMX tile.
pub type Bytes64 = [u8; 4 * LANES];

/// A row of a packed block: the same two, four or eight inputs of all outputs of a column panel.
pub type PackedRow = [Bytes64; PANEL_VECTORS];

/// Vectors of sixteen outputs in a column panel. The kernels multiply all vectors of a panel together, so
/// that packed rows are read front to back.
pub const PANEL_VECTORS: usize = 2;

/// The blocked layout of a `[rows, columns]` matrix: `[column panel, block]`, each a packed block of 64
/// inputs and 32 outputs, padded with zero weights.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Inputs.
    pub rows: usize,
    /// Outputs.
    pub columns: usize,
}

impl Layout {
    /// Returns the number of blocks along the inputs.
    pub fn input_blocks(self) -> usize {
        self.rows.div_ceil(BLOCK)
    }

    /// Returns the number of vectors along the outputs.
    pub fn vectors(self) -> usize {
        self.columns.div_ceil(LANES)
    }

    /// Returns the number of column panels.
    pub fn panels(self) -> usize {
        self.vectors().div_ceil(PANEL_VECTORS)
    }

    /// Returns the number of packed blocks.
    pub fn packed_blocks(self) -> usize {
        self.panels() * self.input_blocks()
    }

    /// Returns the index of the packed block of `block` and the column panel that contains `vector`.
    #[inline(always)]
    pub fn packed_block(self, block: usize, vector: usize) -> usize {
        vector / PANEL_VECTORS * self.input_blocks() + block
    }

    /// Returns the first input and the first output of a packed block.
    pub fn origin(self, packed_block: usize) -> (usize, usize) {
        (
            packed_block % self.input_blocks() * BLOCK,
            packed_block / self.input_blocks() * PANEL_VECTORS * LANES,
        )
    }
}

/// The prefetch distance of weights in 64-byte vectors: 16 KiB. A thread runs adjacent chunks of work in
/// order, so the prefetches at the end of one reach the start of the next.
const PREFETCH_DISTANCE_VECTORS: usize = 256;

/// Loads 64 bytes of weights and prefetches one cache line: a core tracks only a few outstanding prefetches.
#[inline(always)]
fn load<S: Simd>(simd: S, from: &Bytes64) -> S::Bytes {
    simd.prefetch(std::ptr::from_ref(from).wrapping_add(PREFETCH_DISTANCE_VECTORS));
    simd.load_bytes(from)
}

/// Loads the `NR_VECS` vectors from `vector` on of a packed row, and prefetches.
#[inline(always)]
pub fn load_vectors<S: Simd, const NR_VECS: usize>(
    simd: S,
    row: &PackedRow,
    vector: usize,
) -> [S::Bytes; NR_VECS] {
    let mut loaded = [load(simd, &row[vector % PANEL_VECTORS]); NR_VECS];
    for v in 1..NR_VECS {
        loaded[v] = load(simd, &row[vector % PANEL_VECTORS + v]);
    }
    loaded
}

/// The quantized activations of a row block: `[in / 64, height]`. A row block of fewer than `height` tokens
/// leaves the last blocks of each column unused.
#[derive(Clone, Copy)]
pub struct Activations<'a, F: WeightFormat> {
    blocks: &'a [F::Block],
    /// One entry per block, or empty if the machine needs none.
    side: &'a [F::Side],
    height: usize,
}

impl<'a, F: WeightFormat> Activations<'a, F> {
    /// Returns the activations of a block for the `MR` tokens from `first`, and their side table.
    #[inline(always)]
    fn block<const MR: usize>(&self, block: usize, first: usize) -> (&'a [F::Block; MR], &'a [F::Side]) {
        let start = block * self.height + first;
        let blocks = self.blocks[start..].first_chunk().expect("MR tokens");
        (blocks, self.side.get(start..start + MR).unwrap_or(&[]))
    }
}

/// A borrowed matrix of packed weights, `[rows, columns]`.
#[derive(Clone, Copy, Debug)]
pub struct PackedMatrix<'a, F: WeightFormat> {
    packed: &'a [PackedRow],
    /// The scales, laid out as `F` documents.
    pub scales: &'a [F::Scales],
    /// The layout of the packed blocks.
    pub layout: Layout,
}

impl<'a, F: WeightFormat> PackedMatrix<'a, F> {
    /// Borrows packed weights, [`WeightFormat::PACKED_ROWS`] rows for each packed block, and their scales.
    ///
    /// # Panics
    /// If there are more or fewer rows.
    pub fn new(packed: &'a [PackedRow], scales: &'a [F::Scales], layout: Layout) -> Self {
        assert_eq!(packed.len(), layout.packed_blocks() * F::PACKED_ROWS);
        Self { packed, scales, layout }
    }

    /// Returns the packed rows of `block` and the column panel that contains `vector`.
    #[inline(always)]
    pub fn packed_block(&self, block: usize, vector: usize) -> &'a [PackedRow] {
        &self.packed[self.layout.packed_block(block, vector) * F::PACKED_ROWS..][..F::PACKED_ROWS]
    }
}

/// The arithmetic of a format of packed weights.
pub trait WeightFormat: Copy + Send + Sync + 'static {
    /// Rows of a packed block.
    const PACKED_ROWS: usize;

    /// The number of a block's accumulators that are kept in registers on machines with 32 of them.
    const WIDE_ACCUMULATORS: usize = PANEL_VECTORS * mr(true);

    /// Whether [`Simd::dot_bf16`] is used.
    const USES_BF16_DOT: bool = false;

    /// The use of AMX tiles, where the machine has them.
    const AMX: AmxMode = AmxMode::Unused;

    /// The scales of a packed block or of a column; `u8` for formats without.
    type Scales: bytemuck::Pod + Sync;
    /// The quantized activations of a token and a block.
    type Block: ActivationBlock;
    /// The side table of the activations, which some machines need.
    type Side: SideTable<Self::Block>;

    /// Whether `isa` needs the side table.
    fn needs_side_table(_isa: Isa) -> bool {
        false
    }

    /// Returns the dequantized weight at `(k, j)`.
    fn weight(w: &PackedMatrix<Self>, k: usize, j: usize) -> f32;

    /// Accumulates the products of a block for `MR` tokens and the `NR_VECS` vectors of outputs from
    /// `vector`, all of one column panel.
    fn accumulate_block<S: Simd, const MR: usize, const NR_VECS: usize>(
        w: &PackedMatrix<Self>,
        simd: S,
        block: usize,
        vector: usize,
        x: (&[Self::Block; MR], &[Self::Side]),
        acc: &mut [[S::F32s; NR_VECS]; MR],
    );

    /// Returns the scales of the outputs of `vector`, applied to the final accumulators: ones by default.
    #[inline(always)]
    fn output_scale<S: Simd>(_w: &PackedMatrix<Self>, simd: S, _vector: usize) -> S::F32s {
        simd.splat(1.0)
    }

    /// Unpacks the weights of a packed block to the i8 rows of [`AmxMode::Int8`].
    fn unpack_i8(_packed: &[PackedRow], _to: &mut [PackedRow]) {
        unreachable!("not an int8 format");
    }

    /// Scales the i32 products of a block, from [`WeightFormat::unpack_i8`] and the activations `x`, and
    /// accumulates them.
    fn accumulate_products<S: Simd>(
        _simd: S,
        _products: &AccumulatorTiles<i32>,
        _x: &[Self::Block],
        _acc: &mut AccumulatorTiles<f32>,
    ) {
        unreachable!("not an int8 format");
    }
}

/// The use of AMX tiles by a weight format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AmxMode {
    /// Not at all.
    Unused,
    /// Packed rows and activations are bf16 pairs, which tiles load directly.
    Bf16,
    /// Activation blocks start with their i8 values, and weights are unpacked to i8: sixteen packed rows per
    /// block, each of four inputs.
    Int8 {
        /// The number of tokens from which this is faster.
        min_tokens: usize,
    },
}
