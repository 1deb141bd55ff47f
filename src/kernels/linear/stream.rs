//! A few tokens: the weights are read once, in the order they lie in memory.
//!
//! A thread takes a range of columns and goes down the rows of `W` sixteen at a time, adding `x[k] · W[k, columns]` for
//! all sixteen to the sums before it stores them. The sums of its columns stay in the first-level cache; the sixteen
//! rows are sixteen sequential streams. (Keeping the sums in registers instead would mean jumping down the rows a few cache
//! lines at a time: measured, two thirds of the speed.)

use super::{Element, LANES, Rows, RowsMut, Simd, Team, Then, finish};
use crate::kernels::elements::load_partial;
use crate::kernels::rows::SharedRows;
use crate::kernels::simd::Kernel;
use crate::kernels::tile::with_rows;

/// Rows of `W` in one pass over the sums.
const DEPTH: usize = 16;
/// How far ahead the weights are asked for: 16 rows of f32, 32 of half precision. A part of a row is too short for the
/// hardware to notice that it is read in order; asking for it in the second-level cache, which has more requests under
/// way than the first, keeps the memory busy.
const AHEAD: usize = 64;
/// Sums a thread keeps: 16 KiB.
const SUMS: usize = 4096;

pub(super) fn linear<E: Element>(team: &Team, x: Rows, w: &[E], bias: &[f32], then: Then, y: &mut RowsMut) {
    let columns = bias.len();
    // A few pieces for each thread even out what else the machine does; not too narrow, to keep the streams long.
    let wanted = columns.div_ceil(team.threads() * 2).max(2048 / size_of::<E>());
    let most = SUMS / x.len() / LANES * LANES;
    let width = wanted.min(columns.div_ceil(team.threads())).next_multiple_of(LANES).min(most);
    let y = y.share();
    team.run(columns.div_ceil(width), |i| {
        let start = i * width;
        let part = Part { x, w, bias, then, y: &y, start, width: width.min(columns - start) };
        with_rows!(x.len(), M => team.isa().run(Of::<E, M>(part)));
    });
}

/// The columns `start..start + width` of the product.
#[derive(Clone, Copy)]
struct Part<'a, E> {
    x: Rows<'a>,
    w: &'a [E],
    bias: &'a [f32],
    then: Then,
    y: &'a SharedRows<'a>,
    start: usize,
    width: usize,
}

/// A part for `M` tokens.
struct Of<'a, E, const M: usize>(Part<'a, E>);

impl<E: Element, const M: usize> Kernel for Of<'_, E, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let part = &self.0;
        let mut sums = [[0.0f32; LANES]; SUMS / LANES];
        let vectors = part.width.div_ceil(LANES);
        let (sums, _) = sums[..vectors * M].as_chunks_mut::<M>();
        let depth = part.x.width();
        let whole = depth / DEPTH * DEPTH;
        for k in (0..whole).step_by(DEPTH) {
            part.pass::<S, M, DEPTH>(simd, k, sums);
        }
        for k in whole..depth {
            part.pass::<S, M, 1>(simd, k, sums);
        }
        for (v, sums) in sums.iter().enumerate() {
            let column = part.start + v * LANES;
            let lanes = LANES.min(part.start + part.width - column);
            for (t, sum) in sums.iter().enumerate() {
                // SAFETY: these columns are this part's own.
                let y = unsafe { part.y.part(t, column, lanes) };
                finish(simd, simd.load(sum), &part.bias[column..column + lanes], part.then, y);
            }
        }
    }
}

impl<E: Element> Part<'_, E> {
    /// Adds rows `k..k + D` of `W` for `M` tokens to the sums, a cache line of every row at a time.
    #[inline(always)]
    fn pass<S: Simd, const M: usize, const D: usize>(
        &self,
        simd: S,
        k: usize,
        sums: &mut [[[f32; LANES]; M]],
    ) {
        let columns = self.bias.len();
        let x: [&[f32; D]; M] =
            std::array::from_fn(|m| self.x.row(m)[k..k + D].as_array().expect("D inputs"));
        let rows = &self.w[k * columns + self.start..][..(D - 1) * columns + self.width];
        let whole = self.width / LANES;
        let mut v = 0;
        if S::WIDE {
            while v + 2 <= whole {
                self.add::<S, M, D, 2>(simd, &x, rows, v, sums);
                v += 2;
            }
        }
        while v < whole {
            self.add::<S, M, D, 1>(simd, &x, rows, v, sums);
            v += 1;
        }
        if let Some(sums) = sums.get_mut(whole) {
            for d in 0..D {
                let w = load_partial(simd, &rows[d * columns..][whole * LANES..self.width]);
                for m in 0..M {
                    let sum = simd.mul_add(simd.splat(x[m][d]), w, simd.load(&sums[m]));
                    simd.store(sum, &mut sums[m]);
                }
            }
        }
    }

    /// Adds `V` vectors of columns from vector `v`.
    #[inline(always)]
    fn add<S: Simd, const M: usize, const D: usize, const V: usize>(
        &self,
        simd: S,
        x: &[&[f32; D]; M],
        rows: &[E],
        v: usize,
        sums: &mut [[[f32; LANES]; M]],
    ) {
        let columns = self.bias.len();
        let sums: &mut [[[f32; LANES]; M]; V] = sums[v..v + V].as_mut_array().expect("V vectors");
        let mut acc = [[simd.splat(0.0); V]; M];
        for m in 0..M {
            for i in 0..V {
                acc[m][i] = simd.load(&sums[i][m]);
            }
        }
        for d in 0..D {
            // SAFETY: `rows` holds `width` columns of `D` rows, `columns` apart, and vectors `v..v + V` are whole.
            let at = unsafe { rows.as_ptr().add(d * columns + v * LANES) };
            for line in (0..V * LANES).step_by(64 / size_of::<E>()) {
                simd.prefetch(at.wrapping_add(line + AHEAD / size_of::<E>() * columns));
            }
            for i in 0..V {
                // SAFETY: as above.
                let w = E::load(simd, unsafe { &*at.add(i * LANES).cast::<[E; LANES]>() });
                for m in 0..M {
                    acc[m][i] = simd.mul_add(simd.splat(x[m][d]), w, acc[m][i]);
                }
            }
        }
        for m in 0..M {
            for i in 0..V {
                simd.store(acc[m][i], &mut sums[i][m]);
            }
        }
    }
}
