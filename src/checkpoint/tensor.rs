//! Tensors: views of the checkpoint's bytes where possible, owned bytes otherwise.

use std::path::PathBuf;
use std::sync::Arc;

use crate::kernels::parallel::*;
use bytemuck::Pod;

use super::source::{Bytes, zeroed};
use crate::Result;
use crate::kernels::elements::Elements;
use crate::kernels::formats::gptq::Feedback;
use crate::kernels::formats::{Precision, WeightMatrix};
use crate::kernels::linear::Matrix;

#[cfg(target_endian = "big")]
compile_error!(
    "safetensors files are little-endian and used in place: big-endian machines are not supported"
);

/// The place a tensor was loaded from, which errors about its values name.
#[derive(Clone, Debug, Default)]
pub(super) struct Origin {
    pub(super) file: PathBuf,
    pub(super) name: String,
}

/// A tensor in its stored precision. Cheap to clone: clones share their bytes.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// The bytes of the weights, and of their scales if the precision has any: those of
    /// [`Format::tensors`](crate::kernels::formats::Format::tensors), aligned for their elements.
    pub(super) buffers: Vec<Bytes>,
    pub(super) precision: Precision,
    pub(super) shape: Vec<usize>,
    pub(super) origin: Arc<Origin>,
    /// Whether the file stores the transpose of this matrix.
    pub(super) is_transposed: bool,
}

impl Tensor {
    /// A tensor of buffers that a file stores, or of copies; their lengths are checked.
    pub(super) fn new(
        buffers: Vec<Bytes>,
        precision: Precision,
        shape: Vec<usize>,
        origin: Origin,
    ) -> Tensor {
        debug_assert_eq!(buffers.iter().map(|bytes| bytes.len()).sum::<usize>(), precision.bytes(&shape));
        Tensor { buffers, precision, shape, origin: Arc::new(origin), is_transposed: false }
    }

    /// A tensor of this one's origin in buffers of its own, which `fill` writes: the weights and the scales,
    /// the latter empty if there are none.
    pub(super) fn owned(
        &self,
        precision: Precision,
        shape: &[usize],
        fill: impl FnOnce([&mut [u8]; 2]),
    ) -> Tensor {
        let tensors = precision.format().tensors(shape);
        let mut buffers: Vec<_> = tensors.iter().map(|tensor| zeroed(tensor.bytes())).collect();
        let mut slices = buffers.iter_mut().map(|buffer| &mut **buffer);
        fill([(); 2].map(|()| slices.next().unwrap_or_default()));
        let buffers = buffers.into_iter().map(Bytes::from).collect();
        let (shape, origin) = (shape.to_vec(), Arc::clone(&self.origin));
        Tensor { buffers, precision, shape, origin, is_transposed: self.is_transposed }
    }

    /// The transpose of a matrix `[rows, columns]`, in owned bytes.
    pub(super) fn transposed(&self) -> Tensor {
        let (rows, columns) = (self.shape[0], self.shape[1]);
        let transposed = self.owned(self.precision, &[columns, rows], |[to, _]| match self.elements() {
            Elements::F32(from) => transpose(from, bytemuck::cast_slice_mut(to), rows, columns),
            Elements::F16(from) => transpose(from, bytemuck::cast_slice_mut(to), rows, columns),
            Elements::Bf16(from) => transpose(from, bytemuck::cast_slice_mut(to), rows, columns),
        });
        Tensor { is_transposed: !self.is_transposed, ..transposed }
    }

    /// The precision.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Converts the elements to another precision, rounding to nearest even or as its format requires.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) for a NaN, an infinity or a number that `precision` cannot
    /// hold.
    ///
    /// # Panics
    /// If the tensor is quantized already, or `precision` is quantized and the tensor is not a matrix.
    pub fn into_precision(self, precision: Precision) -> Result<Tensor> {
        if self.precision == precision { Ok(self) } else { self.converted(precision, false, None) }
    }

    /// Quantizes an `[in, out]` matrix, with feedback of its inputs if there is one.
    ///
    /// # Errors
    /// As [`Tensor::into_precision`].
    pub(super) fn quantized(&self, precision: Precision, feedback: Option<&Feedback>) -> Result<Tensor> {
        self.converted(precision, false, feedback)
    }

    /// Converts an LM head's table `[vocab_size, n_embd]` to a linear layer `[n_embd, vocab_size]` in a
    /// quantized precision.
    ///
    /// # Errors
    /// As [`Tensor::into_precision`].
    pub fn quantized_lm_head(&self, precision: Precision) -> Result<Tensor> {
        self.converted(precision, true, None)
    }

    fn converted(
        &self,
        precision: Precision,
        transpose: bool,
        feedback: Option<&Feedback>,
    ) -> Result<Tensor> {
        let (columns, shape) = (self.shape[self.shape.len() - 1], self.shape.clone());
        let from = Matrix::new(self.elements(), self.len() / columns, columns);
        let shape = if transpose { vec![columns, from.rows] } else { shape };
        let convert = |to: [&mut [u8]; 2]| precision.format().convert(from, transpose, feedback, to);
        let converted = self.owned(precision, &shape, convert);
        converted.check_converted_from(self)
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
        let elements = self.precision.format().elements(&self.buffers[0]);
        elements.expect("a quantized tensor has no float elements")
    }

    /// Borrows an `[in, out]` matrix for a linear layer.
    ///
    /// # Panics
    /// If the tensor is not a matrix.
    pub fn weight_matrix(&self) -> WeightMatrix<'_> {
        WeightMatrix {
            precision: self.precision,
            weights: &self.buffers[0],
            scales: self.buffers.get(1).map_or(&[], |scales| scales),
            rows: self.shape[0],
            columns: self.shape[1],
        }
    }

    /// The elements of an f32 tensor, as every bias and layer-norm vector of [`Weights`](super::Weights) is.
    ///
    /// # Panics
    /// If the tensor has another precision.
    pub fn as_f32(&self) -> &[f32] {
        match self.elements() {
            Elements::F32(elements) => elements,
            _ => panic!("expected an f32 tensor, found {}", self.precision),
        }
    }

    /// Whether the elements have the same precision and bits as another tensor's.
    pub(crate) fn has_same_bits(&self, other: &Tensor) -> bool {
        self.precision == other.precision && *self.buffers[0] == *other.buffers[0]
    }

    /// Whether the elements are used in place in the checkpoint's bytes.
    pub fn is_view(&self) -> bool {
        self.buffers.iter().all(Bytes::is_view)
    }

    /// The size of the tensor's owned memory, in bytes: 0 for a view.
    pub fn owned_bytes(&self) -> usize {
        self.buffers.iter().filter(|bytes| !bytes.is_view()).map(|bytes| bytes.len()).sum()
    }

    /// Moves the owned bytes of all tensors into one contiguous buffer, in huge pages where available.
    pub fn coalesce<'a>(tensors: impl IntoIterator<Item = &'a mut Tensor>) {
        Bytes::coalesce(tensors.into_iter().flat_map(|tensor| &mut tensor.buffers).collect());
    }

    /// The number of elements.
    #[allow(clippy::len_without_is_empty)] // no dimension is 0
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The size of the elements and scales, in bytes.
    pub fn stored_bytes(&self) -> usize {
        self.buffers.iter().map(|bytes| bytes.len()).sum()
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
    use crate::checkpoint::source::Source;
    use half::{bf16, f16};
    use std::ops::Range;

    fn tensor(source: &Source, range: Range<usize>, precision: Precision, shape: &[usize]) -> Tensor {
        let bytes = Bytes::view_or_copy(source, range, 4);
        Tensor::new(vec![bytes], precision, shape.to_vec(), Origin::default())
    }

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
            let tensor = tensor(&source, range, Precision::F32, &[4]);
            assert_eq!(tensor.is_view(), aligned);
            assert_eq!(tensor.owned_bytes(), if aligned { 0 } else { 16 });
            assert_eq!(tensor.as_f32(), values);
        }
    }

    #[test]
    fn owned_tensor_is_aligned_to_64_bytes() {
        let (source, range) = heap(&[0.0], 0);
        let tensor = tensor(&source, range, Precision::F32, &[1]);
        let tensor = tensor.owned(Precision::F16, &[3, 5], |[bytes, _]| bytes.fill(1));
        assert_eq!(tensor.buffers[0].as_ptr() as usize % 64, 0);
        assert_eq!(*tensor.buffers[0], [1; 30]);
    }

    #[test]
    fn transposed_moves_every_element() {
        for (rows, columns) in [(1, 1), (1, 40), (40, 1), (3, 5), (16, 16), (17, 33), (48, 16)] {
            let from: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
            let (source, range) = heap(&from, 0);
            let tensor = tensor(&source, range, Precision::F32, &[rows, columns]).transposed();
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
        let narrow = tensor(&source, 0..len, Precision::F16, &[f16s.len()]);
        for (wide, narrow) in narrow.into_precision(Precision::F32).unwrap().as_f32().iter().zip(&f16s) {
            assert_eq!(f64::from(*wide), narrow.to_f64());
        }
        let bf16s = [bf16::from_f32(1.0), bf16::from_f32(-3.0e38)];
        let source = Source::Heap(Arc::new(bytemuck::cast_slice::<bf16, u8>(&bf16s).to_vec()));
        let narrow = tensor(&source, 0..4, Precision::Bf16, &[2]);
        assert_eq!(narrow.into_precision(Precision::F32).unwrap().as_f32(), [1.0, bf16s[1].to_f32()]);
    }
}
