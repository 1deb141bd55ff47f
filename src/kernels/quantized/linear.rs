//! The product of rounded activations and quantized weights.
//!
//! A thread takes a few vectors of outputs, for a tile of tokens at a time: a stretch of the tile's inputs stays in the
//! first-level cache while all these vectors meet it, the whole numbers of a block in registers, and the unfinished sums
//! between.

use super::activations::{Beside, Block, quantize};
use super::{Inputs, Layout, PANEL_VECTORS, WeightFormat};
use crate::kernels::epilogue::{Epilogue, apply_epilogue};
use crate::kernels::isa::Isa;
use crate::kernels::microkernel::{REDUCED_MR, RowBlocks, mr, with_mr};
use crate::kernels::rows::{DisjointRows, Rows, RowsMut};
use crate::kernels::simd::{Kernel, LANES, Simd};
use crate::kernels::thread_pool::ThreadPool;
use std::ops::Range;

/// Vectors of outputs that one thread takes at a time.
const TASK: usize = 8;
/// Tokens in a tile where registers are few: two times as many as these have room for, since weights that have come from
/// memory are worth more than sums that go to the cache and back once a block.
const NARROW_TOKENS: usize = 2 * REDUCED_MR;
/// Blocks of inputs that a tile goes through with two vectors before it does with the next two: those of fourteen tokens,
/// 13 KiB, stay in the first-level cache for all vectors of a task.
const STRETCH: usize = 12;

/// The unfinished sums of a tile and two vectors.
type Sums = [[[f32; LANES]; mr(true)]; PANEL_VECTORS];

/// `x` is `[n_tokens, in]`, `y` is `[n_tokens, out]`. Panics where the shapes do not fit together.
pub fn linear<F: WeightFormat>(
    pool: &ThreadPool,
    x: Rows,
    w: F,
    bias: &[f32],
    epilogue: Epilogue,
    y: &mut RowsMut,
) {
    let Layout { rows, columns } = w.layout();
    assert_eq!((x.width(), bias.len(), y.width()), (rows, columns, columns), "x is [n_tokens, in]");
    let (isa, y) = (pool.isa(), y.as_disjoint());
    let tiles = RowBlocks::new(x.len(), most_tokens::<F>(isa, x.len()));
    F::Input::with_scratch(|blocks| {
        F::Beside::with_scratch(|beside| {
            quantize(pool, x, tiles, blocks, F::needs_beside(isa).then_some(&mut *beside));
            let product = Product { tiles, blocks, beside, w, bias, epilogue, y: &y };
            #[cfg(target_arch = "x86_64")]
            if let Isa::Amx(amx) = isa
                && super::amx_gemm::pays::<F>(x.len())
            {
                return product.in_tiles(pool, amx);
            }
            pool.run(w.layout().vectors().div_ceil(TASK), |i| product.task(isa, i));
        });
    });
}

/// The most tokens of a tile, where there are so many in all.
fn most_tokens<F: WeightFormat>(isa: Isa, _tokens: usize) -> usize {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Amx(_) if super::amx_gemm::pays::<F>(_tokens) => super::amx_gemm::TOKENS,
        _ if isa.is_wide() => mr(true),
        _ => NARROW_TOKENS,
    }
}

/// All there is to do.
pub(super) struct Product<'a, F: WeightFormat> {
    pub(super) tiles: RowBlocks,
    /// `[tiles, in / 64, height]`, and what is beside them.
    pub(super) blocks: &'a [F::Input],
    beside: &'a [F::Beside],
    pub(super) w: F,
    bias: &'a [f32],
    epilogue: Epilogue,
    y: &'a DisjointRows<'a>,
}

impl<F: WeightFormat> Product<'_, F> {
    /// Task `i`: its vectors for all tokens.
    fn task(&self, isa: Isa, i: usize) {
        let (in_blocks, vectors) = (self.w.layout().k_blocks(), self.w.layout().vectors());
        let vectors = i * TASK..vectors.min((i + 1) * TASK);
        // A tile alone meets every weight once, and does so in the order they lie in memory.
        let alone = self.tiles.count() == 1;
        let stretch = if alone { in_blocks } else { STRETCH };
        let mut sums: [Sums; TASK / PANEL_VECTORS] =
            [[[[0.0; LANES]; mr(true)]; PANEL_VECTORS]; TASK / PANEL_VECTORS];
        for tile in 0..self.tiles.count() {
            let (row, n) = self.tiles.block(tile);
            let height = self.tiles.height();
            let of_tile = tile * in_blocks * height..(tile + 1) * in_blocks * height;
            let beside = self.beside.get(of_tile.clone()).unwrap_or(&[]);
            let x = Inputs { blocks: &self.blocks[of_tile], beside, height };
            for start in (0..in_blocks).step_by(stretch) {
                let blocks = start..in_blocks.min(start + stretch);
                for (vector, sums) in vectors.clone().step_by(PANEL_VECTORS).zip(&mut sums) {
                    let part = Part { all: self, x, row, alone, blocks: blocks.clone(), vector, sums };
                    with_mr!(n, M => isa.run(Tile::<F, M>(part)));
                }
            }
        }
    }

    /// What becomes of a vector's finished sums, one for each of the tokens from `row` on.
    #[inline(always)]
    pub(super) fn finish<S: Simd>(&self, simd: S, row: usize, vector: usize, sums: &[[f32; LANES]]) {
        let scale = self.w.scale(simd, vector);
        let column = vector * LANES;
        let bias = &self.bias[column..self.bias.len().min(column + LANES)];
        for (m, sums) in sums.iter().enumerate() {
            // SAFETY: these columns of these rows are the caller's own.
            let y = unsafe { self.y.row_slice(row + m, column, bias.len()) };
            apply_epilogue(simd, simd.mul(simd.load(sums), scale), bias, self.epilogue, y);
        }
    }
}

/// A tile of tokens, a stretch of their inputs, and up to [`PANEL_VECTORS`] vectors of outputs.
struct Part<'a, F: WeightFormat> {
    all: &'a Product<'a, F>,
    x: Inputs<'a, F>,
    /// The first token's row in `y`.
    row: usize,
    /// Whether there is no other tile.
    alone: bool,
    blocks: Range<usize>,
    /// The first vector.
    vector: usize,
    /// Of the blocks before.
    sums: &'a mut Sums,
}

/// A part of `M` tokens.
struct Tile<'a, F: WeightFormat, const M: usize>(Part<'a, F>);

impl<F: WeightFormat, const M: usize> Kernel for Tile<'_, F, M> {
    type Output = ();
    const USES_BF16_DOT: bool = F::USES_BF16_DOT;

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        if const { !S::WIDE && M > NARROW_TOKENS } {
            unreachable!("a tile of {M} rows");
        }
        let part = &mut self.0;
        let vectors = PANEL_VECTORS.min(part.all.w.layout().vectors() - part.vector);
        let last = part.blocks.end == part.all.w.layout().k_blocks();
        if last && !part.alone {
            part.ask_for_outputs::<S, M>(simd);
        }
        let together = const { M * PANEL_VECTORS <= in_registers::<S, F>() };
        // Sums of both vectors that are more than registers take turns at every block whose weights come from memory, or
        // from which the second half of the tokens takes them too; otherwise each stays through all blocks.
        let turn = if together || S::WIDE && !part.alone { part.blocks.len() } else { 1 };
        for start in part.blocks.clone().step_by(turn) {
            let blocks = start..part.blocks.end.min(start + turn);
            if together && vectors == PANEL_VECTORS {
                part.add::<S, M, PANEL_VECTORS>(simd, &blocks, 0, 0);
                continue;
            }
            for v in 0..vectors {
                if const { M <= in_registers::<S, F>() } {
                    part.add::<S, M, 1>(simd, &blocks, v, 0);
                } else {
                    let half = M.div_ceil(2);
                    with_mr!(half, H => part.add::<S, H, 1>(simd, &blocks, v, 0));
                    with_mr!(M - half, H => part.add::<S, H, 1>(simd, &blocks, v, half));
                }
            }
        }
        if last {
            for v in 0..vectors {
                part.all.finish(simd, part.row, part.vector + v, &part.sums[v][..M]);
            }
        }
    }
}

/// How many sums of a block stay in registers.
const fn in_registers<S: Simd, F: WeightFormat>() -> usize {
    if S::WIDE { F::WIDE_SUMS } else { REDUCED_MR }
}

impl<F: WeightFormat> Part<'_, F> {
    /// Adds some blocks of `V` vectors from `v` to the sums of the `H` tokens from `first`.
    #[inline(always)]
    fn add<S: Simd, const H: usize, const V: usize>(
        &mut self,
        simd: S,
        blocks: &Range<usize>,
        v: usize,
        first: usize,
    ) {
        if const { H > in_registers::<S, F>() } {
            unreachable!("{H} tokens");
        }
        let so_far: &mut [[[f32; LANES]; mr(true)]; V] =
            self.sums[v..v + V].as_mut_array().expect("V vectors");
        let mut sums = [[simd.splat(0.0); V]; H];
        if blocks.start > 0 {
            for m in 0..H {
                for v in 0..V {
                    sums[m][v] = simd.load(&so_far[v][first + m]);
                }
            }
        }
        for block in blocks.clone() {
            self.all.w.add_block(simd, block, self.vector + v, self.x.of(block, first), &mut sums);
        }
        for m in 0..H {
            for v in 0..V {
                simd.store(sums[m][v], &mut so_far[v][first + m]);
            }
        }
    }

    /// Brings the outputs near: their rows are far apart, and storing waits for the lines that are stored to.
    #[inline(always)]
    fn ask_for_outputs<S: Simd, const M: usize>(&self, simd: S) {
        for m in 0..M {
            // SAFETY: this column of these rows is this part's own.
            let y = unsafe { self.all.y.row_slice(self.row + m, self.vector * LANES, 1) };
            for v in 0..PANEL_VECTORS {
                simd.prefetch(y.as_ptr().wrapping_add(v * LANES));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::activations::QuantizedBlock;
    use super::super::{BLOCK, Bf16Dot, Bytes64, InTiles, Int4, Int8};
    use super::*;
    use crate::kernels::isa::Isa;
    use crate::kernels::testing::{assert_close, random_values};
    use half::{bf16, f16};

    /// The formula as it stands: rounded inputs times rounded weights, in f64.
    fn textbook(x: &[f32], columns: usize, bias: &[f32], weight: impl Fn(usize, usize) -> f32) -> Vec<f32> {
        let rounded: Vec<f64> = x
            .chunks(BLOCK)
            .flat_map(|x| {
                let block = QuantizedBlock::textbook(x);
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

    fn check<F: WeightFormat>(w: F, n: usize, weight: impl Fn(usize, usize) -> f32) {
        let Layout { rows, columns } = w.layout();
        let (x, bias) = (random_values(2, n * rows), random_values(3, columns));
        let expected: Vec<f32> = x.chunks(rows).flat_map(|x| textbook(x, columns, &bias, &weight)).collect();
        same_everywhere(w, &x, &bias, &expected);
    }

    fn same_everywhere<F: WeightFormat>(w: F, x: &[f32], bias: &[f32], expected: &[f32]) {
        let Layout { rows, columns } = w.layout();
        // Tiles add up bfloat16 in an order of their own.
        let own = |isa: Isa| F::IN_TILES == InTiles::Bf16 && isa.name() == "amx";
        let mut first: [Option<Vec<f32>>; 2] = [None, None];
        for (isa, threads) in Isa::available().into_iter().flat_map(|isa| [(isa, 1), (isa, 3)]) {
            let mut y = vec![0.0; x.len() / rows * columns];
            let (pool, rows_of_x) = (ThreadPool::new(threads, isa), Rows::dense(x, rows));
            linear(&pool, rows_of_x, w, bias, Epilogue::Store, &mut RowsMut::dense(&mut y, columns));
            assert_close(&y, expected, 1e-5);
            let first = first[usize::from(own(isa))].get_or_insert_with(|| y.clone());
            assert_eq!(first, &y, "{isa}, {threads} threads");
        }
    }

    fn int8(
        rows: usize,
        columns: usize,
        weight: impl Fn(usize, usize) -> f32 + Sync,
    ) -> (Vec<Bytes64>, Vec<f32>) {
        let (mut lines, mut scales) = (vec![[0; 64]; Int8::packed_len(rows, columns)], vec![0.0; columns]);
        Int8::quantize(rows, columns, weight, &mut lines, &mut scales);
        (lines, scales)
    }

    fn int4(
        rows: usize,
        columns: usize,
        weight: impl Fn(usize, usize) -> f32 + Sync,
    ) -> (Vec<Bytes64>, Vec<[f16; LANES]>) {
        let mut lines = vec![[0; 64]; Int4::packed_len(rows, columns)];
        let mut scales = vec![[f16::ZERO; LANES]; Int4::scales_len(rows, columns)];
        Int4::quantize(rows, columns, weight, &mut lines, &mut scales);
        (lines, scales)
    }

    const SHAPES: [(usize, usize); 8] =
        [(1, 1), (30, 17), (64, 16), (65, 40), (100, 150), (192, 300), (256, 70), (BLOCK * STRETCH + 80, 40)];

    #[test]
    fn int8_holds_to_the_formula_and_is_the_same_everywhere() {
        for (rows, columns) in SHAPES {
            let weights = random_values(1, rows * columns);
            let (lines, scales) = int8(rows, columns, |k, j| weights[k * columns + j]);
            let w = Int8::new(&lines, &scales, rows, columns);
            for (i, x) in weights.iter().enumerate() {
                let rounded = w.weight(i / columns, i % columns);
                assert!((rounded - x).abs() <= 0.51 * scales[i % columns], "{rounded} for {x}");
            }
            for n in [1, 2, 5, 8, 14, 15, 31, 33, 70] {
                check(w, n, |k, j| w.weight(k, j));
            }
        }
    }

    #[test]
    fn int4_holds_to_the_formula_and_is_the_same_everywhere() {
        for (rows, columns) in SHAPES {
            let weights = random_values(1, rows * columns);
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
            let weights = random_values(1, rows * columns);
            let mut lines = vec![[0; 64]; Bf16Dot::packed_len(rows, columns)];
            Bf16Dot::quantize(rows, columns, |k, j| weights[k * columns + j], &mut lines);
            let w = Bf16Dot::new(&lines, rows, columns);
            let round = |x: f32| f64::from(bf16::from_f32(x));
            for n in [1, 2, 5, 8, 14, 15, 31, 33, 70] {
                let (x, bias) = (random_values(2, n * rows), random_values(3, columns));
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
    fn a_token_alone_is_the_same_as_among_others() {
        let (rows, columns, n) = (320, 100, 45);
        let (x, weights, bias) =
            (random_values(1, n * rows), random_values(2, rows * columns), random_values(3, columns));
        let mut lines = vec![[0; 64]; Bf16Dot::packed_len(rows, columns)];
        Bf16Dot::quantize(rows, columns, |k, j| weights[k * columns + j], &mut lines);
        let pairs = Bf16Dot::new(&lines, rows, columns);
        let (lines, scales) = int8(rows, columns, |k, j| weights[k * columns + j]);
        let bytes = Int8::new(&lines, &scales, rows, columns);
        for isa in Isa::available() {
            let pool = ThreadPool::new(2, isa);
            let both = |x: &[f32]| {
                let mut y = [vec![0.0; x.len() / rows * columns], vec![0.0; x.len() / rows * columns]];
                let rows = Rows::dense(x, rows);
                linear(&pool, rows, pairs, &bias, Epilogue::Store, &mut RowsMut::dense(&mut y[0], columns));
                linear(&pool, rows, bytes, &bias, Epilogue::Store, &mut RowsMut::dense(&mut y[1], columns));
                y
            };
            let all = both(&x);
            for (t, x) in x.chunks(rows).enumerate() {
                let of_token = all.each_ref().map(|y| y[t * columns..][..columns].to_vec());
                assert_eq!(both(x), of_token, "token {t}, {isa}");
            }
        }
    }

    #[test]
    fn a_row_of_zeros_gives_the_bias_and_nan_gives_nan() {
        let (lines, scales) = int8(70, 20, |k, j| (k + j) as f32);
        let w = Int8::new(&lines, &scales, 70, 20);
        let (bias, pool) = (random_values(3, 20), ThreadPool::new(1, Isa::available()[0]));
        let mut x = vec![0.0; 140];
        x[100] = f32::NAN;
        let mut y = vec![0.0; 40];
        linear(&pool, Rows::dense(&x, 70), w, &bias, Epilogue::Store, &mut RowsMut::dense(&mut y, 20));
        assert_eq!(y[..20], bias);
        assert!(y[20..].iter().all(|y| y.is_nan()));
    }
}
