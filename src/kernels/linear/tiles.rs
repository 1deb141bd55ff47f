//! Many tokens: panels of the weights are copied into the cache, then multiplied with tiles of tokens in registers.
//!
//! Rows of `W` are kilobytes apart, so a tile that walked down them in place would touch a new page at every step. A
//! thread therefore copies the few columns it works on into a panel `[in, 16]`, widening them to f32 on the way, which
//! costs little because every panel is used for all tokens.

use super::{Element, LANES, Rows, RowsMut, Simd, Team, Then, finish};
use crate::kernels::elements::load_partial;
use crate::kernels::rows::SharedRows;
use crate::kernels::simd::Kernel;
use crate::kernels::tile::{multiply_add, tile_range, tile_rows, with_rows};
use std::cell::RefCell;

/// Panels copied at a time: two, so that AVX-512's tile has them side by side.
const PANELS: usize = 2;

thread_local! {
    /// A thread's panels, kept from one call to the next.
    static PANEL: RefCell<Vec<[f32; LANES]>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn linear<E: Element>(team: &Team, x: Rows, w: &[E], bias: &[f32], then: Then, y: &mut RowsMut) {
    let columns = bias.len();
    let width = PANELS * LANES;
    let y = y.share();
    team.run(columns.div_ceil(width), |i| {
        let start = i * width;
        PANEL.with_borrow_mut(|panels| {
            panels.resize((PANELS * x.width()).max(panels.len()), [0.0; LANES]);
            let panels = &mut panels[..PANELS * x.width()];
            let part = Part { x, w, bias, then, y: &y, start, width: width.min(columns - start), panels };
            team.isa().run(part);
        });
    });
}

/// The columns `start..start + width` of the product.
struct Part<'a, E> {
    x: Rows<'a>,
    w: &'a [E],
    bias: &'a [f32],
    then: Then,
    y: &'a SharedRows<'a>,
    start: usize,
    width: usize,
    panels: &'a mut [[f32; LANES]],
}

impl<E: Element> Kernel for Part<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        self.copy_panels(simd);
        let most = tile_rows::<S>();
        let tokens = self.x.len();
        for i in 0..tokens.div_ceil(most) {
            let (first, rows) = tile_range(tokens, most, i);
            if S::WIDE {
                with_rows!(rows, M => self.tile::<S, M, 2>(simd, first, 0));
            } else {
                with_rows!(rows, M => self.tile::<S, M, 1>(simd, first, 0));
                with_rows!(rows, M => self.tile::<S, M, 1>(simd, first, 1));
            }
        }
    }
}

impl<E: Element> Part<'_, E> {
    /// Copies the part's columns of `W` to `panels`, `[PANELS, in, 16]`, missing columns zero.
    #[inline(always)]
    fn copy_panels<S: Simd>(&mut self, simd: S) {
        let columns = self.bias.len();
        let depth = self.x.width();
        for k in 0..depth {
            let row = &self.w[k * columns + self.start..][..self.width];
            for p in 0..PANELS {
                let lanes = match row.get(p * LANES..(p + 1) * LANES) {
                    Some(whole) => E::load(simd, whole.as_array().expect("sixteen")),
                    None => load_partial(simd, row.get(p * LANES..).unwrap_or(&[])),
                };
                simd.store(lanes, &mut self.panels[p * depth + k]);
            }
        }
    }

    /// Multiplies `M` tokens from `first` with `V` panels from `panel`.
    #[inline(always)]
    fn tile<S: Simd, const M: usize, const V: usize>(&self, simd: S, first: usize, panel: usize) {
        let depth = self.x.width();
        let x = self.x.range(first, M);
        let mut acc = [[simd.splat(0.0); V]; M];
        let panels =
            std::array::from_fn(|v| self.panels[(panel + v) * depth..][..depth].as_ptr().cast::<f32>());
        // SAFETY: `x` has `M` rows of `depth` numbers, and each panel `depth` rows of sixteen, by the slices above.
        unsafe { multiply_add(simd, x.row(0).as_ptr(), x.stride(), depth, panels, &mut acc) };
        for m in 0..M {
            for v in 0..V {
                let at = (panel + v) * LANES;
                if at < self.width {
                    let (column, lanes) = (self.start + at, LANES.min(self.width - at));
                    // SAFETY: these columns are this part's own.
                    let y = unsafe { self.y.part(first + m, column, lanes) };
                    finish(simd, acc[m][v], &self.bias[column..column + lanes], self.then, y);
                }
            }
        }
    }
}
