//! Tensors: views of the checkpoint's bytes where possible, owned bytes otherwise.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use crate::kernels::parallel::*;
use bytemuck::Pod;
use half::{bf16, f16};

use super::source::{Bytes, Source};
use crate::Result;
use crate::kernels::elements::{Element, Elements};

#[cfg(target_endian = "big")]
compile_error!(
    "safetensors files are little-endian and used in place: big-endian machines are not supported"
);

/// The data type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// bfloat16.
    Bf16,
    /// 8-bit integers with scales, packed as documented at [`Int8`](crate::kernels::quantized::Int8).
    Int8,
    /// 4-bit integers with scales, packed as documented at [`Int4`](crate::kernels::quantized::Int4).
    Int4,
    /// Pairs of bfloat16, packed as documented at [`Bf16Dot`](crate::kernels::quantized::Bf16Dot).
    Bf16Dot,
}

impl Dtype {
    /// The size of an element in bytes; none for packed formats.
    pub fn element_bytes(self) -> Option<usize> {
        match self {
            Dtype::F32 => Some(4),
            Dtype::F16 | Dtype::Bf16 => Some(2),
            Dtype::Int8 | Dtype::Int4 | Dtype::Bf16Dot => None,
        }
    }

    /// Whether elements are stored in the packed layout of a quantized format, not as row-major floats.
    pub fn is_quantized(self) -> bool {
        self.element_bytes().is_none()
    }

    /// The name in options and messages.
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

/// The place a tensor was loaded from, which errors about its values name.
#[derive(Clone, Debug, Default)]
pub(super) struct Origin {
    pub(super) file: PathBuf,
    pub(super) name: String,
}

/// A row-major tensor in its stored dtype. Cheap to clone: clones share their bytes.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// The elements, as many bytes as `shape` and `dtype` require, aligned for `dtype`.
    pub(super) bytes: Bytes,
    /// The scales of a quantized matrix.
    pub(super) scales: Option<Bytes>,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) origin: Arc<Origin>,
    /// Whether the file stores the transpose of this matrix.
    pub(super) is_transposed: bool,
}

impl Tensor {
    /// A tensor of float elements at `range` of `source`: a view if the address is aligned for the dtype,
    /// else a copy.
    ///
    /// `range` is within `source` and as long as `shape` and `dtype` require, which the header parser has
    /// checked.
    pub(super) fn new(
        source: &Source,
        range: Range<usize>,
        dtype: Dtype,
        shape: Vec<usize>,
        origin: Origin,
    ) -> Tensor {
        let size = dtype.element_bytes().expect("an unquantized dtype");
        debug_assert_eq!(range.len(), shape.iter().product::<usize>() * size);
        let bytes = Bytes::view_or_copy(source, range, size);
        Tensor { bytes, scales: None, dtype, shape, origin: Arc::new(origin), is_transposed: false }
    }

    /// A tensor of this one's origin with other elements.
    fn owned(&self, dtype: Dtype, shape: Vec<usize>, fill: impl FnOnce(&mut [u8])) -> Tensor {
        let len = shape.iter().product::<usize>() * dtype.element_bytes().expect("an unquantized dtype");
        let (bytes, origin) = (Bytes::owned(len, fill), Arc::clone(&self.origin));
        Tensor { bytes, scales: None, dtype, shape, origin, is_transposed: self.is_transposed }
    }

    /// The transpose of a matrix `[rows, columns]`, in owned bytes.
    pub(super) fn transposed(&self) -> Tensor {
        let (rows, columns) = (self.shape[0], self.shape[1]);
        let shape = vec![columns, rows];
        let transposed = self.owned(self.dtype, shape, |to| match self.elements() {
            Elements::F32(from) => transpose(from, bytemuck::cast_slice_mut(to), rows, columns),
            Elements::F16(from) => transpose(from, bytemuck::cast_slice_mut(to), rows, columns),
            Elements::Bf16(from) => transpose(from, bytemuck::cast_slice_mut(to), rows, columns),
        });
        Tensor { is_transposed: !self.is_transposed, ..transposed }
    }

    /// The data type of the elements.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Converts the elements to another dtype, rounding to nearest even or as the quantized format requires.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) for a NaN, an infinity or a number that `dtype` cannot hold.
    ///
    /// # Panics
    /// If the tensor is quantized already, or `dtype` is quantized and the tensor is not a matrix.
    pub fn into_dtype(self, dtype: Dtype) -> Result<Tensor> {
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
            return Ok(self);
        }
        if dtype.is_quantized() {
            return self.quantized(dtype);
        }
        let converted = self.owned(dtype, self.shape.clone(), |to| match dtype {
            Dtype::F32 => convert::<f32>(self.elements(), to),
            Dtype::F16 => convert::<f16>(self.elements(), to),
            Dtype::Bf16 => convert::<bf16>(self.elements(), to),
            Dtype::Int8 | Dtype::Int4 | Dtype::Bf16Dot => unreachable!("packed above"),
        });
        converted.check_converted_from(&self)
    }

    /// The name in the file.
    pub fn name(&self) -> &str {
        &self.origin.name
    }

    /// The size of each dimension, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values in the precision they are stored in, row-major.
    ///
    /// # Panics
    /// If they are quantized; see [`Tensor::weight_matrix`].
    pub fn elements(&self) -> Elements<'_> {
        match self.dtype {
            Dtype::F32 => Elements::F32(bytemuck::cast_slice(&self.bytes)),
            Dtype::F16 => Elements::F16(bytemuck::cast_slice::<u8, f16>(&self.bytes)),
            Dtype::Bf16 => Elements::Bf16(bytemuck::cast_slice::<u8, bf16>(&self.bytes)),
            Dtype::Int8 | Dtype::Int4 | Dtype::Bf16Dot => {
                panic!("a quantized tensor has no float elements")
            }
        }
    }

    /// The elements of an f32 tensor, as every bias and layer-norm vector of [`Weights`](super::Weights) is.
    ///
    /// # Panics
    /// If the tensor has another dtype.
    pub fn as_f32(&self) -> &[f32] {
        match self.elements() {
            Elements::F32(elements) => elements,
            _ => panic!("expected an f32 tensor, found {:?}", self.dtype),
        }
    }

    /// Whether the elements have the same dtype and bits as another tensor's.
    pub(super) fn has_same_bits(&self, other: &Tensor) -> bool {
        self.dtype == other.dtype && *self.bytes == *other.bytes
    }

    /// Whether the elements are used in place in the checkpoint's bytes.
    pub fn is_view(&self) -> bool {
        self.bytes.is_view() && self.scales.as_ref().is_none_or(Bytes::is_view)
    }

    /// The size of the tensor's owned memory, in bytes: 0 for a view.
    pub fn owned_bytes(&self) -> usize {
        [Some(&self.bytes), self.scales.as_ref()]
            .into_iter()
            .flatten()
            .filter(|bytes| !bytes.is_view())
            .map(|bytes| bytes.len())
            .sum()
    }

    /// Moves the owned bytes of all tensors into one contiguous buffer, in huge pages where available.
    pub fn coalesce<'a>(tensors: impl IntoIterator<Item = &'a mut Tensor>) {
        let parts = |tensor: &'a mut Tensor| [Some(&mut tensor.bytes), tensor.scales.as_mut()];
        Bytes::coalesce(tensors.into_iter().flat_map(parts).flatten().collect());
    }

    /// The number of elements.
    #[allow(clippy::len_without_is_empty)] // no dimension is 0
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The size of the elements and scales, in bytes.
    pub fn stored_bytes(&self) -> usize {
        self.bytes.len() + self.scales.as_ref().map_or(0, |scales| scales.len())
    }
}

/// Transposes `from: [rows, columns]` to `to: [columns, rows]`, in parallel over blocks of 16 output rows. 16
/// f32 fill a 64-byte cache line, so each line of `from` is read by one thread, once.
fn transpose<T: Pod + Send + Sync>(from: &[T], to: &mut [T], rows: usize, columns: usize) {
    const BLOCK_ROWS: usize = 16;
    to.par_chunks_mut(BLOCK_ROWS * rows).enumerate().for_each(|(block, to)| {
        let first_column = block * BLOCK_ROWS;
        for row in 0..rows {
            let from_row = &from[row * columns + first_column..];
            for (to, &x) in to.chunks_exact_mut(rows).zip(from_row) {
                to[row] = x;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heap(values: &[f32], skip: usize) -> (Source, Range<usize>) {
        // Places the values `skip` bytes after an aligned address.
        let mut bytes = vec![0u8; 4 + skip];
        let base = bytes.as_ptr().align_offset(4);
        bytes.resize(base + skip, 0);
        bytes.extend(bytemuck::cast_slice::<f32, u8>(values));
        let start = base + skip;
        let range = start..bytes.len();
        (Source::Heap(Arc::new(bytes)), range)
    }

    #[test]
    fn aligned_tensor_is_view_misaligned_is_copy() {
        let values = [1.5f32, -2.0, 3.25, 1e-40];
        for skip in 0..8 {
            let (source, range) = heap(&values, skip);
            let aligned = (source[range.clone()].as_ptr() as usize).is_multiple_of(4);
            let tensor = Tensor::new(&source, range, Dtype::F32, vec![4], Origin::default());
            assert_eq!(tensor.is_view(), aligned);
            assert_eq!(tensor.owned_bytes(), if aligned { 0 } else { 16 });
            assert_eq!(tensor.as_f32(), values);
        }
    }

    #[test]
    fn owned_tensor_is_aligned_to_64_bytes() {
        let (source, range) = heap(&[0.0], 0);
        let tensor = Tensor::new(&source, range, Dtype::F32, vec![1], Origin::default());
        let tensor = tensor.owned(Dtype::F16, vec![3, 5], |bytes| bytes.fill(1));
        assert_eq!(tensor.bytes.as_ptr() as usize % 64, 0);
        assert_eq!(*tensor.bytes, [1; 30]);
    }

    #[test]
    fn transposed_moves_every_element() {
        for (rows, columns) in [(1, 1), (1, 40), (40, 1), (3, 5), (16, 16), (17, 33), (48, 16)] {
            let from: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
            let (source, range) = heap(&from, 0);
            let shape = vec![rows, columns];
            let tensor = Tensor::new(&source, range, Dtype::F32, shape, Origin::default()).transposed();
            assert_eq!(tensor.shape(), [columns, rows]);
            for row in 0..rows {
                for column in 0..columns {
                    assert_eq!(tensor.as_f32()[column * rows + row], from[row * columns + column]);
                }
            }
        }
    }

    #[test]
    fn half_to_f32_is_exact() {
        let f16s: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).filter(|x| x.is_finite()).collect();
        let bytes = bytemuck::cast_slice::<f16, u8>(&f16s).to_vec();
        let len = bytes.len();
        let source = Source::Heap(Arc::new(bytes));
        let narrow = Tensor::new(&source, 0..len, Dtype::F16, vec![f16s.len()], Origin::default());
        for (wide, narrow) in narrow.into_dtype(Dtype::F32).unwrap().as_f32().iter().zip(&f16s) {
            assert_eq!(f64::from(*wide), narrow.to_f64());
        }
        let bf16s = [bf16::from_f32(1.0), bf16::from_f32(-3.0e38)];
        let source = Source::Heap(Arc::new(bytemuck::cast_slice::<bf16, u8>(&bf16s).to_vec()));
        let narrow = Tensor::new(&source, 0..4, Dtype::Bf16, vec![2], Origin::default());
        assert_eq!(narrow.into_dtype(Dtype::F32).unwrap().as_f32(), [1.0, bf16s[1].to_f32()]);
    }
}
