//! Quantized matrices: quantized on load, or mapped from a file that `hornbook quantize` wrote.
//!
//! Such a file is ordinary safetensors. It stores a matrix `NAME` of `[in, out]` weights as two tensors,
//! which are used from the memory map without a copy ([`Int8`](crate::kernels::quantized::Int8) and
//! [`Int4`](crate::kernels::quantized::Int4) document the dimensions; `out / 32` and `in / 64` are rounded
//! up):
//!
//! ```text
//! NAME.int8    U8   [out / 32, in / 64, 16, 2, 16, 4]    NAME.scale    F32  [out]
//! NAME.int4    U8   [out / 32, in / 64, 8, 2, 16, 4]     NAME.scale    F16  [out / 32, in / 64, 2, 2, 16]
//! ```
//!
//! The LM head is `lm_head.weight.int8`, `[n_embd, vocab_size]`, in both precisions; embeddings, biases and
//! layer norms are copied from the original. `__metadata__` contains `"hornbook.layout": "1"`, and
//! `config.json` is the original's.

use std::sync::Arc;

use half::f16;

use super::source::{Bytes, zeroed};
use super::tensor::{Dtype, Origin, Tensor};
use crate::Result;
use crate::kernels::elements::{Element, Elements};
use crate::kernels::linear::{Matrix, WeightMatrix};
use crate::kernels::quantized::{Bf16Dot, Bytes64, Int4, Int8, Layout, PANEL_VECTORS, WeightFormat};
use crate::kernels::simd::LANES;

/// The metadata key and value of a quantized file.
pub(super) const LAYOUT: (&str, &str) = ("hornbook.layout", "1");

/// Returns the shapes in the file of a quantized `[rows, columns]` matrix and its scales.
pub(super) fn file_shapes(dtype: Dtype, rows: usize, columns: usize) -> [Vec<usize>; 2] {
    let layout = Layout { rows, columns };
    let blocks = [layout.packed_blocks() / layout.input_blocks().max(1), layout.input_blocks()];
    let shape = |inner: &[usize]| [&blocks, inner].concat();
    match dtype {
        Dtype::Int4 => [
            shape(&[Int4::PACKED_ROWS, PANEL_VECTORS, LANES, 4]),
            shape(&[Int4::GROUPS, PANEL_VECTORS, LANES]),
        ],
        _ => [shape(&[Int8::PACKED_ROWS, PANEL_VECTORS, LANES, 4]), vec![columns]],
    }
}

/// One of the two tensors that store a quantized matrix in a file.
pub(super) struct FileTensor<'a> {
    /// The suffix of the matrix's name.
    pub suffix: &'static str,
    /// The dtype's name in safetensors.
    pub dtype: &'static str,
    pub shape: Vec<usize>,
    pub bytes: &'a [u8],
}

impl Tensor {
    /// A quantized `[in, out]` matrix, from buffers of the sizes that [`file_shapes`] returns.
    pub(super) fn from_quantized(
        weights: Bytes,
        scales: Bytes,
        dtype: Dtype,
        shape: [usize; 2],
        origin: Origin,
    ) -> Tensor {
        let (scales, origin) = (Some(scales), Arc::new(origin));
        Tensor { bytes: weights, scales, dtype, shape: shape.to_vec(), origin, is_transposed: false }
    }

    /// Quantizes an `[in, out]` matrix; errors as [`Tensor::into_dtype`].
    pub(super) fn quantized(&self, dtype: Dtype) -> Result<Tensor> {
        let columns = self.shape()[1];
        self.quantize_indexed(dtype, [self.shape()[0], columns], |k, j| k * columns + j)
    }

    /// Transposes an LM head's table `[vocab_size, n_embd]` to `[n_embd, vocab_size]` and quantizes it to
    /// `dtype`, the precision of the model's other matrices; to 8 bits where these have 4, which are too few
    /// for it.
    ///
    /// # Errors
    /// As [`Tensor::into_dtype`].
    pub fn quantized_lm_head(&self, dtype: Dtype) -> Result<Tensor> {
        let [vocab_size, n_embd] = [self.shape()[0], self.shape()[1]];
        let dtype = if dtype == Dtype::Int4 { Dtype::Int8 } else { dtype };
        self.quantize_indexed(dtype, [n_embd, vocab_size], |k, j| j * n_embd + k)
    }

    fn quantize_indexed(
        &self,
        dtype: Dtype,
        shape: [usize; 2],
        index: impl Fn(usize, usize) -> usize + Sync,
    ) -> Result<Tensor> {
        let (bytes, scales) = match self.elements() {
            Elements::F32(e) => quantize(dtype, shape, |k, j| e[index(k, j)]),
            Elements::F16(e) => quantize(dtype, shape, |k, j| Element::to_f32(e[index(k, j)])),
            Elements::Bf16(e) => quantize(dtype, shape, |k, j| Element::to_f32(e[index(k, j)])),
        };
        let (shape, origin) = (shape.to_vec(), Arc::clone(&self.origin));
        let quantized = Tensor { bytes, scales, dtype, shape, origin, is_transposed: false };
        quantized.check_converted_from(self)
    }

    /// Borrows an `[in, out]` matrix for a linear layer.
    ///
    /// # Panics
    /// If the tensor is not a matrix.
    pub fn weight_matrix(&self) -> WeightMatrix<'_> {
        let [rows, columns] = [self.shape()[0], self.shape()[1]];
        let weights = || bytemuck::cast_slice(&self.bytes);
        match (self.dtype(), &self.scales) {
            (Dtype::Int8, Some(scales)) => {
                WeightMatrix::Int8(Int8::new(weights(), bytemuck::cast_slice(scales), rows, columns))
            }
            (Dtype::Int4, Some(scales)) => {
                WeightMatrix::Int4(Int4::new(weights(), bytemuck::cast_slice(scales), rows, columns))
            }
            (Dtype::Bf16Dot, _) => WeightMatrix::Bf16Dot(Bf16Dot::new(weights(), rows, columns)),
            _ => WeightMatrix::Float(Matrix::new(self.elements(), rows, columns)),
        }
    }

    /// Returns a quantized matrix as stored in a file: weights and scales; none for other tensors.
    pub(super) fn file_tensors(&self) -> Option<[FileTensor<'_>; 2]> {
        let scales = self.scales.as_ref()?;
        let [weights_shape, scales_shape] = file_shapes(self.dtype(), self.shape()[0], self.shape()[1]);
        let (suffix, scale_dtype) =
            if self.dtype() == Dtype::Int8 { (".int8", "F32") } else { (".int4", "F16") };
        Some([
            FileTensor { suffix, dtype: "U8", shape: weights_shape, bytes: &self.bytes },
            FileTensor { suffix: ".scale", dtype: scale_dtype, shape: scales_shape, bytes: scales },
        ])
    }
}

/// Returns the sizes in bytes of a quantized `[rows, columns]` matrix and its scales.
pub(super) fn quantized_bytes(dtype: Dtype, rows: usize, columns: usize) -> [usize; 2] {
    let (packed_len, scale_bytes) = match dtype {
        Dtype::Bf16Dot => (Bf16Dot::packed_len(rows, columns), 0),
        Dtype::Int4 => {
            (Int4::packed_len(rows, columns), Int4::scales_len(rows, columns) * size_of::<[f16; LANES]>())
        }
        _ => (Int8::packed_len(rows, columns), columns * size_of::<f32>()),
    };
    [packed_len * size_of::<Bytes64>(), scale_bytes]
}

fn quantize(
    dtype: Dtype,
    [rows, columns]: [usize; 2],
    weight: impl Fn(usize, usize) -> f32 + Sync,
) -> (Bytes, Option<Bytes>) {
    let [weight_bytes, scale_bytes] = quantized_bytes(dtype, rows, columns);
    let (mut bytes, mut scales) = (zeroed(weight_bytes), zeroed(scale_bytes));
    let packed = bytemuck::cast_slice_mut(&mut bytes);
    match dtype {
        Dtype::Bf16Dot => Bf16Dot::quantize(rows, columns, weight, packed),
        Dtype::Int4 => Int4::quantize(rows, columns, weight, packed, bytemuck::cast_slice_mut(&mut scales)),
        _ => Int8::quantize(rows, columns, weight, packed, bytemuck::cast_slice_mut(&mut scales)),
    }
    (bytes.into(), (scale_bytes > 0).then(|| scales.into()))
}
