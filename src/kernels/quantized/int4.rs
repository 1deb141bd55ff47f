//! Four bits a weight, one scale for every 32 inputs of a column: four and a half bits in all.
//!
//! ```text
//! w[k, j] ≈ scale[k / 32, j] · (stored[k, j] − 8)
//! ```
//!
//! A scale is the one, among a few near max |w| / 8, that leaves the smallest squared error. Stored
//! `[out / 32, in / 64, 8, 2, 16, 4]` bytes: group of vectors, block of inputs, eight inputs, vector of outputs, output,
//! input; the lower four bits of a byte are one of the first four of the eight inputs, the upper four bits one of the
//! last. Scales are f16, `[out / 32, in / 64, 2, 2, 16]`: group of vectors, block, half of the block, vector, output.

use super::activations::QuantizedBlock;
use super::{BLOCK, Bytes64, Layout, PANEL_VECTORS, PackedRow, WeightFormat, load_vectors};
use crate::kernels::microkernel::mr;
use crate::kernels::simd::{LANES, ROUND_MAGIC, Simd};
use half::f16;
use rayon::prelude::*;

/// Inputs that share a scale.
const GROUP: usize = 32;

/// A borrowed matrix of four-bit weights, `[rows, columns]`.
#[derive(Clone, Copy, Debug)]
pub struct Int4<'a> {
    lines: &'a [PackedRow],
    scales: &'a [[[f16; LANES]; PANEL_VECTORS]],
    layout: Layout,
}

impl<'a> Int4<'a> {
    /// Scales of a block of a column.
    pub const GROUPS: usize = BLOCK / GROUP;

    /// `lines` and `scales` are as many as [`Int4::packed_len`] and [`Int4::scales_len`] say. Panics where they are not.
    pub fn new(lines: &'a [Bytes64], scales: &'a [[f16; LANES]], rows: usize, columns: usize) -> Self {
        assert_eq!(lines.len(), Self::packed_len(rows, columns));
        assert_eq!(scales.len(), Self::scales_len(rows, columns));
        Self { lines: lines.as_chunks().0, scales: scales.as_chunks().0, layout: Layout { rows, columns } }
    }

    /// How many lines a matrix takes.
    pub fn packed_len(rows: usize, columns: usize) -> usize {
        Layout { rows, columns }.packed_blocks() * Self::PACKED_ROWS * PANEL_VECTORS
    }

    /// How many vectors of scales a matrix takes.
    pub fn scales_len(rows: usize, columns: usize) -> usize {
        Layout { rows, columns }.packed_blocks() * Self::GROUPS * PANEL_VECTORS
    }

    /// Rounds a matrix, of which `weight(k, j)` are the elements, to `lines` and `scales`, as many as [`Int4::new`] takes.
    pub fn quantize(
        rows: usize,
        columns: usize,
        weight: impl Fn(usize, usize) -> f32 + Sync,
        lines: &mut [Bytes64],
        scales: &mut [[f16; LANES]],
    ) {
        let layout = Layout { rows, columns };
        let element = |k: usize, j: usize| if k < rows && j < columns { weight(k, j) } else { 0.0 };
        scales.par_chunks_mut(Self::GROUPS * PANEL_VECTORS).enumerate().for_each(|(i, scales)| {
            let (k0, j0) = layout.origin(i);
            for (at, scale) in scales.as_flattened_mut().iter_mut().enumerate() {
                let (start, j) =
                    (k0 + at / (PANEL_VECTORS * LANES) * GROUP, j0 + at % (PANEL_VECTORS * LANES));
                let group: [f32; GROUP] = std::array::from_fn(|k| element(start + k, j));
                *scale = best_scale(&group);
            }
        });
        lines.par_chunks_mut(Self::PACKED_ROWS * PANEL_VECTORS).enumerate().for_each(|(i, lines)| {
            let (k0, j0) = layout.origin(i);
            let scales =
                scales[i * Self::GROUPS * PANEL_VECTORS..][..Self::GROUPS * PANEL_VECTORS].as_flattened();
            for (at, byte) in lines.as_flattened_mut().iter_mut().enumerate() {
                let (eight, column) = (at / (PANEL_VECTORS * 4 * LANES), at / 4 % (PANEL_VECTORS * LANES));
                let k = eight * 8 + at % 4;
                let scale = scales[k / GROUP * PANEL_VECTORS * LANES + column].to_f32();
                let nibble = |k: usize| (round(element(k0 + k, j0 + column), inverse(scale)) + 8.0) as u8;
                *byte = nibble(k) | nibble(k + 4) << 4;
            }
        });
    }

    /// One weight, as it was rounded.
    pub fn weight(&self, k: usize, j: usize) -> f32 {
        let (block, vector) = (k / BLOCK, j / LANES);
        let byte =
            self.packed_block(block, vector)[k % BLOCK / 8][vector % PANEL_VECTORS][j % LANES * 4 + k % 4];
        let nibble = if k % 8 < 4 { byte & 15 } else { byte >> 4 };
        let scales = &self.scales[self.layout.packed_block(block, vector) * Self::GROUPS + k % BLOCK / GROUP];
        (f32::from(nibble) - 8.0) * scales[vector % PANEL_VECTORS][j % LANES].to_f32()
    }
}

/// A weight in units of its scale, of which `inverse` is the inverse: a whole number from -8 to 7.
fn round(x: f32, inverse: f32) -> f32 {
    ((x * inverse).clamp(-8.0, 7.0) + ROUND_MAGIC) - ROUND_MAGIC
}

/// The inverse of a scale; of zero, zero.
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// The scale with the smallest squared error, near the one that maps the largest weight to -8.
fn best_scale(group: &[f32; GROUP]) -> f16 {
    let largest = group.iter().fold(0.0f32, |largest, x| if x.abs() > largest.abs() { *x } else { largest });
    let error = |scale: f16| -> f32 {
        let scale = scale.to_f32();
        let inverse = inverse(scale);
        let mut sums = [0.0f32; 8];
        for eight in group.as_chunks::<8>().0 {
            for (sum, x) in sums.iter_mut().zip(eight) {
                let off = x - round(*x, inverse) * scale;
                *sum += off * off;
            }
        }
        sums.iter().sum()
    };
    let near = (0..=6).map(|i| f16::from_f32(largest / -8.0 * (0.82 + 0.05 * i as f32)));
    near.map(|scale| (error(scale), scale))
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .map_or(f16::ZERO, |(_, scale)| scale)
}

impl WeightFormat for Int4<'_> {
    const PACKED_ROWS: usize = BLOCK / 8;
    /// Each has one more beside it, of the block's groups before.
    const WIDE_SUMS: usize = mr(true);

    type Input = QuantizedBlock;
    type Beside = ();

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
        (x, _): (&[QuantizedBlock; M], &[()]),
        sums: &mut [[S::F32s; V]; M],
    ) {
        let lines = self.packed_block(block, vector);
        let scales = &self.scales[self.layout.packed_block(block, vector) * Self::GROUPS..][..Self::GROUPS];
        let mut scaled = [[simd.splat(0.0); V]; M];
        for group in 0..Self::GROUPS {
            let mut acc = [[simd.nibble_sums([0; 2]); V]; M];
            for m in 0..M {
                acc[m] = [simd.nibble_sums(x[m].less_8[group]); V];
            }
            for eight in group * GROUP / 8..(group + 1) * GROUP / 8 {
                let both: [S::Bytes; V] = load_vectors(simd, &lines[eight], vector);
                for v in 0..V {
                    let low = simd.low_nibbles(both[v]);
                    for m in 0..M {
                        acc[m][v] = simd.dot_u4i8(low, x[m].q[2 * eight], acc[m][v]);
                    }
                }
                for v in 0..V {
                    let high = simd.high_nibbles(both[v]);
                    for m in 0..M {
                        acc[m][v] = simd.dot_u4i8(high, x[m].q[2 * eight + 1], acc[m][v]);
                    }
                }
            }
            for v in 0..V {
                let scales = simd.load_f16(&scales[group][vector % PANEL_VECTORS + v]);
                for m in 0..M {
                    // Whole numbers below 2^24, so exact.
                    let sum = simd.nibble_sums_to_f32s(acc[m][v]);
                    scaled[m][v] = match group {
                        0 => simd.mul(sum, scales),
                        _ => simd.mul_add(sum, scales, scaled[m][v]),
                    };
                }
            }
        }
        for m in 0..M {
            let scale = simd.splat(x[m].scale);
            for v in 0..V {
                sums[m][v] = simd.mul_add(scaled[m][v], scale, sums[m][v]);
            }
        }
    }

    #[inline(always)]
    fn scale<S: Simd>(&self, simd: S, _vector: usize) -> S::F32s {
        simd.splat(1.0)
    }
}
