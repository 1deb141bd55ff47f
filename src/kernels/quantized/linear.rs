//! The matrix product of quantized activations and quantized weights.
//!
//! A chunk of work computes a few vectors of outputs, one row block of tokens at a time: a few blocks of
//! activations stay in L1 while all these vectors are multiplied by them. A block's integer accumulators stay
//! in registers, the f32 partial sums in L1.

use super::activations::{ActivationBlock, SideTable, quantize};
use super::matmul::MatMul;
use super::tile_gemm;
use super::{Activations, BLOCK, Layout, PANEL_VECTORS, PackedMatrix, WeightFormat};
use crate::epilogue::Epilogue;
use crate::gemm::blocking::{REDUCED_MR, RowBlocks, block_range, mr, with_mr, with_reduced_mr};
use crate::isa::Isa;
use crate::rows::{Rows, RowsMut};
use crate::simd::{Kernel, LANES, Simd};
use crate::thread_pool::ThreadPool;
use std::ops::Range;

/// Vectors of outputs per chunk of work.
const VECTORS_PER_CHUNK: usize = 8;
/// Tokens per row block on machines with 16 registers: twice the register tile, because loading weights from
/// memory again costs more than storing partial sums to L1 once per block.
const NARROW_ROW_BLOCK: usize = 2 * REDUCED_MR;
/// KC in blocks of inputs: the quantized activations of fourteen tokens, 13 KiB, stay in L1 for all vectors
/// of a chunk.
const KC_BLOCKS: usize = 12;

/// The partial sums of a row block and a column panel.
type PartialSums = [[[f32; LANES]; mr(true)]; PANEL_VECTORS];

/// Dequantizes and multiplies, in f64, for one token: `x` is `[in]`, the result `[out]`. The activations are
/// quantized as for the fast form, block by block.
pub fn reference<F: WeightFormat>(x: &[f32], w: PackedMatrix<F>, bias: &[f32]) -> Vec<f32> {
    let x: Vec<f64> = x.chunks(BLOCK).flat_map(F::Block::dequantized).collect();
    let output = |j| {
        let products = x.iter().enumerate().map(|(k, x)| x * f64::from(F::weight(&w, k, j)));
        (products.sum::<f64>() + f64::from(bias[j])) as f32
    };
    (0..w.layout.columns).map(output).collect()
}

/// Computes `y = epilogue(x · w + bias)`, where `x` is `[n_tokens, in]` and `y` is `[n_tokens, out]`.
///
/// # Panics
/// If the shapes do not match.
pub fn linear<F: WeightFormat>(
    pool: &ThreadPool,
    x: Rows,
    w: PackedMatrix<F>,
    bias: &[f32],
    epilogue: Epilogue,
    mut y: RowsMut,
) {
    let Layout { rows, columns } = w.layout;
    assert_eq!((x.width(), bias.len(), y.width()), (rows, columns, columns), "x is [n_tokens, in]");
    let (isa, y) = (pool.isa(), y.as_disjoint());
    let row_blocks = RowBlocks::new(x.len(), max_row_block::<F>(isa, x.len()));
    F::Block::with_scratch(|blocks| {
        F::Side::with_scratch(|side| {
            quantize(pool, x, row_blocks, blocks, F::needs_side_table(isa).then_some(&mut *side));
            let matmul = MatMul { row_blocks, blocks, side, w, bias, epilogue, y: &y };
            if tile_gemm::is_profitable::<F>(isa, x.len()) {
                return matmul.run_tiled(pool);
            }
            pool.run(w.layout.vectors().div_ceil(VECTORS_PER_CHUNK), |i| matmul.run_chunk(isa, i));
        });
    });
}

/// Returns the maximum number of tokens per row block.
fn max_row_block<F: WeightFormat>(isa: Isa, tokens: usize) -> usize {
    match isa.is_wide() {
        _ if tile_gemm::is_profitable::<F>(isa, tokens) => tile_gemm::ROW_BLOCK,
        true => mr(true),
        false => NARROW_ROW_BLOCK,
    }
}

impl<F: WeightFormat> MatMul<'_, F> {
    /// Computes the outputs of chunk `i` for all tokens.
    fn run_chunk(&self, isa: Isa, i: usize) {
        let (input_blocks, vectors) = (self.w.layout.input_blocks(), self.w.layout.vectors());
        let vectors = i * VECTORS_PER_CHUNK..vectors.min((i + 1) * VECTORS_PER_CHUNK);
        // A single row block uses every weight once, in memory order.
        let is_single_row_block = self.row_blocks.count() == 1;
        let kc = if is_single_row_block { input_blocks } else { KC_BLOCKS };
        let mut sums: [PartialSums; VECTORS_PER_CHUNK / PANEL_VECTORS] =
            [[[[0.0; LANES]; mr(true)]; PANEL_VECTORS]; VECTORS_PER_CHUNK / PANEL_VECTORS];
        for row_block in 0..self.row_blocks.count() {
            let (row, n) = self.row_blocks.block(row_block);
            let height = self.row_blocks.height();
            let range = row_block * input_blocks * height..(row_block + 1) * input_blocks * height;
            let side = self.side.get(range.clone()).unwrap_or(&[]);
            let x = Activations { blocks: &self.blocks[range], side, height };
            for start in (0..input_blocks).step_by(kc) {
                let blocks = start..input_blocks.min(start + kc);
                for (vector, sums) in vectors.clone().step_by(PANEL_VECTORS).zip(&mut sums) {
                    let product = PanelProduct {
                        matmul: self,
                        x,
                        row,
                        is_single_row_block,
                        blocks: blocks.clone(),
                        vector,
                        sums,
                    };
                    if isa.is_wide() {
                        with_mr!(n, MR => isa.run(WidePanel::<F, MR>(product)));
                    } else {
                        isa.run(NarrowPanel(product, n));
                    }
                }
            }
        }
    }
}

/// The product of a row block's activations and a column panel's weights over a few blocks.
struct PanelProduct<'a, F: WeightFormat> {
    matmul: &'a MatMul<'a, F>,
    x: Activations<'a, F>,
    /// The first token's row in `y`.
    row: usize,
    /// Whether there is no other row block.
    is_single_row_block: bool,
    blocks: Range<usize>,
    /// The first vector of the column panel.
    vector: usize,
    /// The sums of the previous blocks.
    sums: &'a mut PartialSums,
}

/// A [`PanelProduct`] of `MR` tokens, where there are 32 registers.
struct WidePanel<'a, F: WeightFormat, const MR: usize>(PanelProduct<'a, F>);

impl<F: WeightFormat, const MR: usize> Kernel for WidePanel<'_, F, MR> {
    type Output = ();
    const USES_BF16_DOT: bool = F::USES_BF16_DOT;

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        if const { !S::WIDE } {
            unreachable!("a row block of {MR} rows");
        }
        let product = &mut self.0;
        product.prefetch_outputs(simd, MR);
        let blocks = product.blocks.clone();
        if const { MR * PANEL_VECTORS <= F::WIDE_ACCUMULATORS } {
            product.accumulate::<S, MR, PANEL_VECTORS>(simd, &blocks, 0, 0);
        } else {
            // The vectors of the panel are multiplied one at a time. They alternate after every block if the
            // weights come from memory (a single row block); otherwise each runs through all blocks.
            let step = if product.is_single_row_block { 1 } else { blocks.len() };
            for start in blocks.clone().step_by(step) {
                for v in 0..product.vectors() {
                    product.accumulate::<S, MR, 1>(simd, &(start..blocks.end.min(start + step)), v, 0);
                }
            }
        }
        product.finish(simd, MR);
    }
}

/// A [`PanelProduct`] of at most [`NARROW_ROW_BLOCK`] tokens, where there are sixteen registers.
struct NarrowPanel<'a, F: WeightFormat>(PanelProduct<'a, F>, usize);

impl<F: WeightFormat> Kernel for NarrowPanel<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        if const { S::WIDE } {
            unreachable!("a row block for sixteen registers");
        }
        let NarrowPanel(mut product, n) = self;
        product.prefetch_outputs(simd, n);
        let blocks = product.blocks.clone();
        match n {
            1 => product.accumulate::<S, 1, PANEL_VECTORS>(simd, &blocks, 0, 0),
            2 => product.accumulate::<S, 2, PANEL_VECTORS>(simd, &blocks, 0, 0),
            _ => {
                // The vectors of the panel are multiplied one at a time, by all tokens or by each half of
                // them. They alternate after every block: a block's weights are in the L1 cache then.
                let parts = [0, 1].map(|i| block_range(n, REDUCED_MR, i));
                let parts = &parts[..n.div_ceil(REDUCED_MR)];
                for block in blocks {
                    for v in 0..product.vectors() {
                        for &(first, n) in parts {
                            let block = block..block + 1;
                            with_reduced_mr!(n, MR => product.accumulate::<S, MR, 1>(simd, &block, v, first));
                        }
                    }
                }
            }
        }
        product.finish(simd, n);
    }
}

impl<F: WeightFormat> PanelProduct<'_, F> {
    /// The vectors of the column panel that have outputs; the last panel may have one only.
    fn vectors(&self) -> usize {
        PANEL_VECTORS.min(self.matmul.w.layout.vectors() - self.vector)
    }

    /// Whether the blocks are the last ones.
    fn is_last(&self) -> bool {
        self.blocks.end == self.matmul.w.layout.input_blocks()
    }

    /// After the last block, applies the epilogue to the sums of `n` tokens.
    #[inline(always)]
    fn finish<S: Simd>(&self, simd: S, n: usize) {
        if self.is_last() {
            for v in 0..self.vectors() {
                self.matmul.apply_epilogue(simd, self.row, self.vector + v, &self.sums[v][..n]);
            }
        }
    }

    /// Accumulates some blocks for the `NR_VECS` vectors from `v` and the `MR` tokens from `first`.
    #[inline(always)]
    fn accumulate<S: Simd, const MR: usize, const NR_VECS: usize>(
        &mut self,
        simd: S,
        blocks: &Range<usize>,
        v: usize,
        first: usize,
    ) {
        let sums: &mut [[[f32; LANES]; mr(true)]; NR_VECS] =
            self.sums[v..v + NR_VECS].as_mut_array().expect("NR_VECS vectors");
        let mut acc = [[simd.splat(0.0); NR_VECS]; MR];
        if blocks.start > 0 {
            for m in 0..MR {
                for v in 0..NR_VECS {
                    acc[m][v] = simd.load(&sums[v][first + m]);
                }
            }
        }
        for block in blocks.clone() {
            let x = self.x.block(block, first);
            F::accumulate_block(&self.matmul.w, simd, block, self.vector + v, x, &mut acc);
        }
        for m in 0..MR {
            for v in 0..NR_VECS {
                simd.store(acc[m][v], &mut sums[v][first + m]);
            }
        }
    }

    /// Before the last block, prefetches the outputs of `n` tokens: their rows are far apart, and stores wait
    /// for their cache lines. For a single row block they are few.
    #[inline(always)]
    fn prefetch_outputs<S: Simd>(&self, simd: S, n: usize) {
        let rows = if self.is_last() && !self.is_single_row_block { n } else { 0 };
        for m in 0..rows {
            // SAFETY: only this chunk of work writes these columns.
            let y = unsafe { self.matmul.y.row_slice(self.row + m, self.vector * LANES, 1) };
            for v in 0..PANEL_VECTORS {
                simd.prefetch(y.as_ptr().wrapping_add(v * LANES));
            }
        }
    }
}
