//! What a vector is: sixteen f32 lanes, whatever the machine.
//!
//! Every fast kernel is written once, generic over [`Simd`], and compiled once per instruction set by
//! [`Isa::run`](super::isa::Isa::run). The width is part of the *result*, not only of the speed: a sum along a row is
//! kept in sixteen partial sums and folded by one fixed tree, so AVX-512 (one register), AVX2 (two) and plain arrays
//! (NEON, or anything LLVM knows) give the same bits. Multiply-add is always fused, with one rounding.

mod portable;

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_bf16;

#[cfg(target_arch = "x86_64")]
pub use amx::Amx;
#[cfg(target_arch = "x86_64")]
pub(super) use amx::{TileProducts, TileRegisters, TileSums};
#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
#[cfg(target_arch = "x86_64")]
pub(super) use avx512_bf16::Avx512Bf16;
pub use portable::Portable;
pub(super) use portable::enter as enter_portable;

use half::{bf16, f16};

/// Lanes of a vector.
pub const LANES: usize = 16;

/// 1.5 · 2^23: added to a number below 2^22 it leaves no bits for a fraction, and the nearest whole number, ties to even, in
/// the low bits of the sum.
pub const ROUND: f32 = 12_582_912.0;

/// As many numbers on a cache line of their own: memory that is read and written a vector at a time is kept in these,
/// so that no vector lies across two lines.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub struct Lanes(pub [f32; LANES]);

impl Lanes {
    /// Zeros.
    pub const ZERO: Lanes = Lanes([0.0; LANES]);
}

/// An instruction set, as a value that exists only where the machine has it.
pub trait Simd: Copy + Send + Sync + 'static {
    /// Sixteen f32 lanes.
    type F32s: Copy;

    /// Whether the 28 accumulators of the large matrix tile fit in registers (32 registers of 16 lanes).
    const WIDE: bool;

    /// Sixteen i32 lanes.
    type I32s: Copy;
    /// Sixty-four bytes: four for each lane.
    type Bytes: Copy;
    /// Sixteen sums of at most 32 products of four-bit and eight-bit numbers, in whatever holds them.
    type Nibbles: Copy;

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::F32s;
    /// Sixteen numbers from memory.
    fn load(self, from: &[f32; LANES]) -> Self::F32s;
    /// Sixteen binary16 numbers, widened.
    fn load_f16(self, from: &[f16; LANES]) -> Self::F32s;
    /// Sixteen bfloat16 numbers, widened.
    fn load_bf16(self, from: &[bf16; LANES]) -> Self::F32s;
    /// Sixteen whole numbers, widened.
    fn load_i8(self, from: &[i8; LANES]) -> Self::F32s;
    /// Sixteen numbers to memory.
    fn store(self, v: Self::F32s, to: &mut [f32; LANES]);
    /// Sixteen numbers to memory, rounded to binary16, to nearest even.
    fn store_f16(self, v: Self::F32s, to: &mut [f16; LANES]);
    /// `a + b`
    fn add(self, a: Self::F32s, b: Self::F32s) -> Self::F32s;
    /// `a - b`
    fn sub(self, a: Self::F32s, b: Self::F32s) -> Self::F32s;
    /// `a · b`
    fn mul(self, a: Self::F32s, b: Self::F32s) -> Self::F32s;
    /// `a / b`
    fn div(self, a: Self::F32s, b: Self::F32s) -> Self::F32s;
    /// `a · b + c`, rounded once.
    fn mul_add(self, a: Self::F32s, b: Self::F32s, c: Self::F32s) -> Self::F32s;
    /// `a` where `a > b`, else `b` (so a NaN in `b` stays).
    fn max(self, a: Self::F32s, b: Self::F32s) -> Self::F32s;
    /// `a` where `a < b`, else `b` (so a NaN in `b` stays).
    fn min(self, a: Self::F32s, b: Self::F32s) -> Self::F32s;
    /// Zero where `x < limit`, else `v`.
    fn zero_below(self, v: Self::F32s, x: Self::F32s, limit: f32) -> Self::F32s;
    /// `p · 2^n`, where the low bits of `biased` hold the integer `n` (see [`ROUND`]): adds `n` to `p`'s exponent field.
    fn scale_by_power(self, p: Self::F32s, biased: Self::F32s) -> Self::F32s;
    /// All lanes `x`.
    fn splat_i32(self, x: i32) -> Self::I32s;
    /// Sixteen whole numbers from memory.
    fn load_i32s(self, from: &[i32; LANES]) -> Self::I32s;
    /// Widened; exact up to 2^24.
    fn to_f32s(self, v: Self::I32s) -> Self::F32s;
    /// Sixty-four bytes from memory.
    fn load_bytes(self, from: &[u8; 4 * LANES]) -> Self::Bytes;
    /// The lower four bits of every byte.
    fn low_nibbles(self, v: Self::Bytes) -> Self::Bytes;
    /// The upper four bits of every byte.
    fn high_nibbles(self, v: Self::Bytes) -> Self::Bytes;
    /// The first number of each of sixteen pairs of bfloat16, widened.
    fn low_bf16s(self, v: Self::Bytes) -> Self::F32s;
    /// The second number of each of sixteen pairs of bfloat16, widened.
    fn high_bf16s(self, v: Self::Bytes) -> Self::F32s;
    /// `acc[i] + Σ_j w[4i + j] · x[j]`, exact. `pairs` are the same four numbers, 0 and 2, then 1 and 3, for machines
    /// that multiply no narrower ones exactly.
    fn dot_bytes(self, w: Self::Bytes, x: [i8; 4], pairs: &[[i16; 2]; 2], acc: Self::I32s) -> Self::I32s;
    /// What [`Simd::dot_nibbles`] adds to first: a number for inputs 0 and 1 and one for 2 and 3 of every four, each such
    /// that what is added up fits 16 bits in the end.
    fn nibbles(self, start: [i16; 2]) -> Self::Nibbles;
    /// The same as [`Simd::dot_bytes`] for numbers from 0 to 15 times numbers from -127 to 127. At most eight can be
    /// added to one another.
    fn dot_nibbles(self, w: Self::Bytes, x: [i8; 4], acc: Self::Nibbles) -> Self::Nibbles;
    /// What was added up.
    fn nibbles_to_f32s(self, acc: Self::Nibbles) -> Self::F32s;
    /// Lanes added by halves: 16 to 8, 8 to 4.
    fn add_fours(self, v: Self::F32s) -> [f32; 4];
    /// All lanes added by halves: 16 to 8, 4, 2, 1.
    #[inline(always)]
    fn reduce_add(self, v: Self::F32s) -> f32 {
        let four = self.add_fours(v);
        (four[0] + four[2]) + (four[1] + four[3])
    }
    /// The lanes of two vectors in turns: `a[0], b[0], a[1], b[1]`, to the last.
    fn interleave(self, a: Self::F32s, b: Self::F32s) -> [Self::F32s; 2];
    /// Sixteen rows become sixteen columns. Rows i and i + 8 in turns rotate the bits of an element's place, row and column,
    /// by one; rotated by four, they have changed sides.
    #[inline(always)]
    fn transpose(self, mut rows: [Self::F32s; LANES]) -> [Self::F32s; LANES] {
        for _ in 0..LANES.ilog2() {
            let apart = rows;
            for i in 0..LANES / 2 {
                [rows[2 * i], rows[2 * i + 1]] = self.interleave(apart[i], apart[i + LANES / 2]);
            }
        }
        rows
    }
    /// The largest lane.
    fn reduce_max(self, v: Self::F32s) -> f32;

    /// Whether there is an instruction for [`Simd::dot_bf16`].
    const DOTS_BF16: bool = false;

    /// `fma(w[2i], x[0], fma(w[2i + 1], x[1], acc[i]))` for sixteen pairs of bfloat16.
    #[inline(always)]
    fn dot_bf16(self, _w: Self::Bytes, _x: [bf16; 2], _acc: Self::F32s) -> Self::F32s {
        unreachable!("an instruction that is not there")
    }

    /// Asks for the cache line at `address` to be brought into the second-level cache. Any address is allowed.
    #[inline(always)]
    fn prefetch<T>(self, _address: *const T) {}

    /// Up to sixteen numbers, the missing lanes zero.
    #[inline(always)]
    fn load_partial(self, from: &[f32]) -> Self::F32s {
        if let Some(whole) = from.as_array() {
            return self.load(whole);
        }
        let mut lanes = [0.0; LANES];
        lanes[..from.len()].copy_from_slice(from);
        self.load(&lanes)
    }

    /// The first `to.len()` lanes to memory.
    #[inline(always)]
    fn store_partial(self, v: Self::F32s, to: &mut [f32]) {
        let mut lanes = [0.0; LANES];
        self.store(v, &mut lanes);
        to.copy_from_slice(&lanes[..to.len()]);
    }
}

/// A computation that any instruction set can be asked to do. `run` must be `#[inline(always)]`, so that its body is
/// compiled with the instructions it runs on.
pub trait Kernel {
    /// What the computation returns.
    type Output;
    /// Whether it uses [`Simd::dot_bf16`] where that is an instruction: then it is compiled for it too.
    const DOTS_BF16: bool = false;
    /// The computation, written once.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::isa::Isa;

    struct Transposed<'a>(&'a [[f32; LANES]; LANES]);

    impl Kernel for Transposed<'_> {
        type Output = [[f32; LANES]; LANES];

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> [[f32; LANES]; LANES] {
            let rows = simd.transpose(self.0.each_ref().map(|row| simd.load(row)));
            rows.map(|row| {
                let mut lanes = [0.0; LANES];
                simd.store(row, &mut lanes);
                lanes
            })
        }
    }

    #[test]
    fn rows_become_columns() {
        let rows: [[f32; LANES]; LANES] =
            std::array::from_fn(|i| std::array::from_fn(|j| (i * LANES + j) as f32));
        let columns = std::array::from_fn(|j| std::array::from_fn(|i| rows[i][j]));
        for isa in Isa::available() {
            assert_eq!(isa.run(Transposed(&rows)), columns, "{isa}");
        }
    }
}
