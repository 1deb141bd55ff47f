//! SIMD vectors of sixteen f32 lanes on every machine.
//!
//! Every fast kernel is written once, generic over [`Simd`], and compiled once per instruction set by
//! [`Isa::run`](super::isa::Isa::run). The width is the same everywhere because results depend on it: a
//! horizontal sum keeps sixteen partial sums and reduces them by one fixed tree, so AVX-512 (one register),
//! AVX2 (two), NEON (four) and plain arrays give the same bits. Multiply-add is always fused, with one
//! rounding.

mod portable;
pub mod tiles;

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_bf16;
#[cfg(target_arch = "aarch64")]
mod neon;

#[cfg(target_arch = "x86_64")]
pub use amx::Amx;
#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
#[cfg(target_arch = "x86_64")]
pub(super) use avx512_bf16::Avx512Bf16;
#[cfg(target_arch = "aarch64")]
pub use neon::Neon;
pub(super) use portable::run as run_portable;
pub use portable::{Portable, mul_add};

use half::{bf16, f16};

/// Lanes of a vector.
pub const LANES: usize = 16;

/// The magic number 1.5 · 2^23: adding it to an f32 below 2^22 rounds to the nearest integer, ties to even,
/// and leaves that integer in the low bits of the sum.
pub const ROUND_MAGIC: f32 = 12_582_912.0;

/// One vector aligned to a cache line: buffers that are read and written by vectors consist of these, so that
/// no access crosses a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub struct AlignedLanes(pub [f32; LANES]);

// SAFETY: sixteen f32 fill a cache line: there is no padding, and every bit pattern is a value.
unsafe impl bytemuck::Zeroable for AlignedLanes {}
// SAFETY: as above.
unsafe impl bytemuck::Pod for AlignedLanes {}

impl AlignedLanes {
    /// Zeros.
    pub const ZERO: AlignedLanes = AlignedLanes([0.0; LANES]);
}

/// An instruction set, represented by a value that exists only where the machine supports it.
pub trait Simd: Copy + Send + Sync + 'static {
    /// Sixteen f32 lanes.
    type F32s: Copy;

    /// Whether the 28 accumulators of the largest register tile fit (32 registers of 16 lanes).
    const WIDE: bool;

    /// Sixteen i32 lanes.
    type I32s: Copy;
    /// Sixty-four bytes: four for each lane.
    type Bytes: Copy;
    /// Sixteen accumulators of at most 32 products of 4-bit and 8-bit integers, in whatever type holds them.
    type NibbleSums: Copy;

    /// Broadcasts `x` to all lanes.
    fn splat(self, x: f32) -> Self::F32s;
    /// Loads sixteen f32.
    fn load(self, from: &[f32; LANES]) -> Self::F32s;
    /// Loads sixteen f16 and widens them to f32.
    fn load_f16(self, from: &[f16; LANES]) -> Self::F32s;
    /// Loads sixteen bf16 and widens them to f32.
    fn load_bf16(self, from: &[bf16; LANES]) -> Self::F32s;
    /// Loads sixteen i8 and converts them to f32.
    fn load_i8(self, from: &[i8; LANES]) -> Self::F32s;
    /// Stores sixteen f32.
    fn store(self, v: Self::F32s, to: &mut [f32; LANES]);
    /// Stores sixteen lanes as f16, rounded to nearest even.
    fn store_f16(self, v: Self::F32s, to: &mut [f16; LANES]);
    /// `a + b`
    fn add(self, a: Self::F32s, b: Self::F32s) -> Self::F32s;
    /// `a - b`
    fn sub(self, a: Self::F32s, b: Self::F32s) -> Self::F32s;
    /// `a · b`
    fn mul(self, a: Self::F32s, b: Self::F32s) -> Self::F32s;
    /// `a / b`
    fn div(self, a: Self::F32s, b: Self::F32s) -> Self::F32s;
    /// The square root, correctly rounded.
    #[inline(always)]
    fn sqrt(self, v: Self::F32s) -> Self::F32s {
        let mut lanes = [0.0; LANES];
        self.store(v, &mut lanes);
        self.load(&lanes.map(f32::sqrt))
    }
    /// `a · b + c`, fused: rounded once.
    fn mul_add(self, a: Self::F32s, b: Self::F32s, c: Self::F32s) -> Self::F32s;
    /// `a` where `a > b`, else `b` (a NaN in `b` propagates).
    fn max(self, a: Self::F32s, b: Self::F32s) -> Self::F32s;
    /// `a` where `a < b`, else `b` (a NaN in `b` propagates).
    fn min(self, a: Self::F32s, b: Self::F32s) -> Self::F32s;
    /// Zero where `x < limit`, else `v`.
    fn zero_below(self, v: Self::F32s, x: Self::F32s, limit: f32) -> Self::F32s;
    /// `p · 2^n`, where the low bits of `biased` hold the integer `n` (see [`ROUND_MAGIC`]): adds `n` to the
    /// exponent field of `p`.
    fn scale_by_pow2(self, p: Self::F32s, biased: Self::F32s) -> Self::F32s;
    /// Broadcasts `x` to all lanes.
    fn splat_i32(self, x: i32) -> Self::I32s;
    /// Loads sixteen i32.
    fn load_i32s(self, from: &[i32; LANES]) -> Self::I32s;
    /// Converts to f32; exact up to 2^24.
    fn to_f32s(self, v: Self::I32s) -> Self::F32s;
    /// Loads sixty-four bytes.
    fn load_bytes(self, from: &[u8; 4 * LANES]) -> Self::Bytes;
    /// The low four bits of every byte.
    fn low_nibbles(self, v: Self::Bytes) -> Self::Bytes;
    /// The high four bits of every byte.
    fn high_nibbles(self, v: Self::Bytes) -> Self::Bytes;
    /// The first element of each of sixteen bf16 pairs, widened to f32.
    fn low_bf16s(self, v: Self::Bytes) -> Self::F32s;
    /// The second element of each of sixteen bf16 pairs, widened to f32.
    fn high_bf16s(self, v: Self::Bytes) -> Self::F32s;
    /// The initial value of a [`Simd::dot_u8i8`] accumulator: `zero_point` is -128 · Σ x over all its calls.
    #[inline(always)]
    fn byte_sums(self, zero_point: i32) -> Self::I32s {
        self.splat_i32(zero_point)
    }
    /// Accumulates `Σ_j (w[4i + j] - 128) · x[j]` in lane `i`, exactly: as products of unsigned and signed
    /// bytes (VNNI's `vpdpbusd`), where [`Simd::byte_sums`] subtracts the 128, or of signed bytes (NEON's
    /// `sdot`). `pairs` is `x` widened to i16, elements 0 and 2, then 1 and 3, for AVX2, which has no exact
    /// product of bytes.
    fn dot_u8i8(self, w: Self::Bytes, x: [i8; 4], pairs: &[[i16; 2]; 2], acc: Self::I32s) -> Self::I32s;
    /// The initial value of a [`Simd::dot_u4i8`] accumulator: `start[0]` for inputs 0 and 1 of every four,
    /// `start[1]` for inputs 2 and 3, such that the final sums fit 16 bits.
    fn nibble_sums(self, start: [i16; 2]) -> Self::NibbleSums;
    /// [`Simd::dot_u8i8`] for weights from 0 to 15 and inputs from -127 to 127; an accumulator takes at most
    /// eight calls.
    fn dot_u4i8(self, w: Self::Bytes, x: [i8; 4], acc: Self::NibbleSums) -> Self::NibbleSums;
    /// Converts the accumulated sums to f32.
    fn nibble_sums_to_f32s(self, acc: Self::NibbleSums) -> Self::F32s;
    /// Adds lanes pairwise by halves: 16 to 8, 8 to 4.
    fn reduce_add_to_4(self, v: Self::F32s) -> [f32; 4];
    /// Adds all lanes pairwise by halves: 16 to 8, 4, 2, 1.
    #[inline(always)]
    fn reduce_add(self, v: Self::F32s) -> f32 {
        let four = self.reduce_add_to_4(v);
        (four[0] + four[2]) + (four[1] + four[3])
    }
    /// The interleaved lanes of two vectors: `a[0], b[0], a[1], b[1]`, up to `a[15], b[15]`.
    fn interleave(self, a: Self::F32s, b: Self::F32s) -> [Self::F32s; 2];
    /// Transposes a 16 × 16 matrix of row vectors. Interleaving rows i and i + 8 rotates the bits of an
    /// element's index (row, column) by one; after four rotations row and column have changed places.
    #[inline(always)]
    fn transpose(self, mut rows: [Self::F32s; LANES]) -> [Self::F32s; LANES] {
        for _ in 0..LANES.ilog2() {
            let previous = rows;
            for i in 0..LANES / 2 {
                [rows[2 * i], rows[2 * i + 1]] = self.interleave(previous[i], previous[i + LANES / 2]);
            }
        }
        rows
    }
    /// The largest lane: [`Simd::max`] of lanes `i` and `i + 8`, of these `i` and `i + 4`, then 2, then 1.
    /// Where a lane is NaN, the order decides whether the result is.
    fn reduce_max(self, v: Self::F32s) -> f32;

    /// Whether the machine has an instruction for [`Simd::dot_bf16`].
    const HAS_BF16_DOT: bool = false;

    /// `fma(w[2i], x[0], fma(w[2i + 1], x[1], acc[i]))` for sixteen bf16 pairs (`vdpbf16ps`).
    #[inline(always)]
    fn dot_bf16(self, _w: Self::Bytes, _x: [bf16; 2], _acc: Self::F32s) -> Self::F32s {
        unreachable!("this instruction set has no bf16 dot product")
    }

    /// Prefetches the cache line at `address` into L2. Any address is allowed.
    #[inline(always)]
    fn prefetch<T>(self, _address: *const T) {}

    /// Loads up to sixteen f32; the missing lanes are zero.
    #[inline(always)]
    fn load_partial(self, from: &[f32]) -> Self::F32s {
        if let Some(whole) = from.as_array() {
            return self.load(whole);
        }
        let mut lanes = [0.0; LANES];
        lanes[..from.len()].copy_from_slice(from);
        self.load(&lanes)
    }

    /// Stores the first `to.len()` lanes.
    #[inline(always)]
    fn store_partial(self, v: Self::F32s, to: &mut [f32]) {
        if let Some(whole) = to.as_mut_array() {
            return self.store(v, whole);
        }
        let mut lanes = [0.0; LANES];
        self.store(v, &mut lanes);
        to.copy_from_slice(&lanes[..to.len()]);
    }
}

/// A computation that [`Isa::run`](super::isa::Isa::run) compiles for every instruction set. `run` must be
/// `#[inline(always)]`, so that its body is compiled with the instructions it runs on.
pub trait Kernel {
    /// The result of the computation.
    type Output;
    /// Whether it calls [`Simd::dot_bf16`]; if so, it is also compiled for AVX-512 BF16.
    const USES_BF16_DOT: bool = false;
    /// Runs the computation.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

#[cfg(test)]
mod conformance;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;

    struct Transpose<'a>(&'a [[f32; LANES]; LANES]);

    impl Kernel for Transpose<'_> {
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
    fn transpose_swaps_rows_and_columns() {
        let rows: [[f32; LANES]; LANES] =
            std::array::from_fn(|i| std::array::from_fn(|j| (i * LANES + j) as f32));
        let columns = std::array::from_fn(|j| std::array::from_fn(|i| rows[i][j]));
        for isa in Isa::available() {
            assert_eq!(isa.run(Transpose(&rows)), columns, "{isa}");
        }
    }

    struct ReduceMax([f32; LANES]);

    impl Kernel for ReduceMax {
        type Output = f32;

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> f32 {
            simd.reduce_max(simd.load(&self.0))
        }
    }

    #[test]
    fn reduce_max_of_nan_has_same_bits_on_every_isa() {
        for (nan, second) in (0..LANES).flat_map(|nan| (0..LANES).map(move |second| (nan, second))) {
            let mut lanes: [f32; LANES] = std::array::from_fn(|i| (i * 7 % LANES) as f32 - 3.0);
            assert!(Isa::available().into_iter().all(|isa| isa.run(ReduceMax(lanes)) == 12.0));
            (lanes[nan], lanes[second]) = (f32::NAN, f32::NAN);
            let expected = Isa::Portable.run(ReduceMax(lanes));
            // The last lane is the second operand at every level.
            assert!(nan != LANES - 1 || expected.is_nan());
            for isa in Isa::available() {
                assert_eq!(isa.run(ReduceMax(lanes)).to_bits(), expected.to_bits(), "{isa}: {nan}, {second}");
            }
        }
    }
}
