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
        team.isa().run(part);
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
}

impl<E: Element> Kernel for Part<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut sums = [[0.0f32; LANES]; SUMS / LANES];
        let tokens = self.x.len();
        let vectors = self.width.div_ceil(LANES);
        let sums = &mut sums[..vectors * tokens];
        let depth = self.x.width();
        let whole = depth / DEPTH * DEPTH;
        for k in (0..whole).step_by(DEPTH) {
            with_rows!(tokens, M => self.pass::<S, M, DEPTH>(simd, k, sums));
        }
        for k in whole..depth {
            with_rows!(tokens, M => self.pass::<S, M, 1>(simd, k, sums));
        }
        for v in 0..vectors {
            let column = self.start + v * LANES;
            let lanes = LANES.min(self.start + self.width - column);
            for t in 0..tokens {
                // SAFETY: these columns are this part's own.
                let y = unsafe { self.y.part(t, column, lanes) };
                let sum = simd.load(&sums[v * tokens + t]);
                finish(simd, sum, &self.bias[column..column + lanes], self.then, y);
            }
        }
    }
}

impl<E: Element> Part<'_, E> {
    /// Adds rows `k..k + D` of `W` for `M` tokens to the sums, `[vectors, M]` vectors.
    #[inline(always)]
    fn pass<S: Simd, const M: usize, const D: usize>(&self, simd: S, k: usize, sums: &mut [[f32; LANES]]) {
        let columns = self.bias.len();
        let x: [&[f32; D]; M] =
            std::array::from_fn(|m| self.x.row(m)[k..k + D].as_array().expect("D inputs"));
        let rows: [&[E]; D] =
            std::array::from_fn(|d| &self.w[(k + d) * columns + self.start..][..self.width]);
        let (sums, _) = sums.as_chunks_mut::<M>();
        for (v, sums) in sums.iter_mut().enumerate() {
            let mut acc = [simd.splat(0.0); M];
            for m in 0..M {
                acc[m] = simd.load(&sums[m]);
            }
            let at = v * LANES;
            if at + LANES <= self.width {
                for d in 0..D {
                    // SAFETY: every row is `width` long, and `at + LANES <= width`.
                    let lanes = unsafe { &*rows[d].as_ptr().add(at).cast::<[E; LANES]>() };
                    let w = E::load(simd, lanes);
                    // The rows of the next pass, a line at a time.
                    if D > 1 && (at * size_of::<E>()).is_multiple_of(64) {
                        simd.prefetch(rows[d].as_ptr().wrapping_add(at + D * columns));
                    }
                    for m in 0..M {
                        acc[m] = simd.mul_add(simd.splat(x[m][d]), w, acc[m]);
                    }
                }
            } else {
                for d in 0..D {
                    let w = load_partial(simd, &rows[d][at..]);
                    for m in 0..M {
                        acc[m] = simd.mul_add(simd.splat(x[m][d]), w, acc[m]);
                    }
                }
            }
            for m in 0..M {
                simd.store(acc[m], &mut sums[m]);
            }
        }
    }
}
