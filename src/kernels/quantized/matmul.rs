//! A quantized matrix product: its operands, and what happens to its sums.

use super::{PackedMatrix, WeightFormat};
use crate::epilogue::{Epilogue, apply_epilogue};
use crate::gemm::blocking::RowBlocks;
use crate::rows::DisjointRows;
use crate::simd::{LANES, Simd};

/// The operands of the matrix product.
pub(super) struct MatMul<'a, F: WeightFormat> {
    pub(super) row_blocks: RowBlocks,
    /// Activations, `[row blocks, in / 64, height]`.
    pub(super) blocks: &'a [F::Block],
    /// The side table, with an entry for each block, or empty.
    pub(super) side: &'a [F::Side],
    pub(super) w: PackedMatrix<'a, F>,
    pub(super) bias: &'a [f32],
    pub(super) epilogue: Epilogue,
    pub(super) y: &'a DisjointRows<'a>,
}

impl<F: WeightFormat> MatMul<'_, F> {
    /// Scales the final sums of a vector of outputs, one for each token from `row` on, and applies the
    /// epilogue.
    #[inline(always)]
    pub(super) fn apply_epilogue<S: Simd>(&self, simd: S, row: usize, vector: usize, sums: &[[f32; LANES]]) {
        let scale = F::output_scale(&self.w, simd, vector);
        let column = vector * LANES;
        let bias = &self.bias[column..self.bias.len().min(column + LANES)];
        for (m, sums) in sums.iter().enumerate() {
            // SAFETY: only the caller's chunk of work writes these columns.
            let y = unsafe { self.y.row_slice(row + m, column, bias.len()) };
            apply_epilogue(simd, simd.mul(simd.load(sums), scale), bias, self.epilogue, y);
        }
    }
}
