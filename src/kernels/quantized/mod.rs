//! Quantized weights: eight or four bits a weight instead of thirty-two, so that decode reads a quarter or an eighth.
//!
//! A weight is a small whole number times a scale; a token's inputs are rounded the same way as they come
//! ([`activations`]). What is multiplied and added up is then whole numbers, without any rounding:
//!
//! ```text
//! y[t, j] = Σ_b  sx[t, b] · sw[b, j] · (Σ_k qx[t, k] · qw[k, j])  + bias[j]        k in block b, 64 inputs
//! ```
//!
//! The inner sums are exact, the outer sum runs over the blocks in order: the same bits on every machine.
//!
//! [`Bf16Dot`] shares all of this but has no scales: its numbers are bfloat16 on both sides.
//! [`Int8`] has one scale a column, [`Int4`] one for every 32 inputs of a column. Both are stored for the
//! instruction that multiplies four pairs of bytes at once and adds them to a lane (AVX-512 VNNI's `vpdpbusd`): four
//! consecutive inputs of sixteen outputs in 64 bytes. That instruction takes unsigned times signed bytes, so weights
//! are stored with 128 (or 8) added, and what that adds to a sum, 128 · Σ qx, is taken off again.

pub mod activations;
#[cfg(target_arch = "x86_64")]
mod amx_gemm;
mod bf16_dot;
mod int4;
mod int8;
mod linear;

pub use bf16_dot::Bf16Dot;
pub use int4::Int4;
pub use int8::Int8;
pub use linear::linear;

use super::isa::Isa;
use super::microkernel::mr;
#[cfg(target_arch = "x86_64")]
use super::simd::{F32Tiles, I32Tiles};
use super::simd::{LANES, Simd};
use activations::{Beside, Block};

/// Inputs that share a scale of the activations.
pub const BLOCK: usize = 64;

/// Sixty-four bytes: one operand of a VNNI, AVX-512 or AMX instruction.
pub type Bytes64 = [u8; 4 * LANES];

/// The same inputs of all outputs of a column panel.
pub type PackedRow = [Bytes64; PANEL_VECTORS];

/// Vectors of sixteen outputs that are stored side by side, line by line: as many as the kernels take through all blocks
/// of inputs together, so that these are read front to back.
pub const PANEL_VECTORS: usize = 2;

/// Where the parts of a `[rows, columns]` matrix are stored: group of [`PANEL_VECTORS`] vectors, block of inputs. Columns beyond
/// the last are there too, up to a whole group.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Inputs.
    pub rows: usize,
    /// Outputs.
    pub columns: usize,
}

impl Layout {
    /// Blocks of inputs.
    pub fn k_blocks(self) -> usize {
        self.rows.div_ceil(BLOCK)
    }

    /// Vectors that hold outputs.
    pub fn vectors(self) -> usize {
        self.columns.div_ceil(LANES)
    }

    /// How many parts there are, each one block of a group of vectors.
    pub fn packed_blocks(self) -> usize {
        self.vectors().div_ceil(PANEL_VECTORS) * self.k_blocks()
    }

    /// The number of the part at `block` that `vector` is in.
    #[inline(always)]
    pub fn packed_block(self, block: usize, vector: usize) -> usize {
        vector / PANEL_VECTORS * self.k_blocks() + block
    }

    /// The first input and the first output of a part.
    pub fn origin(self, part: usize) -> (usize, usize) {
        (part % self.k_blocks() * BLOCK, part / self.k_blocks() * PANEL_VECTORS * LANES)
    }
}

/// How many lines ahead the weights are asked for: 16 KiB. A thread takes neighbouring tasks one after the other, so what
/// is asked for at the end of one is the start of the next.
const AHEAD: usize = 256;

/// Loads a line, and asks for one that will be wanted soon. One at a time: the processor keeps track of few at once.
#[inline(always)]
fn load<S: Simd>(simd: S, line: &Bytes64) -> S::Bytes {
    simd.prefetch(std::ptr::from_ref(line).wrapping_add(AHEAD));
    simd.load_bytes(line)
}

/// Loads the lines of `V` vectors from `vector`, of the group's lines.
#[inline(always)]
fn load_vectors<S: Simd, const V: usize>(simd: S, lines: &PackedRow, vector: usize) -> [S::Bytes; V] {
    let mut loaded = [load(simd, &lines[vector % PANEL_VECTORS]); V];
    for v in 1..V {
        loaded[v] = load(simd, &lines[vector % PANEL_VECTORS + v]);
    }
    loaded
}

/// A tile's rounded inputs: `[in / 64, height]`, of which the first of every `height` are tokens.
pub struct Inputs<'a, F: WeightFormat> {
    blocks: &'a [F::Input],
    /// As many, or none where the machine needs none.
    beside: &'a [F::Beside],
    height: usize,
}

impl<F: WeightFormat> Clone for Inputs<'_, F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F: WeightFormat> Copy for Inputs<'_, F> {}

impl<'a, F: WeightFormat> Inputs<'a, F> {
    /// A block's, of the `M` tokens from `first`.
    #[inline(always)]
    fn of<const M: usize>(&self, block: usize, first: usize) -> (&'a [F::Input; M], &'a [F::Beside]) {
        let at = block * self.height + first;
        let blocks = self.blocks[at..].first_chunk().expect("M tokens");
        (blocks, self.beside.get(at..at + M).unwrap_or(&[]))
    }
}

/// A format of quantized weights, `[rows, columns]`.
pub trait WeightFormat: Copy + Sync {
    /// Where its parts are.
    fn layout(&self) -> Layout;

    /// Its lines, [`WeightFormat::PACKED_ROWS`] a part, those of a group's vectors side by side.
    fn lines(&self) -> &[PackedRow];

    /// Lines of one block of one vector.
    const PACKED_ROWS: usize;

    /// How many sums of a block stay in registers where these are many.
    const WIDE_SUMS: usize = PANEL_VECTORS * mr(true);

    /// Whether [`Simd::dot_bf16`] is used.
    const USES_BF16_DOT: bool = false;

    /// What a token's inputs are rounded to.
    type Input: Block;
    /// And what some machines need of them beside it.
    type Beside: Beside<Self::Input>;

    /// Whether this one does: those with few registers, if nothing else is said.
    fn needs_beside(isa: Isa) -> bool {
        !isa.is_wide()
    }

    /// The lines of block `block` for the group that `vector` is in.
    #[inline(always)]
    fn packed_block(&self, block: usize, vector: usize) -> &[PackedRow] {
        &self.lines()[self.layout().packed_block(block, vector) * Self::PACKED_ROWS..][..Self::PACKED_ROWS]
    }

    /// Adds a block's products for `M` tokens and `V` vectors of outputs from `vector`, all of one group, to their sums.
    fn add_block<S: Simd, const M: usize, const V: usize>(
        &self,
        simd: S,
        block: usize,
        vector: usize,
        x: (&[Self::Input; M], &[Self::Beside]),
        sums: &mut [[S::F32s; V]; M],
    );

    /// What a finished sum of `vector`'s outputs is multiplied by.
    fn scale<S: Simd>(&self, simd: S, vector: usize) -> S::F32s;

    /// How it is multiplied where there are tile registers.
    const IN_TILES: InTiles = InTiles::Never;

    /// The weights of a block for the group that `vector` is in, as [`InTiles::Bytes`] has them.
    fn unpack(&self, _block: usize, _vector: usize, _to: &mut [PackedRow]) {
        unreachable!("a format of no bytes");
    }

    /// Adds the products of [`WeightFormat::unpack`]'s bytes with those of the inputs `x` to the group's sums.
    #[cfg(target_arch = "x86_64")]
    fn add_products<S: Simd>(
        &self,
        _simd: S,
        _products: &I32Tiles,
        _x: &[Self::Input],
        _sums: &mut F32Tiles,
    ) {
        unreachable!("a format of no bytes");
    }
}

/// How a format is multiplied where there are tile registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InTiles {
    /// As elsewhere.
    Never,
    /// Its lines and inputs are pairs of bfloat16, which tiles take as they are.
    Bf16,
    /// Its inputs begin with bytes, and its weights are bytes once they are unpacked: sixteen lines of a vector and a block,
    /// each four inputs of sixteen outputs. That pays from so many tokens on.
    Bytes {
        /// Tokens.
        from: usize,
    },
}
