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

use super::segments::segments;
use super::{Element, LANES, Rows, RowsMut, Simd, Team, Then, finish};
use crate::kernels::elements::load_partial;
use crate::kernels::rows::SharedRows;
use crate::kernels::simd::{Kernel, Lanes};
use crate::kernels::tile::{multiply_add_while, reaches, tile_range, tile_rows, with_rows};
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

/// A thread's memory, kept from one call to the next.
#[derive(Default)]
struct Scratch {
    /// Of a segment, `[n, segment, 16]`.
    panels: Vec<Lanes>,
    /// Over the segments so far, `[n, n_tokens, 16]`.
    sums: Vec<Lanes>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

pub(super) fn linear<E: Element>(team: &Team, x: Rows, w: &[E], bias: &[f32], then: Then, y: &mut RowsMut) {
    let (columns, isa) = (bias.len(), team.isa());
    let panels = columns.div_ceil(LANES);
    let in_piece = panels.div_ceil(PIECES * team.threads()).next_multiple_of(PAIR).min(PANELS);
    let (segments, y) = (segments(x.width()), y.share());
    team.run(panels.div_ceil(in_piece), |i| {
        let start = i * in_piece * LANES;
        let end = columns.min(start + in_piece * LANES);
        let n = (end - start).div_ceil(LANES).next_multiple_of(PAIR);
        SCRATCH.with_borrow_mut(|scratch| {
            for rows in segments.clone() {
                let (panels, sums) = scratch.fit(n * rows.len(), n * x.len());
                // A thread takes neighbouring pieces one after the other.
                let next = if rows.end < x.width() {
                    Ahead::new(w, columns, rows.end, start..end)
                } else {
                    Ahead::new(w, columns, 0, end..columns.min(2 * end - start))
                };
                let (first, last) = (rows.start == 0, rows.end == x.width());
                let x = x.columns(rows.start, rows.len());
                isa.run(CopyPanels { w, columns, rows, start, end, panels });
                isa.run(Multiply { x, panels, n, sums, first, last, bias, then, y: &y, start, next });
            }
        });
    });
}

impl Scratch {
    /// So many vectors of panels and of sums.
    fn fit(&mut self, panels: usize, sums: usize) -> (&mut [Lanes], &mut [Lanes]) {
        self.panels.resize(panels.max(self.panels.len()), Lanes::ZERO);
        self.sums.resize(sums.max(self.sums.len()), Lanes::ZERO);
        (&mut self.panels[..panels], &mut self.sums[..sums])
    }
}

/// Where the weights are that will be copied next.
#[derive(Clone, Copy)]
struct Ahead {
    at: *const u8,
    /// Bytes between rows.
    stride: usize,
    /// Cache lines of a row.
    lines: usize,
}

impl Ahead {
    /// Rows of `w` from `row`, and some of its columns. Where these are none, what is asked for is near already.
    fn new<E>(w: &[E], width: usize, row: usize, columns: Range<usize>) -> Self {
        if columns.is_empty() {
            return Self { at: w.as_ptr().cast(), stride: 0, lines: 1 };
        }
        let at = w[row * width + columns.start..].as_ptr().cast();
        // A row's columns may begin within a line, and then end on one more.
        let lines = (columns.len() * size_of::<E>()).div_ceil(LINE) + 1;
        Self { at, stride: width * size_of::<E>(), lines }
    }
}

/// Copies some rows of the columns `start..end` of `w` to panels, `[n, rows, 16]`, missing columns zero.
struct CopyPanels<'a, E> {
    w: &'a [E],
    columns: usize,
    rows: Range<usize>,
    start: usize,
    end: usize,
    panels: &'a mut [Lanes],
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
    /// `[n_tokens, segment]`
    x: Rows<'a>,
    /// `[n, segment, 16]`
    panels: &'a [Lanes],
    n: usize,
    /// `[n, n_tokens, 16]`
    sums: &'a mut [Lanes],
    /// Whether the segment is the first, and the last.
    first: bool,
    last: bool,
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
        let most = tile_rows(S::WIDE);
        let tiles = self.x.len().div_ceil(most);
        let (in_all, mut done) = (tiles * self.n / V, 0);
        for band in 0..tiles.div_ceil(BAND / most) {
            let (first, in_band) = tile_range(tiles, BAND / most, band);
            for panel in (0..self.n).step_by(V) {
                for i in first..first + in_band {
                    let (token, rows) = tile_range(self.x.len(), most, i);
                    let line = done * self.next.lines / in_all;
                    with_rows!(rows, M => self.tile::<S, M, V>(simd, token, panel, line));
                    done += 1;
                }
            }
        }
    }

    /// Multiplies the `M` tokens from `token` with the `V` panels from `panel`, and asks for a line of every row of the
    /// weights that come next.
    #[inline(always)]
    fn tile<S: Simd, const M: usize, const V: usize>(
        &mut self,
        simd: S,
        token: usize,
        panel: usize,
        line: usize,
    ) {
        reaches::<S, M>();
        let (x, depth) = (self.x.range(token, M), self.x.width());
        let mut panels = [std::ptr::null::<f32>(); V];
        for v in 0..V {
            panels[v] = self.panels[(panel + v) * depth..][..depth].as_ptr().cast();
        }
        let (ahead, stride) = (self.next.at.wrapping_add(line * LINE), self.next.stride);
        let ask = |k| simd.prefetch(ahead.wrapping_add(k * stride));
        let mut acc = [[simd.splat(0.0); V]; M];
        // SAFETY: `x` has `M` rows and each panel rows of sixteen, one for each input of the segment, by the slices above.
        unsafe { multiply_add_while(simd, x.row(0).as_ptr(), x.stride(), depth, panels, &mut acc, ask) };
        // Here the sums leave their registers, whatever becomes of them: in a loop that computes more than this, the
        // compiler would keep them in memory from the start.
        for v in 0..V {
            let sums =
                self.sums[(panel + v) * self.x.len() + token..].first_chunk_mut::<M>().expect("M tokens");
            for m in 0..M {
                if !self.first {
                    acc[m][v] = simd.add(simd.load(&sums[m].0), acc[m][v]);
                }
                simd.store(acc[m][v], &mut sums[m].0);
            }
        }
        if self.last {
            for v in 0..V {
                self.finish::<S, M>(simd, token, panel + v);
            }
        }
    }

    /// What becomes of a panel's finished sums.
    #[inline(always)]
    fn finish<S: Simd, const M: usize>(&self, simd: S, token: usize, panel: usize) {
        let column = self.start + panel * LANES;
        let Some(bias) = self.bias.get(column..self.bias.len().min(column + LANES)) else { return };
        let sums = &self.sums[panel * self.x.len() + token..][..M];
        for m in 0..M {
            // SAFETY: these columns are this piece's own.
            let y = unsafe { self.y.part(token + m, column, bias.len()) };
            finish(simd, simd.load(&sums[m].0), bias, self.then, y);
        }
    }
}
