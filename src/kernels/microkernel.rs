//! The f32 microkernel that GEMM and attention share: it computes one register tile, a few rows times a few
//! panels.
//!
//! A *panel* is sixteen columns of a matrix stored contiguously, `[k, 16]`. For `MR` rows of `x` and
//! `NR_VECS` panels (NR = 16 · `NR_VECS` columns),
//!
//! ```text
//! acc[m][v] += Σ_k x[m, k] · panel[v][k, 0..16]
//! ```
//!
//! takes `MR · NR_VECS` multiply-adds per `MR + NR_VECS` loads, so a large enough tile is bound by
//! arithmetic, not by loads. Each output is one chain of fused multiply-adds in the order of k, whose bits do
//! not depend on the tile shape.

use super::elements::Element;
use super::simd::{LANES, Simd};

/// Prefetch distance, in bytes, for the panels of a single-row tile, as in decode, where panels come from
/// memory.
const PREFETCH_DISTANCE_BYTES: usize = 8 << 10;

/// The left operand of the microkernel: element k of row m is at `ptr + m · row_stride + k · k_stride`.
///
/// For packed rows, `[k, MR]`, both strides are constants and every element is at a fixed offset from one
/// register. Unpacked rows take an address computation per row and k, which costs as much as a multiply-add.
#[derive(Clone, Copy)]
pub(super) struct StridedLhs {
    pub ptr: *const f32,
    pub row_stride: usize,
    pub k_stride: usize,
}

/// Adds the product of `MR` rows and `NR_VECS` panels to `acc`.
///
/// # Safety
/// `x` has `MR` rows of at least `depth` elements; each panel has at least `depth · 16` elements.
#[inline(always)]
pub(super) unsafe fn microkernel<S: Simd, E: Element, const MR: usize, const NR_VECS: usize>(
    simd: S,
    x: StridedLhs,
    depth: usize,
    panels: [*const E; NR_VECS],
    acc: &mut [[S::F32s; NR_VECS]; MR],
) {
    let prefetch = |k| {
        for v in 0..if MR == 1 { NR_VECS } else { 0 } {
            simd.prefetch(panels[v].wrapping_add(k * LANES + PREFETCH_DISTANCE_BYTES / size_of::<E>()));
        }
    };
    // SAFETY: the caller upholds the same contract.
    unsafe { microkernel_with_prefetch(simd, x, depth, panels, acc, prefetch) };
}

/// Like [`microkernel`], but with the caller's `prefetch(k)` before each step of k: a few prefetch
/// instructions between the multiply-adds cost no time.
///
/// # Safety
/// As for [`microkernel`].
#[inline(always)]
pub(super) unsafe fn microkernel_with_prefetch<S: Simd, E: Element, const MR: usize, const NR_VECS: usize>(
    simd: S,
    x: StridedLhs,
    depth: usize,
    panels: [*const E; NR_VECS],
    acc: &mut [[S::F32s; NR_VECS]; MR],
    prefetch: impl Fn(usize),
) {
    for k in 0..depth {
        prefetch(k);
        let mut w = [simd.splat(0.0); NR_VECS];
        for v in 0..NR_VECS {
            // SAFETY: `k < depth`, and the panel holds `depth` rows of sixteen.
            w[v] = E::load(simd, unsafe { &*panels[v].add(k * LANES).cast::<[E; LANES]>() });
        }
        for m in 0..MR {
            // SAFETY: row `m < MR` holds at least `depth` elements.
            let xk = simd.splat(unsafe { *x.ptr.add(m * x.row_stride + k * x.k_stride) });
            for v in 0..NR_VECS {
                acc[m][v] = simd.mul_add(xk, w[v], acc[m][v]);
            }
        }
    }
}

/// Evaluates `$call` with `$n` as a constant named `$mr`: `with_mr!(n, MR => f::<MR>(…))`, for n from 1 to
/// 14.
macro_rules! with_mr {
    ($n:expr, $mr:ident => $call:expr) => {
        with_mr!(@ $n, $mr, $call, 1 2 3 4 5 6 7 8 9 10 11 12 13 14)
    };
    (@ $n:expr, $mr:ident, $call:expr, $($literal:literal)*) => {
        match $n {
            $($literal => {
                const $mr: usize = $literal;
                $call
            })*
            n => unreachable!("a register tile of {n} rows"),
        }
    };
}
pub(super) use with_mr;

/// MR, the maximum rows of a register tile: 14 with two panels, for 28 of AVX-512's 32 registers, or 6 with
/// one panel, for 12 of AVX2's 16. Kernels are compiled for every MR up to 14; [`assert_mr`] prunes those
/// that an instruction set does not use.
pub(super) const fn mr(wide: bool) -> usize {
    if wide { 14 } else { 6 }
}

/// MR of GEMV and of quantized layers where there are only sixteen registers: fewer accumulators than
/// [`mr`] allows, as loading or unpacking the weights takes registers too.
pub(super) const REDUCED_MR: usize = 4;

/// Prevents the compiler from generating register tiles taller than `S` uses.
#[inline(always)]
pub(super) fn assert_mr<S: Simd, const MR: usize>() {
    if const { MR > mr(S::WIDE) } {
        unreachable!("a register tile of {MR} rows");
    }
}

/// Returns the start and length of block `i` when `n` items are split into `n.div_ceil(max)` blocks of nearly
/// equal length, at most `max`.
pub(super) fn block_range(n: usize, max: usize, i: usize) -> (usize, usize) {
    let blocks = n.div_ceil(max);
    let (start, end) = (i * n / blocks, (i + 1) * n / blocks);
    (start, end - start)
}

/// The partition of tokens, the rows of the left operand, into row blocks, which are packed and multiplied as
/// a unit: in GEMM the rows of one register tile.
#[derive(Clone, Copy, Debug)]
pub struct RowBlocks {
    tokens: usize,
    max_height: usize,
}

impl RowBlocks {
    /// Partitions `tokens` into as few blocks as possible, of nearly equal height and at most `max_height`
    /// tokens.
    pub fn new(tokens: usize, max_height: usize) -> Self {
        Self { tokens, max_height }
    }

    /// The number of blocks.
    pub fn count(self) -> usize {
        self.tokens.div_ceil(self.max_height)
    }

    /// The number of tokens in the tallest block.
    pub fn height(self) -> usize {
        self.tokens.div_ceil(self.count().max(1))
    }

    /// Returns the first token of block `i` and the number of its tokens.
    pub fn block(self, i: usize) -> (usize, usize) {
        block_range(self.tokens, self.max_height, i)
    }
}
