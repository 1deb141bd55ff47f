//! Quantized matrices: made from plain ones, or found in a file that `hornbook quantize` wrote.
//!
//! Such a file is ordinary safetensors. A matrix `NAME` of `[in, out]` weights is two tensors in it, which are used where
//! they lie in the mapped file ([`int8`](crate::kernels::quantized::Int8) and [`int4`](crate::kernels::quantized::Int4)
//! say what the dimensions mean; `out / 32` and `in / 64` are rounded up):
//!
//! ```text
//! NAME.int8    U8   [out / 32, in / 64, 16, 2, 16, 4]    NAME.scale    F32  [out]
//! NAME.int4    U8   [out / 32, in / 64, 8, 2, 16, 4]     NAME.scale    F16  [out / 32, in / 64, 2, 2, 16]
//! ```
//!
//! The head is `lm_head.weight.int8`, `[n_embd, vocab_size]`, in either precision; the embeddings, biases and layer norms
//! are there as the original has them. `__metadata__` has `"hornbook.layout": "1"`, and `config.json` is the original's.

use half::f16;

use super::source::{Bytes, zeroed};
use super::tensor::{Dtype, Tensor};
use crate::kernels::elements::{Element, Elements};
use crate::kernels::linear::{Matrix, WeightMatrix};
use crate::kernels::quantized::{Bf16Dot, Bytes64, Int4, Int8, Layout, PANEL_VECTORS, WeightFormat};
use crate::kernels::simd::LANES;

/// The key and value of a quantized file's metadata.
pub(super) const LAYOUT: (&str, &str) = ("hornbook.layout", "1");

/// The shapes of a packed `[rows, columns]` matrix and its scales, as a file has them.
pub(super) fn file_shapes(dtype: Dtype, rows: usize, columns: usize) -> [Vec<usize>; 2] {
    let layout = Layout { rows, columns };
    let parts = [layout.packed_blocks() / layout.k_blocks().max(1), layout.k_blocks()];
    let of = |inner: &[usize]| [&parts, inner].concat();
    match dtype {
        Dtype::Int4 => {
            [of(&[Int4::PACKED_ROWS, PANEL_VECTORS, LANES, 4]), of(&[Int4::GROUPS, PANEL_VECTORS, LANES])]
        }
        _ => [of(&[Int8::PACKED_ROWS, PANEL_VECTORS, LANES, 4]), vec![columns]],
    }
}

/// One of the tensors that a packed matrix is in a file.
pub(super) struct Part<'a> {
    /// What is added to the matrix's name.
    pub ending: &'static str,
    /// As safetensors calls it.
    pub dtype: &'static str,
    pub shape: Vec<usize>,
    pub bytes: &'a [u8],
}

impl Tensor {
    /// A packed matrix `[in, out]`. Its parts are as long as [`shapes`] says.
    pub(super) fn from_quantized(lines: Bytes, scales: Bytes, dtype: Dtype, shape: [usize; 2]) -> Tensor {
        Tensor { bytes: lines, scales: Some(scales), dtype, shape: shape.to_vec() }
    }

    /// A plain matrix `[in, out]`, rounded to eight or four bits.
    pub(super) fn quantized(&self, dtype: Dtype) -> Tensor {
        let columns = self.shape()[1];
        self.pack(dtype, [self.shape()[0], columns], |k, j| k * columns + j)
    }

    /// A head's table `[vocab_size, n_embd]`, turned over to `[n_embd, vocab_size]` and rounded for a model whose matrices
    /// are rounded to `dtype`; four bits would be too few, so that it has eight beside these.
    pub fn quantized_lm_head(&self, dtype: Dtype) -> Tensor {
        let [vocab_size, n_embd] = [self.shape()[0], self.shape()[1]];
        let dtype = if dtype == Dtype::Int4 { Dtype::Int8 } else { dtype };
        self.pack(dtype, [n_embd, vocab_size], |k, j| j * n_embd + k)
    }

    fn pack(&self, dtype: Dtype, shape: [usize; 2], at: impl Fn(usize, usize) -> usize + Sync) -> Tensor {
        match self.elements() {
            Elements::F32(e) => pack(dtype, shape, |k, j| e[at(k, j)]),
            Elements::F16(e) => pack(dtype, shape, |k, j| Element::to_f32(e[at(k, j)])),
            Elements::Bf16(e) => pack(dtype, shape, |k, j| Element::to_f32(e[at(k, j)])),
        }
    }

    /// A matrix `[in, out]` as a linear layer takes it.
    ///
    /// # Panics
    /// If the tensor is no matrix.
    pub fn weight_matrix(&self) -> WeightMatrix<'_> {
        let [rows, columns] = [self.shape()[0], self.shape()[1]];
        let lines = || bytemuck::cast_slice(&self.bytes);
        match (self.dtype(), &self.scales) {
            (Dtype::Int8, Some(scales)) => {
                WeightMatrix::Int8(Int8::new(lines(), bytemuck::cast_slice(scales), rows, columns))
            }
            (Dtype::Int4, Some(scales)) => {
                WeightMatrix::Int4(Int4::new(lines(), bytemuck::cast_slice(scales), rows, columns))
            }
            (Dtype::Bf16Dot, _) => WeightMatrix::Bf16Dot(Bf16Dot::new(lines(), rows, columns)),
            _ => WeightMatrix::Plain(Matrix::new(self.elements(), rows, columns)),
        }
    }

    /// A packed matrix as a file has it: its weights and its scales.
    pub(super) fn file_tensors(&self) -> Option<[Part<'_>; 2]> {
        let scales = self.scales.as_ref()?;
        let [of_lines, of_scales] = file_shapes(self.dtype(), self.shape()[0], self.shape()[1]);
        let (name, scale) = if self.dtype() == Dtype::Int8 { (".int8", "F32") } else { (".int4", "F16") };
        Some([
            Part { ending: name, dtype: "U8", shape: of_lines, bytes: &self.bytes },
            Part { ending: ".scale", dtype: scale, shape: of_scales, bytes: scales },
        ])
    }
}

/// The bytes of a packed `[rows, columns]` matrix and of its scales.
pub(super) fn quantized_bytes(dtype: Dtype, rows: usize, columns: usize) -> [usize; 2] {
    let (lines, scales) = match dtype {
        Dtype::Bf16Dot => (Bf16Dot::packed_len(rows, columns), 0),
        Dtype::Int4 => {
            (Int4::packed_len(rows, columns), Int4::scales_len(rows, columns) * size_of::<[f16; LANES]>())
        }
        _ => (Int8::packed_len(rows, columns), columns * size_of::<f32>()),
    };
    [lines * size_of::<Bytes64>(), scales]
}

fn pack(dtype: Dtype, [rows, columns]: [usize; 2], weight: impl Fn(usize, usize) -> f32 + Sync) -> Tensor {
    let [of_lines, of_scales] = quantized_bytes(dtype, rows, columns);
    let (mut bytes, mut scales) = (zeroed(of_lines), zeroed(of_scales));
    let lines = bytemuck::cast_slice_mut(&mut bytes);
    match dtype {
        Dtype::Bf16Dot => Bf16Dot::quantize(rows, columns, weight, lines),
        Dtype::Int4 => Int4::quantize(rows, columns, weight, lines, bytemuck::cast_slice_mut(&mut scales)),
        _ => Int8::quantize(rows, columns, weight, lines, bytemuck::cast_slice_mut(&mut scales)),
    }
    let scales = (of_scales > 0).then(|| scales.into());
    Tensor { bytes: bytes.into(), scales, dtype, shape: vec![rows, columns] }
}
