//! Element types of weights and of the KV cache. Kernels convert elements to f32 as they load them.

use super::simd::{LANES, ROUND_MAGIC, Simd};
use half::{bf16, f16};

/// The type of a stored element, in descending order of size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dtype {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// bfloat16: the upper half of a binary32.
    Bf16,
    /// A byte.
    U8,
}

impl Dtype {
    /// Returns the name in safetensors files.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "F32",
            Dtype::F16 => "F16",
            Dtype::Bf16 => "BF16",
            Dtype::U8 => "U8",
        }
    }

    /// Returns the size in bytes.
    pub fn bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
            Dtype::U8 => 1,
        }
    }
}

/// Borrowed floats in their stored precision.
#[derive(Clone, Copy, Debug)]
pub enum Elements<'a> {
    /// IEEE binary32.
    F32(&'a [f32]),
    /// IEEE binary16.
    F16(&'a [f16]),
    /// bfloat16.
    Bf16(&'a [bf16]),
}

impl<'a> Elements<'a> {
    /// Views bytes as floats; none if `dtype` is no float.
    ///
    /// # Panics
    /// If the bytes are not aligned, or no whole number of elements.
    pub fn new(dtype: Dtype, bytes: &'a [u8]) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Elements::F32(bytemuck::cast_slice(bytes))),
            Dtype::F16 => Some(Elements::F16(bytemuck::cast_slice(bytes))),
            Dtype::Bf16 => Some(Elements::Bf16(bytemuck::cast_slice(bytes))),
            Dtype::U8 => None,
        }
    }

    /// Returns the element at `index`, converted to f32.
    pub fn get(&self, index: usize) -> f32 {
        match self {
            Elements::F32(e) => e[index],
            Elements::F16(e) => e[index].to_f32(),
            Elements::Bf16(e) => e[index].to_f32(),
        }
    }

    /// Copies the elements from `start` on to `to`, converted to f32.
    pub fn read(&self, start: usize, to: &mut [f32]) {
        fn convert<E: Element>(from: &[E], to: &mut [f32]) {
            to.iter_mut().zip(from).for_each(|(to, from)| *to = from.to_f32());
        }
        let range = start..start + to.len();
        match self {
            Elements::F32(e) => to.copy_from_slice(&e[range]),
            Elements::F16(e) => convert(&e[range], to),
            Elements::Bf16(e) => convert(&e[range], to),
        }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        match self {
            Elements::F32(e) => e.len(),
            Elements::F16(e) => e.len(),
            Elements::Bf16(e) => e.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The type of a stored weight, or of a cached key or value.
pub trait Element: bytemuck::Pod + Send + Sync {
    /// Whether elements are integers, to be multiplied by a separately stored scale.
    const SCALED: bool = false;
    /// Loads sixteen elements, converted to f32.
    fn load<S: Simd>(simd: S, from: &[Self; LANES]) -> S::F32s;
    /// Converts to f32, exactly.
    fn to_f32(self) -> f32;
    /// Converts from f32, rounding to nearest even.
    fn from_f32(x: f32) -> Self;
    /// Stores sixteen f32 values, converted with the same rounding.
    #[inline(always)]
    fn store<S: Simd>(simd: S, v: S::F32s, to: &mut [Self; LANES]) {
        let mut lanes = [0.0; LANES];
        simd.store(v, &mut lanes);
        *to = lanes.map(Self::from_f32);
    }
}

impl Element for f32 {
    #[inline(always)]
    fn load<S: Simd>(simd: S, from: &[f32; LANES]) -> S::F32s {
        simd.load(from)
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline(always)]
    fn from_f32(x: f32) -> f32 {
        x
    }
    #[inline(always)]
    fn store<S: Simd>(simd: S, v: S::F32s, to: &mut [f32; LANES]) {
        simd.store(v, to);
    }
}

impl Element for f16 {
    #[inline(always)]
    fn load<S: Simd>(simd: S, from: &[f16; LANES]) -> S::F32s {
        simd.load_f16(from)
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f16::to_f32(self)
    }
    #[inline(always)]
    fn from_f32(x: f32) -> f16 {
        f16::from_f32(x)
    }
    /// Values beyond the range of f16 become NaN, as a key of minus infinity would not be attended to.
    #[inline(always)]
    fn store<S: Simd>(simd: S, v: S::F32s, to: &mut [f16; LANES]) {
        // The least f32 that rounds to infinity is 65520; from there on the product is infinite.
        let overflow = simd.mul(v, simd.splat(f32::MAX / 65520f32.next_down()));
        simd.store_f16(simd.mul_add(overflow, simd.splat(0.0), v), to);
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn load<S: Simd>(simd: S, from: &[bf16; LANES]) -> S::F32s {
        simd.load_bf16(from)
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        bf16::to_f32(self)
    }
    #[inline(always)]
    fn from_f32(x: f32) -> bf16 {
        bf16::from_f32(x)
    }
}

/// 8-bit keys and values, with one scale per vector.
impl Element for i8 {
    const SCALED: bool = true;
    #[inline(always)]
    fn load<S: Simd>(simd: S, from: &[i8; LANES]) -> S::F32s {
        simd.load_i8(from)
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from(self)
    }
    #[inline(always)]
    fn from_f32(x: f32) -> i8 {
        (x + ROUND_MAGIC).to_bits() as i8
    }
}

/// Loads up to sixteen elements, converted to f32; missing lanes are zero.
#[inline(always)]
pub fn load_partial<S: Simd, E: Element>(simd: S, from: &[E]) -> S::F32s {
    let mut lanes = [0.0; LANES];
    for (lane, &e) in lanes.iter_mut().zip(from) {
        *lane = e.to_f32();
    }
    simd.load(&lanes)
}
