//! Every format converts weights to what it multiplies with, and multiplies as its reference does.

use super::{Precision, StoredTensor, WeightMatrix};
use crate::aligned_vec::AlignedVec;
use crate::elements::Elements;
use crate::epilogue::Epilogue;
use crate::isa::Isa;
use crate::linear::Matrix;
use crate::rows::{Rows, RowsMut};
use crate::testing::{assert_close, random_values};
use crate::thread_pool::ThreadPool;
use half::bf16;

/// Widths that are no multiple of a block or a vector; the last has more inputs than fit into a K-block.
const SHAPES: [(usize, usize); 8] =
    [(1, 1), (30, 17), (64, 16), (65, 40), (100, 150), (192, 300), (256, 70), (848, 40)];

/// A matrix converted to a precision.
struct Converted {
    precision: Precision,
    buffers: [AlignedVec<u8>; 2],
    rows: usize,
    columns: usize,
}

impl Converted {
    fn new(precision: Precision, weights: &[f32], rows: usize, columns: usize) -> Self {
        let tensors = precision.format().tensors(&[rows, columns]);
        let mut buffers = [0, 1].map(|i| AlignedVec::zeroed(tensors.get(i).map_or(0, StoredTensor::bytes)));
        let from = Matrix::new(Elements::F32(weights), rows, columns);
        precision.format().convert(from, false, None, buffers.each_mut().map(|buffer| &mut **buffer));
        Self { precision, buffers, rows, columns }
    }

    fn matrix(&self) -> WeightMatrix<'_> {
        let [weights, scales] = self.buffers.each_ref().map(|buffer| &**buffer);
        WeightMatrix { precision: self.precision, weights, scales, rows: self.rows, columns: self.columns }
    }

    fn linear(&self, pool: &ThreadPool, x: &[f32], bias: &[f32]) -> Vec<f32> {
        let mut y = vec![0.0; x.len() / self.rows * self.columns];
        let (x, out) = (Rows::dense(x, self.rows), RowsMut::dense(&mut y, self.columns));
        self.matrix().linear(pool, x, bias, Epilogue::Store, out);
        y
    }
}

#[test]
fn weights_are_rounded_to_the_nearest_that_the_format_holds() {
    for (rows, columns) in SHAPES {
        let weights = random_values(1, rows * columns);
        for precision in Precision::ALL {
            let converted = Converted::new(precision, &weights, rows, columns);
            for (i, &x) in weights.iter().enumerate() {
                let (k, j) = (i / columns, i % columns);
                let found = converted.matrix().weight(k, j);
                let column = weights[j..].iter().step_by(columns);
                let bound = match precision {
                    Precision::F32 => 0.0,
                    Precision::F16 => x.abs() / 2048.0 + 1e-7,
                    Precision::Bf16 | Precision::Bf16Dot => (bf16::from_f32(x).to_f32() - x).abs(),
                    Precision::Int8 => column.fold(0.0, |max: f32, x| max.max(x.abs())) * 0.51 / 127.0,
                    _ => 0.2,
                };
                assert!((found - x).abs() <= bound, "{precision}: {found} for {x}");
            }
        }
    }
}

/// Every instruction set, number of threads and batch gives the values of the reference, and the same bits.
#[test]
fn linear_matches_reference_on_every_isa() {
    let isas = [Isa::available(), vec![Isa::EmulatedTiles]].concat();
    for (rows, columns) in SHAPES {
        let (weights, bias) = (random_values(1, rows * columns), random_values(3, columns));
        for precision in Precision::ALL {
            let w = Converted::new(precision, &weights, rows, columns);
            for n in [1, 2, 5, 8, 14, 15, 31, 33, 70] {
                let x = random_values(2, n * rows);
                let expected: Vec<f32> =
                    x.chunks(rows).flat_map(|x| w.matrix().reference(x, &bias)).collect();
                let mut first: [Option<Vec<f32>>; 2] = [None, None];
                for (isa, threads) in isas.iter().flat_map(|&isa| [(isa, 1), (isa, 3)]) {
                    let pool = ThreadPool::new(threads, isa);
                    let y = w.linear(&pool, &x, &bias);
                    let one_by_one = x.chunks(rows).flat_map(|x| w.linear(&pool, x, &bias));
                    assert_eq!(one_by_one.collect::<Vec<_>>(), y, "{precision}, {isa}, {threads} threads");
                    assert_close(&y, &expected, if precision.is_quantized() { 1e-5 } else { 5e-5 });
                    let has_own_order = precision == Precision::Bf16Dot && isa.has_tiles();
                    let first = first[usize::from(has_own_order)].get_or_insert_with(|| y.clone());
                    assert_eq!(first, &y, "{precision}, {isa}, {threads} threads");
                }
            }
        }
    }
}

#[test]
fn zero_row_gives_bias_and_nan_row_gives_nan() {
    let (weights, bias): (Vec<f32>, _) =
        ((0..70 * 20).map(|i| (i / 20 + i % 20 + 1) as f32).collect(), random_values(3, 20));
    let mut x = vec![0.0; 140];
    x[100] = f32::NAN;
    for precision in Precision::ALL {
        let w = Converted::new(precision, &weights, 70, 20);
        let y = w.linear(&ThreadPool::new(1, Isa::available()[0]), &x, &bias);
        assert_eq!(y[..20], bias, "{precision}");
        assert!(y[20..].iter().all(|y| y.is_nan()), "{precision}");
    }
}
