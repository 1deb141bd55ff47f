//! Eight bits a weight, one scale a column.
//!
//! ```text
//! w[k, j] ≈ scale[j] · (stored[k, j] − 128),   scale[j] = max_k |w[k, j]| / 127
//! ```
//!
//! Stored `[out / 32, in / 64, 16, 2, 16, 4]`: group of vectors, block of inputs, four inputs, vector of outputs, output,
//! input; missing ones are zero, stored as 128.

use super::activations::{Beside, Pairs, QuantizedBlock};
use super::{BLOCK, Bytes64, InTiles, Layout, PANEL_VECTORS, PackedRow, WeightFormat, load_vectors};
#[cfg(target_arch = "x86_64")]
use crate::kernels::simd::{F32Tiles, I32Tiles};
use crate::kernels::simd::{LANES, ROUND_MAGIC, Simd};
use rayon::prelude::*;

/// A borrowed matrix of eight-bit weights, `[rows, columns]`.
#[derive(Clone, Copy, Debug)]
pub struct Int8<'a> {
    lines: &'a [PackedRow],
    scales: &'a [f32],
    layout: Layout,
}

impl<'a> Int8<'a> {
    /// `lines` are as many as [`Int8::packed_len`] says, `scales` one a column. Panics where they are not.
    pub fn new(lines: &'a [Bytes64], scales: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!((lines.len(), scales.len()), (Self::packed_len(rows, columns), columns));
        Self { lines: lines.as_chunks().0, scales, layout: Layout { rows, columns } }
    }

    /// How many lines a matrix takes.
    pub fn packed_len(rows: usize, columns: usize) -> usize {
        Layout { rows, columns }.packed_blocks() * Self::PACKED_ROWS * PANEL_VECTORS
    }

    /// Rounds a matrix, of which `weight(k, j)` are the elements, to `lines` and `scales`, as many as [`Int8::new`] takes.
    pub fn quantize(
        rows: usize,
        columns: usize,
        weight: impl Fn(usize, usize) -> f32 + Sync,
        lines: &mut [Bytes64],
        scales: &mut [f32],
    ) {
        scales.par_chunks_mut(LANES).enumerate().for_each(|(vector, scales)| {
            scales.fill(0.0);
            for k in 0..rows {
                for (lane, scale) in scales.iter_mut().enumerate() {
                    *scale = scale.max(weight(k, vector * LANES + lane).abs());
                }
            }
            scales.iter_mut().for_each(|scale| *scale /= 127.0);
        });
        let layout = Layout { rows, columns };
        lines.par_chunks_mut(Self::PACKED_ROWS * PANEL_VECTORS).enumerate().for_each(|(i, lines)| {
            lines.fill([128; 4 * LANES]);
            let (k0, j0) = layout.origin(i);
            for k in k0..rows.min(k0 + BLOCK) {
                for (at, scale) in scales.iter().skip(j0).take(PANEL_VECTORS * LANES).enumerate() {
                    let line = &mut lines[(k - k0) / 4 * PANEL_VECTORS + at / LANES];
                    line[at % LANES * 4 + k % 4] = round(weight(k, j0 + at), *scale);
                }
            }
        });
    }

    /// One weight, as it was rounded.
    pub fn weight(&self, k: usize, j: usize) -> f32 {
        let lines = &self.packed_block(k / BLOCK, j / LANES)[k % BLOCK / 4];
        let byte = lines[j / LANES % PANEL_VECTORS][j % LANES * 4 + k % 4];
        (f32::from(byte) - 128.0) * self.scales[j]
    }
}

/// A weight in units of its scale, 128 added.
fn round(x: f32, scale: f32) -> u8 {
    if scale == 0.0 {
        128
    } else {
        ((x / scale).clamp(-127.0, 127.0) + ROUND_MAGIC - ROUND_MAGIC + 128.0) as u8
    }
}

impl WeightFormat for Int8<'_> {
    const PACKED_ROWS: usize = BLOCK / 4;
    /// Each has one more beside it, of the blocks before.
    const WIDE_SUMS: usize = 16;

    type Input = QuantizedBlock;
    type Beside = Pairs;

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
        (x, pairs): (&[QuantizedBlock; M], &[Pairs]),
        sums: &mut [[S::F32s; V]; M],
    ) {
        let lines = self.packed_block(block, vector);
        let pairs: &[Pairs; M] = pairs.as_array().unwrap_or(const { &[Pairs::NONE; M] });
        let mut acc = [[simd.splat_i32(0); V]; M];
        for m in 0..M {
            acc[m] = [simd.splat_i32(x[m].less_128); V];
        }
        for four in 0..Self::PACKED_ROWS {
            let w: [S::Bytes; V] = load_vectors(simd, &lines[four], vector);
            for m in 0..M {
                for v in 0..V {
                    acc[m][v] = simd.dot_u8i8(w[v], x[m].q[four], &pairs[m].0[four], acc[m][v]);
                }
            }
        }
        for m in 0..M {
            let scale = simd.splat(x[m].scale);
            for v in 0..V {
                sums[m][v] = simd.mul_add(simd.to_f32s(acc[m][v]), scale, sums[m][v]);
            }
        }
    }

    #[inline(always)]
    fn scale<S: Simd>(&self, simd: S, vector: usize) -> S::F32s {
        let scales = &self.scales[vector * LANES..];
        simd.load_partial(&scales[..LANES.min(scales.len())])
    }

    const IN_TILES: InTiles = InTiles::Bytes { from: 20 };

    #[inline(always)]
    fn unpack(&self, block: usize, vector: usize, to: &mut [PackedRow]) {
        for (to, line) in
            to.as_flattened_mut().iter_mut().zip(self.packed_block(block, vector).as_flattened())
        {
            *to = line.map(|stored| stored ^ 128); // 128 less, as a number with a sign
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn add_products<S: Simd>(&self, simd: S, products: &I32Tiles, x: &[QuantizedBlock], sums: &mut F32Tiles) {
        for (m, x) in x.iter().enumerate() {
            let scale = simd.splat(x.scale);
            for v in 0..PANEL_VECTORS {
                let (products, sum) = (&products.0[v][m], &mut sums.0[v][m]);
                let products = simd.to_f32s(simd.load_i32s(products));
                simd.store(simd.mul_add(products, scale, simd.load(sum)), sum);
            }
        }
    }
}
