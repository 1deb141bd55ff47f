//! A few tokens: the weights are read once, in the order they lie in memory.
//!
//! A thread takes a range of columns and goes down the rows of `W` eight at a time, adding `x[k] · W[k, columns]` for
//! all eight to the sums before it stores them. The sums of its columns stay in the first-level cache; the eight rows
//! are eight plain sequential streams, which is what the memory's own prefetching is made for. (Keeping the sums in
//! registers instead would mean jumping down the rows a few cache lines at a time: measured, two thirds of the speed.)

use super::{Element, LANES, Rows, RowsMut, Simd, Team, Then, finish};
use crate::kernels::elements::load_partial;
use crate::kernels::rows::SharedRows;
use crate::kernels::simd::Kernel;
use crate::kernels::tile::with_rows;

/// Rows of `W` in one pass over the sums.
const DEPTH: usize = 8;
/// Sums a thread keeps: 16 KiB.
const SUMS: usize = 4096;

pub(super) fn linear<E: Element>(team: &Team, x: Rows, w: &[E], bias: &[f32], then: Then, y: &mut RowsMut) {
    let columns = bias.len();
    // A few pieces for each thread even out what else the machine does; not too narrow, to keep the streams long.
    let wanted = columns.div_ceil(team.threads() * 3).max(192);
    let width = wanted.min(SUMS / x.len()).next_multiple_of(LANES).min(SUMS / x.len() / LANES * LANES);
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
    /// Adds rows `k..k + D` of `W` for `M` tokens to the sums.
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
        let rows: [&[E]; D] =
            std::array::from_fn(|d| &self.w[(k + d) * columns + self.start..][..self.width]);
        for (v, sums) in sums.iter_mut().enumerate() {
            let at = v * LANES;
            let mut acc = [simd.splat(0.0); M];
            for m in 0..M {
                acc[m] = simd.load(&sums[m]);
            }
            for d in 0..D {
                let w = if at + LANES <= self.width {
                    // The rows of the next pass.
                    simd.prefetch(rows[d].as_ptr().wrapping_add(at + D * columns));
                    // SAFETY: every row is `width` long, and `at + LANES <= width`.
                    E::load(simd, unsafe { &*rows[d].as_ptr().add(at).cast::<[E; LANES]>() })
                } else {
                    load_partial(simd, &rows[d][at..])
                };
                for m in 0..M {
                    acc[m] = simd.mul_add(simd.splat(x[m][d]), w, acc[m]);
                }
            }
            for m in 0..M {
                simd.store(acc[m], &mut sums[m]);
            }
        }
    }
}
