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

use super::packed::{PackedFormat, Tile, tile};
use super::{Precision, Properties};
use crate::elements::Dtype;
use crate::gemm::blocking::mr;
use crate::isa::Isa;
use crate::parallel::*;
use crate::quantized::activations::QuantizedBlock;
use crate::quantized::{BLOCK, Layout, PANEL_VECTORS, PackedMatrix, PackedRow, WeightFormat, load_vectors};
use crate::simd::{Kernel, LANES, ROUND_MAGIC, Simd};
use half::f16;
use half::slice::HalfFloatSliceExt;

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
        let isa = Isa::of_process();
        let blocks = packed.par_chunks_mut(Self::PACKED_ROWS).zip(scales);
        blocks.enumerate().for_each(|(i, (packed, scales))| {
            isa.run(QuantizeBlock { tile: &tile(layout, i, &weight), packed, scales });
        });
    }
}

/// Quantizes a block. Each lane is a column, computed with the same operations on every instruction set.
struct QuantizeBlock<'a> {
    tile: &'a Tile,
    packed: &'a mut [PackedRow],
    scales: &'a mut <Int4 as WeightFormat>::Scales,
}

impl Kernel for QuantizeBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (group, scales) in self.scales.iter_mut().enumerate() {
            for (v, scales) in scales.iter_mut().enumerate() {
                let x: [[f32; LANES]; GROUP] = std::array::from_fn(|k| self.tile[group * GROUP + k][v]);
                *scales = best_scales(&x);
                let inverses = to_f32s(scales).map(inverse);
                let rows = &mut self.packed[group * GROUP / 8..(group + 1) * GROUP / 8];
                for (row, x) in rows.iter_mut().zip(x.as_chunks::<8>().0) {
                    pack(x, &inverses, &mut row[v]);
                }
            }
        }
    }
}

/// Packs eight inputs of a vector of columns.
#[inline(always)]
fn pack(x: &[[f32; LANES]; 8], inverses: &[f32; LANES], to: &mut [u8; 4 * LANES]) {
    for k in 0..4 {
        for lane in 0..LANES {
            let nibble = |k: usize| (round(x[k][lane], inverses[lane]) + 8.0) as i32 as u8;
            to[4 * lane + k] = nibble(k) | nibble(k + 4) << 4;
        }
    }
}

/// Quantizes a weight with the inverse of its scale, to an integer from -8 to 7.
#[inline(always)]
fn round(x: f32, inverse: f32) -> f32 {
    ((x * inverse).clamp(-8.0, 7.0) + ROUND_MAGIC) - ROUND_MAGIC
}

/// Returns the inverse of a scale; zero for zero.
#[inline(always)]
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

#[inline(always)]
fn to_f32s(x: &[f16; LANES]) -> [f32; LANES] {
    let mut y = [0.0; LANES];
    x.convert_to_f32_slice(&mut y);
    y
}

/// Returns the scale of each column with the smallest squared error, near the one that maps its weight of
/// largest magnitude to -8; NaN if an f16 cannot hold that one.
#[inline(always)]
fn best_scales(group: &[[f32; LANES]; GROUP]) -> [f16; LANES] {
    let (mut largest, mut nan) = ([0.0f32; LANES], [0.0f32; LANES]);
    for x in group {
        for lane in 0..LANES {
            nan[lane] += x[lane] * 0.0; // NaN for infinity, too, which an f16 cannot hold
            largest[lane] = if x[lane].abs() > largest[lane].abs() { x[lane] } else { largest[lane] };
        }
    }
    let (mut best, mut least) = ([0.0; LANES], [f32::NAN; LANES]);
    let mut scales = [f16::ZERO; LANES];
    for i in 0..=6 {
        scales.convert_from_f32_slice(&largest.map(|x| x / -8.0 * (0.82 + 0.05 * i as f32)));
        let scales = to_f32s(&scales);
        let errors = squared_errors(group, &scales);
        for lane in 0..LANES {
            // Nothing is less than NaN, the error of no scale.
            let is_worse = least[lane] <= errors[lane] || !scales[lane].is_finite();
            best[lane] = if is_worse { best[lane] } else { scales[lane] };
            least[lane] = if is_worse { least[lane] } else { errors[lane] };
        }
    }
    let unscaled = largest.map(|x| x / -8.0);
    scales.convert_from_f32_slice(&best);
    std::array::from_fn(|lane| match nan[lane].is_nan() || !f16::from_f32(unscaled[lane]).is_finite() {
        true => f16::NAN,
        false => scales[lane],
    })
}

/// The squared error of each column with its scale, summed over every eighth input first.
#[inline(always)]
fn squared_errors(group: &[[f32; LANES]; GROUP], scales: &[f32; LANES]) -> [f32; LANES] {
    let inverses = scales.map(inverse);
    let mut total = [0.0; LANES];
    for k in 0..8 {
        let mut sum = [0.0; LANES];
        for x in group[k..].iter().step_by(8) {
            for lane in 0..LANES {
                let error = x[lane] - round(x[lane], inverses[lane]) * scales[lane];
                sum[lane] += error * error;
            }
        }
        (0..LANES).for_each(|lane| total[lane] += sum[lane]);
    }
    total
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random_values;

    /// The definition, for one group.
    fn reference(group: [f32; GROUP]) -> f16 {
        let larger = |a: f32, &b: &f32| if b.abs() > a.abs() { b } else { a };
        let largest = group.iter().fold(0.0f32, larger);
        if group.iter().any(|x| x.is_nan()) || !f16::from_f32(largest / -8.0).is_finite() {
            return f16::NAN;
        }
        let error = |scale: f16| -> f32 {
            let scale = scale.to_f32();
            let mut sums = [0.0f32; 8];
            for (i, x) in group.iter().enumerate() {
                let error = x - round(*x, inverse(scale)) * scale;
                sums[i % 8] += error * error;
            }
            sums.iter().sum()
        };
        let candidates = (0..=6).map(|i| f16::from_f32(largest / -8.0 * (0.82 + 0.05 * i as f32)));
        let finite = candidates.filter(|scale| scale.is_finite());
        finite.min_by(|a, b| error(*a).total_cmp(&error(*b))).unwrap()
    }

    #[test]
    fn scales_are_those_of_the_definition_on_every_isa() {
        let mut values = random_values(3, 200 * GROUP * LANES);
        for (i, x) in values.iter_mut().enumerate() {
            *x *= [1e-9, 0.02, 1.0, 3e4, 3e5, 1e20][i / (GROUP * LANES) % 6];
        }
        values[5] = f32::NAN;
        values[2000] = f32::INFINITY;
        values[7 * GROUP * LANES..8 * GROUP * LANES].fill(0.0);
        let layout = Layout { rows: 200 * GROUP, columns: LANES };
        let weight = |k: usize, j: usize| values[k * LANES + j];
        for isa in Isa::available() {
            for group in 0..200 {
                let tile = tile(layout, group / GROUPS, weight);
                let (mut packed, mut scales) =
                    ([[[0; 4 * LANES]; PANEL_VECTORS]; Int4::PACKED_ROWS], Default::default());
                isa.run(QuantizeBlock { tile: &tile, packed: &mut packed, scales: &mut scales });
                for j in 0..LANES {
                    let expected = reference(std::array::from_fn(|k| weight(group * GROUP + k, j)));
                    let found = scales[group % GROUPS][0][j];
                    assert!(
                        found == expected || found.is_nan() && expected.is_nan(),
                        "{}: {found}, {expected}", isa.name()
                    );
                }
            }
        }
    }
}
