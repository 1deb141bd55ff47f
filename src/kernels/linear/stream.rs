//! A few tokens: the weights are read once, in the order they lie in memory.
//!
//! A thread takes a segment of the rows of `W` and goes down them eight or sixteen at a time, adding `x[k] · W[k, columns]`
//! for all of them to the sums before it stores these. The sums of its columns stay in the cache. (Keeping the
//! sums in registers instead would mean jumping down the rows a few cache lines at a time: measured, two thirds of the
//! speed.) When all segments are done, their sums are added up.

use super::segments::segments;
use super::{Element, LANES, Rows, RowsMut, Simd, Team, Then, finish};
use crate::kernels::elements::load_partial;
use crate::kernels::rows::SharedRows;
use crate::kernels::simd::{AlignedLanes, Kernel};
use crate::kernels::threads::Disjoint;
use crate::kernels::tile::{NARROW_ROWS, tile_range, tile_rows, with_rows};
use std::cell::RefCell;
use std::ops::Range;

/// Rows of `W` in one pass over the sums. They often lie a multiple of 4 KiB apart, and of lines that do, most first-level
/// caches hold eight.
const ROWS: usize = 8;
/// The same where registers suffice and loading and storing the sums is what takes time. (Measured beside eight rows: one
/// token in f32 a twentieth faster, eight tokens in 16 bits a sixth.)
const MANY_ROWS: usize = 16;
/// Sums a thread works on: 128 KiB, which stay in its second-level cache.
const SUMS: usize = 32 << 10;
/// Outputs that one thread finishes at a time.
const FINISH: usize = 1024;

thread_local! {
    /// The caller's sums of every segment, kept from one call to the next: `[segments, parts]` of those of a [`Part`].
    static SUMS_OF_SEGMENTS: RefCell<Vec<AlignedLanes>> = const { RefCell::new(Vec::new()) };
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
        sums.resize((n * vectors * tokens).max(sums.len()), AlignedLanes::ZERO);
        let sums = &mut sums[..n * vectors * tokens];
        let shared = Disjoint::new(sums);
        team.run(n * parts, |i| {
            let (segment, part) = (i / parts, i % parts);
            let part = part * width..vectors.min((part + 1) * width);
            let at = segment * vectors * tokens;
            // SAFETY: every segment and part of the columns is handed out once, and no two share a sum.
            let sums = unsafe { shared.slice(at + part.start * tokens..at + part.end * tokens) };
            let rows = segments.clone().nth(segment).expect("one of the segments");
            team.isa().run(Part { x, w, columns, rows, start: part.start * LANES, sums });
        });
        let sums = &*sums;
        let y = y.share();
        let piece = (FINISH / LANES).div_ceil(tokens);
        team.run(vectors.div_ceil(piece), |i| {
            let vectors = i * piece..vectors.min((i + 1) * piece);
            team.isa().run(AddUp { sums, segments: n, tokens, width, bias, then, y: &y, vectors });
        });
    });
}

/// Whether the multiply-adds of so many tokens take longer than reading the weights.
const fn computes_longer<E>(tokens: usize) -> bool {
    size_of::<E>() == 2 && tokens > 4
}

/// The greatest common divisor.
fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Tokens whose inputs of a pass lie side by side, as many as the largest tile has rows: the first and how many, group
/// by group.
fn groups(tokens: usize) -> impl Iterator<Item = (usize, usize)> {
    let most = tile_rows(true);
    (0..tokens.div_ceil(most)).map(move |i| tile_range(tokens, most, i))
}

/// Some rows of `W` and the columns from `start`, and their sums: group by group of tokens, `[columns / 16, M, 16]`.
struct Part<'a, E> {
    x: Rows<'a>,
    w: &'a [E],
    columns: usize,
    rows: Range<usize>,
    start: usize,
    sums: &'a mut [AlignedLanes],
}

impl<E: Element> Kernel for Part<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        self.sums.fill(AlignedLanes::ZERO);
        let tokens = self.x.len();
        if S::WIDE && (tokens == 1 || computes_longer::<E>(tokens)) {
            self.passes::<S, MANY_ROWS>(simd);
        } else {
            self.passes::<S, ROWS>(simd);
        }
    }
}

impl<E: Element> Part<'_, E> {
    /// All rows, `D` in a pass.
    #[inline(always)]
    fn passes<S: Simd, const D: usize>(&mut self, simd: S) {
        let whole = self.rows.start + self.rows.len() / D * D;
        for k in (self.rows.start..whole).step_by(D) {
            self.pass::<S, D>(simd, k);
        }
        for k in whole..self.rows.end {
            self.pass::<S, 1>(simd, k);
        }
    }

    /// Adds rows `k..k + D` of `W` to the sums, to those of a group of tokens at a time. The first group brings the rows
    /// into the second-level cache, where the others meet them.
    #[inline(always)]
    fn pass<S: Simd, const D: usize>(&mut self, simd: S, k: usize) {
        for (first, n) in groups(self.x.len()) {
            with_rows!(n, M => self.group::<S, M, D>(simd, k, first));
        }
    }

    /// The same for the `M` tokens from `first`, a cache line of every row at a time.
    #[inline(always)]
    fn group<S: Simd, const M: usize, const D: usize>(&mut self, simd: S, k: usize, first: usize) {
        let vectors = self.sums.len() / self.x.len();
        let (sums, _) = self.sums[first * vectors..][..M * vectors].as_chunks_mut::<M>();
        let width = (vectors * LANES).min(self.columns - self.start);
        let rows = &self.w[k * self.columns + self.start..][..(D - 1) * self.columns + width];
        // Side by side, so that one register points to all of them.
        let mut x = [[0.0; M]; D];
        for m in 0..M {
            let row: &[f32; D] = self.x.row(first + m)[k..k + D].as_array().expect("D inputs");
            for d in 0..D {
                x[d][m] = row[d];
            }
        }
        // A part of a row is too short for the hardware to notice that it is read in order. Asking for the next pass in
        // the second-level cache, which has more requests under way than the first, keeps the memory busy.
        let ahead = if first == 0 && k + 2 * D <= self.rows.end { D * self.columns } else { 0 };
        let pass = Pass { columns: self.columns, rows, ahead };
        let whole = width / LANES;
        let mut v = 0;
        if S::WIDE {
            // With a third vector beside two, inputs and sums are loaded for more multiply-adds: a twentieth less time for one
            // thread.
            if const { computes_longer::<E>(M) && M < 10 } {
                while v + 3 <= whole {
                    pass.add::<S, M, M, D, 3>(simd, &x, 0, v, sums);
                    v += 3;
                }
            }
            // A cache line of every row: of more side by side the hardware takes it that their rows go on so, and fetches
            // what nobody needs yet (measured in f32: an eighth less speed).
            if const { size_of::<E>() == 2 } {
                while v + 2 <= whole {
                    pass.add::<S, M, M, D, 2>(simd, &x, 0, v, sums);
                    v += 2;
                }
            }
        }
        while v < whole {
            // As many tokens at a time as registers can hold; the others meet the same weights in the first-level cache.
            let most = if S::WIDE { M } else { NARROW_ROWS };
            for i in 0..M.div_ceil(most) {
                let (first, n) = tile_range(M, most, i);
                with_rows!(n, H => pass.add::<S, M, H, D, 1>(simd, &x, first, v, sums));
            }
            v += 1;
        }
        if let Some(sums) = sums.get_mut(whole) {
            for d in 0..D {
                let w = load_partial(simd, &rows[d * self.columns..][whole * LANES..width]);
                for m in 0..M {
                    let sum = simd.mul_add(simd.splat(x[d][m]), w, simd.load(&sums[m].0));
                    simd.store(sum, &mut sums[m].0);
                }
            }
        }
    }
}

/// `D` rows of a part, `columns` apart, and how many elements ahead the next are asked for.
struct Pass<'a, E> {
    columns: usize,
    rows: &'a [E],
    ahead: usize,
}

impl<E: Element> Pass<'_, E> {
    /// Adds `V` vectors of columns from vector `v` to the sums of `H` tokens of a group, from its token `first` on.
    #[inline(always)]
    fn add<S: Simd, const M: usize, const H: usize, const D: usize, const V: usize>(
        &self,
        simd: S,
        x: &[[f32; M]; D],
        first: usize,
        v: usize,
        sums: &mut [[AlignedLanes; M]],
    ) {
        if const { H > M || !S::WIDE && H > NARROW_ROWS } {
            unreachable!("{H} tokens");
        }
        let sums: &mut [[AlignedLanes; M]; V] = sums[v..v + V].as_mut_array().expect("V vectors");
        let mut acc = [[simd.splat(0.0); V]; H];
        for m in 0..H {
            for i in 0..V {
                acc[m][i] = simd.load(&sums[i][first + m].0);
            }
        }
        for d in 0..D {
            // SAFETY: `rows` holds whole vectors `v..v + V` of `D` rows, `columns` apart.
            let at = unsafe { self.rows.as_ptr().add(d * self.columns + v * LANES) };
            if first == 0 {
                for line in (0..V * LANES).step_by(64 / size_of::<E>()) {
                    simd.prefetch(at.wrapping_add(line + self.ahead));
                }
            }
            // All weights before the first input: otherwise the compiler keeps the inputs for the second vector, and the
            // sums leave the registers.
            let mut w = [simd.splat(0.0); V];
            for i in 0..V {
                // SAFETY: as above.
                w[i] = E::load(simd, unsafe { &*at.add(i * LANES).cast::<[E; LANES]>() });
            }
            let x: &[f32; H] = x[d][first..first + H].as_array().expect("H tokens");
            for m in 0..H {
                let x = simd.splat(x[m]);
                for i in 0..V {
                    acc[m][i] = simd.mul_add(x, w[i], acc[m][i]);
                }
            }
        }
        for m in 0..H {
            for i in 0..V {
                simd.store(acc[m][i], &mut sums[i][first + m].0);
            }
        }
    }
}

/// Adds up the segments of some vectors of outputs, and finishes them.
struct AddUp<'a> {
    sums: &'a [AlignedLanes],
    segments: usize,
    tokens: usize,
    /// Vectors of a part; the last may have fewer.
    width: usize,
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
            let part = vector / self.width * self.width;
            let width = self.width.min(segment / self.tokens - part);
            for (first, n) in groups(self.tokens) {
                let at = part * self.tokens + first * width + (vector - part) * n;
                for m in 0..n {
                    let mut sum = simd.load(&self.sums[at + m].0);
                    for i in 1..self.segments {
                        sum = simd.add(sum, simd.load(&self.sums[i * segment + at + m].0));
                    }
                    // SAFETY: these columns are this piece's own.
                    let y = unsafe { self.y.part(first + m, column, bias.len()) };
                    finish(simd, sum, bias, self.then, y);
                }
            }
        }
    }
}
