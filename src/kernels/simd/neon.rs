//! NEON: four 128-bit registers per vector. 64-bit ARM always has it, and `sdot`, the product of bytes, from
//! ARMv8.2 on (Cortex-A76, Apple M1, and later).

use super::{Kernel, LANES, Simd};
use half::{bf16, f16};
use std::arch::aarch64::*;
use std::arch::asm;

/// NEON, with `DOTPROD` for the instruction `sdot`. Constructed only by [`Neon::detect`].
#[derive(Clone, Copy, Debug)]
pub struct Neon<const DOTPROD: bool>(());

type F32s = [float32x4_t; 4];
type I32s = [int32x4_t; 4];
type Bytes = [uint8x16_t; 4];

impl Neon<false> {
    /// Returns the instruction set, which every 64-bit ARM processor has.
    pub fn detect() -> Self {
        Self(())
    }

    /// Runs `kernel`.
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }
}

impl Neon<true> {
    /// Returns the instruction set if the machine has it.
    pub fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("dotprod").then_some(Self(()))
    }

    /// Runs `kernel` compiled with this instruction set.
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon,dotprod")]
        fn inner<K: Kernel>(simd: Neon<true>, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: a value of `Neon<true>` exists only where `detect` found `dotprod`.
        unsafe { inner(self, kernel) }
    }
}

/// Wraps an intrinsic call in `unsafe`.
macro_rules! intrinsic {
    ($call:expr) => {
        // SAFETY: NEON belongs to every 64-bit ARM processor; pointers come from references to arrays of
        // exactly the vector's size, and none of the instructions needs alignment.
        unsafe { $call }
    };
}

/// The vector whose register `i` is `f(i)`.
#[inline(always)]
fn registers<T>(f: impl Fn(usize) -> T) -> [T; 4] {
    [f(0), f(1), f(2), f(3)]
}

/// `acc[i] + Σ_j w[4i + j] · x[4i + j]` by one instruction, whose intrinsic is not stable in Rust.
///
/// # Safety
/// The machine must have `dotprod`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn sdot(mut acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: the caller guarantees the instruction, which reads and writes registers alone.
    unsafe {
        asm!(
            "sdot {acc:v}.4s, {w:v}.16b, {x:v}.16b",
            acc = inout(vreg) acc, w = in(vreg) w, x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

/// [`sdot`] from products of 16 bits. Two of them fit 16 bits when `w · x` is at most 128 · 127.
#[inline(always)]
fn dot_by_products(acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    intrinsic!({
        let low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
        let high = vmull_high_s8(w, x);
        vpadalq_s16(acc, vpaddq_s16(low, high))
    })
}

/// Widens eight f16, whose own intrinsics need a newer compiler.
#[inline(always)]
fn widen_f16s(halves: uint16x8_t) -> [float32x4_t; 2] {
    let (low, high);
    // SAFETY: the instructions belong to ARMv8.0, and read and write registers alone.
    unsafe {
        asm!(
            "fcvtl {low:v}.4s, {halves:v}.4h",
            "fcvtl2 {high:v}.4s, {halves:v}.8h",
            halves = in(vreg) halves, low = out(vreg) low, high = lateout(vreg) high,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    [low, high]
}

/// Rounds eight f32 to f16.
#[inline(always)]
fn narrow_to_f16s(low: float32x4_t, high: float32x4_t) -> uint16x8_t {
    let halves;
    // SAFETY: the instructions belong to ARMv8.0, and read and write registers alone.
    unsafe {
        asm!(
            "fcvtn {halves:v}.4h, {low:v}.4s",
            "fcvtn2 {halves:v}.8h, {high:v}.4s",
            low = in(vreg) low, high = in(vreg) high, halves = out(vreg) halves,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    halves
}

/// Transposes a 4 × 4 matrix: pairs of rows, then both pairs.
#[inline(always)]
fn transpose_4([a, b, c, d]: [float32x4_t; 4]) -> [float32x4_t; 4] {
    intrinsic!({
        // Columns 0 and 2, and columns 1 and 3, of two rows each.
        let even = vreinterpretq_f64_f32(vtrn1q_f32(a, b));
        let odd = vreinterpretq_f64_f32(vtrn2q_f32(a, b));
        let next_even = vreinterpretq_f64_f32(vtrn1q_f32(c, d));
        let next_odd = vreinterpretq_f64_f32(vtrn2q_f32(c, d));
        [
            vreinterpretq_f32_f64(vzip1q_f64(even, next_even)),
            vreinterpretq_f32_f64(vzip1q_f64(odd, next_odd)),
            vreinterpretq_f32_f64(vzip2q_f64(even, next_even)),
            vreinterpretq_f32_f64(vzip2q_f64(odd, next_odd)),
        ]
    })
}

/// `a` where `a > b`, else `b`; `fmax` returns NaN where either is NaN.
#[inline(always)]
fn max(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    intrinsic!(vbslq_f32(vcgtq_f32(a, b), a, b))
}

impl<const DOTPROD: bool> Neon<DOTPROD> {
    /// Adds the products of sixty-four signed bytes.
    #[inline(always)]
    fn dot(w: [int8x16_t; 4], x: [i8; 4], acc: I32s) -> I32s {
        let x = intrinsic!(vreinterpretq_s8_s32(vdupq_n_s32(bytemuck::cast(x))));
        registers(|i| {
            if DOTPROD {
                // SAFETY: a value of `Neon<true>` exists only where `detect` found `dotprod`.
                unsafe { sdot(acc[i], w[i], x) }
            } else {
                dot_by_products(acc[i], w[i], x)
            }
        })
    }
}

impl<const DOTPROD: bool> Simd for Neon<DOTPROD> {
    type F32s = F32s;
    type I32s = I32s;
    type Bytes = Bytes;
    type NibbleSums = I32s;
    /// A vector takes four of the 32 registers.
    const WIDE: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> F32s {
        intrinsic!([vdupq_n_f32(x); 4])
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> F32s {
        registers(|i| intrinsic!(vld1q_f32(from.as_ptr().add(4 * i))))
    }
    #[inline(always)]
    fn load_f16(self, from: &[f16; LANES]) -> F32s {
        let halves = |i: usize| intrinsic!(vld1q_u16(from.as_ptr().add(8 * i).cast()));
        let ([a, b], [c, d]) = (widen_f16s(halves(0)), widen_f16s(halves(1)));
        [a, b, c, d]
    }
    #[inline(always)]
    fn load_bf16(self, from: &[bf16; LANES]) -> F32s {
        registers(|i| {
            intrinsic!({
                let four = vld1_u16(from.as_ptr().add(4 * i).cast());
                vreinterpretq_f32_u32(vshll_n_u16::<16>(four))
            })
        })
    }
    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> F32s {
        intrinsic!({
            let bytes = vld1q_s8(from.as_ptr());
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
            [
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
                vcvtq_f32_s32(vmovl_high_s16(low)),
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
                vcvtq_f32_s32(vmovl_high_s16(high)),
            ]
        })
    }
    #[inline(always)]
    fn store(self, v: F32s, to: &mut [f32; LANES]) {
        for i in 0..4 {
            intrinsic!(vst1q_f32(to.as_mut_ptr().add(4 * i), v[i]));
        }
    }
    #[inline(always)]
    fn store_f16(self, v: F32s, to: &mut [f16; LANES]) {
        for i in 0..2 {
            let halves = narrow_to_f16s(v[2 * i], v[2 * i + 1]);
            intrinsic!(vst1q_u16(to.as_mut_ptr().add(8 * i).cast(), halves));
        }
    }
    #[inline(always)]
    fn add(self, a: F32s, b: F32s) -> F32s {
        registers(|i| intrinsic!(vaddq_f32(a[i], b[i])))
    }
    #[inline(always)]
    fn sub(self, a: F32s, b: F32s) -> F32s {
        registers(|i| intrinsic!(vsubq_f32(a[i], b[i])))
    }
    #[inline(always)]
    fn mul(self, a: F32s, b: F32s) -> F32s {
        registers(|i| intrinsic!(vmulq_f32(a[i], b[i])))
    }
    #[inline(always)]
    fn div(self, a: F32s, b: F32s) -> F32s {
        registers(|i| intrinsic!(vdivq_f32(a[i], b[i])))
    }
    #[inline(always)]
    fn sqrt(self, v: F32s) -> F32s {
        registers(|i| intrinsic!(vsqrtq_f32(v[i])))
    }
    #[inline(always)]
    fn mul_add(self, a: F32s, b: F32s, c: F32s) -> F32s {
        registers(|i| intrinsic!(vfmaq_f32(c[i], a[i], b[i])))
    }
    #[inline(always)]
    fn max(self, a: F32s, b: F32s) -> F32s {
        registers(|i| max(a[i], b[i]))
    }
    #[inline(always)]
    fn min(self, a: F32s, b: F32s) -> F32s {
        registers(|i| intrinsic!(vbslq_f32(vcltq_f32(a[i], b[i]), a[i], b[i])))
    }
    #[inline(always)]
    fn zero_below(self, v: F32s, x: F32s, limit: f32) -> F32s {
        registers(|i| {
            intrinsic!({
                let is_below = vcltq_f32(x[i], vdupq_n_f32(limit));
                vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(v[i]), is_below))
            })
        })
    }
    #[inline(always)]
    fn scale_by_pow2(self, p: F32s, biased: F32s) -> F32s {
        registers(|i| {
            intrinsic!({
                let exponent = vshlq_n_u32::<23>(vreinterpretq_u32_f32(biased[i]));
                vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(p[i]), exponent))
            })
        })
    }
    #[inline(always)]
    fn splat_i32(self, x: i32) -> I32s {
        intrinsic!([vdupq_n_s32(x); 4])
    }
    #[inline(always)]
    fn load_i32s(self, from: &[i32; LANES]) -> I32s {
        registers(|i| intrinsic!(vld1q_s32(from.as_ptr().add(4 * i))))
    }
    #[inline(always)]
    fn to_f32s(self, v: I32s) -> F32s {
        registers(|i| intrinsic!(vcvtq_f32_s32(v[i])))
    }
    #[inline(always)]
    fn load_bytes(self, from: &[u8; 4 * LANES]) -> Bytes {
        registers(|i| intrinsic!(vld1q_u8(from.as_ptr().add(16 * i))))
    }
    #[inline(always)]
    fn low_nibbles(self, v: Bytes) -> Bytes {
        registers(|i| intrinsic!(vandq_u8(v[i], vdupq_n_u8(15))))
    }
    #[inline(always)]
    fn high_nibbles(self, v: Bytes) -> Bytes {
        registers(|i| intrinsic!(vshrq_n_u8::<4>(v[i])))
    }
    #[inline(always)]
    fn low_bf16s(self, v: Bytes) -> F32s {
        registers(|i| intrinsic!(vreinterpretq_f32_u32(vshlq_n_u32::<16>(vreinterpretq_u32_u8(v[i])))))
    }
    #[inline(always)]
    fn high_bf16s(self, v: Bytes) -> F32s {
        registers(|i| {
            intrinsic!(vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_u8(v[i]), vdupq_n_u32(0xffff_0000))))
        })
    }
    /// The sums start at zero: the product of signed bytes needs no correction.
    #[inline(always)]
    fn byte_sums(self, _: i32) -> I32s {
        self.splat_i32(0)
    }
    #[inline(always)]
    fn dot_u8i8(self, w: Bytes, x: [i8; 4], _: &[[i16; 2]; 2], acc: I32s) -> I32s {
        // Flipping the highest bit subtracts 128.
        let w = registers(|i| intrinsic!(vreinterpretq_s8_u8(veorq_u8(w[i], vdupq_n_u8(128)))));
        Self::dot(w, x, acc)
    }
    #[inline(always)]
    fn nibble_sums(self, [start_01, start_23]: [i16; 2]) -> I32s {
        self.splat_i32(i32::from(start_01) + i32::from(start_23))
    }
    #[inline(always)]
    fn dot_u4i8(self, w: Bytes, x: [i8; 4], acc: I32s) -> I32s {
        Self::dot(registers(|i| intrinsic!(vreinterpretq_s8_u8(w[i]))), x, acc)
    }
    #[inline(always)]
    fn nibble_sums_to_f32s(self, acc: I32s) -> F32s {
        self.to_f32s(acc)
    }
    #[inline(always)]
    fn reduce_add_to_4(self, v: F32s) -> [f32; 4] {
        let mut lanes = [0.0; 4];
        intrinsic!({
            let four = vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
            vst1q_f32(lanes.as_mut_ptr(), four);
        });
        lanes
    }
    #[inline(always)]
    fn interleave(self, a: F32s, b: F32s) -> [F32s; 2] {
        let zip = |i: usize| intrinsic!([vzip1q_f32(a[i], b[i]), vzip2q_f32(a[i], b[i])]);
        let [low, high] = [[zip(0), zip(1)], [zip(2), zip(3)]];
        [[low[0][0], low[0][1], low[1][0], low[1][1]], [high[0][0], high[0][1], high[1][0], high[1][1]]]
    }
    /// One 4 × 4 square at a time, which fits in four registers.
    #[inline(always)]
    fn transpose(self, rows: [F32s; LANES]) -> [F32s; LANES] {
        let mut columns = rows;
        for i in 0..4 {
            for j in 0..4 {
                let square = transpose_4(registers(|row| rows[4 * i + row][j]));
                for column in 0..4 {
                    columns[4 * j + column][i] = square[column];
                }
            }
        }
        columns
    }
    #[inline(always)]
    fn reduce_max(self, v: F32s) -> f32 {
        intrinsic!({
            let four = max(max(v[0], v[2]), max(v[1], v[3]));
            let two = max(four, vextq_f32::<2>(four, four));
            vgetq_lane_f32::<0>(max(two, vdupq_laneq_f32::<1>(two)))
        })
    }
    #[inline(always)]
    fn prefetch<T>(self, address: *const T) {
        // SAFETY: a prefetch of an address that does not exist does nothing.
        unsafe {
            asm!("prfm pldl2keep, [{0}]", in(reg) address, options(readonly, nostack, preserves_flags));
        }
    }
}
