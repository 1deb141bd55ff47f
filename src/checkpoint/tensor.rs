//! One tensor: a view of the checkpoint's bytes wherever that is possible, bytes of its own where it is not.

use std::ops::Range;

use bytemuck::Pod;
use half::{bf16, f16};
use rayon::prelude::*;

use super::source::{Bytes, Source};
use crate::kernels::elements::{Element, Elements};

#[cfg(target_endian = "big")]
compile_error!(
    "safetensors files are little-endian and are used in place: a big-endian machine cannot read them"
);

/// The precision of a tensor's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// bfloat16.
    Bf16,
    /// A matrix of eight bits a weight, packed as [`Int8`](crate::kernels::quantized::Int8) says.
    Int8,
    /// A matrix of four bits a weight, packed as [`Int4`](crate::kernels::quantized::Int4) says.
    Int4,
    /// A matrix of bfloat16 pairs, packed as [`Bf16Dot`](crate::kernels::quantized::Bf16Dot) says.
    Bf16Dot,
}

impl Dtype {
    /// Bytes of a number; none where numbers share scales.
    pub fn bytes(self) -> Option<usize> {
        match self {
            Dtype::F32 => Some(4),
            Dtype::F16 | Dtype::Bf16 => Some(2),
            Dtype::Int8 | Dtype::Int4 | Dtype::Bf16Dot => None,
        }
    }

    /// Whether a number stands for itself.
    pub fn is_plain(self) -> bool {
        self.bytes().is_some()
    }

    /// As a user types it.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
            Dtype::Int8 => "int8",
            Dtype::Int4 => "int4",
            Dtype::Bf16Dot => "bf16-dot",
        }
    }
}

/// A row-major tensor in the precision it is stored in. Cheap to clone: clones share their bytes.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// As many as `shape` and `dtype` call for, aligned for `dtype`.
    pub(super) bytes: Bytes,
    /// The scales of a quantized matrix that has some.
    pub(super) scales: Option<Bytes>,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
}

impl Tensor {
    /// The tensor of plain numbers at `range` of `source`, in place if its address suits its dtype, else copied.
    ///
    /// `range` lies within `source` and is as long as `shape` and `dtype` call for: the header's reader has seen to it.
    pub(super) fn new(source: &Source, range: Range<usize>, dtype: Dtype, shape: Vec<usize>) -> Tensor {
        let size = dtype.bytes().expect("plain numbers");
        debug_assert_eq!(range.len(), shape.iter().product::<usize>() * size);
        Tensor { bytes: Bytes::at(source, range, size), scales: None, dtype, shape }
    }

    fn owned(dtype: Dtype, shape: Vec<usize>, fill: impl FnOnce(&mut [u8])) -> Tensor {
        let len = shape.iter().product::<usize>() * dtype.bytes().expect("plain numbers");
        Tensor { bytes: Bytes::own(len, fill), scales: None, dtype, shape }
    }

    /// `[rows, columns]` to `[columns, rows]`, in bytes of its own.
    pub(super) fn transposed(&self) -> Tensor {
        let (rows, columns) = (self.shape[0], self.shape[1]);
        let shape = vec![columns, rows];
        match self.elements() {
            Elements::F32(from) => Tensor::owned(self.dtype, shape, |to| {
                transpose(from, bytemuck::cast_slice_mut(to), rows, columns)
            }),
            Elements::F16(from) => Tensor::owned(self.dtype, shape, |to| {
                transpose(from, bytemuck::cast_slice_mut(to), rows, columns)
            }),
            Elements::Bf16(from) => Tensor::owned(self.dtype, shape, |to| {
                transpose(from, bytemuck::cast_slice_mut(to), rows, columns)
            }),
        }
    }

    /// The precision of its numbers.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The same numbers in another precision, rounded where it is smaller: to nearest even, or as the format says.
    ///
    /// # Panics
    /// If they are quantized already, or are to be and are no matrix.
    pub fn into_dtype(self, dtype: Dtype) -> Tensor {
        fn convert<T: Element>(from: Elements, to: &mut [u8]) {
            let to: &mut [T] = bytemuck::cast_slice_mut(to);
            match from {
                Elements::F32(e) => to.par_iter_mut().zip(e).for_each(|(to, x)| *to = T::from_f32(*x)),
                Elements::F16(e) => {
                    to.par_iter_mut().zip(e).for_each(|(to, x)| *to = T::from_f32(x.to_f32()))
                }
                Elements::Bf16(e) => {
                    to.par_iter_mut().zip(e).for_each(|(to, x)| *to = T::from_f32(x.to_f32()))
                }
            }
        }
        if self.dtype == dtype {
            return self;
        }
        if !dtype.is_plain() {
            return self.quantized(dtype);
        }
        Tensor::owned(dtype, self.shape.clone(), |to| match dtype {
            Dtype::F32 => convert::<f32>(self.elements(), to),
            Dtype::F16 => convert::<f16>(self.elements(), to),
            Dtype::Bf16 => convert::<bf16>(self.elements(), to),
            Dtype::Int8 | Dtype::Int4 | Dtype::Bf16Dot => unreachable!("packed above"),
        })
    }

    /// The size of each dimension, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The numbers in the precision they are stored in, row-major.
    ///
    /// # Panics
    /// If they are quantized; see [`Tensor::weight_matrix`].
    pub fn elements(&self) -> Elements<'_> {
        match self.dtype {
            Dtype::F32 => Elements::F32(bytemuck::cast_slice(&self.bytes)),
            Dtype::F16 => Elements::F16(bytemuck::cast_slice::<u8, f16>(&self.bytes)),
            Dtype::Bf16 => Elements::Bf16(bytemuck::cast_slice::<u8, bf16>(&self.bytes)),
            Dtype::Int8 | Dtype::Int4 | Dtype::Bf16Dot => {
                panic!("a quantized tensor was read number by number")
            }
        }
    }

    /// The numbers of a tensor known to be f32, as every bias and layer-norm vector of
    /// [`Weights`](super::Weights) is.
    ///
    /// # Panics
    /// If the tensor is anything else.
    pub fn as_f32(&self) -> &[f32] {
        match self.elements() {
            Elements::F32(numbers) => numbers,
            _ => panic!("a tensor stored as {:?} was read as f32", self.dtype),
        }
    }

    /// Whether the numbers are read in place from the checkpoint's bytes.
    pub fn is_view(&self) -> bool {
        self.bytes.is_view() && self.scales.as_ref().is_none_or(Bytes::is_view)
    }

    /// The bytes of memory the tensor takes beside the checkpoint's own: 0 for a view.
    pub fn owned_bytes(&self) -> usize {
        [Some(&self.bytes), self.scales.as_ref()]
            .into_iter()
            .flatten()
            .filter(|bytes| !bytes.is_view())
            .map(|bytes| bytes.len())
            .sum()
    }

    /// Moves tensors that are not read in place next to one another, where huge pages hold them.
    pub fn coalesce<'a>(tensors: impl IntoIterator<Item = &'a mut Tensor>) {
        let parts = |tensor: &'a mut Tensor| [Some(&mut tensor.bytes), tensor.scales.as_mut()];
        Bytes::coalesce(tensors.into_iter().flat_map(parts).flatten().collect());
    }

    /// How many numbers there are.
    #[allow(clippy::len_without_is_empty)] // no dimension is 0
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The bytes that reading all of it reads, wherever they lie.
    pub fn stored_bytes(&self) -> usize {
        self.bytes.len() + self.scales.as_ref().map_or(0, |scales| scales.len())
    }
}

/// `from: [rows, columns]` to `to: [columns, rows]`, in parallel over bands of output rows. A band is a cache line of
/// f32 wide, so that each line of `from` is read by one thread only and once.
fn transpose<T: Pod + Send + Sync>(from: &[T], to: &mut [T], rows: usize, columns: usize) {
    const BAND: usize = 16;
    to.par_chunks_mut(BAND * rows).enumerate().for_each(|(band, to)| {
        let first = band * BAND;
        for row in 0..rows {
            let line = &from[row * columns + first..];
            for (to, &x) in to.chunks_exact_mut(rows).zip(line) {
                to[row] = x;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn heap(numbers: &[f32], skip: usize) -> (Source, Range<usize>) {
        // f32s of our own making are aligned; `skip` bytes in front of a copy decide whether it is.
        let mut bytes = vec![0u8; 4 + skip];
        let base = bytes.as_ptr().align_offset(4);
        bytes.resize(base + skip, 0);
        bytes.extend(bytemuck::cast_slice::<f32, u8>(numbers));
        let start = base + skip;
        let range = start..bytes.len();
        (Source::Heap(Arc::new(bytes)), range)
    }

    #[test]
    fn an_aligned_tensor_is_a_view_and_a_misaligned_one_a_copy_of_the_same_numbers() {
        let numbers = [1.5f32, -2.0, 3.25, 1e-40];
        for skip in 0..8 {
            let (source, range) = heap(&numbers, skip);
            let aligned = (source[range.clone()].as_ptr() as usize).is_multiple_of(4);
            let tensor = Tensor::new(&source, range, Dtype::F32, vec![4]);
            assert_eq!(tensor.is_view(), aligned);
            assert_eq!(tensor.owned_bytes(), if aligned { 0 } else { 16 });
            assert_eq!(tensor.as_f32(), numbers);
        }
    }

    #[test]
    fn owned_tensors_start_on_a_cache_line() {
        let tensor = Tensor::owned(Dtype::F16, vec![3, 5], |bytes| bytes.fill(1));
        assert_eq!(tensor.bytes.as_ptr() as usize % 64, 0);
        assert_eq!(*tensor.bytes, [1; 30]);
    }

    #[test]
    fn transposing_moves_every_element() {
        for (rows, columns) in [(1, 1), (1, 40), (40, 1), (3, 5), (16, 16), (17, 33), (48, 16)] {
            let from: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
            let (source, range) = heap(&from, 0);
            let tensor = Tensor::new(&source, range, Dtype::F32, vec![rows, columns]).transposed();
            assert_eq!(tensor.shape(), [columns, rows]);
            for row in 0..rows {
                for column in 0..columns {
                    assert_eq!(tensor.as_f32()[column * rows + row], from[row * columns + column]);
                }
            }
        }
    }

    #[test]
    fn widening_is_exact() {
        let f16s: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
        let bytes = bytemuck::cast_slice::<f16, u8>(&f16s).to_vec();
        let len = bytes.len();
        let source = Source::Heap(Arc::new(bytes));
        let wide = Tensor::new(&source, 0..len, Dtype::F16, vec![f16s.len()]).into_dtype(Dtype::F32);
        for (wide, narrow) in wide.as_f32().iter().zip(&f16s) {
            assert!(narrow.is_nan() && wide.is_nan() || f64::from(*wide) == narrow.to_f64());
        }
        let bf16s = [bf16::from_f32(1.0), bf16::from_f32(-3.0e38)];
        let source = Source::Heap(Arc::new(bytemuck::cast_slice::<bf16, u8>(&bf16s).to_vec()));
        let wide = Tensor::new(&source, 0..4, Dtype::Bf16, vec![2]).into_dtype(Dtype::F32);
        assert_eq!(wide.as_f32(), [1.0, bf16s[1].to_f32()]);
    }
}
