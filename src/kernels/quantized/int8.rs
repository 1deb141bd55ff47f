//! 8-bit weights with one scale per column.
//!
//! ```text
//! w[k, j] ≈ scale[j] · (stored[k, j] − 128),   scale[j] = max_k |w[k, j]| / 127
//! ```
//!
//! Layout: `[out / 32, in / 64, 16, 2, 16, 4]`, that is column panel, block of inputs, four inputs, vector of
//! outputs, output, input; padded with zero weights, stored as 128.

use super::activations::{I16Pairs, QuantizedBlock, SideTable};
use super::{AmxMode, BLOCK, Bytes64, Layout, PANEL_VECTORS, PackedRow, WeightFormat, load_vectors};
use crate::parallel::*;
use crate::simd::tiles::AccumulatorTiles;
use crate::simd::{LANES, ROUND_MAGIC, Simd};

/// A borrowed matrix of packed 8-bit weights, `[rows, columns]`.
#[derive(Clone, Copy, Debug)]
pub struct Int8<'a> {
    packed: &'a [PackedRow],
    scales: &'a [f32],
    layout: Layout,
}

impl<'a> Int8<'a> {
    /// Borrows packed weights and the scales of all columns.
    ///
    /// # Panics
    /// If their lengths are not [`Int8::packed_len`] and `columns`.
    pub fn new(packed: &'a [Bytes64], scales: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!((packed.len(), scales.len()), (Self::packed_len(rows, columns), columns));
        Self { packed: packed.as_chunks().0, scales, layout: Layout { rows, columns } }
    }

    /// Returns the number of 64-byte vectors of a packed matrix.
    pub fn packed_len(rows: usize, columns: usize) -> usize {
        Layout { rows, columns }.packed_blocks() * Self::PACKED_ROWS * PANEL_VECTORS
    }

    /// Quantizes and packs a matrix with elements `weight(k, j)` into buffers of the lengths that
    /// [`Int8::new`] requires. A column with a NaN or an infinity gets a scale that is not finite.
    pub fn quantize(
        rows: usize,
        columns: usize,
        weight: impl Fn(usize, usize) -> f32 + Sync,
        packed: &mut [Bytes64],
        scales: &mut [f32],
    ) {
        scales.par_chunks_mut(LANES).enumerate().for_each(|(vector, scales)| {
            // Magnitudes are in the order of their bits, with NaN above infinity.
            let mut max_bits = [0u32; LANES];
            for k in 0..rows {
                for (lane, max) in max_bits[..scales.len()].iter_mut().enumerate() {
                    *max = (*max).max(weight(k, vector * LANES + lane).abs().to_bits());
                }
            }
            scales.iter_mut().zip(max_bits).for_each(|(scale, max)| *scale = f32::from_bits(max) / 127.0);
        });
        let layout = Layout { rows, columns };
        packed.par_chunks_mut(Self::PACKED_ROWS * PANEL_VECTORS).enumerate().for_each(|(i, block)| {
            block.fill([128; 4 * LANES]);
            let (k0, j0) = layout.origin(i);
            for k in k0..rows.min(k0 + BLOCK) {
                for (column, scale) in scales.iter().skip(j0).take(PANEL_VECTORS * LANES).enumerate() {
                    let vector = &mut block[(k - k0) / 4 * PANEL_VECTORS + column / LANES];
                    vector[column % LANES * 4 + k % 4] = round(weight(k, j0 + column), *scale);
                }
            }
        });
    }
}

/// Quantizes a weight and adds the zero point 128.
fn round(x: f32, scale: f32) -> u8 {
    if scale == 0.0 {
        128
    } else {
        ((x / scale).clamp(-127.0, 127.0) + ROUND_MAGIC - ROUND_MAGIC + 128.0) as u8
    }
}

impl WeightFormat for Int8<'_> {
    const PACKED_ROWS: usize = BLOCK / 4;
    /// Each i32 accumulator of a block needs an f32 accumulator of the previous blocks.
    const WIDE_ACCUMULATORS: usize = 16;

    type Block = QuantizedBlock;
    type Side = I16Pairs;

    #[inline(always)]
    fn layout(&self) -> Layout {
        self.layout
    }

    #[inline(always)]
    fn packed(&self) -> &[PackedRow] {
        self.packed
    }

    fn weight(&self, k: usize, j: usize) -> f32 {
        let row = &self.packed_block(k / BLOCK, j / LANES)[k % BLOCK / 4];
        let byte = row[j / LANES % PANEL_VECTORS][j % LANES * 4 + k % 4];
        (f32::from(byte) - 128.0) * self.scales[j]
    }

    #[inline(always)]
    fn accumulate_block<S: Simd, const MR: usize, const NR_VECS: usize>(
        &self,
        simd: S,
        block: usize,
        vector: usize,
        (x, pairs): (&[QuantizedBlock; MR], &[I16Pairs]),
        acc: &mut [[S::F32s; NR_VECS]; MR],
    ) {
        let rows = self.packed_block(block, vector);
        let pairs: &[I16Pairs; MR] = pairs.as_array().unwrap_or(const { &[I16Pairs::EMPTY; MR] });
        let mut products = [[simd.splat_i32(0); NR_VECS]; MR];
        for m in 0..MR {
            products[m] = [simd.splat_i32(x[m].correction_u8); NR_VECS];
        }
        for row in 0..Self::PACKED_ROWS {
            let w: [S::Bytes; NR_VECS] = load_vectors(simd, &rows[row], vector);
            for m in 0..MR {
                for v in 0..NR_VECS {
                    products[m][v] = simd.dot_u8i8(w[v], x[m].q[row], &pairs[m].0[row], products[m][v]);
                }
            }
        }
        for m in 0..MR {
            let scale = simd.splat(x[m].scale);
            for v in 0..NR_VECS {
                acc[m][v] = simd.mul_add(simd.to_f32s(products[m][v]), scale, acc[m][v]);
            }
        }
    }

    #[inline(always)]
    fn output_scale<S: Simd>(&self, simd: S, vector: usize) -> S::F32s {
        let scales = &self.scales[vector * LANES..];
        simd.load_partial(&scales[..LANES.min(scales.len())])
    }

    const AMX: AmxMode = AmxMode::Int8 { min_tokens: 20 };

    #[inline(always)]
    fn unpack_i8(&self, block: usize, vector: usize, to: &mut [PackedRow]) {
        for (to, bytes) in
            to.as_flattened_mut().iter_mut().zip(self.packed_block(block, vector).as_flattened())
        {
            *to = bytes.map(|byte| byte ^ 128); // subtracts the zero point: u8 to i8
        }
    }

    #[inline(always)]
    fn accumulate_products<S: Simd>(
        &self,
        simd: S,
        products: &AccumulatorTiles<i32>,
        x: &[QuantizedBlock],
        acc: &mut AccumulatorTiles<f32>,
    ) {
        for (m, x) in x.iter().enumerate() {
            let scale = simd.splat(x.scale);
            for v in 0..PANEL_VECTORS {
                let (products, acc) = (&products.0[v][m], &mut acc.0[v][m]);
                let products = simd.to_f32s(simd.load_i32s(products));
                simd.store(simd.mul_add(products, scale, simd.load(acc)), acc);
            }
        }
    }
}
