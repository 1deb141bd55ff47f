//! Formats of packed weights, which [`quantized`] multiplies.

use super::gptq::Feedback;
use super::{Format, Properties, StoredTensor, WeightMatrix};
use crate::elements::{Dtype, Elements};
use crate::epilogue::Epilogue;
use crate::linear::Matrix;
use crate::quantized::{self, BLOCK, Layout, PANEL_VECTORS, PackedMatrix, PackedRow, WeightFormat};
use crate::rows::{Rows, RowsMut};
use crate::simd::LANES;
use crate::thread_pool::ThreadPool;

/// A format of packed weights: [`WeightFormat`] is its arithmetic, this its storage.
pub trait PackedFormat: WeightFormat {
    /// [`Format::properties`]
    const PROPERTIES: Properties;
    /// The type of the packed weights' elements.
    const DTYPE: Dtype = Dtype::U8;

    /// Returns the type and the shape of the scales in a file, if there are any.
    fn scales(layout: Layout) -> Option<(Dtype, Vec<usize>)>;

    /// Quantizes and packs a matrix with elements `weight(k, j)`, as [`Format::convert`] says. A weight that
    /// the format cannot hold makes a scale, or a weight if there are no scales, NaN or infinite.
    fn quantize(
        layout: Layout,
        weight: impl Fn(usize, usize) -> f32 + Sync,
        feedback: Option<&Feedback>,
        packed: &mut [PackedRow],
        scales: &mut [Self::Scales],
    );
}

/// A vector of outputs, for each input of a block.
pub(super) type Tile = [[[f32; LANES]; PANEL_VECTORS]; BLOCK];

/// Returns the elements of a packed block, padded with zeros.
pub(super) fn tile(layout: Layout, packed_block: usize, weight: impl Fn(usize, usize) -> f32) -> Tile {
    let (k0, j0) = layout.origin(packed_block);
    let mut tile = [[[0.0; LANES]; PANEL_VECTORS]; BLOCK];
    let columns = layout.columns.saturating_sub(j0).min(PANEL_VECTORS * LANES);
    for (row, k) in tile.iter_mut().zip(k0..layout.rows) {
        let row = &mut row.as_flattened_mut()[..columns];
        row.iter_mut().enumerate().for_each(|(j, x)| *x = weight(k, j0 + j));
    }
    tile
}

impl<F: PackedFormat> Format for F {
    fn properties(&self) -> Properties {
        F::PROPERTIES
    }

    /// The suffixes are the name, as in `c_fc.weight.int8`, and `.scale`.
    fn tensors(&self, shape: &[usize]) -> Vec<StoredTensor> {
        let layout = Layout { rows: shape[0], columns: shape[1] };
        let row = [F::PACKED_ROWS, PANEL_VECTORS, LANES, 4 / F::DTYPE.bytes()];
        let shape = [&[layout.panels(), layout.input_blocks()], &row[..]].concat();
        let weights = StoredTensor { suffix: format!(".{}", F::PROPERTIES.name), dtype: F::DTYPE, shape };
        let scales =
            F::scales(layout).map(|(dtype, shape)| StoredTensor { suffix: ".scale".into(), dtype, shape });
        [weights].into_iter().chain(scales).collect()
    }

    fn convert(
        &self,
        from: Matrix,
        transpose: bool,
        feedback: Option<&Feedback>,
        [packed, scales]: [&mut [u8]; 2],
    ) {
        let Matrix { elements, rows, columns } = from;
        let (layout, [row, column]) = match transpose {
            false => (Layout { rows, columns }, [columns, 1]),
            true => (Layout { rows: columns, columns: rows }, [1, columns]),
        };
        let index = |k, j| k * row + j * column;
        let (packed, scales) = (bytemuck::cast_slice_mut(packed), bytemuck::cast_slice_mut(scales));
        match elements {
            Elements::F32(e) => F::quantize(layout, |k, j| e[index(k, j)], feedback, packed, scales),
            Elements::F16(e) => F::quantize(layout, |k, j| e[index(k, j)].to_f32(), feedback, packed, scales),
            Elements::Bf16(e) => {
                F::quantize(layout, |k, j| e[index(k, j)].to_f32(), feedback, packed, scales)
            }
        }
    }

    fn weight(&self, w: WeightMatrix, k: usize, j: usize) -> f32 {
        F::weight(&view(w), k, j)
    }

    fn reference(&self, x: &[f32], w: WeightMatrix, bias: &[f32]) -> Vec<f32> {
        quantized::reference::<F>(x, view(w), bias)
    }

    fn linear(
        &self,
        pool: &ThreadPool,
        x: Rows,
        w: WeightMatrix,
        bias: &[f32],
        epilogue: Epilogue,
        y: RowsMut,
    ) {
        quantized::linear::<F>(pool, x, view(w), bias, epilogue, y);
    }
}

fn view<F: WeightFormat>(w: WeightMatrix) -> PackedMatrix<F> {
    let layout = Layout { rows: w.rows, columns: w.columns };
    PackedMatrix::new(bytemuck::cast_slice(w.weights), bytemuck::cast_slice(w.scales), layout)
}
