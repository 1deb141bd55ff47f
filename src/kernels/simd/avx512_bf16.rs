//! AVX-512 BF16 (Zen 4 and later; Intel's form is too slow to use): AVX-512 with a dot product of bf16 pairs,
//! `vdpbf16ps`. Only kernels that use the instruction are compiled for it.

use super::{Avx512, Kernel, LANES, Simd};
use half::{bf16, f16};
use std::arch::x86_64::*;
use std::sync::LazyLock;

/// AVX-512 with BF16. Constructed only by [`Avx512Bf16::detect`].
#[derive(Clone, Copy, Debug)]
pub struct Avx512Bf16(Avx512);

impl Avx512Bf16 {
    /// Returns the instruction set if the machine has it and the instruction is faster than multiply-adds.
    pub(crate) fn detect(simd: Avx512) -> Option<Self> {
        // Cached: `cpuid` takes a microsecond on a virtual machine.
        static IS_PROFITABLE: LazyLock<bool> =
            LazyLock::new(|| is_x86_feature_detected!("avx512bf16") && !is_dpbf16_slow());
        IS_PROFITABLE.then_some(Self(simd))
    }

    /// Runs `kernel` compiled with this instruction set.
    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(
            enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,f16c,fma,avx2,bmi1,bmi2,popcnt"
        )]
        fn inner<K: Kernel>(simd: Avx512Bf16, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: a value of `Avx512Bf16` exists only where `detect` found its feature and `Avx512::detect`
        // the others.
        unsafe { inner(self, kernel) }
    }
}

/// Whether `vdpbf16ps` takes as long as four multiply-adds, where two do the same work: on Intel (measured on
/// Emerald Rapids).
fn is_dpbf16_slow() -> bool {
    #[allow(unused_unsafe)] // safe from Rust 1.94 on
    // SAFETY: every x86-64 processor has the instruction.
    let vendor = unsafe { __cpuid(0) };
    [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened() == b"GenuineIntel"
}

/// Methods delegated to [`Avx512`].
macro_rules! delegate {
    ($(fn $name:ident($($argument:ident: $ty:ty),*) -> $out:ty;)*) => {
        $(#[inline(always)]
        fn $name(self, $($argument: $ty),*) -> $out {
            self.0.$name($($argument),*)
        })*
    };
}

impl Simd for Avx512Bf16 {
    type F32s = __m512;
    type I32s = __m512i;
    type Bytes = __m512i;
    type NibbleSums = __m512i;
    const WIDE: bool = true;
    const HAS_BF16_DOT: bool = true;

    #[inline(always)]
    fn dot_bf16(self, w: __m512i, x: [bf16; 2], acc: __m512) -> __m512 {
        let x = i32::from_ne_bytes(bytemuck::cast(x));
        // SAFETY: a value of `Avx512Bf16` exists only where `detect` found the feature; every bit pattern is
        // a valid bf16 vector.
        unsafe {
            let pairs = |v| std::mem::transmute::<__m512i, __m512bh>(v);
            _mm512_dpbf16_ps(acc, pairs(w), pairs(_mm512_set1_epi32(x)))
        }
    }
    #[inline(always)]
    fn prefetch<T>(self, address: *const T) {
        self.0.prefetch(address);
    }

    delegate! {
        fn splat(x: f32) -> __m512;
        fn load(from: &[f32; LANES]) -> __m512;
        fn load_f16(from: &[f16; LANES]) -> __m512;
        fn load_bf16(from: &[bf16; LANES]) -> __m512;
        fn load_i8(from: &[i8; LANES]) -> __m512;
        fn store(v: __m512, to: &mut [f32; LANES]) -> ();
        fn store_f16(v: __m512, to: &mut [f16; LANES]) -> ();
        fn add(a: __m512, b: __m512) -> __m512;
        fn sub(a: __m512, b: __m512) -> __m512;
        fn mul(a: __m512, b: __m512) -> __m512;
        fn div(a: __m512, b: __m512) -> __m512;
        fn sqrt(v: __m512) -> __m512;
        fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512;
        fn max(a: __m512, b: __m512) -> __m512;
        fn min(a: __m512, b: __m512) -> __m512;
        fn zero_below(v: __m512, x: __m512, limit: f32) -> __m512;
        fn scale_by_pow2(p: __m512, biased: __m512) -> __m512;
        fn splat_i32(x: i32) -> __m512i;
        fn load_i32s(from: &[i32; LANES]) -> __m512i;
        fn to_f32s(v: __m512i) -> __m512;
        fn load_bytes(from: &[u8; 4 * LANES]) -> __m512i;
        fn low_nibbles(v: __m512i) -> __m512i;
        fn high_nibbles(v: __m512i) -> __m512i;
        fn low_bf16s(v: __m512i) -> __m512;
        fn high_bf16s(v: __m512i) -> __m512;
        fn dot_u8i8(w: __m512i, x: [i8; 4], pairs: &[[i16; 2]; 2], acc: __m512i) -> __m512i;
        fn nibble_sums(start: [i16; 2]) -> __m512i;
        fn dot_u4i8(w: __m512i, x: [i8; 4], acc: __m512i) -> __m512i;
        fn nibble_sums_to_f32s(acc: __m512i) -> __m512;
        fn reduce_add_to_4(v: __m512) -> [f32; 4];
        fn interleave(a: __m512, b: __m512) -> [__m512; 2];
        fn reduce_max(v: __m512) -> f32;
        fn load_partial(from: &[f32]) -> __m512;
        fn store_partial(v: __m512, to: &mut [f32]) -> ();
    }
}
