//! Many tokens: panels of the weights are copied into the cache, then multiplied with tiles of tokens in registers.
//!
//! Rows of `W` are kilobytes apart, so a tile that walked down them in place would touch a new page at every step. A
//! thread therefore copies the columns it works on into panels `[in, 16]`, widening them to f32 on the way, which costs
//! little because every panel is used for all tokens.
//!
//! What is used again soon stays near (Goto and van de Geijn 2008): of a band of tokens and a segment of their inputs,
//! which fit in the second-level cache, all the thread's panels are multiplied; of a panel's segment, all tiles of the
//! band. Between segments the unfinished sums wait in memory.

use super::segments::segments;
use super::{Element, LANES, Rows, RowsMut, Simd, Team, Then, finish};
use crate::kernels::elements::load_partial;
use crate::kernels::isa::Isa;
use crate::kernels::rows::SharedRows;
use crate::kernels::simd::{Kernel, Lanes};
use crate::kernels::tile::{multiply_add, reaches, tile_rows, with_rows};
use std::cell::RefCell;
use std::ops::Range;

/// Panels multiplied at a time where there are registers for it.
const PAIR: usize = 2;
/// The most panels of a thread's piece of work: enough uses of every token's inputs once they are near.
const PANELS: usize = 8;
/// Pieces of work for each thread, if the panels suffice: threads are never equally fast.
const PIECES: usize = 4;
/// Tokens in a band: whole tiles of 14 and of 6.
const BAND: usize = 84;
/// How many rows ahead a panel's weights are asked for.
const AHEAD: usize = 8;

/// A thread's memory, kept from one call to the next.
#[derive(Default)]
struct Scratch {
    /// `[PANELS, in, 16]`
    panels: Vec<Lanes>,
    /// The sums of a band over the segments so far, `[PANELS, BAND, 16]`.
    sums: Vec<Lanes>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

pub(super) fn linear<E: Element>(team: &Team, x: Rows, w: &[E], bias: &[f32], then: Then, y: &mut RowsMut) {
    let (depth, columns, isa) = (x.width(), bias.len(), team.isa());
    let panels = columns.div_ceil(LANES);
    let in_piece = panels.div_ceil(PIECES * team.threads()).next_multiple_of(PAIR).min(PANELS);
    let y = y.share();
    team.run(panels.div_ceil(in_piece), |i| {
        let start = i * in_piece * LANES;
        let width = (in_piece * LANES).min(columns - start);
        let n = width.div_ceil(LANES).next_multiple_of(PAIR);
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.fit(n * depth);
            isa.run(CopyPanels { w, columns, start, width, panels: &mut scratch.panels[..n * depth], n });
            Piece { x, bias, then, y: &y, start, n }.multiply(isa, scratch);
        });
    });
}

impl Scratch {
    /// Makes room for panels of so many vectors.
    fn fit(&mut self, vectors: usize) {
        self.panels.resize(vectors.max(self.panels.len()), Lanes::ZERO);
        self.sums.resize(PANELS * BAND, Lanes::ZERO);
    }
}

/// All tokens and the `n` panels of columns from `start`.
struct Piece<'a> {
    x: Rows<'a>,
    bias: &'a [f32],
    then: Then,
    y: &'a SharedRows<'a>,
    start: usize,
    n: usize,
}

impl Piece<'_> {
    /// Band by band of tokens, segment by segment of their inputs.
    fn multiply(&self, isa: Isa, scratch: &mut Scratch) {
        let abreast = if isa.is_wide() { PAIR } else { 1 };
        for row in (0..self.x.len()).step_by(BAND) {
            let band = row..self.x.len().min(row + BAND);
            for segment in segments(self.x.width()) {
                for panel in (0..self.n).step_by(abreast) {
                    self.tiles(isa, band.clone(), segment.clone(), panel..panel + abreast, scratch);
                }
            }
        }
    }

    /// All tiles of a band, for one segment and the panels that are multiplied at a time.
    fn tiles(
        &self,
        isa: Isa,
        band: Range<usize>,
        segment: Range<usize>,
        panels: Range<usize>,
        scratch: &mut Scratch,
    ) {
        let start = self.start + panels.start * LANES;
        let tiles = band.len().div_ceil(tile_rows(isa.is_wide()));
        // Tiles of two heights at most: the first few one row higher than the others.
        let (rows, higher) = (band.len() / tiles, band.len() % tiles);
        for (first, rows, tiles) in [(0, rows + 1, higher), (higher * (rows + 1), rows, tiles - higher)] {
            if tiles == 0 {
                continue;
            }
            let part = Part {
                x: self.x.range(band.start + first, tiles * rows),
                panels: &scratch.panels[panels.start * self.x.width()..],
                segment: segment.clone(),
                sums: &mut scratch.sums[panels.start * BAND + first..],
                bias: self.bias,
                then: self.then,
                y: self.y,
                row: band.start + first,
                start,
            };
            with_rows!(rows, M => isa.run(Tiles::<M>(part)));
        }
    }
}

/// Copies the columns `start..start + width` of `w` to `n` panels, `[n, in, 16]`, missing columns zero.
struct CopyPanels<'a, E> {
    w: &'a [E],
    columns: usize,
    start: usize,
    width: usize,
    panels: &'a mut [Lanes],
    n: usize,
}

impl<E: Element> Kernel for CopyPanels<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let depth = self.panels.len() / self.n;
        for k in 0..depth {
            let row = &self.w[k * self.columns + self.start..][..self.width];
            let (whole, rest) = row.as_chunks::<LANES>();
            // A row's piece is too short for the hardware to notice that it is read in order. It may begin within a line,
            // and then ends on one more.
            let ahead = row.as_ptr().wrapping_add(AHEAD * self.columns);
            simd.prefetch(ahead.wrapping_add(self.width - 1));
            for p in 0..self.n {
                let lanes = match whole.get(p) {
                    Some(vector) => {
                        simd.prefetch(ahead.wrapping_add(p * LANES));
                        E::load(simd, vector)
                    }
                    None if p == whole.len() => load_partial(simd, rest),
                    None => simd.splat(0.0),
                };
                simd.store(lanes, &mut self.panels[p * depth + k].0);
            }
        }
    }
}

/// Tokens of a band, a segment of their inputs, and the columns `start..start + width` of the product: a panel or two.
struct Part<'a> {
    x: Rows<'a>,
    /// `[V, in, 16]`
    panels: &'a [Lanes],
    segment: Range<usize>,
    /// `[V, BAND, 16]`, the first token's first.
    sums: &'a mut [Lanes],
    bias: &'a [f32],
    then: Then,
    y: &'a SharedRows<'a>,
    /// The first token's row in `y`.
    row: usize,
    start: usize,
}

/// A part in tiles of `M` tokens.
struct Tiles<'a, const M: usize>(Part<'a>);

impl<const M: usize> Kernel for Tiles<'_, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        reaches::<S, M>();
        for first in (0..self.0.x.len()).step_by(M) {
            if S::WIDE {
                self.0.multiply::<S, M, PAIR>(simd, first);
            } else {
                self.0.multiply::<S, M, 1>(simd, first);
            }
        }
    }
}

impl Part<'_> {
    /// Multiplies the `M` tokens from `token` with `V` panels.
    #[inline(always)]
    fn multiply<S: Simd, const M: usize, const V: usize>(&mut self, simd: S, token: usize) {
        let depth = self.x.width();
        let mut panels = [std::ptr::null::<f32>(); V];
        for v in 0..V {
            panels[v] = self.panels[v * depth..][self.segment.clone()].as_ptr().cast();
        }
        let x = self.x.range(token, M).columns(self.segment.start, self.segment.len());
        let mut acc = [[simd.splat(0.0); V]; M];
        // SAFETY: `x` has `M` rows and each panel rows of sixteen, one for each input of the segment, by the slices above.
        unsafe { multiply_add(simd, x.row(0).as_ptr(), x.stride(), x.width(), panels, &mut acc) };
        // Whatever becomes of them, they leave their registers here, in code without a loop: nothing else makes the
        // compiler keep all of them in registers.
        for v in 0..V {
            let sums: &mut [Lanes; M] = self.sums[v * BAND + token..].first_chunk_mut().expect("M tokens");
            for m in 0..M {
                if self.segment.start > 0 {
                    acc[m][v] = simd.add(simd.load(&sums[m].0), acc[m][v]);
                }
                simd.store(acc[m][v], &mut sums[m].0);
            }
        }
        if self.segment.end == depth {
            for v in 0..V {
                self.finish::<S, M>(simd, token, v);
            }
        }
    }

    /// What becomes of the finished sums of panel `v`.
    #[inline(always)]
    fn finish<S: Simd, const M: usize>(&self, simd: S, token: usize, v: usize) {
        let column = self.start + v * LANES;
        let Some(bias) = self.bias.get(column..self.bias.len().min(column + LANES)) else { return };
        for m in 0..M {
            // SAFETY: these columns are this part's own.
            let y = unsafe { self.y.part(self.row + token + m, column, bias.len()) };
            finish(simd, simd.load(&self.sums[v * BAND + token + m].0), bias, self.then, y);
        }
    }
}
