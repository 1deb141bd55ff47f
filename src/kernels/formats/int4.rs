//! 4-bit weights with one scale per group of 32 inputs of a column: 4.5 bits per weight in all.
//!
//! ```text
//! w[k, j] ≈ scale[k / 32, j] · (stored[k, j] − 8)
//! ```
//!
//! The scale of a group is the one with the smallest squared error among a few candidates near max |w| / 8.
//!
//! Layout of the weights: `[out / 32, in / 64, 8, 2, 16, 4]` bytes, that is column panel, block of inputs,
//! eight inputs, vector of outputs, output, input; the low nibble of a byte is one of the first four of the
//! eight inputs, the high nibble one of the last four. Scales are f16, `[out / 32, in / 64, 2, 2, 16]`:
//! column panel, block, group, vector, output.

use super::packed::PackedFormat;
use super::{Precision, Properties};
use crate::elements::Dtype;
use crate::gemm::blocking::mr;
use crate::parallel::*;
use crate::quantized::activations::QuantizedBlock;
use crate::quantized::{BLOCK, Layout, PANEL_VECTORS, PackedMatrix, PackedRow, WeightFormat, load_vectors};
use crate::simd::{LANES, ROUND_MAGIC, Simd};
use half::f16;

/// Inputs per group.
const GROUP: usize = 32;
/// Groups per block.
const GROUPS: usize = BLOCK / GROUP;

/// 4 bits per weight with one scale per 32 weights.
#[derive(Clone, Copy, Debug)]
pub struct Int4;

impl PackedFormat for Int4 {
    const PROPERTIES: Properties = Properties {
        name: "int4",
        is_quantized: true,
        max_magnitude: 8.0 * f16::MAX.to_f32_const(),
        lm_head: Some(Precision::Int8),
        file_help: Some("4 bits, the LM head 8"),
    };

    fn scales(layout: Layout) -> Option<(Dtype, Vec<usize>)> {
        Some((Dtype::F16, vec![layout.panels(), layout.input_blocks(), GROUPS, PANEL_VECTORS, LANES]))
    }

    fn quantize(
        layout: Layout,
        weight: impl Fn(usize, usize) -> f32 + Sync,
        packed: &mut [PackedRow],
        scales: &mut [Self::Scales],
    ) {
        let element = |k, j| if k < layout.rows && j < layout.columns { weight(k, j) } else { 0.0 };
        let blocks = packed.par_chunks_mut(Self::PACKED_ROWS).zip(scales);
        blocks.enumerate().for_each(|(i, (block, scales))| {
            let (k0, j0) = layout.origin(i);
            let scales = scales.as_flattened_mut().as_flattened_mut();
            for (at, scale) in scales.iter_mut().enumerate() {
                let (start, j) =
                    (k0 + at / (PANEL_VECTORS * LANES) * GROUP, j0 + at % (PANEL_VECTORS * LANES));
                let group: [f32; GROUP] = std::array::from_fn(|k| element(start + k, j));
                *scale = best_scale(&group);
            }
            let bytes = block.as_flattened_mut().as_flattened_mut();
            for (at, byte) in bytes.iter_mut().enumerate() {
                let (row, column) = (at / (PANEL_VECTORS * 4 * LANES), at / 4 % (PANEL_VECTORS * LANES));
                let k = row * 8 + at % 4;
                let scale = scales[k / GROUP * PANEL_VECTORS * LANES + column].to_f32();
                let nibble = |k: usize| (round(element(k0 + k, j0 + column), inverse(scale)) + 8.0) as u8;
                *byte = nibble(k) | nibble(k + 4) << 4;
            }
        });
    }
}

/// Quantizes a weight with the inverse of its scale, to an integer from -8 to 7.
fn round(x: f32, inverse: f32) -> f32 {
    ((x * inverse).clamp(-8.0, 7.0) + ROUND_MAGIC) - ROUND_MAGIC
}

/// Returns the inverse of a scale; zero for zero.
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// Returns the scale with the smallest squared error, near the one that maps the weight of largest magnitude
/// to -8; NaN if an f16 cannot hold that one.
fn best_scale(group: &[f32; GROUP]) -> f16 {
    let largest = group.iter().fold(0.0f32, |largest, x| if x.abs() > largest.abs() { *x } else { largest });
    if group.iter().any(|x| x.is_nan()) || !f16::from_f32(largest / -8.0).is_finite() {
        return f16::NAN;
    }
    let error = |scale: f16| -> f32 {
        let scale = scale.to_f32();
        let inverse = inverse(scale);
        let mut sums = [0.0f32; 8];
        for chunk in group.as_chunks::<8>().0 {
            for (sum, x) in sums.iter_mut().zip(chunk) {
                let error = x - round(*x, inverse) * scale;
                *sum += error * error;
            }
        }
        sums.iter().sum()
    };
    let candidates = (0..=6).map(|i| f16::from_f32(largest / -8.0 * (0.82 + 0.05 * i as f32)));
    candidates
        .filter(|scale| scale.is_finite())
        .map(|scale| (error(scale), scale))
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .map_or(f16::ZERO, |(_, scale)| scale)
}

impl WeightFormat for Int4 {
    const PACKED_ROWS: usize = BLOCK / 8;
    /// Each accumulator of a group needs another one of the block's previous groups.
    const WIDE_ACCUMULATORS: usize = mr(true);

    type Scales = [[[f16; LANES]; PANEL_VECTORS]; GROUPS];
    type Block = QuantizedBlock;
    type Side = ();

    fn weight(w: &PackedMatrix<Self>, k: usize, j: usize) -> f32 {
        let (block, vector) = (k / BLOCK, j / LANES);
        let (row, v) = (&w.packed_block(block, vector)[k % BLOCK / 8], vector % PANEL_VECTORS);
        let byte = row[v][j % LANES * 4 + k % 4];
        let nibble = if k % 8 < 4 { byte & 15 } else { byte >> 4 };
        let scales = &w.scales[w.layout.packed_block(block, vector)][k % BLOCK / GROUP];
        (f32::from(nibble) - 8.0) * scales[v][j % LANES].to_f32()
    }

    #[inline(always)]
    fn accumulate_block<S: Simd, const MR: usize, const NR_VECS: usize>(
        w: &PackedMatrix<Self>,
        simd: S,
        block: usize,
        vector: usize,
        (x, _): (&[QuantizedBlock; MR], &[()]),
        acc: &mut [[S::F32s; NR_VECS]; MR],
    ) {
        let rows = w.packed_block(block, vector);
        let scales = &w.scales[w.layout.packed_block(block, vector)];
        let mut scaled = [[simd.splat(0.0); NR_VECS]; MR];
        for group in 0..GROUPS {
            let mut products = [[simd.nibble_sums([0; 2]); NR_VECS]; MR];
            for m in 0..MR {
                products[m] = [simd.nibble_sums(x[m].correction_u4[group]); NR_VECS];
            }
            for row in group * GROUP / 8..(group + 1) * GROUP / 8 {
                let both: [S::Bytes; NR_VECS] = load_vectors(simd, &rows[row], vector);
                for v in 0..NR_VECS {
                    let low = simd.low_nibbles(both[v]);
                    for m in 0..MR {
                        products[m][v] = simd.dot_u4i8(low, x[m].q[2 * row], products[m][v]);
                    }
                }
                for v in 0..NR_VECS {
                    let high = simd.high_nibbles(both[v]);
                    for m in 0..MR {
                        products[m][v] = simd.dot_u4i8(high, x[m].q[2 * row + 1], products[m][v]);
                    }
                }
            }
            for v in 0..NR_VECS {
                let scales = simd.load_f16(&scales[group][vector % PANEL_VECTORS + v]);
                for m in 0..MR {
                    // Integers below 2^24, so the conversion is exact.
                    let sum = simd.nibble_sums_to_f32s(products[m][v]);
                    scaled[m][v] = match group {
                        0 => simd.mul(sum, scales),
                        _ => simd.mul_add(sum, scales, scaled[m][v]),
                    };
                }
            }
        }
        for m in 0..MR {
            let scale = simd.splat(x[m].scale);
            for v in 0..NR_VECS {
                acc[m][v] = simd.mul_add(scaled[m][v], scale, acc[m][v]);
            }
        }
    }
}
