//! AVX2: two 256-bit registers per vector.

use super::{Kernel, LANES, Simd};
use half::{bf16, f16};
use std::arch::x86_64::*;

/// AVX2 with FMA and F16C. Constructed only by [`Avx2::detect`].
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

type F32s = [__m256; 2];

impl Avx2 {
    /// Returns the instruction set if the machine has it.
    pub fn detect() -> Option<Self> {
        let is_supported = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        is_supported.then_some(Self(()))
    }

    /// Runs `kernel` compiled with this instruction set.
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,popcnt")]
        fn inner<K: Kernel>(simd: Avx2, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: a value of `Avx2` exists only where `detect` found these features (AVX2 implies the
        // others).
        unsafe { inner(self, kernel) }
    }
}

/// Wraps an intrinsic call in `unsafe`.
macro_rules! intrinsic {
    ($call:expr) => {
        // SAFETY: a value of `Avx2` exists only where `detect` found the features; pointers come from
        // references to arrays of exactly the vector's size, and the unaligned forms are used.
        unsafe { $call }
    };
}

/// Hides an accumulator from the optimizer. Integer addition is associative, so LLVM would otherwise
/// reassociate the products of a whole block into a tree, which spills registers.
///
/// # Safety
/// The machine must have AVX2.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn opaque(mut sum: __m256i) -> __m256i {
    // SAFETY: the assembly is empty.
    unsafe {
        std::arch::asm!("/* {0} */", inout(ymm_reg) sum, options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// The second step of the fixed reduction tree: 8 to 4.
///
/// # Safety
/// The machine must have AVX.
#[inline(always)]
pub(super) unsafe fn reduce_add_to_4(eight: __m256) -> [f32; 4] {
    // SAFETY: the caller guarantees AVX, and `__m128` has the size of `[f32; 4]`.
    unsafe {
        std::mem::transmute(_mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight)))
    }
}

/// The interleaved lanes of two registers.
///
/// # Safety
/// The machine must have AVX.
#[inline(always)]
unsafe fn interleave(a: __m256, b: __m256) -> F32s {
    // SAFETY: the caller guarantees AVX.
    unsafe {
        // Lanes 0, 1, 4 and 5 of both, and lanes 2, 3, 6 and 7.
        let (outer, inner) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        [_mm256_permute2f128_ps::<0x20>(outer, inner), _mm256_permute2f128_ps::<0x31>(outer, inner)]
    }
}

/// Transposes an 8 × 8 matrix: pairs of rows, then quadruples, then the halves of all eight.
///
/// # Safety
/// The machine must have AVX.
#[inline(always)]
unsafe fn transpose_8(rows: [__m256; 8]) -> [__m256; 8] {
    // SAFETY: the caller guarantees AVX.
    unsafe {
        let mut columns = rows;
        for i in 0..2 {
            let [a, b, c, d] = [rows[4 * i], rows[4 * i + 1], rows[4 * i + 2], rows[4 * i + 3]];
            let (low, high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let (next_low, next_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
            columns[4 * i] = _mm256_shuffle_ps::<0x44>(low, next_low);
            columns[4 * i + 1] = _mm256_shuffle_ps::<0xee>(low, next_low);
            columns[4 * i + 2] = _mm256_shuffle_ps::<0x44>(high, next_high);
            columns[4 * i + 3] = _mm256_shuffle_ps::<0xee>(high, next_high);
        }
        for i in 0..4 {
            let (upper, lower) = (columns[i], columns[i + 4]);
            columns[i] = _mm256_permute2f128_ps::<0x20>(upper, lower);
            columns[i + 4] = _mm256_permute2f128_ps::<0x31>(upper, lower);
        }
        columns
    }
}

impl Simd for Avx2 {
    type F32s = F32s;
    type I32s = [__m256i; 2];
    type Bytes = [__m256i; 2];
    type NibbleSums = [__m256i; 2];
    const WIDE: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> F32s {
        intrinsic!([_mm256_set1_ps(x); 2])
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> F32s {
        intrinsic!([_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))])
    }
    #[inline(always)]
    fn load_f16(self, from: &[f16; LANES]) -> F32s {
        intrinsic!([
            _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast())),
            _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().add(8).cast()))
        ])
    }
    #[inline(always)]
    fn load_bf16(self, from: &[bf16; LANES]) -> F32s {
        intrinsic!({
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.as_ptr().cast()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.as_ptr().add(8).cast()));
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
            ]
        })
    }
    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> F32s {
        intrinsic!({
            let low = _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.as_ptr().cast()));
            let high = _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.as_ptr().add(8).cast()));
            [_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high)]
        })
    }
    #[inline(always)]
    fn store(self, v: F32s, to: &mut [f32; LANES]) {
        intrinsic!({
            _mm256_storeu_ps(to.as_mut_ptr(), v[0]);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), v[1]);
        })
    }
    #[inline(always)]
    fn store_f16(self, v: F32s, to: &mut [f16; LANES]) {
        intrinsic!({
            let halves = v.map(|v| _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v));
            _mm_storeu_si128(to.as_mut_ptr().cast(), halves[0]);
            _mm_storeu_si128(to.as_mut_ptr().add(8).cast(), halves[1]);
        })
    }
    #[inline(always)]
    fn add(self, a: F32s, b: F32s) -> F32s {
        intrinsic!([_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn sub(self, a: F32s, b: F32s) -> F32s {
        intrinsic!([_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn mul(self, a: F32s, b: F32s) -> F32s {
        intrinsic!([_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn div(self, a: F32s, b: F32s) -> F32s {
        intrinsic!([_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn sqrt(self, v: F32s) -> F32s {
        intrinsic!([_mm256_sqrt_ps(v[0]), _mm256_sqrt_ps(v[1])])
    }
    #[inline(always)]
    fn mul_add(self, a: F32s, b: F32s, c: F32s) -> F32s {
        intrinsic!([_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])])
    }
    #[inline(always)]
    fn max(self, a: F32s, b: F32s) -> F32s {
        intrinsic!([_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn min(self, a: F32s, b: F32s) -> F32s {
        intrinsic!([_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn zero_below(self, v: F32s, x: F32s, limit: f32) -> F32s {
        intrinsic!({
            let limit = _mm256_set1_ps(limit);
            [
                _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(x[0], limit), v[0]),
                _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(x[1], limit), v[1]),
            ]
        })
    }
    #[inline(always)]
    fn scale_by_pow2(self, p: F32s, biased: F32s) -> F32s {
        intrinsic!({
            let low = _mm256_slli_epi32::<23>(_mm256_castps_si256(biased[0]));
            let high = _mm256_slli_epi32::<23>(_mm256_castps_si256(biased[1]));
            [
                _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p[0]), low)),
                _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p[1]), high)),
            ]
        })
    }
    #[inline(always)]
    fn splat_i32(self, x: i32) -> [__m256i; 2] {
        intrinsic!([_mm256_set1_epi32(x); 2])
    }
    #[inline(always)]
    fn load_i32s(self, from: &[i32; LANES]) -> [__m256i; 2] {
        intrinsic!([
            _mm256_loadu_si256(from.as_ptr().cast()),
            _mm256_loadu_si256(from.as_ptr().add(LANES / 2).cast())
        ])
    }
    #[inline(always)]
    fn to_f32s(self, v: [__m256i; 2]) -> F32s {
        intrinsic!([_mm256_cvtepi32_ps(v[0]), _mm256_cvtepi32_ps(v[1])])
    }
    #[inline(always)]
    fn load_bytes(self, from: &[u8; 4 * LANES]) -> [__m256i; 2] {
        intrinsic!([
            _mm256_loadu_si256(from.as_ptr().cast()),
            _mm256_loadu_si256(from.as_ptr().add(32).cast())
        ])
    }
    #[inline(always)]
    fn low_nibbles(self, v: [__m256i; 2]) -> [__m256i; 2] {
        intrinsic!({
            let mask = _mm256_set1_epi8(15);
            [_mm256_and_si256(v[0], mask), _mm256_and_si256(v[1], mask)]
        })
    }
    #[inline(always)]
    fn high_nibbles(self, v: [__m256i; 2]) -> [__m256i; 2] {
        intrinsic!({
            let mask = _mm256_set1_epi8(15);
            [
                _mm256_and_si256(_mm256_srli_epi16::<4>(v[0]), mask),
                _mm256_and_si256(_mm256_srli_epi16::<4>(v[1]), mask),
            ]
        })
    }
    #[inline(always)]
    fn low_bf16s(self, v: Self::Bytes) -> F32s {
        intrinsic!([
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(v[0])),
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(v[1]))
        ])
    }
    #[inline(always)]
    fn high_bf16s(self, v: Self::Bytes) -> F32s {
        intrinsic!({
            let upper = _mm256_set1_epi32(-65536);
            [
                _mm256_castsi256_ps(_mm256_and_si256(v[0], upper)),
                _mm256_castsi256_ps(_mm256_and_si256(v[1], upper)),
            ]
        })
    }
    #[inline(always)]
    fn dot_u8i8(
        self,
        w: [__m256i; 2],
        _: [i8; 4],
        [even, odd]: &[[i16; 2]; 2],
        acc: [__m256i; 2],
    ) -> [__m256i; 2] {
        // Even and odd bytes, widened to 16 bits: two products fit a 32-bit lane without saturation.
        intrinsic!({
            let even = _mm256_set1_epi32(bytemuck::cast(*even));
            let odd = _mm256_set1_epi32(bytemuck::cast(*odd));
            let mask = _mm256_set1_epi16(0xff);
            [
                opaque(_mm256_add_epi32(
                    opaque(_mm256_add_epi32(acc[0], _mm256_madd_epi16(_mm256_and_si256(w[0], mask), even))),
                    _mm256_madd_epi16(_mm256_srli_epi16::<8>(w[0]), odd),
                )),
                opaque(_mm256_add_epi32(
                    opaque(_mm256_add_epi32(acc[1], _mm256_madd_epi16(_mm256_and_si256(w[1], mask), even))),
                    _mm256_madd_epi16(_mm256_srli_epi16::<8>(w[1]), odd),
                )),
            ]
        })
    }
    #[inline(always)]
    fn nibble_sums(self, start: [i16; 2]) -> [__m256i; 2] {
        self.splat_i32(bytemuck::cast(start))
    }
    #[inline(always)]
    fn dot_u4i8(self, w: [__m256i; 2], x: [i8; 4], acc: [__m256i; 2]) -> [__m256i; 2] {
        // A product of two pairs is at most 2 · 15 · 127 in magnitude, and eight times that fits 16 bits.
        // Intermediate sums may wrap around; the final sum is in range and therefore exact.
        intrinsic!({
            let x = _mm256_set1_epi32(bytemuck::cast(x));
            [
                opaque(_mm256_add_epi16(acc[0], _mm256_maddubs_epi16(w[0], x))),
                opaque(_mm256_add_epi16(acc[1], _mm256_maddubs_epi16(w[1], x))),
            ]
        })
    }
    #[inline(always)]
    fn nibble_sums_to_f32s(self, acc: [__m256i; 2]) -> F32s {
        let wide = intrinsic!({
            let ones = _mm256_set1_epi16(1);
            [_mm256_madd_epi16(acc[0], ones), _mm256_madd_epi16(acc[1], ones)]
        });
        self.to_f32s(wide)
    }
    #[inline(always)]
    fn reduce_add_to_4(self, v: F32s) -> [f32; 4] {
        intrinsic!(reduce_add_to_4(_mm256_add_ps(v[0], v[1])))
    }
    #[inline(always)]
    fn interleave(self, a: F32s, b: F32s) -> [F32s; 2] {
        // SAFETY: `Avx2` exists only where `detect` found the features.
        unsafe { [interleave(a[0], b[0]), interleave(a[1], b[1])] }
    }
    /// One 8 × 8 quadrant at a time: its rows and columns fit in sixteen registers, those of all do not.
    #[inline(always)]
    fn transpose(self, rows: [F32s; LANES]) -> [F32s; LANES] {
        let mut columns = rows;
        for (i, j) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let mut quadrant = [rows[0][0]; 8];
            for row in 0..8 {
                quadrant[row] = rows[8 * i + row][j];
            }
            let quadrant = intrinsic!(transpose_8(quadrant));
            for column in 0..8 {
                columns[8 * j + column][i] = quadrant[column];
            }
        }
        columns
    }
    #[inline(always)]
    fn reduce_max(self, v: F32s) -> f32 {
        intrinsic!({
            let eight = _mm256_max_ps(v[0], v[1]);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        })
    }
    #[inline(always)]
    fn prefetch<T>(self, address: *const T) {
        intrinsic!(_mm_prefetch::<_MM_HINT_T1>(address.cast()))
    }
}
