//! 4-bit weights with one scale per group of 32 inputs of a column: 4.5 bits per weight in all.
//!
//! ```text
//! w[k, j] ≈ scale[k / 32, j] · (stored[k, j] − 8)
//! ```
//!
//! The scale of a group is the one with the smallest squared error among a few candidates near max |w| / 8.
//! With a sample of the layer's inputs, weights are rounded by [`gptq`](super::gptq), otherwise to the
//! nearest.
//!
//! Layout of the weights: `[out / 32, in / 64, 8, 2, 16, 4]` bytes, that is column panel, block of inputs,
//! eight inputs, vector of outputs, output, input; the low nibble of a byte is one of the first four of the
//! eight inputs, the high nibble one of the last four. Scales are f16, `[out / 32, in / 64, 2, 2, 16]`:
//! column panel, block, group, vector, output.

use super::gptq::Feedback;
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
        uses_feedback: true,
    };

    fn scales(layout: Layout) -> Option<(Dtype, Vec<usize>)> {
        Some((Dtype::F16, vec![layout.panels(), layout.input_blocks(), GROUPS, PANEL_VECTORS, LANES]))
    }

    fn quantize(
        layout: Layout,
        weight: impl Fn(usize, usize) -> f32 + Sync,
        feedback: Option<&Feedback>,
        packed: &mut [PackedRow],
        scales: &mut [Self::Scales],
    ) {
        assert!(feedback.is_none_or(|feedback| feedback.inputs() == layout.rows), "feedback of other inputs");
        let (isa, blocks) = (Isa::of_process(), layout.input_blocks());
        let panels = packed.par_chunks_mut(blocks * Self::PACKED_ROWS).zip(scales.par_chunks_mut(blocks));
        panels.enumerate().for_each(|(panel, (packed, scales))| {
            let mut errors = [(); PANEL_VECTORS].map(|()| Vec::with_capacity(blocks * BLOCK));
            let packed = packed.chunks_exact_mut(Self::PACKED_ROWS);
            for (block, (packed, scales)) in packed.zip(scales).enumerate() {
                let tile = &tile(layout, panel * blocks + block, &weight);
                let feedback = feedback.map(|feedback| (feedback, &mut errors));
                isa.run(QuantizeBlock { tile, feedback, packed, scales });
            }
        });
    }
}

/// Quantizes a block. Each lane is a column, computed with the same operations on every instruction set.
struct QuantizeBlock<'a> {
    tile: &'a Tile,
    /// With the rounding errors of the inputs before the block, to which the block's are added.
    feedback: Option<(&'a Feedback, &'a mut [Vec<[f32; LANES]>; PANEL_VECTORS])>,
    packed: &'a mut [PackedRow],
    scales: &'a mut <Int4 as WeightFormat>::Scales,
}

impl Kernel for QuantizeBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, _: S) {
        for (group, scales) in self.scales.iter_mut().enumerate() {
            for (v, scales) in scales.iter_mut().enumerate() {
                let mut x: [[f32; LANES]; GROUP] = std::array::from_fn(|k| self.tile[group * GROUP + k][v]);
                match &mut self.feedback {
                    None => *scales = best_scales(&x),
                    Some((feedback, errors)) => *scales = compensate(&mut x, feedback, &mut errors[v]),
                }
                let inverses = to_f32s(scales).map(inverse);
                let rows = &mut self.packed[group * GROUP / 8..(group + 1) * GROUP / 8];
                for (row, x) in rows.iter_mut().zip(x.as_chunks::<8>().0) {
                    pack(x, &inverses, &mut row[v]);
                }
            }
        }
    }
}

/// Chooses the scales of a group of which the errors of the inputs before it are known, adds to every weight
/// what it makes up for, and appends the errors that rounding it makes.
#[inline(always)]
fn compensate(
    group: &mut [[f32; LANES]; GROUP],
    feedback: &Feedback,
    errors: &mut Vec<[f32; LANES]>,
) -> [f16; LANES] {
    let (original, first) = (*group, errors.len());
    for (k, x) in group.iter_mut().enumerate() {
        let sum = feedback.sum(first + k, 0, errors);
        (0..LANES).for_each(|lane| x[lane] += sum[lane]);
    }
    let scales = best_scales(group);
    let (wide, inverses) = (to_f32s(&scales), to_f32s(&scales).map(inverse));
    for (k, x) in group.iter_mut().enumerate() {
        let sum = feedback.sum(first + k, first, &errors[first..]);
        errors.push(std::array::from_fn(|lane| {
            x[lane] += sum[lane];
            original[k][lane] - round(x[lane], inverses[lane]) * wide[lane]
        }));
    }
    scales
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
    use super::super::gptq;
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
                isa.run(QuantizeBlock {
                    tile: &tile,
                    feedback: None,
                    packed: &mut packed,
                    scales: &mut scales,
                });
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

    /// Quantizes a matrix `[rows, columns]`; returns its weights, row-major.
    fn quantized(values: &[f32], columns: usize, feedback: Option<&Feedback>) -> Vec<f32> {
        let layout = Layout { rows: values.len() / columns, columns };
        let blocks = layout.packed_blocks();
        let mut packed = vec![[[0; 4 * LANES]; PANEL_VECTORS]; blocks * Int4::PACKED_ROWS];
        let mut scales = vec![Default::default(); blocks];
        Int4::quantize(layout, |k, j| values[k * columns + j], feedback, &mut packed, &mut scales);
        let matrix = PackedMatrix::new(&packed, &scales, layout);
        (0..values.len()).map(|i| Int4::weight(&matrix, i / columns, i % columns)).collect()
    }

    #[test]
    fn feedback_of_uncorrelated_inputs_rounds_to_the_nearest() {
        let (rows, columns) = (100, 40);
        let values = random_values(4, rows * columns);
        let mut h = vec![0.0; rows * rows];
        (0..rows).for_each(|k| h[k * rows + k] = 1.0 + k as f32);
        let feedback = Feedback::new(&h, rows);
        assert_eq!(quantized(&values, columns, Some(&feedback)), quantized(&values, columns, None));
    }

    #[test]
    fn feedback_lowers_the_error_of_the_output() {
        // Widths that are no multiples of a group, a block, a vector or a panel.
        for (rows, columns) in [(1, 1), (30, 17), (100, 40), (150, 70)] {
            let values = random_values(5, rows * columns);
            let h = gptq::tests::hessian(rows, 2 * rows);
            let feedback = Feedback::new(&h, rows);
            let error = |found: Vec<f32>| -> f64 {
                let column = |j: usize| -> f64 {
                    let delta: Vec<f64> = (0..rows)
                        .map(|k| f64::from(values[k * columns + j] - found[k * columns + j]))
                        .collect();
                    let product = |i: usize| -> f64 {
                        delta.iter().zip(&h[i * rows..]).map(|(d, h)| d * f64::from(*h)).sum()
                    };
                    (0..rows).map(|i| delta[i] * product(i)).sum()
                };
                (0..columns).map(column).sum()
            };
            let nearest = error(quantized(&values, columns, None));
            let with_feedback = error(quantized(&values, columns, Some(&feedback)));
            let bound = if rows == 1 { nearest } else { 0.7 * nearest };
            assert!(with_feedback <= bound, "{rows} x {columns}: {with_feedback}, to the nearest {nearest}");
        }
    }

    #[test]
    fn feedback_gives_the_same_bits_on_every_isa() {
        let layout = Layout { rows: 2 * BLOCK, columns: 2 * LANES };
        let values = random_values(6, layout.rows * layout.columns);
        let feedback = Feedback::new(&gptq::tests::hessian(layout.rows, 300), layout.rows);
        let found = Isa::available().into_iter().map(|isa| {
            let mut errors = [vec![], vec![]];
            let mut blocks = vec![];
            for block in 0..2 {
                let tile = &tile(layout, block, |k, j| values[k * layout.columns + j]);
                let (mut packed, mut scales) =
                    ([[[0; 4 * LANES]; PANEL_VECTORS]; Int4::PACKED_ROWS], Default::default());
                isa.run(QuantizeBlock {
                    tile,
                    feedback: Some((&feedback, &mut errors)),
                    packed: &mut packed,
                    scales: &mut scales,
                });
                blocks.push((packed, scales));
            }
            blocks
        });
        let found: Vec<_> = found.collect();
        assert!(found.iter().all(|blocks| *blocks == found[0]));
    }
}
