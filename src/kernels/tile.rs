//! The inner loop that everything with a matrix in it shares: a few rows times a few panels, kept in registers.
//!
//! A *panel* is sixteen columns of a matrix stored together, `[k, 16]`. For `M` rows of `x` and `V` panels,
//!
//! ```text
//! acc[m][v] += Σ_k x[m, k] · panel[v][k, 0..16]
//! ```
//!
//! takes `M·V` multiply-adds for `M + V` loads, so with enough of both the arithmetic is the limit and not the loads.
//! Every output is one chain of fused multiply-adds in the order of k: nothing about its bits depends on the tile it is
//! computed in.

use super::elements::Element;
use super::simd::{LANES, Simd};

/// How many bytes ahead a panel is asked for where one row meets it, as in decode: then it comes from memory. (Keys and
/// values in f16 are read at 30 GB/s with it and at 16 without, where memory gives 31.)
const AHEAD: usize = 8 << 10;

/// `M` rows of numbers as [`multiply_add`] takes them: number k of row m is `m · row + k · step` from `at`.
///
/// Where rows are stored side by side, `[k, M]`, both distances are constants and every number is a fixed distance from
/// one register; rows apart take an addition for each row and k, which is as much work as a multiply-add.
#[derive(Clone, Copy)]
pub(super) struct Factors {
    pub at: *const f32,
    pub row: usize,
    pub step: usize,
}

/// Adds the product of `M` rows and `V` panels to `acc`.
///
/// # Safety
/// `x` has `M` rows of at least `depth` numbers; each panel at least `depth · 16` elements.
#[inline(always)]
pub(super) unsafe fn multiply_add<S: Simd, E: Element, const M: usize, const V: usize>(
    simd: S,
    x: Factors,
    depth: usize,
    panels: [*const E; V],
    acc: &mut [[S::F32s; V]; M],
) {
    let ask = |k| {
        for v in 0..if M == 1 { V } else { 0 } {
            simd.prefetch(panels[v].wrapping_add(k * LANES + AHEAD / size_of::<E>()));
        }
    };
    // SAFETY: as the caller promises.
    unsafe { multiply_add_while(simd, x, depth, panels, acc, ask) };
}

/// The same; between the multiply-adds there is time to ask for what is needed later: `ask` is called with every k.
///
/// # Safety
/// As for [`multiply_add`].
#[inline(always)]
pub(super) unsafe fn multiply_add_while<S: Simd, E: Element, const M: usize, const V: usize>(
    simd: S,
    x: Factors,
    depth: usize,
    panels: [*const E; V],
    acc: &mut [[S::F32s; V]; M],
    ask: impl Fn(usize),
) {
    for k in 0..depth {
        ask(k);
        let mut w = [simd.splat(0.0); V];
        for v in 0..V {
            // SAFETY: `k < depth`, and the panel holds `depth` rows of sixteen.
            w[v] = E::load(simd, unsafe { &*panels[v].add(k * LANES).cast::<[E; LANES]>() });
        }
        for m in 0..M {
            // SAFETY: row `m < M` holds at least `depth` numbers.
            let xk = simd.splat(unsafe { *x.at.add(m * x.row + k * x.step) });
            for v in 0..V {
                acc[m][v] = simd.mul_add(xk, w[v], acc[m][v]);
            }
        }
    }
}

/// Calls `$call` with `$rows` as a constant: `with_rows!(n, ROWS => f::<ROWS>(…))` for n from 1 to 14.
macro_rules! with_rows {
    ($n:expr, $rows:ident => $call:expr) => {
        with_rows!(@ $n, $rows, $call, 1 2 3 4 5 6 7 8 9 10 11 12 13 14)
    };
    (@ $n:expr, $rows:ident, $call:expr, $($literal:literal)*) => {
        match $n {
            $($literal => {
                const $rows: usize = $literal;
                $call
            })*
            n => unreachable!("a tile of {n} rows"),
        }
    };
}
pub(super) use with_rows;

/// The rows of the largest tile: with two panels, 28 of AVX-512's 32 registers; with one, 12 of
/// AVX2's 16.
/// Kernels are compiled for every height up to the highest anywhere; [`reaches`] cuts those that an instruction set
/// never asks for.
pub(super) const fn tile_rows(wide: bool) -> usize {
    if wide { 14 } else { 6 }
}

/// The most rows whose sums of one panel stay in sixteen registers of eight lanes, beside weights that have to be taken
/// apart first or are read once only.
pub(super) const NARROW_ROWS: usize = 4;

/// Stops the compiler from spelling out tiles higher than `S` ever asks for.
#[inline(always)]
pub(super) fn reaches<S: Simd, const M: usize>() {
    if const { M > tile_rows(S::WIDE) } {
        unreachable!("a tile of {M} rows");
    }
}

/// `n` rows in tiles of nearly equal height, none above `most`: start and height of tile `i` of `n.div_ceil(most)`.
pub(super) fn tile_range(n: usize, most: usize, i: usize) -> (usize, usize) {
    let tiles = n.div_ceil(most);
    let (start, end) = (i * n / tiles, (i + 1) * n / tiles);
    (start, end - start)
}

/// How tokens are cut into tiles.
#[derive(Clone, Copy, Debug)]
pub struct Tiles {
    tokens: usize,
    most: usize,
}

impl Tiles {
    /// `tokens` in as few tiles as possible, none above `most`.
    pub fn new(tokens: usize, most: usize) -> Self {
        Self { tokens, most }
    }

    /// How many.
    pub fn count(self) -> usize {
        self.tokens.div_ceil(self.most)
    }

    /// Tokens of the highest.
    pub fn height(self) -> usize {
        self.tokens.div_ceil(self.count().max(1))
    }

    /// The first token of tile `i`, and how many there are.
    pub fn tile(self, i: usize) -> (usize, usize) {
        tile_range(self.tokens, self.most, i)
    }
}
