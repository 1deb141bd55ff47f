//! Many tokens: panels of the weights are copied into the cache, then multiplied with tiles of tokens in registers.
//!
//! Rows of `W` are kilobytes apart, so a tile that walked down them in place would touch a new page at every step. A
//! thread therefore copies the columns it works on into panels `[segment, 16]`, widening them to f32 on the way, which
//! costs little because every panel is used for all tokens. While a segment of `W` is multiplied, the next is asked for:
//! arithmetic and memory, which take turns otherwise, work at the same time.
//!
//! What is used again soon stays near (Goto and van de Geijn 2008): of a band of tokens and a segment of their inputs,
//! which fit in the second-level cache with them, all the thread's panels are multiplied; of a panel, all tiles of the
//! band. Between segments the unfinished sums wait in memory.

use super::packed::Packed;
use super::segments::segments;
use super::{Element, LANES, Rows, RowsMut, Simd, Team, Then, finish};
use crate::kernels::elements::load_partial;
use crate::kernels::rows::SharedRows;
use crate::kernels::simd::{AlignedLanes, Kernel};
use crate::kernels::tile::{Factors, Tiles, multiply_add, reaches, tile_range, tile_rows, with_rows};
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
/// Bytes of a cache line.
const LINE: usize = 64;
/// How many rows ahead a panel's weights are asked for.
const AHEAD: usize = 8;
/// Inputs that a tile is multiplied with before more of the weights that come next are asked for.
const STRETCH: usize = 16;

/// A thread's memory, kept from one call to the next.
#[derive(Default)]
struct Scratch {
    /// Of a segment, `[n, segment, 16]`.
    panels: Vec<AlignedLanes>,
    /// Over the segments so far, `[n, n_tokens, 16]`.
    sums: Vec<AlignedLanes>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

pub(super) fn linear<E: Element>(team: &Team, x: Rows, w: &[E], bias: &[f32], then: Then, y: &mut RowsMut) {
    let (columns, isa) = (bias.len(), team.isa());
    let panels = columns.div_ceil(LANES);
    let in_piece = panels.div_ceil(PIECES * team.threads()).next_multiple_of(PAIR).min(PANELS);
    let (segments, y) = (segments(x.width()), y.share());
    let first = segments.clone().next().unwrap_or(0..0);
    let (tokens, tiles) = (x.len(), Tiles::new(x.len(), tile_rows(isa.is_wide())));
    Packed::with(team, x, tiles, |x| {
        team.run(panels.div_ceil(in_piece), |i| {
            let start = i * in_piece * LANES;
            let end = columns.min(start + in_piece * LANES);
            let n = (end - start).div_ceil(LANES).next_multiple_of(PAIR);
            SCRATCH.with_borrow_mut(|scratch| {
                for rows in segments.clone() {
                    let (panels, sums) = scratch.fit(n * rows.len(), n * tokens);
                    // A thread takes neighbouring pieces one after the other.
                    let next = match segments.clone().find(|next| next.start == rows.end) {
                        Some(next) => Ahead::new(w, columns, next, start..end),
                        None => Ahead::new(w, columns, first.clone(), end..columns.min(2 * end - start)),
                    };
                    isa.run(CopyPanels { w, columns, rows: rows.clone(), start, end, panels });
                    isa.run(Multiply { x, rows, panels, n, sums, bias, then, y: &y, start, next });
                }
            });
        });
    });
}

impl Scratch {
    /// So many vectors of panels and of sums.
    fn fit(&mut self, panels: usize, sums: usize) -> (&mut [AlignedLanes], &mut [AlignedLanes]) {
        self.panels.resize(panels.max(self.panels.len()), AlignedLanes::ZERO);
        self.sums.resize(sums.max(self.sums.len()), AlignedLanes::ZERO);
        (&mut self.panels[..panels], &mut self.sums[..sums])
    }
}

/// The weights that will be copied next, a cache line at a time, row by row: rows are on pages of their own, and to walk
/// down them would cost more than the lines.
struct Ahead {
    /// The row.
    at: *const u8,
    /// Its lines that were asked for.
    line: usize,
    /// Cache lines of a row.
    lines: usize,
    /// Bytes between rows.
    stride: usize,
    /// Rows still to come.
    rows: usize,
}

impl Ahead {
    /// Some rows and columns of `w`, of which a row has `width`.
    fn new<E>(w: &[E], width: usize, rows: Range<usize>, columns: Range<usize>) -> Self {
        // A row's columns may begin within a line, and then end on one more.
        let lines = (columns.len() * size_of::<E>()).div_ceil(LINE) + 1;
        let at = w.as_ptr().wrapping_add(rows.start * width + columns.start).cast();
        let rows = if columns.is_empty() { 0 } else { rows.len() };
        Self { at, line: 0, lines, stride: width * size_of::<E>(), rows }
    }

    /// How many lines there are to ask for.
    fn in_all(&self) -> usize {
        self.rows * self.lines
    }

    /// Asks for the next line.
    #[inline(always)]
    fn ask<S: Simd>(&mut self, simd: S) {
        if self.rows == 0 {
            return;
        }
        simd.prefetch(self.at.wrapping_add(self.line * LINE));
        self.line += 1;
        if self.line == self.lines {
            (self.at, self.line) = (self.at.wrapping_add(self.stride), 0);
            self.rows -= 1;
        }
    }
}

/// Copies some rows of the columns `start..end` of `w` to panels, `[n, rows, 16]`, missing columns zero.
struct CopyPanels<'a, E> {
    w: &'a [E],
    columns: usize,
    rows: Range<usize>,
    start: usize,
    end: usize,
    panels: &'a mut [AlignedLanes],
}

impl<E: Element> Kernel for CopyPanels<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let depth = self.rows.len();
        let n = self.panels.len() / depth;
        for (i, k) in self.rows.enumerate() {
            let row = &self.w[k * self.columns..][self.start..self.end];
            let (whole, rest) = row.as_chunks::<LANES>();
            // A row's piece is too short for the hardware to notice that it is read in order.
            let ahead = row.as_ptr().wrapping_add(AHEAD * self.columns);
            simd.prefetch(ahead.wrapping_add(row.len() - 1));
            for p in 0..n {
                let lanes = match whole.get(p) {
                    Some(vector) => {
                        simd.prefetch(ahead.wrapping_add(p * LANES));
                        E::load(simd, vector)
                    }
                    None if p == whole.len() => load_partial(simd, rest),
                    None => simd.splat(0.0),
                };
                simd.store(lanes, &mut self.panels[p * depth + i].0);
            }
        }
    }
}

/// All tokens, a segment of their inputs, and `n` panels of columns from `start`.
struct Multiply<'a> {
    x: Packed<'a>,
    /// The segment.
    rows: Range<usize>,
    /// `[n, segment, 16]`
    panels: &'a [AlignedLanes],
    n: usize,
    /// `[n, n_tokens, 16]`
    sums: &'a mut [AlignedLanes],
    bias: &'a [f32],
    then: Then,
    y: &'a SharedRows<'a>,
    start: usize,
    next: Ahead,
}

impl Kernel for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        if S::WIDE {
            self.bands::<S, PAIR>(simd);
        } else {
            self.bands::<S, 1>(simd);
        }
    }
}

impl Multiply<'_> {
    /// Band by band of tokens, `V` panels at a time, tile by tile.
    #[inline(always)]
    fn bands<S: Simd, const V: usize>(&mut self, simd: S) {
        let in_band = BAND / tile_rows(S::WIDE);
        let tiles = self.x.tiles.count();
        let stretches = tiles * (self.n / V) * self.rows.len().div_ceil(STRETCH);
        let lines = self.next.in_all().div_ceil(stretches);
        for band in 0..tiles.div_ceil(in_band) {
            let (first, n) = tile_range(tiles, in_band, band);
            for panel in (0..self.n).step_by(V) {
                for tile in first..first + n {
                    let (_, rows) = self.x.tiles.tile(tile);
                    with_rows!(rows, M => self.tile::<S, M, V>(simd, tile, panel, lines));
                }
            }
        }
    }

    /// Multiplies a tile of `M` tokens with the `V` panels from `panel`, and asks for so many lines of the weights that come
    /// next with every stretch of inputs.
    #[inline(always)]
    fn tile<S: Simd, const M: usize, const V: usize>(
        &mut self,
        simd: S,
        tile: usize,
        panel: usize,
        lines: usize,
    ) {
        reaches::<S, M>();
        let (token, x) = self.x.tile(tile, self.rows.clone());
        let (depth, tokens) = (self.rows.len(), self.sums.len() / self.n);
        let x = x.as_chunks::<M>().0;
        let panels: [&[AlignedLanes]; V] =
            std::array::from_fn(|v| &self.panels[(panel + v) * depth..][..depth]);
        let mut acc = [[simd.splat(0.0); V]; M];
        for k in (0..depth).step_by(STRETCH) {
            for _ in 0..lines {
                self.next.ask(simd);
            }
            let x = &x[k..depth.min(k + STRETCH)];
            let factors = Factors { at: x.as_ptr().cast(), row: 1, step: M };
            let panels = panels.map(|panel| panel[k..][..x.len()].as_ptr().cast::<f32>());
            // SAFETY: `x` has the inputs of `M` tokens side by side, and each panel as many vectors.
            unsafe { multiply_add(simd, factors, x.len(), panels, &mut acc) };
        }
        // Here the sums leave their registers, whatever becomes of them: in a loop that computes more than this, the
        // compiler would keep them in memory from the start.
        let first = self.rows.start == 0;
        for v in 0..V {
            let sums = self.sums[(panel + v) * tokens + token..].first_chunk_mut::<M>().expect("M tokens");
            for m in 0..M {
                if !first {
                    acc[m][v] = simd.add(simd.load(&sums[m].0), acc[m][v]);
                }
                simd.store(acc[m][v], &mut sums[m].0);
            }
        }
        if self.rows.end == self.x.inputs {
            for v in 0..V {
                let sums = &self.sums[(panel + v) * tokens + token..][..M];
                self.finish(simd, token, panel + v, sums);
            }
        }
    }

    /// What becomes of a panel's finished sums, one for each of the tokens from `token` on.
    #[inline(always)]
    fn finish<S: Simd>(&self, simd: S, token: usize, panel: usize, sums: &[AlignedLanes]) {
        let column = self.start + panel * LANES;
        let Some(bias) = self.bias.get(column..self.bias.len().min(column + LANES)) else { return };
        for (m, sum) in sums.iter().enumerate() {
            // SAFETY: these columns are this piece's own.
            let y = unsafe { self.y.part(token + m, column, bias.len()) };
            finish(simd, simd.load(&sum.0), bias, self.then, y);
        }
    }
}
