//! Many tokens: panels of the weights are copied into the cache, then multiplied with tiles of tokens in registers.
//!
//! Rows of `W` are kilobytes apart, so a tile that walked down them in place would touch a new page at every step. A
//! thread therefore copies the columns it works on into panels `[in, 16]`, widening them to f32 on the way, which costs
//! little because every panel is used for all tokens.
//!
//! What is used again soon stays near (Goto and van de Geijn 2008): of a band of tokens and a stretch of their inputs,
//! which fit in the second-level cache, all the thread's panels are multiplied; of a panel's stretch, which fits in the
//! first-level cache, all tiles of the band. Between stretches the unfinished sums wait in memory, where they lose
//! nothing: a sum is the same chain of multiply-adds wherever it is interrupted.

use super::segments::segments;
use super::{Element, LANES, Rows, RowsMut, Simd, Team, Then, finish};
use crate::kernels::elements::load_partial;
use crate::kernels::isa::Isa;
use crate::kernels::rows::SharedRows;
use crate::kernels::simd::{Kernel, Lanes};
use crate::kernels::tile::{multiply_add, reaches, tile_range, tile_rows, with_rows};
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
/// Bytes of a panel that are multiplied before the next: three quarters of the first-level cache. Two panels abreast come
/// from the second-level cache in time; more stretches, and sums stored between them, cost more (measured on Zen 4).
const NEAR: usize = 24 << 10;
/// How many rows ahead a panel's weights are asked for.
const AHEAD: usize = 8;

/// A thread's memory, kept from one call to the next.
#[derive(Default)]
struct Scratch {
    /// `[PANELS, in, 16]`
    panels: Vec<Lanes>,
    /// The chain of the segment under way, `[PANELS, BAND, 16]`.
    chains: Vec<Lanes>,
    /// The sum of the segments before it.
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
        self.chains.resize(PANELS * BAND, Lanes::ZERO);
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
    /// Band by band of tokens, stretch by stretch of their inputs.
    fn multiply(&self, isa: Isa, scratch: &mut Scratch) {
        let abreast = if isa.is_wide() { PAIR } else { 1 };
        for row in (0..self.x.len()).step_by(BAND) {
            let band = row..self.x.len().min(row + BAND);
            for stretch in stretches(self.x.width()) {
                for panel in (0..self.n).step_by(abreast) {
                    self.tiles(isa, band.clone(), &stretch, panel..panel + abreast, scratch);
                }
            }
        }
    }

    /// All tiles of a band, for one stretch and the panels that are multiplied at a time.
    fn tiles(
        &self,
        isa: Isa,
        band: Range<usize>,
        stretch: &Stretch,
        panels: Range<usize>,
        scratch: &mut Scratch,
    ) {
        let start = self.start + panels.start * LANES;
        let width = (panels.len() * LANES).min(self.bias.len().saturating_sub(start));
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
                stretch,
                chains: &mut scratch.chains[panels.start * BAND + first..],
                sums: &mut scratch.sums[panels.start * BAND + first..],
                bias: self.bias,
                then: self.then,
                y: self.y,
                row: band.start + first,
                start,
                width,
            };
            with_rows!(rows, M => isa.run(Tiles::<M>(part)));
        }
    }
}

/// Some inputs of a segment, whose part of a panel stays in the first-level cache.
struct Stretch {
    inputs: Range<usize>,
    /// Whether the segment's chain begins with it, and whether it ends.
    begins: bool,
    ends: bool,
    /// Whether it is of the first and of the last segment.
    first: bool,
    last: bool,
}

/// All inputs in order.
fn stretches(depth: usize) -> impl Iterator<Item = Stretch> {
    let most = NEAR / size_of::<Lanes>();
    segments(depth).flat_map(move |segment| {
        let n = segment.len().div_ceil(most);
        (0..n).map(move |i| {
            let (start, length) = tile_range(segment.len(), most, i);
            let start = segment.start + start;
            Stretch {
                inputs: start..start + length,
                begins: i == 0,
                ends: i + 1 == n,
                first: segment.start == 0,
                last: segment.end == depth,
            }
        })
    })
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
            // A row's piece is too short for the hardware to notice that it is read in order. It may begin within a line,
            // and then ends on one more.
            for line in (0..self.width).step_by(64 / size_of::<E>()).chain([self.width - 1]) {
                simd.prefetch(row.as_ptr().wrapping_add(AHEAD * self.columns + line));
            }
            for p in 0..self.n {
                let lanes = match row.get(p * LANES..(p + 1) * LANES) {
                    Some(whole) => E::load(simd, whole.as_array().expect("sixteen")),
                    None => load_partial(simd, row.get(p * LANES..).unwrap_or(&[])),
                };
                simd.store(lanes, &mut self.panels[p * depth + k].0);
            }
        }
    }
}

/// Tokens of a band, a stretch of their inputs, and the columns `start..start + width` of the product: a panel or two.
struct Part<'a> {
    x: Rows<'a>,
    /// `[V, in, 16]`
    panels: &'a [Lanes],
    stretch: &'a Stretch,
    /// `[V, BAND, 16]`, the first token's first.
    chains: &'a mut [Lanes],
    sums: &'a mut [Lanes],
    bias: &'a [f32],
    then: Then,
    y: &'a SharedRows<'a>,
    /// The first token's row in `y`.
    row: usize,
    start: usize,
    width: usize,
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
        let (depth, &Stretch { ref inputs, begins, ends, first, last }) = (self.x.width(), self.stretch);
        let mut acc = [[simd.splat(0.0); V]; M];
        if !begins {
            for m in 0..M {
                for v in 0..V {
                    acc[m][v] = simd.load(&self.chains[v * BAND + token + m].0);
                }
            }
        }
        let mut panels = [std::ptr::null::<f32>(); V];
        for v in 0..V {
            panels[v] = self.panels[v * depth..][inputs.clone()].as_ptr().cast();
        }
        let x = self.x.range(token, M).columns(inputs.start, inputs.len());
        // SAFETY: `x` has `M` rows and each panel rows of sixteen, one for each input of the stretch, by the slices above.
        unsafe { multiply_add(simd, x.row(0).as_ptr(), x.stride(), inputs.len(), panels, &mut acc) };
        for m in 0..M {
            for v in 0..V {
                let at = v * BAND + token + m;
                if !ends {
                    simd.store(acc[m][v], &mut self.chains[at].0);
                    continue;
                }
                let sum = if first { acc[m][v] } else { simd.add(simd.load(&self.sums[at].0), acc[m][v]) };
                if !last {
                    simd.store(sum, &mut self.sums[at].0);
                    continue;
                }
                let skip = v * LANES;
                if skip < self.width {
                    let (column, lanes) = (self.start + skip, LANES.min(self.width - skip));
                    // SAFETY: these columns are this part's own.
                    let y = unsafe { self.y.part(self.row + token + m, column, lanes) };
                    finish(simd, sum, &self.bias[column..column + lanes], self.then, y);
                }
            }
        }
    }
}
