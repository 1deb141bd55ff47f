//! Quantised weights: eight or four bits a weight instead of thirty-two, so that decode reads a quarter or an eighth.
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
//! [`Int8`] has one scale a column, [`Int4`] one for every 32 inputs of a column. Both are stored for the
//! instruction that multiplies four pairs of bytes at once and adds them to a lane (AVX-512 VNNI's `vpdpbusd`): four
//! consecutive inputs of sixteen outputs in 64 bytes. That instruction takes unsigned times signed bytes, so weights
//! are stored with 128 (or 8) added, and what that adds to a sum, 128 · Σ qx, is taken off again.

pub mod activations;
mod int4;
mod int8;
mod linear;

pub use int4::Int4;
pub use int8::Int8;
pub use linear::linear;

use super::simd::{LANES, Simd};
use activations::QuantisedBlock;

/// Inputs that share a scale of the activations.
pub const BLOCK: usize = 64;

/// Sixty-four bytes: what one instruction takes.
pub type Line = [u8; 4 * LANES];

/// How many blocks and how many vectors of sixteen outputs a `[rows, columns]` matrix is stored as.
pub fn blocks(rows: usize, columns: usize) -> (usize, usize) {
    (rows.div_ceil(BLOCK), columns.div_ceil(LANES))
}

/// A format of quantised weights, `[rows, columns]`.
pub trait Format: Copy + Sync {
    /// Inputs and outputs.
    fn shape(&self) -> (usize, usize);

    /// The lines of block `block` for the vectors of outputs from `vector`, one vector behind the other.
    fn lines(&self, block: usize, vector: usize) -> &[Line];

    /// Lines of one block of one vector.
    const LINES: usize;

    /// Adds a block's products for `M` tokens and `V` vectors of outputs from `vector` to their sums.
    fn add_block<S: Simd, const M: usize, const V: usize>(
        &self,
        simd: S,
        block: usize,
        vector: usize,
        x: [&QuantisedBlock; M],
        sums: &mut [[S::F32s; V]; M],
    );

    /// What a finished sum of `vector`'s outputs is multiplied by.
    fn scale<S: Simd>(&self, simd: S, vector: usize) -> S::F32s;
}
