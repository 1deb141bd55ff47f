//! The quantized matrix product in tiles: 32 tokens and 32 outputs at a time.
//!
//! Two tiles of tokens and two of outputs use four accumulator tiles, so every loaded tile is multiplied
//! twice. A few blocks of a few column panels stay in cache while all row blocks are multiplied by them;
//! between groups of blocks, the partial sums are in memory.
//!
//! The int8 product is exact, so its results are bit-identical to those of other instruction sets. The bf16
//! product sums 32 inputs in its own order ([`Tiles::dot_bf16`]), so on machines with tiles a single token is
//! multiplied in tiles too, which makes results independent of the batch size.

use super::matmul::MatMul;
use super::{
    Activations, AmxMode, PANEL_VECTORS, PREFETCH_DISTANCE_VECTORS, PackedMatrix, PackedRow, WeightFormat,
};
use crate::isa::Isa;
use crate::simd::Simd;
use crate::simd::tiles::{AccumulatorTiles, TileKernel, Tiles};
use crate::thread_pool::ThreadPool;
use std::cell::RefCell;
use std::ops::Range;

/// Tokens per row block: two tiles.
pub const ROW_BLOCK: usize = 32;
/// Column panels per chunk of work.
const PANELS_PER_CHUNK: usize = 4;
/// KC in blocks of inputs, which are multiplied with all tokens before the next ones.
const KC_BLOCKS: usize = 4;
/// Rows of an int8 weight tile: 64 inputs, four per row.
const INT8_TILE_ROWS: usize = 16;

/// Whether there are tiles, and they are faster for this number of tokens.
pub fn is_profitable<F: WeightFormat>(isa: Isa, tokens: usize) -> bool {
    isa.has_tiles()
        && match F::AMX {
            AmxMode::Unused => false,
            AmxMode::Bf16 => true,
            AmxMode::Int8 { min_tokens } => tokens >= min_tokens,
        }
}

/// Per-thread buffers, reused across calls.
#[derive(Default)]
struct Scratch {
    /// Partial sums, `[row blocks, column panels]`.
    sums: Vec<AccumulatorTiles<f32>>,
    /// Unpacked int8 weights, `[column panels, blocks, 16]`.
    unpacked: Vec<PackedRow>,
    /// Integer products of two blocks.
    products: Vec<AccumulatorTiles<i32>>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl<F: WeightFormat> MatMul<'_, F> {
    /// Runs the product on all threads.
    pub(super) fn run_tiled(&self, pool: &ThreadPool) {
        let panels = self.w.layout.vectors().div_ceil(PANEL_VECTORS);
        pool.run(panels.div_ceil(PANELS_PER_CHUNK), |i| {
            let panels = i * PANELS_PER_CHUNK..panels.min((i + 1) * PANELS_PER_CHUNK);
            SCRATCH.with_borrow_mut(|scratch| {
                pool.isa().run_tiled(Chunk { matmul: self, panels, scratch });
            });
        });
    }
}

/// Computes a chunk's column panels for all tokens.
struct Chunk<'a, F: WeightFormat> {
    matmul: &'a MatMul<'a, F>,
    panels: Range<usize>,
    scratch: &'a mut Scratch,
}

impl<F: WeightFormat> TileKernel for Chunk<'_, F> {
    #[inline(always)]
    fn run<S: Simd, T: Tiles>(mut self, simd: S, mut tiles: T) {
        // With one row block, panel by panel reads the weights in memory order.
        let step = if self.matmul.row_blocks.count() == 1 { 1 } else { PANELS_PER_CHUNK };
        for first in self.panels.clone().step_by(step) {
            self.run_panels(simd, &mut tiles, first..self.panels.end.min(first + step));
        }
    }
}

impl<F: WeightFormat> Chunk<'_, F> {
    #[inline(always)]
    fn run_panels<S: Simd>(&mut self, simd: S, tiles: &mut impl Tiles, panels: Range<usize>) {
        let MatMul { w, row_blocks, blocks: activations, .. } = self.matmul;
        let (input_blocks, height) = (w.layout.input_blocks(), row_blocks.height());
        let Scratch { sums, unpacked, products } = &mut *self.scratch;
        sums.resize(sums.len().max(row_blocks.count() * panels.len()), AccumulatorTiles::default());
        unpacked.resize(PANELS_PER_CHUNK * KC_BLOCKS * INT8_TILE_ROWS, [[0; 64]; PANEL_VECTORS]);
        products.resize(2, AccumulatorTiles::default());
        let is_int8 = matches!(F::AMX, AmxMode::Int8 { .. });
        // With one row block every weight comes from memory and is used once, so bf16 weights are prefetched:
        // before each block is multiplied, one that is PREFETCH_DISTANCE_VECTORS ahead.
        let prefetches = row_blocks.count() == 1 && !is_int8;
        let kc = if prefetches { 1 } else { KC_BLOCKS };
        for start in (0..input_blocks).step_by(kc) {
            let blocks = start..input_blocks.min(start + kc);
            let panel_rows = blocks.len() * INT8_TILE_ROWS;
            if is_int8 {
                for (panel, rows) in panels.clone().zip(unpacked.chunks_exact_mut(panel_rows)) {
                    for (block, rows) in blocks.clone().zip(rows.chunks_exact_mut(INT8_TILE_ROWS)) {
                        F::unpack_i8(w.packed_block(block, panel * PANEL_VECTORS), rows);
                    }
                }
            }
            for row_block in 0..row_blocks.count() {
                let (row, tokens) = row_blocks.block(row_block);
                tiles.configure(tokens);
                let range = row_block * input_blocks * height..(row_block + 1) * input_blocks * height;
                let x = Activations { blocks: &activations[range], side: &[], height };
                for (i, panel) in panels.clone().enumerate() {
                    let tile = TileProduct { w, blocks: blocks.clone(), vector: panel * PANEL_VECTORS, x };
                    let sums = &mut sums[row_block * panels.len() + i];
                    if is_int8 {
                        let w = &unpacked[i * panel_rows..][..panel_rows];
                        tile.accumulate_i8(simd, tiles, w, products, sums);
                    } else {
                        if prefetches {
                            tile.prefetch_weights(simd);
                        }
                        tile.accumulate_bf16(tiles, sums);
                    }
                    if blocks.end == input_blocks {
                        let vectors = w.layout.vectors() - tile.vector;
                        for (v, sums) in sums.0.iter().enumerate().take(vectors) {
                            self.matmul.apply_epilogue(simd, row, tile.vector + v, &sums[..tokens]);
                        }
                    }
                }
            }
        }
    }
}

/// The product of a few blocks of a row block's activations and a column panel's weights.
struct TileProduct<'a, F: WeightFormat> {
    w: &'a PackedMatrix<'a, F>,
    blocks: Range<usize>,
    /// The first vector of the column panel.
    vector: usize,
    x: Activations<'a, F>,
}

impl<F: WeightFormat> TileProduct<'_, F> {
    /// Returns a block's activations of all tokens.
    fn activations(&self, block: usize, tokens: usize) -> &[F::Block] {
        &self.x.blocks[block * self.x.height..][..tokens]
    }

    /// Prefetches as many weights as the product reads, [`PREFETCH_DISTANCE_VECTORS`] ahead.
    #[inline(always)]
    fn prefetch_weights<S: Simd>(&self, simd: S) {
        let weights = self.w.packed_block(self.blocks.start, self.vector).as_flattened().as_ptr();
        for i in 0..self.blocks.len() * F::PACKED_ROWS * PANEL_VECTORS {
            simd.prefetch(weights.wrapping_add(i + PREFETCH_DISTANCE_VECTORS));
        }
    }

    #[inline(always)]
    fn accumulate_bf16(&self, tiles: &mut impl Tiles, sums: &mut AccumulatorTiles<f32>) {
        let (first, last) = (self.blocks.start, self.blocks.end - 1);
        let w = self.w.packed_block(first, self.vector).as_ptr().cast();
        assert!(self.w.packed_block(last, self.vector).len() == F::PACKED_ROWS && F::PACKED_ROWS == 32);
        let tokens = tiles.tokens();
        let x = self.activations(first, tokens).as_ptr().cast();
        assert!(self.activations(last, tokens).len() == tokens && size_of::<F::Block>() == 128);
        let stride = self.x.height * size_of::<F::Block>();
        // SAFETY: a panel's blocks are contiguous; the slices above prove that the last one exists, and that
        // its activations of all tokens do. The sizes are those of bf16 pairs.
        unsafe { tiles.dot_bf16(self.blocks.len(), x, stride, w, sums, first == 0) };
    }

    #[inline(always)]
    fn accumulate_i8<S: Simd>(
        &self,
        simd: S,
        tiles: &mut impl Tiles,
        unpacked: &[PackedRow],
        products: &mut [AccumulatorTiles<i32>],
        sums: &mut AccumulatorTiles<f32>,
    ) {
        let tokens = tiles.tokens();
        if self.blocks.start == 0 {
            *sums = AccumulatorTiles::default();
        }
        let mut previous = None;
        for (i, (block, w)) in self.blocks.clone().zip(unpacked.chunks_exact(INT8_TILE_ROWS)).enumerate() {
            let x = self.activations(block, tokens);
            let (x_ptr, stride) = (x.as_ptr().cast(), size_of::<F::Block>());
            // SAFETY: every token has a block, which starts with its i8 values; `w` holds the rows of a
            // weight tile.
            unsafe { tiles.dot_i8(x_ptr, stride, w.as_ptr().cast(), &mut products[i % 2]) };
            // Software pipelining: the previous block's products are in memory, this block's still in the
            // tiles.
            if let Some(x) = previous.replace(x) {
                F::accumulate_products(simd, &products[(i + 1) % 2], x, sums);
            }
        }
        if let Some(x) = previous {
            F::accumulate_products(simd, &products[(self.blocks.len() + 1) % 2], x, sums);
        }
    }
}
