//! A few tokens: the weights are read once, in the order they lie in memory.
//!
//! A thread takes a segment of the rows of `W` and goes down them sixteen at a time, adding `x[k] · W[k, columns]` for
//! all sixteen to the sums before it stores them. The sums of its columns stay in the cache. (Keeping the
//! sums in registers instead would mean jumping down the rows a few cache lines at a time: measured, two thirds of the
//! speed.) When all segments are done, their sums are added up.

use super::segments::segments;
use super::{Element, LANES, Rows, RowsMut, Simd, Team, Then, finish};
use crate::kernels::elements::load_partial;
use crate::kernels::rows::SharedRows;
use crate::kernels::simd::Kernel;
use crate::kernels::threads::Disjoint;
use crate::kernels::tile::{NARROW_ROWS, tile_range, with_rows};
use std::cell::RefCell;
use std::ops::Range;

/// Rows of `W` in one pass over the sums, where prefetches bring them.
const PREFETCHED_ROWS: usize = 16;
/// The same where the hardware is left to find them: it follows eight rows side by side better than sixteen.
const FOLLOWED_ROWS: usize = 8;
/// Sums a thread works on: 128 KiB, which stay in its second-level cache.
const SUMS: usize = 32 << 10;
/// Outputs that one thread finishes at a time.
const FINISH: usize = 1024;

thread_local! {
    /// The caller's sums of every segment, kept from one call to the next: `[segments, out / 16, n_tokens, 16]`.
    static SUMS_OF_SEGMENTS: RefCell<Vec<[f32; LANES]>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn linear<E: Element>(team: &Team, x: Rows, w: &[E], bias: &[f32], then: Then, y: &mut RowsMut) {
    let (tokens, columns) = (x.len(), bias.len());
    let segments = segments(x.width());
    let vectors = columns.div_ceil(LANES);
    // Where there are more threads than segments, they share the columns too.
    let (n, shares) = (segments.len(), team.threads() / gcd(segments.len(), team.threads()));
    let width = vectors.div_ceil(shares).min(SUMS / LANES / tokens);
    let parts = vectors.div_ceil(width);
    SUMS_OF_SEGMENTS.with_borrow_mut(|sums| {
        sums.resize((n * vectors * tokens).max(sums.len()), [0.0; LANES]);
        let sums = &mut sums[..n * vectors * tokens];
        let shared = Disjoint::new(sums);
        team.run(n * parts, |i| {
            let (segment, part) = (i / parts, i % parts);
            let part = part * width..vectors.min((part + 1) * width);
            let at = segment * vectors * tokens;
            // SAFETY: every segment and part of the columns is handed out once, and no two share a sum.
            let sums = unsafe { shared.slice(at + part.start * tokens..at + part.end * tokens) };
            let rows = segments.clone().nth(segment).expect("one of the segments");
            let part = Part { x, w, columns, rows, start: part.start * LANES };
            with_rows!(tokens, M => team.isa().run(Of::<E, M>(part, sums)));
        });
        let sums = &*sums;
        let y = y.share();
        let width = (FINISH / LANES).div_ceil(tokens);
        team.run(vectors.div_ceil(width), |i| {
            let vectors = i * width..vectors.min((i + 1) * width);
            team.isa().run(AddUp { sums, segments: n, tokens, bias, then, y: &y, vectors });
        });
    });
}

/// The greatest common divisor.
fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Some rows of `W` and the columns from `start`.
#[derive(Clone)]
struct Part<'a, E> {
    x: Rows<'a>,
    w: &'a [E],
    columns: usize,
    rows: Range<usize>,
    start: usize,
}

/// A part for `M` tokens, and its sums, `[columns / 16, M, 16]`.
struct Of<'a, E, const M: usize>(Part<'a, E>, &'a mut [[f32; LANES]]);

impl<E: Element, const M: usize> Kernel for Of<'_, E, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Of(part, sums) = self;
        sums.fill([0.0; LANES]);
        let (sums, _) = sums.as_chunks_mut::<M>();
        if S::WIDE {
            part.passes::<S, M, PREFETCHED_ROWS>(simd, sums);
        } else {
            part.passes::<S, M, FOLLOWED_ROWS>(simd, sums);
        }
    }
}

impl<E: Element> Part<'_, E> {
    /// All rows, `D` in a pass.
    #[inline(always)]
    fn passes<S: Simd, const M: usize, const D: usize>(&self, simd: S, sums: &mut [[[f32; LANES]; M]]) {
        let whole = self.rows.start + self.rows.len() / D * D;
        for k in (self.rows.start..whole).step_by(D) {
            self.pass::<S, M, D>(simd, k, sums);
        }
        for k in whole..self.rows.end {
            self.pass::<S, M, 1>(simd, k, sums);
        }
    }

    /// Adds rows `k..k + D` of `W` for `M` tokens to the sums, a cache line of every row at a time.
    #[inline(always)]
    fn pass<S: Simd, const M: usize, const D: usize>(
        &self,
        simd: S,
        k: usize,
        sums: &mut [[[f32; LANES]; M]],
    ) {
        let x: [&[f32; D]; M] =
            std::array::from_fn(|m| self.x.row(m)[k..k + D].as_array().expect("D inputs"));
        let width = (sums.len() * LANES).min(self.columns - self.start);
        let rows = &self.w[k * self.columns + self.start..][..(D - 1) * self.columns + width];
        // A part of a row is too short for the hardware to notice that it is read in order. Asking for the next pass in
        // the second-level cache, which has more requests under way than the first, keeps the memory busy.
        let ahead = if k + 2 * D <= self.rows.end { D * self.columns } else { 0 };
        let whole = width / LANES;
        let mut v = 0;
        if S::WIDE {
            while v + 2 <= whole {
                self.add::<S, M, M, D, 2>(simd, &x, 0, rows, v, ahead, sums);
                v += 2;
            }
        }
        while v < whole {
            // As many tokens at a time as registers can hold; the others meet the same weights in the first-level cache.
            let most = if S::WIDE { M } else { NARROW_ROWS };
            for i in 0..M.div_ceil(most) {
                let (first, n) = tile_range(M, most, i);
                with_rows!(n, H => self.add::<S, M, H, D, 1>(simd, &x, first, rows, v, ahead, sums));
            }
            v += 1;
        }
        if let Some(sums) = sums.get_mut(whole) {
            for d in 0..D {
                let w = load_partial(simd, &rows[d * self.columns..][whole * LANES..width]);
                for m in 0..M {
                    let sum = simd.mul_add(simd.splat(x[m][d]), w, simd.load(&sums[m]));
                    simd.store(sum, &mut sums[m]);
                }
            }
        }
    }

    /// Adds `V` vectors of columns from vector `v`, for the `H` tokens from `first`.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn add<S: Simd, const M: usize, const H: usize, const D: usize, const V: usize>(
        &self,
        simd: S,
        x: &[&[f32; D]; M],
        first: usize,
        rows: &[E],
        v: usize,
        ahead: usize,
        sums: &mut [[[f32; LANES]; M]],
    ) {
        if const { H > M || !S::WIDE && H > NARROW_ROWS } {
            unreachable!("{H} tokens");
        }
        let x: &[&[f32; D]; H] = x[first..first + H].as_array().expect("H tokens");
        let sums: &mut [[[f32; LANES]; M]; V] = sums[v..v + V].as_mut_array().expect("V vectors");
        let mut acc = [[simd.splat(0.0); V]; H];
        for m in 0..H {
            for i in 0..V {
                acc[m][i] = simd.load(&sums[i][first + m]);
            }
        }
        for d in 0..D {
            // SAFETY: `rows` holds whole vectors `v..v + V` of `D` rows, `columns` apart.
            let at = unsafe { rows.as_ptr().add(d * self.columns + v * LANES) };
            if S::WIDE {
                for line in (0..V * LANES).step_by(64 / size_of::<E>()) {
                    simd.prefetch(at.wrapping_add(line + ahead));
                }
            }
            for i in 0..V {
                // SAFETY: as above.
                let w = E::load(simd, unsafe { &*at.add(i * LANES).cast::<[E; LANES]>() });
                for m in 0..H {
                    acc[m][i] = simd.mul_add(simd.splat(x[m][d]), w, acc[m][i]);
                }
            }
        }
        for m in 0..H {
            for i in 0..V {
                simd.store(acc[m][i], &mut sums[i][first + m]);
            }
        }
    }
}

/// Adds up the segments of some vectors of outputs, and finishes them.
struct AddUp<'a> {
    sums: &'a [[f32; LANES]],
    segments: usize,
    tokens: usize,
    bias: &'a [f32],
    then: Then,
    y: &'a SharedRows<'a>,
    vectors: Range<usize>,
}

impl Kernel for AddUp<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let segment = self.sums.len() / self.segments;
        for vector in self.vectors {
            let column = vector * LANES;
            let bias = &self.bias[column..self.bias.len().min(column + LANES)];
            for t in 0..self.tokens {
                let at = vector * self.tokens + t;
                let mut sum = simd.load(&self.sums[at]);
                for i in 1..self.segments {
                    sum = simd.add(sum, simd.load(&self.sums[i * segment + at]));
                }
                // SAFETY: these columns are this piece's own.
                let y = unsafe { self.y.part(t, column, bias.len()) };
                finish(simd, sum, bias, self.then, y);
            }
        }
    }
}
