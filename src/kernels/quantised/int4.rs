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

use super::activations::QuantisedBlock;
use super::{BLOCK, Format, Layout, Line, VECTORS, load_vectors};
use crate::kernels::simd::{LANES, ROUND, Simd};
use crate::kernels::tile::tile_rows;
use half::f16;
use rayon::prelude::*;

/// Inputs that share a scale.
const GROUP: usize = 32;

/// A borrowed matrix of four-bit weights, `[rows, columns]`.
#[derive(Clone, Copy, Debug)]
pub struct Int4<'a> {
    lines: &'a [[Line; VECTORS]],
    scales: &'a [[[f16; LANES]; VECTORS]],
    layout: Layout,
}

impl<'a> Int4<'a> {
    /// Scales of a block of a column.
    pub const GROUPS: usize = BLOCK / GROUP;

    /// `lines` and `scales` are as many as [`Int4::lines_of`] and [`Int4::scales_of`] say. Panics where they are not.
    pub fn new(lines: &'a [Line], scales: &'a [[f16; LANES]], rows: usize, columns: usize) -> Self {
        assert_eq!(lines.len(), Self::lines_of(rows, columns));
        assert_eq!(scales.len(), Self::scales_of(rows, columns));
        Self { lines: lines.as_chunks().0, scales: scales.as_chunks().0, layout: Layout { rows, columns } }
    }

    /// How many lines a matrix takes.
    pub fn lines_of(rows: usize, columns: usize) -> usize {
        Layout { rows, columns }.parts() * Self::LINES * VECTORS
    }

    /// How many vectors of scales a matrix takes.
    pub fn scales_of(rows: usize, columns: usize) -> usize {
        Layout { rows, columns }.parts() * Self::GROUPS * VECTORS
    }

    /// Rounds a matrix, of which `weight(k, j)` are the elements, to `lines` and `scales`, as many as [`Int4::new`] takes.
    pub fn quantise(
        rows: usize,
        columns: usize,
        weight: impl Fn(usize, usize) -> f32 + Sync,
        lines: &mut [Line],
        scales: &mut [[f16; LANES]],
    ) {
        let layout = Layout { rows, columns };
        let element = |k: usize, j: usize| if k < rows && j < columns { weight(k, j) } else { 0.0 };
        scales.par_chunks_mut(Self::GROUPS * VECTORS).enumerate().for_each(|(i, scales)| {
            let (k0, j0) = layout.place(i);
            for (at, scale) in scales.as_flattened_mut().iter_mut().enumerate() {
                let (start, j) = (k0 + at / (VECTORS * LANES) * GROUP, j0 + at % (VECTORS * LANES));
                let group: [f32; GROUP] = std::array::from_fn(|k| element(start + k, j));
                *scale = best_scale(&group);
            }
        });
        lines.par_chunks_mut(Self::LINES * VECTORS).enumerate().for_each(|(i, lines)| {
            let (k0, j0) = layout.place(i);
            let scales = scales[i * Self::GROUPS * VECTORS..][..Self::GROUPS * VECTORS].as_flattened();
            for (at, byte) in lines.as_flattened_mut().iter_mut().enumerate() {
                let (eight, column) = (at / (VECTORS * 4 * LANES), at / 4 % (VECTORS * LANES));
                let k = eight * 8 + at % 4;
                let scale = scales[k / GROUP * VECTORS * LANES + column].to_f32();
                let nibble = |k: usize| (round(element(k0 + k, j0 + column), inverse(scale)) + 8.0) as u8;
                *byte = nibble(k) | nibble(k + 4) << 4;
            }
        });
    }

    /// One weight, as it was rounded.
    pub fn weight(&self, k: usize, j: usize) -> f32 {
        let (block, vector) = (k / BLOCK, j / LANES);
        let byte = self.part(block, vector)[k % BLOCK / 8][vector % VECTORS][j % LANES * 4 + k % 4];
        let nibble = if k % 8 < 4 { byte & 15 } else { byte >> 4 };
        let scales = &self.scales[self.layout.part(block, vector) * Self::GROUPS + k % BLOCK / GROUP];
        (f32::from(nibble) - 8.0) * scales[vector % VECTORS][j % LANES].to_f32()
    }
}

/// A weight in units of its scale, of which `inverse` is the inverse: a whole number from -8 to 7.
fn round(x: f32, inverse: f32) -> f32 {
    ((x * inverse).clamp(-8.0, 7.0) + ROUND) - ROUND
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

impl Format for Int4<'_> {
    const LINES: usize = BLOCK / 8;
    /// Each has one more beside it, of the block's groups before.
    const WIDE_SUMS: usize = tile_rows(true);

    type Input = QuantisedBlock;
    type Beside = ();

    #[inline(always)]
    fn layout(&self) -> Layout {
        self.layout
    }

    #[inline(always)]
    fn lines(&self) -> &[[Line; VECTORS]] {
        self.lines
    }

    #[inline(always)]
    fn add_block<S: Simd, const M: usize, const V: usize>(
        &self,
        simd: S,
        block: usize,
        vector: usize,
        (x, _): (&[QuantisedBlock; M], &[()]),
        sums: &mut [[S::F32s; V]; M],
    ) {
        let lines = self.part(block, vector);
        let scales = &self.scales[self.layout.part(block, vector) * Self::GROUPS..][..Self::GROUPS];
        let mut scaled = [[simd.splat(0.0); V]; M];
        for group in 0..Self::GROUPS {
            let mut acc = [[simd.nibbles([0; 2]); V]; M];
            for m in 0..M {
                acc[m] = [simd.nibbles(x[m].less_8[group]); V];
            }
            for eight in group * GROUP / 8..(group + 1) * GROUP / 8 {
                let both: [S::Bytes; V] = load_vectors(simd, &lines[eight], vector);
                for v in 0..V {
                    let low = simd.low_nibbles(both[v]);
                    for m in 0..M {
                        acc[m][v] = simd.dot_nibbles(low, x[m].q[2 * eight], acc[m][v]);
                    }
                }
                for v in 0..V {
                    let high = simd.high_nibbles(both[v]);
                    for m in 0..M {
                        acc[m][v] = simd.dot_nibbles(high, x[m].q[2 * eight + 1], acc[m][v]);
                    }
                }
            }
            for v in 0..V {
                let scales = simd.load_f16(&scales[group][vector % VECTORS + v]);
                for m in 0..M {
                    // Whole numbers below 2^24, so exact.
                    let sum = simd.nibbles_to_f32s(acc[m][v]);
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
