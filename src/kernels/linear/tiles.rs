//! Many tokens: panels of the weights are copied into the cache, then multiplied with tiles of tokens in registers.
//!
//! Rows of `W` are kilobytes apart, so a tile that walked down them in place would touch a new page at every step. A
//! thread therefore copies the few columns it works on into a panel `[in, 16]`, widening them to f32 on the way, which
//! costs little because every panel is used for all tokens.

use super::segments::segments;
use super::{Element, LANES, Rows, RowsMut, Simd, Team, Then, finish};
use crate::kernels::elements::load_partial;
use crate::kernels::rows::SharedRows;
use crate::kernels::simd::Kernel;
use crate::kernels::tile::{multiply_add, reaches, tile_range, tile_rows, with_rows};
use std::cell::RefCell;

/// Panels copied at a time: two, so that AVX-512's tile has them side by side.
const PANELS: usize = 2;

thread_local! {
    /// A thread's panels, kept from one call to the next.
    static PANEL: RefCell<Vec<[f32; LANES]>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn linear<E: Element>(team: &Team, x: Rows, w: &[E], bias: &[f32], then: Then, y: &mut RowsMut) {
    let (tokens, depth, columns) = (x.len(), x.width(), bias.len());
    let (isa, most) = (team.isa(), tile_rows(team.isa().is_wide()));
    let y = y.share();
    team.run(columns.div_ceil(PANELS * LANES), |i| {
        let start = i * PANELS * LANES;
        let width = (PANELS * LANES).min(columns - start);
        PANEL.with_borrow_mut(|panels| {
            panels.resize((PANELS * depth).max(panels.len()), [0.0; LANES]);
            let panels = &mut panels[..PANELS * depth];
            isa.run(CopyPanels { w, columns, start, width, panels });
            for i in 0..tokens.div_ceil(most) {
                let (row, rows) = tile_range(tokens, most, i);
                let x = x.range(row, rows);
                let part = Part { x, panels, bias, then, y: &y, row, start, width };
                with_rows!(rows, M => isa.run(Tile::<M>(part)));
            }
        });
    });
}

/// Copies the columns `start..start + width` of `w` to `panels`, `[PANELS, in, 16]`, missing columns zero.
struct CopyPanels<'a, E> {
    w: &'a [E],
    columns: usize,
    start: usize,
    width: usize,
    panels: &'a mut [[f32; LANES]],
}

impl<E: Element> Kernel for CopyPanels<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let depth = self.panels.len() / PANELS;
        for k in 0..depth {
            let row = &self.w[k * self.columns + self.start..][..self.width];
            for p in 0..PANELS {
                let lanes = match row.get(p * LANES..(p + 1) * LANES) {
                    Some(whole) => E::load(simd, whole.as_array().expect("sixteen")),
                    None => load_partial(simd, row.get(p * LANES..).unwrap_or(&[])),
                };
                simd.store(lanes, &mut self.panels[p * depth + k]);
            }
        }
    }
}

/// Some tokens and the columns `start..start + width` of the product.
#[derive(Clone, Copy)]
struct Part<'a> {
    x: Rows<'a>,
    panels: &'a [[f32; LANES]],
    bias: &'a [f32],
    then: Then,
    y: &'a SharedRows<'a>,
    /// The first token's row in `y`.
    row: usize,
    start: usize,
    width: usize,
}

/// A part of `M` tokens.
struct Tile<'a, const M: usize>(Part<'a>);

impl<const M: usize> Kernel for Tile<'_, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        reaches::<S, M>();
        if S::WIDE {
            self.0.multiply::<S, M, PANELS>(simd, 0);
        } else {
            for panel in 0..PANELS {
                self.0.multiply::<S, M, 1>(simd, panel);
            }
        }
    }
}

impl Part<'_> {
    /// Multiplies the tokens with `V` panels from `panel`.
    #[inline(always)]
    fn multiply<S: Simd, const M: usize, const V: usize>(&self, simd: S, panel: usize) {
        let depth = self.x.width();
        let mut sums = [[simd.splat(0.0); V]; M];
        for segment in segments(depth) {
            let mut acc = [[simd.splat(0.0); V]; M];
            let panels: [*const f32; V] =
                std::array::from_fn(|v| self.panels[(panel + v) * depth..][segment.clone()].as_ptr().cast());
            let x = self.x.range(0, M).columns(segment.start, segment.len());
            // SAFETY: `x` has `M` rows and each panel rows of sixteen, one for each input of the segment, by the slices
            // above.
            unsafe { multiply_add(simd, x.row(0).as_ptr(), x.stride(), segment.len(), panels, &mut acc) };
            for m in 0..M {
                for v in 0..V {
                    sums[m][v] = if segment.start == 0 { acc[m][v] } else { simd.add(sums[m][v], acc[m][v]) };
                }
            }
        }
        for m in 0..M {
            for v in 0..V {
                let at = (panel + v) * LANES;
                if at < self.width {
                    let (column, lanes) = (self.start + at, LANES.min(self.width - at));
                    // SAFETY: these columns are this part's own.
                    let y = unsafe { self.y.part(self.row + m, column, lanes) };
                    finish(simd, sums[m][v], &self.bias[column..column + lanes], self.then, y);
                }
            }
        }
    }
}
