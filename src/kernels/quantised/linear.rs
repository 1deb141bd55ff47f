//! The product of rounded activations and quantised weights.
//!
//! A thread takes two vectors of outputs through all blocks of inputs, for a tile of tokens at a time: the whole numbers
//! of a block stay in registers, the weights of the two vectors in the nearest caches until all tokens have met them.

use super::activations::{Block, quantise};
use super::{Format, Layout, VECTORS};
use crate::kernels::epilogue::{Then, finish};
use crate::kernels::rows::{Rows, RowsMut, SharedRows};
use crate::kernels::simd::{Kernel, LANES, Simd};
use crate::kernels::threads::Team;
use crate::kernels::tile::{NARROW_ROWS, tile_range, tile_rows, with_rows};

/// Vectors of outputs that one thread takes at a time.
const TASK: usize = 8;
/// Tokens in a tile where registers are few: two times as many as these have room for, since weights that have come from
/// memory are worth more than sums that go to the cache and back once a block.
const NARROW_TOKENS: usize = 2 * NARROW_ROWS;

/// `x` is `[n_tokens, in]`, `y` is `[n_tokens, out]`. Panics where the shapes do not fit together.
pub fn linear<F: Format>(team: &Team, x: Rows, w: F, bias: &[f32], then: Then, y: &mut RowsMut) {
    let Layout { rows, columns } = w.layout();
    assert_eq!((x.width(), bias.len(), y.width()), (rows, columns, columns), "x is [n_tokens, in]");
    let (in_blocks, vectors) = (w.layout().blocks(), w.layout().vectors());
    F::Input::with_scratch(|activations| {
        quantise(team, x, activations);
        let activations = &activations[..x.len() * in_blocks];
        let most = if team.isa().is_wide() { tile_rows(true) } else { NARROW_TOKENS };
        let tiles = x.len().div_ceil(most);
        let y = y.share();
        team.run(vectors.div_ceil(TASK), |i| {
            for vector in (i * TASK..vectors.min((i + 1) * TASK)).step_by(VECTORS) {
                for tile in 0..tiles {
                    let (row, n) = tile_range(x.len(), most, tile);
                    let x = &activations[row * in_blocks..(row + n) * in_blocks];
                    let part = Part { x, w, bias, then, y: &y, row, vector };
                    with_rows!(n, M => team.isa().run(Tile::<F, M>(part)));
                }
            }
        });
    });
}

/// Some tokens and up to [`VECTORS`] vectors of outputs.
#[derive(Clone, Copy)]
struct Part<'a, F: Format> {
    /// `[M, in / 64]`
    x: &'a [F::Input],
    w: F,
    bias: &'a [f32],
    then: Then,
    y: &'a SharedRows<'a>,
    /// The first token's row in `y`.
    row: usize,
    /// The first vector.
    vector: usize,
}

/// A part of `M` tokens.
struct Tile<'a, F: Format, const M: usize>(Part<'a, F>);

impl<F: Format, const M: usize> Kernel for Tile<'_, F, M> {
    type Output = ();
    const DOTS_BF16: bool = F::DOTS_BF16;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        if const { !S::WIDE && M > NARROW_TOKENS } {
            unreachable!("a tile of {M} rows");
        }
        let last = self.0.w.layout().vectors();
        if S::WIDE || M <= NARROW_ROWS / VECTORS {
            if self.0.vector + VECTORS <= last {
                return self.0.vectors::<S, M, VECTORS>(simd, self.0.vector);
            }
            return self.0.vectors::<S, M, 1>(simd, self.0.vector);
        }
        self.0.halves::<S, M>(simd);
    }
}

impl<F: Format> Part<'_, F> {
    #[inline(always)]
    fn vectors<S: Simd, const M: usize, const V: usize>(&self, simd: S, vector: usize) {
        let in_blocks = self.x.len() / M;
        let mut sums = [[simd.splat(0.0); V]; M];
        for block in 0..in_blocks {
            let x = std::array::from_fn(|m| &self.x[m * in_blocks + block]);
            self.w.add_block(simd, block, vector, x, &mut sums);
        }
        for v in 0..V {
            self.finish(simd, vector + v, sums.map(|sums| sums[v]));
        }
    }

    /// The same where registers are few: half of the tokens and one vector at a time, while the block's weights are near.
    #[inline(always)]
    fn halves<S: Simd, const M: usize>(&self, simd: S) {
        let in_blocks = self.x.len() / M;
        let mut sums = [[[simd.splat(0.0)]; M]; VECTORS];
        let half = if M > NARROW_ROWS { M.div_ceil(2) } else { M };
        for block in 0..in_blocks {
            let x = std::array::from_fn(|m| &self.x[m * in_blocks + block]);
            for v in 0..VECTORS {
                with_rows!(half, H => self.add::<S, M, H>(simd, block, v, &x, 0, &mut sums[v]));
                if M > half {
                    with_rows!(M - half, H => self.add::<S, M, H>(simd, block, v, &x, half, &mut sums[v]));
                }
            }
        }
        for v in 0..VECTORS.min(self.w.layout().vectors() - self.vector) {
            self.finish(simd, self.vector + v, sums[v].map(|[sum]| sum));
        }
    }

    /// Adds a block of one vector for the `H` tokens from `first`.
    #[inline(always)]
    fn add<S: Simd, const M: usize, const H: usize>(
        &self,
        simd: S,
        block: usize,
        v: usize,
        x: &[&F::Input; M],
        first: usize,
        sums: &mut [[S::F32s; 1]; M],
    ) {
        if const { H > M || H > NARROW_ROWS } {
            unreachable!("{H} tokens");
        }
        let x: &[&F::Input; H] = x[first..first + H].as_array().expect("H tokens");
        let sums: &mut [[S::F32s; 1]; H] = sums[first..first + H].as_mut_array().expect("H tokens");
        self.w.add_block(simd, block, self.vector + v, *x, sums);
    }

    /// What becomes of the finished sums of `vector`.
    #[inline(always)]
    fn finish<S: Simd, const M: usize>(&self, simd: S, vector: usize, sums: [S::F32s; M]) {
        let scale = self.w.scale(simd, vector);
        let column = vector * LANES;
        let bias = &self.bias[column..self.bias.len().min(column + LANES)];
        for m in 0..M {
            // SAFETY: these columns of these rows are this part's own.
            let y = unsafe { self.y.part(self.row + m, column, bias.len()) };
            finish(simd, simd.mul(sums[m], scale), bias, self.then, y);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::activations::QuantisedBlock;
    use super::super::{BLOCK, Bf16Dot, Int4, Int8, Line};
    use super::*;
    use crate::kernels::check::{assert_close, numbers};
    use crate::kernels::isa::Isa;
    use half::{bf16, f16};

    /// The formula as it stands: rounded inputs times rounded weights, in f64.
    fn textbook(x: &[f32], columns: usize, bias: &[f32], weight: impl Fn(usize, usize) -> f32) -> Vec<f32> {
        let rounded: Vec<f64> = x
            .chunks(BLOCK)
            .flat_map(|x| {
                let block = QuantisedBlock::textbook(x);
                let q = block.q.into_iter().flatten().take(x.len());
                q.map(|q| f64::from(q) * f64::from(block.scale)).collect::<Vec<_>>()
            })
            .collect();
        let one = |j: usize| {
            let sum: f64 = rounded.iter().enumerate().map(|(k, x)| x * f64::from(weight(k, j))).sum();
            sum as f32 + bias[j]
        };
        (0..columns).map(one).collect()
    }

    fn check<F: Format>(w: F, n: usize, weight: impl Fn(usize, usize) -> f32) {
        let Layout { rows, columns } = w.layout();
        let (x, bias) = (numbers(2, n * rows), numbers(3, columns));
        let expected: Vec<f32> = x.chunks(rows).flat_map(|x| textbook(x, columns, &bias, &weight)).collect();
        same_everywhere(w, &x, &bias, &expected);
    }

    fn same_everywhere<F: Format>(w: F, x: &[f32], bias: &[f32], expected: &[f32]) {
        let Layout { rows, columns } = w.layout();
        let mut first: Option<Vec<f32>> = None;
        for (isa, threads) in Isa::available().into_iter().flat_map(|isa| [(isa, 1), (isa, 3)]) {
            let mut y = vec![0.0; x.len() / rows * columns];
            let (team, rows_of_x) = (Team::new(threads, isa), Rows::dense(x, rows));
            linear(&team, rows_of_x, w, bias, Then::Store, &mut RowsMut::dense(&mut y, columns));
            assert_close(&y, expected, 1e-5);
            assert_eq!(first.get_or_insert_with(|| y.clone()), &y, "{isa}, {threads} threads");
        }
    }

    fn int8(
        rows: usize,
        columns: usize,
        weight: impl Fn(usize, usize) -> f32 + Sync,
    ) -> (Vec<Line>, Vec<f32>) {
        let (mut lines, mut scales) = (vec![[0; 64]; Int8::lines_of(rows, columns)], vec![0.0; columns]);
        Int8::quantise(rows, columns, weight, &mut lines, &mut scales);
        (lines, scales)
    }

    fn int4(
        rows: usize,
        columns: usize,
        weight: impl Fn(usize, usize) -> f32 + Sync,
    ) -> (Vec<Line>, Vec<[f16; LANES]>) {
        let mut lines = vec![[0; 64]; Int4::lines_of(rows, columns)];
        let mut scales = vec![[f16::ZERO; LANES]; Int4::scales_of(rows, columns)];
        Int4::quantise(rows, columns, weight, &mut lines, &mut scales);
        (lines, scales)
    }

    const SHAPES: [(usize, usize); 7] =
        [(1, 1), (30, 17), (64, 16), (65, 40), (100, 150), (192, 300), (256, 70)];

    #[test]
    fn int8_holds_to_the_formula_and_is_the_same_everywhere() {
        for (rows, columns) in SHAPES {
            let weights = numbers(1, rows * columns);
            let (lines, scales) = int8(rows, columns, |k, j| weights[k * columns + j]);
            let w = Int8::new(&lines, &scales, rows, columns);
            for (i, x) in weights.iter().enumerate() {
                let rounded = w.weight(i / columns, i % columns);
                assert!((rounded - x).abs() <= 0.51 * scales[i % columns], "{rounded} for {x}");
            }
            for n in [1, 2, 5, 8, 14, 15, 31] {
                check(w, n, |k, j| w.weight(k, j));
            }
        }
    }

    #[test]
    fn int4_holds_to_the_formula_and_is_the_same_everywhere() {
        for (rows, columns) in SHAPES {
            let weights = numbers(1, rows * columns);
            let (lines, scales) = int4(rows, columns, |k, j| weights[k * columns + j]);
            let w = Int4::new(&lines, &scales, rows, columns);
            for (i, x) in weights.iter().enumerate() {
                assert!((w.weight(i / columns, i % columns) - x).abs() <= 0.2);
            }
            for n in [1, 2, 5, 8, 14, 15, 31] {
                check(w, n, |k, j| w.weight(k, j));
            }
        }
    }

    #[test]
    fn bf16_pairs_hold_to_the_formula_and_are_the_same_everywhere() {
        for (rows, columns) in SHAPES {
            let weights = numbers(1, rows * columns);
            let mut lines = vec![[0; 64]; Bf16Dot::lines_of(rows, columns)];
            Bf16Dot::quantise(rows, columns, |k, j| weights[k * columns + j], &mut lines);
            let w = Bf16Dot::new(&lines, rows, columns);
            let round = |x: f32| f64::from(bf16::from_f32(x));
            for n in [1, 2, 5, 8, 14, 15, 31] {
                let (x, bias) = (numbers(2, n * rows), numbers(3, columns));
                let one = |x: &[f32], j: usize| {
                    let product = |(k, x): (usize, &f32)| round(*x) * round(weights[k * columns + j]);
                    x.iter().enumerate().map(product).sum::<f64>() as f32 + bias[j]
                };
                let rows_of_x = x.chunks(rows);
                let expected: Vec<f32> =
                    rows_of_x.flat_map(|x| (0..columns).map(|j| one(x, j)).collect::<Vec<_>>()).collect();
                same_everywhere(w, &x, &bias, &expected);
            }
        }
    }

    #[test]
    fn a_row_of_zeros_gives_the_bias_and_nan_gives_nan() {
        let (lines, scales) = int8(70, 20, |k, j| (k + j) as f32);
        let w = Int8::new(&lines, &scales, 70, 20);
        let (bias, team) = (numbers(3, 20), Team::new(1, Isa::available()[0]));
        let mut x = vec![0.0; 140];
        x[100] = f32::NAN;
        let mut y = vec![0.0; 40];
        linear(&team, Rows::dense(&x, 70), w, &bias, Then::Store, &mut RowsMut::dense(&mut y, 20));
        assert_eq!(y[..20], bias);
        assert!(y[20..].iter().all(|y| y.is_nan()));
    }
}
