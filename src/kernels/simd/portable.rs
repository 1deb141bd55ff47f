//! Portable vectors: plain arrays, the specification of the other backends and the fallback. The compiler
//! vectorizes these loops as far as it can.

use super::{Kernel, LANES, Simd};
use half::{bf16, f16, slice::HalfFloatSliceExt};

/// Plain arrays of sixteen elements.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

type F32s = [f32; LANES];

/// `a · b + c`, rounded once. MinGW's math library, which a Windows program may be linked with, rounds twice.
#[inline(always)]
pub fn mul_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(all(windows, target_env = "gnu", not(target_feature = "fma"))) {
        libm::fmaf(a, b, c)
    } else {
        a.mul_add(b, c)
    }
}

#[inline(always)]
fn zip(a: F32s, b: F32s, f: impl Fn(f32, f32) -> f32) -> F32s {
    std::array::from_fn(|i| f(a[i], b[i]))
}

/// Fused multiply-add by calls into the math library, for a baseline without the instruction. Not inlined,
/// since every unrolled kernel would otherwise contain thousands of calls.
#[inline(never)]
fn call_mul_add(a: &F32s, b: &F32s, c: &F32s) -> F32s {
    std::array::from_fn(|i| mul_add(a[i], b[i], c[i]))
}

impl Simd for Portable {
    type F32s = F32s;
    type I32s = [i32; LANES];
    type Bytes = [u8; 4 * LANES];
    type NibbleSums = [i32; LANES];
    const WIDE: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> F32s {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> F32s {
        *from
    }
    #[inline(always)]
    fn load_f16(self, from: &[f16; LANES]) -> F32s {
        let mut to = [0.0; LANES];
        from.convert_to_f32_slice(&mut to);
        to
    }
    #[inline(always)]
    fn load_bf16(self, from: &[bf16; LANES]) -> F32s {
        std::array::from_fn(|i| f32::from_bits(u32::from(from[i].to_bits()) << 16))
    }
    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> F32s {
        std::array::from_fn(|i| f32::from(from[i]))
    }
    #[inline(always)]
    fn store(self, v: F32s, to: &mut [f32; LANES]) {
        *to = v;
    }
    #[inline(always)]
    fn store_f16(self, v: F32s, to: &mut [f16; LANES]) {
        to.convert_from_f32_slice(&v);
    }
    #[inline(always)]
    fn add(self, a: F32s, b: F32s) -> F32s {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: F32s, b: F32s) -> F32s {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: F32s, b: F32s) -> F32s {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: F32s, b: F32s) -> F32s {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn mul_add(self, a: F32s, b: F32s, c: F32s) -> F32s {
        if cfg!(all(target_arch = "x86_64", not(target_feature = "fma"))) {
            call_mul_add(&a, &b, &c)
        } else {
            std::array::from_fn(|i| mul_add(a[i], b[i], c[i]))
        }
    }
    #[inline(always)]
    fn max(self, a: F32s, b: F32s) -> F32s {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: F32s, b: F32s) -> F32s {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn zero_below(self, v: F32s, x: F32s, limit: f32) -> F32s {
        zip(v, x, |v, x| if x < limit { 0.0 } else { v })
    }
    #[inline(always)]
    fn scale_by_pow2(self, p: F32s, biased: F32s) -> F32s {
        zip(p, biased, |p, n| f32::from_bits(p.to_bits().wrapping_add(n.to_bits() << 23)))
    }
    #[inline(always)]
    fn splat_i32(self, x: i32) -> [i32; LANES] {
        [x; LANES]
    }
    #[inline(always)]
    fn load_i32s(self, from: &[i32; LANES]) -> [i32; LANES] {
        *from
    }
    #[inline(always)]
    fn to_f32s(self, v: [i32; LANES]) -> F32s {
        v.map(|x| x as f32)
    }
    #[inline(always)]
    fn load_bytes(self, from: &[u8; 4 * LANES]) -> Self::Bytes {
        *from
    }
    #[inline(always)]
    fn low_nibbles(self, v: Self::Bytes) -> Self::Bytes {
        v.map(|x| x & 15)
    }
    #[inline(always)]
    fn high_nibbles(self, v: Self::Bytes) -> Self::Bytes {
        v.map(|x| x >> 4)
    }
    #[inline(always)]
    fn low_bf16s(self, v: Self::Bytes) -> F32s {
        let (pairs, _) = v.as_chunks::<4>();
        std::array::from_fn(|i| bf16::from_le_bytes([pairs[i][0], pairs[i][1]]).to_f32())
    }
    #[inline(always)]
    fn high_bf16s(self, v: Self::Bytes) -> F32s {
        let (pairs, _) = v.as_chunks::<4>();
        std::array::from_fn(|i| bf16::from_le_bytes([pairs[i][2], pairs[i][3]]).to_f32())
    }
    #[inline(always)]
    fn dot_u8i8(self, w: Self::Bytes, x: [i8; 4], _: &[[i16; 2]; 2], acc: [i32; LANES]) -> [i32; LANES] {
        let (fours, _) = w.as_chunks::<4>();
        std::array::from_fn(|i| (0..4).fold(acc[i], |sum, j| sum + i32::from(fours[i][j]) * i32::from(x[j])))
    }
    #[inline(always)]
    fn nibble_sums(self, [start_01, start_23]: [i16; 2]) -> [i32; LANES] {
        [i32::from(start_01) + i32::from(start_23); LANES]
    }
    #[inline(always)]
    fn dot_u4i8(self, w: Self::Bytes, x: [i8; 4], acc: [i32; LANES]) -> [i32; LANES] {
        self.dot_u8i8(w, x, &[[0; 2]; 2], acc)
    }
    #[inline(always)]
    fn nibble_sums_to_f32s(self, acc: [i32; LANES]) -> F32s {
        self.to_f32s(acc)
    }
    #[inline(always)]
    fn reduce_add_to_4(self, v: F32s) -> [f32; 4] {
        let eight: [f32; 8] = std::array::from_fn(|i| v[i] + v[i + 8]);
        std::array::from_fn(|i| eight[i] + eight[i + 4])
    }
    #[inline(always)]
    fn interleave(self, a: F32s, b: F32s) -> [F32s; 2] {
        [0, LANES / 2].map(|start| std::array::from_fn(|i| [a, b][i % 2][start + i / 2]))
    }
    #[inline(always)]
    fn reduce_max(self, v: F32s) -> f32 {
        let mut v = v;
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                v[i] = if v[i] > v[i + half] { v[i] } else { v[i + half] };
            }
        }
        v[0]
    }
}

/// Runs `kernel` on plain arrays.
pub(crate) fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Portable)
}
