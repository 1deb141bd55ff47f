//! 8-bit weights with one scale per column.
//!
//! ```text
//! w[k, j] ≈ scale[j] · (stored[k, j] − 128),   scale[j] = max_k |w[k, j]| / 127
//! ```
//!
//! Layout: `[out / 32, in / 64, 16, 2, 16, 4]`, that is column panel, block of inputs, four inputs, vector of
//! outputs, output, input; padded with zero weights, stored as 128.

use super::Properties;
use super::gptq::Feedback;
use super::packed::{PackedFormat, Tile, tile};
use crate::elements::Dtype;
use crate::isa::Isa;
use crate::parallel::*;
use crate::quantized::activations::{I16Pairs, QuantizedBlock, SideTable};
use crate::quantized::{
    AmxMode, BLOCK, Layout, PANEL_VECTORS, PackedMatrix, PackedRow, WeightFormat, load_vectors,
};
use crate::simd::tiles::AccumulatorTiles;
use crate::simd::{Kernel, LANES, ROUND_MAGIC, Simd};

/// 8 bits per weight with one scale per column.
#[derive(Clone, Copy, Debug)]
pub struct Int8;

impl PackedFormat for Int8 {
    const PROPERTIES: Properties = Properties {
        name: "int8",
        is_quantized: true,
        max_magnitude: f32::MAX,
        lm_head: None,
        file_help: Some("8 bits per weight"),
        uses_feedback: false,
    };

    fn scales(layout: Layout) -> Option<(Dtype, Vec<usize>)> {
        Some((Dtype::F32, vec![layout.columns]))
    }

    fn quantize(
        layout: Layout,
        weight: impl Fn(usize, usize) -> f32 + Sync,
        _: Option<&Feedback>,
        packed: &mut [PackedRow],
        scales: &mut [f32],
    ) {
        scales.par_chunks_mut(LANES).enumerate().for_each(|(vector, scales)| {
            // Magnitudes are in the order of their bits, with NaN above infinity.
            let mut max_bits = [0u32; LANES];
            for k in 0..layout.rows {
                for (lane, max) in max_bits[..scales.len()].iter_mut().enumerate() {
                    *max = (*max).max(weight(k, vector * LANES + lane).abs().to_bits());
                }
            }
            scales.iter_mut().zip(max_bits).for_each(|(scale, max)| *scale = f32::from_bits(max) / 127.0);
        });
        let isa = Isa::of_process();
        packed.par_chunks_mut(Self::PACKED_ROWS).enumerate().for_each(|(i, packed)| {
            let mut padded = [0.0; PANEL_VECTORS * LANES];
            let scales = scales.iter().skip(layout.origin(i).1);
            padded.iter_mut().zip(scales).for_each(|(to, scale)| *to = *scale);
            isa.run(QuantizeBlock { tile: &tile(layout, i, &weight), packed, scales: &padded });
        });
    }
}

/// Quantizes a block. Each lane is a column.
struct QuantizeBlock<'a> {
    tile: &'a Tile,
    packed: &'a mut [PackedRow],
    scales: &'a [f32; PANEL_VECTORS * LANES],
}

impl Kernel for QuantizeBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (row, x) in self.packed.iter_mut().zip(self.tile.as_chunks::<4>().0) {
            for (v, scales) in self.scales.as_chunks::<LANES>().0.iter().enumerate() {
                for (k, x) in x.iter().enumerate() {
                    (0..LANES).for_each(|lane| row[v][4 * lane + k] = round(x[v][lane], scales[lane]));
                }
            }
        }
    }
}

/// Quantizes a weight and adds the zero point 128; a scale of 0 is that of zeros.
#[inline(always)]
fn round(x: f32, scale: f32) -> u8 {
    let scaled = if scale == 0.0 { 0.0 } else { x / scale };
    (scaled.clamp(-127.0, 127.0) + ROUND_MAGIC - ROUND_MAGIC + 128.0) as i32 as u8
}

impl WeightFormat for Int8 {
    const PACKED_ROWS: usize = BLOCK / 4;
    /// Each i32 accumulator of a block needs an f32 accumulator of the previous blocks.
    const WIDE_ACCUMULATORS: usize = 16;

    const AMX: AmxMode = AmxMode::Int8 { min_tokens: 20 };

    type Scales = f32;
    type Block = QuantizedBlock;
    type Side = I16Pairs;

    fn needs_side_table(isa: Isa) -> bool {
        isa.needs_i16_pairs()
    }

    fn weight(w: &PackedMatrix<Self>, k: usize, j: usize) -> f32 {
        let row = &w.packed_block(k / BLOCK, j / LANES)[k % BLOCK / 4];
        let byte = row[j / LANES % PANEL_VECTORS][j % LANES * 4 + k % 4];
        (f32::from(byte) - 128.0) * w.scales[j]
    }

    #[inline(always)]
    fn accumulate_block<S: Simd, const MR: usize, const NR_VECS: usize>(
        w: &PackedMatrix<Self>,
        simd: S,
        block: usize,
        vector: usize,
        (x, pairs): (&[QuantizedBlock; MR], &[I16Pairs]),
        acc: &mut [[S::F32s; NR_VECS]; MR],
    ) {
        let rows = w.packed_block(block, vector);
        let pairs: &[I16Pairs; MR] = pairs.as_array().unwrap_or(const { &[I16Pairs::EMPTY; MR] });
        let mut products = [[simd.byte_sums(0); NR_VECS]; MR];
        for m in 0..MR {
            products[m] = [simd.byte_sums(x[m].correction_u8); NR_VECS];
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
    fn output_scale<S: Simd>(w: &PackedMatrix<Self>, simd: S, vector: usize) -> S::F32s {
        let scales = &w.scales[vector * LANES..];
        simd.load_partial(&scales[..LANES.min(scales.len())])
    }

    #[inline(always)]
    fn unpack_i8(packed: &[PackedRow], to: &mut [PackedRow]) {
        for (to, bytes) in to.as_flattened_mut().iter_mut().zip(packed.as_flattened()) {
            *to = bytes.map(|byte| byte ^ 128); // subtracts the zero point: u8 to i8
        }
    }

    #[inline(always)]
    fn accumulate_products<S: Simd>(
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
