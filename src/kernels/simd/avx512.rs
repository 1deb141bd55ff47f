//! AVX-512: one 512-bit register per vector.

use super::avx512_bf16::Avx512Bf16;
use super::{Kernel, LANES, Simd};
use half::{bf16, f16};
use std::arch::x86_64::*;

/// AVX-512 (F, BW, DQ, VL and VNNI: Cascade Lake, Zen 4 and later). Constructed only by [`Avx512::detect`].
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

impl Avx512 {
    /// Returns the instruction set if the machine has it.
    pub fn detect() -> Option<Self> {
        let is_supported = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("fma");
        is_supported.then_some(Self(()))
    }

    /// Runs `kernel` compiled with this instruction set.
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(
            enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c,fma,avx2,bmi1,bmi2,popcnt"
        )]
        fn inner<K: Kernel>(simd: Avx512, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        if K::USES_BF16_DOT
            && let Some(simd) = Avx512Bf16::detect(self)
        {
            return simd.run(kernel);
        }
        // SAFETY: a value of `Avx512` exists only where `detect` found these features (AVX-512 implies the
        // others).
        unsafe { inner(self, kernel) }
    }
}

/// Wraps an intrinsic call in `unsafe`.
macro_rules! intrinsic {
    ($call:expr) => {
        // SAFETY: a value of `Avx512` exists only where `detect` found the features; pointers come from
        // references to arrays of exactly the vector's size, and the unaligned forms are used.
        unsafe { $call }
    };
}

impl Simd for Avx512 {
    type F32s = __m512;
    type I32s = __m512i;
    type Bytes = __m512i;
    type NibbleSums = __m512i;
    const WIDE: bool = true;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        intrinsic!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> __m512 {
        intrinsic!(_mm512_loadu_ps(from.as_ptr()))
    }
    #[inline(always)]
    fn load_f16(self, from: &[f16; LANES]) -> __m512 {
        // `_mm512_cvtph_ps` compiles to the form that suppresses exceptions, which has no memory operand.
        let halves = intrinsic!(_mm256_loadu_si256(from.as_ptr().cast()));
        intrinsic!(_mm512_cvt_roundph_ps::<_MM_FROUND_CUR_DIRECTION>(halves))
    }
    #[inline(always)]
    fn load_bf16(self, from: &[bf16; LANES]) -> __m512 {
        intrinsic!(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(
            from.as_ptr().cast()
        )))))
    }
    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> __m512 {
        intrinsic!(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.as_ptr().cast()))))
    }
    #[inline(always)]
    fn store(self, v: __m512, to: &mut [f32; LANES]) {
        intrinsic!(_mm512_storeu_ps(to.as_mut_ptr(), v))
    }
    #[inline(always)]
    fn store_f16(self, v: __m512, to: &mut [f16; LANES]) {
        intrinsic!({
            let halves = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v);
            _mm256_storeu_si256(to.as_mut_ptr().cast(), halves)
        })
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        intrinsic!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        intrinsic!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        intrinsic!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        intrinsic!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn sqrt(self, v: __m512) -> __m512 {
        intrinsic!(_mm512_sqrt_ps(v))
    }
    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        intrinsic!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        intrinsic!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        intrinsic!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn zero_below(self, v: __m512, x: __m512, limit: f32) -> __m512 {
        intrinsic!({
            let below = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(x, _mm512_set1_ps(limit));
            _mm512_mask_mov_ps(v, below, _mm512_setzero_ps())
        })
    }
    #[inline(always)]
    fn scale_by_pow2(self, p: __m512, biased: __m512) -> __m512 {
        intrinsic!({
            let n = _mm512_slli_epi32::<23>(_mm512_castps_si512(biased));
            _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), n))
        })
    }
    #[inline(always)]
    fn splat_i32(self, x: i32) -> __m512i {
        intrinsic!(_mm512_set1_epi32(x))
    }
    #[inline(always)]
    fn load_i32s(self, from: &[i32; LANES]) -> __m512i {
        intrinsic!(_mm512_loadu_si512(from.as_ptr().cast()))
    }
    #[inline(always)]
    fn to_f32s(self, v: __m512i) -> __m512 {
        intrinsic!(_mm512_cvtepi32_ps(v))
    }
    #[inline(always)]
    fn load_bytes(self, from: &[u8; 4 * LANES]) -> __m512i {
        intrinsic!(_mm512_loadu_si512(from.as_ptr().cast()))
    }
    #[inline(always)]
    fn low_nibbles(self, v: __m512i) -> __m512i {
        intrinsic!(_mm512_and_si512(v, _mm512_set1_epi8(15)))
    }
    #[inline(always)]
    fn high_nibbles(self, v: __m512i) -> __m512i {
        intrinsic!(_mm512_and_si512(_mm512_srli_epi16::<4>(v), _mm512_set1_epi8(15)))
    }
    #[inline(always)]
    fn low_bf16s(self, v: __m512i) -> __m512 {
        intrinsic!(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(v)))
    }
    #[inline(always)]
    fn high_bf16s(self, v: __m512i) -> __m512 {
        intrinsic!(_mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32(-65536))))
    }
    #[inline(always)]
    fn dot_u8i8(self, w: __m512i, x: [i8; 4], _: &[[i16; 2]; 2], acc: __m512i) -> __m512i {
        intrinsic!(_mm512_dpbusd_epi32(acc, w, _mm512_set1_epi32(bytemuck::cast(x))))
    }
    #[inline(always)]
    fn nibble_sums(self, [start_01, start_23]: [i16; 2]) -> __m512i {
        self.splat_i32(i32::from(start_01) + i32::from(start_23))
    }
    #[inline(always)]
    fn dot_u4i8(self, w: __m512i, x: [i8; 4], acc: __m512i) -> __m512i {
        self.dot_u8i8(w, x, &[[0; 2]; 2], acc)
    }
    #[inline(always)]
    fn nibble_sums_to_f32s(self, acc: __m512i) -> __m512 {
        self.to_f32s(acc)
    }
    #[inline(always)]
    fn reduce_add_to_4(self, v: __m512) -> [f32; 4] {
        intrinsic!({
            let eight = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            super::avx2::reduce_add_to_4(eight)
        })
    }
    #[inline(always)]
    fn interleave(self, a: __m512, b: __m512) -> [__m512; 2] {
        intrinsic!({
            let first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            let last = _mm512_add_epi32(first, _mm512_set1_epi32(8));
            [_mm512_permutex2var_ps(a, first, b), _mm512_permutex2var_ps(a, last, b)]
        })
    }
    #[inline(always)]
    fn reduce_max(self, v: __m512) -> f32 {
        intrinsic!(_mm512_reduce_max_ps(v))
    }
    #[inline(always)]
    fn prefetch<T>(self, address: *const T) {
        intrinsic!(_mm_prefetch::<_MM_HINT_T1>(address.cast()))
    }
    #[inline(always)]
    fn load_partial(self, from: &[f32]) -> __m512 {
        let mask = lane_mask(from.len());
        // SAFETY: `Avx512` exists only where `detect` found the features; the mask selects exactly the
        // slice's elements.
        unsafe { _mm512_maskz_loadu_ps(mask, from.as_ptr()) }
    }
    #[inline(always)]
    fn store_partial(self, v: __m512, to: &mut [f32]) {
        let mask = lane_mask(to.len());
        // SAFETY: as for `load_partial`.
        unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), mask, v) }
    }
}

/// The mask of the first `n` of sixteen lanes.
#[inline(always)]
fn lane_mask(n: usize) -> __mmask16 {
    assert!(n <= LANES);
    ((1u32 << n) - 1) as __mmask16
}
