//! The same product in tile registers: thirty-two tokens and thirty-two outputs at a time.
//!
//! Two tiles of tokens and two of outputs make four of sums, so that every tile that is loaded is multiplied twice. A
//! stretch of the weights of a few groups of outputs stays near while all bands of tokens meet it; unfinished sums wait in
//! memory meanwhile.
//!
//! Tiles multiply bytes as exactly as any other instruction: the same bits. Of bfloat16 they add up 32 inputs in an order
//! of their own ([`TileRegisters::dot_bf16`]), so where they are, one token alone is multiplied in tiles, too.

use super::linear::Product;
use super::{AHEAD, InTiles, Inputs, PANEL_VECTORS, PackedRow, WeightFormat};
use crate::kernels::simd::{Amx, F32Tiles, I32Tiles, Kernel, Simd, TileRegisters};
use crate::kernels::thread_pool::ThreadPool;
use std::cell::RefCell;
use std::ops::Range;

/// Tokens of a band: two tiles.
pub const TOKENS: usize = 32;
/// Groups of outputs that a thread takes at a time.
const GROUPS: usize = 4;
/// Blocks of inputs that are multiplied for all tokens before the next are.
const STRETCH: usize = 4;
/// Lines of a tile of bytes: 64 inputs.
const TILE_LINES: usize = 16;

/// Whether that is faster for so many tokens.
pub fn pays<F: WeightFormat>(tokens: usize) -> bool {
    match F::IN_TILES {
        InTiles::Never => false,
        InTiles::Bf16 => true,
        InTiles::Bytes { from } => tokens >= from,
    }
}

/// A thread's memory, kept from one call to the next.
#[derive(Default)]
struct Scratch {
    /// Of a few groups of outputs, `[bands, groups]`.
    sums: Vec<F32Tiles>,
    /// Of a stretch, `[groups, blocks, 16]`.
    unpacked: Vec<PackedRow>,
    /// Of two blocks.
    products: Vec<I32Tiles>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl<F: WeightFormat> Product<'_, F> {
    /// All of it.
    pub(super) fn in_tiles(&self, pool: &ThreadPool, amx: Amx) {
        let groups = self.w.layout().vectors().div_ceil(PANEL_VECTORS);
        pool.run(groups.div_ceil(GROUPS), |i| {
            let task = i * GROUPS..groups.min((i + 1) * GROUPS);
            SCRATCH.with_borrow_mut(|scratch| {
                let mut registers = amx.tile_registers();
                // One band meets the weights in the order they lie in memory.
                let together = if self.tiles.count() == 1 { 1 } else { GROUPS };
                for first in task.clone().step_by(together) {
                    amx.run(Groups {
                        product: self,
                        registers: &mut registers,
                        groups: first..task.end.min(first + together),
                        scratch,
                    });
                }
            });
        });
    }
}

/// Some groups of outputs, for all tokens.
struct Groups<'a, F: WeightFormat> {
    product: &'a Product<'a, F>,
    registers: &'a mut TileRegisters,
    groups: Range<usize>,
    scratch: &'a mut Scratch,
}

impl<F: WeightFormat> Kernel for Groups<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Product { w, tiles, blocks: inputs, .. } = self.product;
        let (in_blocks, height) = (w.layout().k_blocks(), tiles.height());
        let Scratch { sums, unpacked, products } = self.scratch;
        sums.resize(sums.len().max(tiles.count() * self.groups.len()), F32Tiles::ZERO);
        unpacked.resize(GROUPS * STRETCH * TILE_LINES, [[0; 64]; PANEL_VECTORS]);
        products.resize(2, I32Tiles::ZERO);
        let in_bytes = matches!(F::IN_TILES, InTiles::Bytes { .. });
        // One band meets every weight once: what is asked for ahead comes in time if it is asked for block by block.
        let ask = tiles.count() == 1 && !in_bytes;
        let stretch = if ask { 1 } else { STRETCH };
        for start in (0..in_blocks).step_by(stretch) {
            let blocks = start..in_blocks.min(start + stretch);
            let of_group = blocks.len() * TILE_LINES;
            if in_bytes {
                for (group, lines) in self.groups.clone().zip(unpacked.chunks_exact_mut(of_group)) {
                    for (block, lines) in blocks.clone().zip(lines.chunks_exact_mut(TILE_LINES)) {
                        w.unpack(block, group * PANEL_VECTORS, lines);
                    }
                }
            }
            for band in 0..tiles.count() {
                let (row, tokens) = tiles.block(band);
                self.registers.configure(tokens);
                let of_band = band * in_blocks * height..(band + 1) * in_blocks * height;
                let x = Inputs { blocks: &inputs[of_band], beside: &[], height };
                for (i, group) in self.groups.clone().enumerate() {
                    let part = Part { w, blocks: blocks.clone(), vector: group * PANEL_VECTORS, x };
                    let sums = &mut sums[band * self.groups.len() + i];
                    if in_bytes {
                        let w = &unpacked[i * of_group..][..of_group];
                        part.add_bytes(simd, self.registers, w, products, sums);
                    } else {
                        if ask {
                            part.ask_ahead(simd);
                        }
                        part.add_bf16(self.registers, sums);
                    }
                    if blocks.end == in_blocks {
                        let there = w.layout().vectors() - part.vector;
                        for (v, sums) in sums.0.iter().enumerate().take(there) {
                            self.product.finish(simd, row, part.vector + v, &sums[..tokens]);
                        }
                    }
                }
            }
        }
    }
}

/// A stretch of a band's inputs and of a group's weights.
struct Part<'a, F: WeightFormat> {
    w: &'a F,
    blocks: Range<usize>,
    /// The first of the group.
    vector: usize,
    x: Inputs<'a, F>,
}

impl<F: WeightFormat> Part<'_, F> {
    /// The inputs of a block, of all tokens.
    fn inputs(&self, block: usize, tokens: usize) -> &[F::Input] {
        &self.x.blocks[block * self.x.height..][..tokens]
    }

    /// Asks for as many lines as the part has.
    #[inline(always)]
    fn ask_ahead<S: Simd>(&self, simd: S) {
        let lines = self.w.packed_block(self.blocks.start, self.vector).as_flattened().as_ptr();
        for line in 0..self.blocks.len() * F::PACKED_ROWS * PANEL_VECTORS {
            simd.prefetch(lines.wrapping_add(line + AHEAD));
        }
    }

    #[inline(always)]
    fn add_bf16(&self, registers: &mut TileRegisters, sums: &mut F32Tiles) {
        let (first, last) = (self.blocks.start, self.blocks.end - 1);
        let w = self.w.packed_block(first, self.vector).as_ptr().cast();
        assert!(self.w.packed_block(last, self.vector).len() == F::PACKED_ROWS && F::PACKED_ROWS == 32);
        let x = self.inputs(first, registers.tokens()).as_ptr().cast();
        assert!(
            self.inputs(last, registers.tokens()).len() == registers.tokens() && size_of::<F::Input>() == 128
        );
        let stride = self.x.height * size_of::<F::Input>();
        // SAFETY: a group's blocks lie one behind the other; the last is there, and so are its inputs of all tokens. The
        // sizes are those of pairs of bfloat16.
        unsafe { registers.dot_bf16(self.blocks.len(), x, stride, w, sums, first == 0) };
    }

    #[inline(always)]
    fn add_bytes<S: Simd>(
        &self,
        simd: S,
        registers: &mut TileRegisters,
        unpacked: &[PackedRow],
        products: &mut [I32Tiles],
        sums: &mut F32Tiles,
    ) {
        let tokens = registers.tokens();
        if self.blocks.start == 0 {
            *sums = F32Tiles::ZERO;
        }
        let mut before = None;
        for (i, (block, w)) in self.blocks.clone().zip(unpacked.chunks_exact(TILE_LINES)).enumerate() {
            let x = self.inputs(block, tokens);
            let (at, stride) = (x.as_ptr().cast(), size_of::<F::Input>());
            // SAFETY: every token has an input, which begins with its bytes; a tile's lines are there.
            unsafe { registers.dot_i8(at, stride, w.as_ptr().cast(), &mut products[i % 2]) };
            // What was multiplied before is added up now: it has left the tiles for memory, and this one has not yet.
            if let Some(x) = before.replace(x) {
                self.w.add_products(simd, &products[(i + 1) % 2], x, sums);
            }
        }
        if let Some(x) = before {
            self.w.add_products(simd, &products[(self.blocks.len() + 1) % 2], x, sums);
        }
    }
}
