//! The inputs of many tokens, those of a tile side by side.
//!
//! Every panel of the weights meets every input, so it pays to copy these once into the order in which a tile takes them:
//! one register then points to the inputs of all its tokens. (Measured where four instructions are decoded a cycle: a fifth
//! less time in all.)

use crate::kernels::rows::Rows;
use crate::kernels::simd::{Kernel, LANES, Simd};
use crate::kernels::threads::{Disjoint, Team};
use crate::kernels::tile::{Tiles, reaches, with_rows};
use std::cell::RefCell;
use std::ops::Range;

/// Inputs that are copied at a time.
const PIECE: usize = 256;

thread_local! {
    /// The caller's, kept from one call to the next.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// The copy.
#[derive(Clone, Copy)]
pub(super) struct Packed<'a> {
    /// Tile by tile `[inputs, M]`.
    data: &'a [f32],
    /// Inputs of a token.
    pub inputs: usize,
    /// How the tokens are cut.
    pub tiles: Tiles,
}

impl Packed<'_> {
    /// Copies `x` and lends the copy to `work`.
    pub fn with<R>(team: &Team, x: Rows, tiles: Tiles, work: impl FnOnce(Packed) -> R) -> R {
        let (inputs, n) = (x.width(), x.len() * x.width());
        SCRATCH.with_borrow_mut(|data| {
            data.resize(n.max(data.len()), 0.0);
            let data = &mut data[..n];
            pack(team, x, tiles, data);
            work(Packed { data, inputs, tiles })
        })
    }

    /// Tile `i`: its first token, how many there are, and a range of their inputs.
    #[inline(always)]
    pub fn tile(&self, i: usize, inputs: Range<usize>) -> (usize, &[f32]) {
        let (token, rows) = self.tiles.tile(i);
        (token, &self.data[token * self.inputs..][inputs.start * rows..inputs.end * rows])
    }
}

fn pack(team: &Team, x: Rows, tiles: Tiles, data: &mut [f32]) {
    let inputs = x.width();
    let pieces = inputs.div_ceil(PIECE);
    let data = Disjoint::new(data);
    team.run(tiles.count() * pieces, |i| {
        let (token, rows) = tiles.tile(i / pieces);
        let first = i % pieces * PIECE;
        let n = PIECE.min(inputs - first);
        let start = token * inputs + first * rows;
        // SAFETY: every piece of every tile is handed out once, and no two share an element.
        let to = unsafe { data.slice(start..start + n * rows) };
        let x = x.range(token, rows).columns(first, n);
        with_rows!(rows, M => team.isa().run(SideBySide::<M> { x, to }));
    });
}

/// Copies `[M, n]` to `[n, M]`.
struct SideBySide<'a, const M: usize> {
    x: Rows<'a>,
    to: &'a mut [f32],
}

impl<const M: usize> Kernel for SideBySide<'_, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        reaches::<S, M>();
        let (to, _) = self.to.as_chunks_mut::<M>();
        for (i, to) in to.chunks_mut(LANES).enumerate() {
            let mut rows = [simd.splat(0.0); LANES];
            for m in 0..M {
                rows[m] = simd.load_partial(&self.x.row(m)[i * LANES..][..to.len()]);
            }
            let columns = simd.transpose(rows);
            for k in 0..to.len() {
                simd.store_partial(columns[k], &mut to[k]);
            }
        }
    }
}
