//! The precisions of weight matrices, one per file: how weights are stored, converted and multiplied.
//!
//! [`Format`] is the interface. `float.rs` has the plain floats; formats that are multiplied with quantized
//! activations implement [`PackedFormat`](packed::PackedFormat). A new one is a file and a line in the list
//! of [`Precision`]s: `--precision NAME` then converts weights to it, and it is tested with the others.
//!
//! A layer's format is looked up once, by [`WeightMatrix::linear`]; the loops below are compiled for each.

pub mod gptq;
pub mod packed;

use super::elements::{Dtype, Elements};
use super::epilogue::Epilogue;
use super::linear::Matrix;
use super::rows::{Rows, RowsMut};
use super::thread_pool::ThreadPool;
use gptq::Feedback;
use std::fmt;
use std::str::FromStr;

/// Declares precisions: a module and its formats, each with a variant of [`Precision`].
macro_rules! precisions {
    ($($module:ident: $($format:ident),+;)*) => {
        $(
            mod $module;
            pub use $module::{$($format),+};
        )*

        /// The precision of a model's weight matrices.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Precision {
            $($(#[doc = concat!("[`", stringify!($format), "`]")] $format,)+)*
        }

        impl Precision {
            /// All precisions.
            pub const ALL: [Precision; [$($(Precision::$format),+),*].len()] = [$($(Precision::$format),+),*];

            /// Returns the format of matrices in this precision.
            pub fn format(self) -> &'static dyn Format {
                match self {
                    $($(Precision::$format => &$module::$format,)+)*
                }
            }
        }
    };
}

precisions! {
    float: F32, F16, Bf16;
    bf16_dot: Bf16Dot;
    int8: Int8;
    int4: Int4;
}

/// What is to be known of a format.
#[derive(Clone, Copy, Debug)]
pub struct Properties {
    /// The name in options, files and messages.
    pub name: &'static str,
    /// Whether matrices are packed for products with quantized activations. Otherwise weights are row-major
    /// floats, multiplied with activations in f32.
    pub is_quantized: bool,
    /// The largest magnitude of a weight.
    pub max_magnitude: f32,
    /// The precision of the LM head, if this one is too coarse for it.
    pub lm_head: Option<Precision>,
    /// The bits per weight in words, if `hornbook quantize` writes files in this format.
    pub file_help: Option<&'static str>,
    /// Whether [`Format::convert`] uses feedback; other formats lose next to nothing without it.
    pub uses_feedback: bool,
}

/// A format of weights.
pub trait Format: Sync {
    /// Returns the properties.
    fn properties(&self) -> Properties;

    /// Returns the tensors that hold weights of this shape, in memory as in a file: the weights, and the
    /// scales if there are any.
    fn tensors(&self, shape: &[usize]) -> Vec<StoredTensor>;

    /// Views the bytes of row-major floats; none if the format is quantized.
    fn elements<'a>(&self, _weights: &'a [u8]) -> Option<Elements<'a>> {
        None
    }

    /// Converts a matrix, or its transpose, into the bytes of [`Format::tensors`]. With `feedback` of its
    /// inputs, a format that uses it rounds by [`gptq`], otherwise to the nearest. A weight that the format
    /// cannot hold makes a float among them NaN or infinite.
    fn convert(&self, from: Matrix, transpose: bool, feedback: Option<&Feedback>, to: [&mut [u8]; 2]);

    /// Returns the weight of input `k` for output `j`, converted from its stored form.
    fn weight(&self, w: WeightMatrix, k: usize, j: usize) -> f32;

    /// Computes a linear layer for one token by its formula: `x` is `[in]`, the result `[out]`.
    fn reference(&self, x: &[f32], w: WeightMatrix, bias: &[f32]) -> Vec<f32>;

    /// Computes a linear layer, as [`WeightMatrix::linear`].
    fn linear(
        &self,
        pool: &ThreadPool,
        x: Rows,
        w: WeightMatrix,
        bias: &[f32],
        epilogue: Epilogue,
        y: RowsMut,
    );
}

/// One of the tensors that hold weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTensor {
    /// What a file adds to the matrix's name.
    pub suffix: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its dimensions, outermost first.
    pub shape: Vec<usize>,
}

impl StoredTensor {
    /// Returns its size in bytes.
    pub fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bytes()
    }
}

impl Precision {
    /// Returns the name on the command line.
    pub fn name(self) -> &'static str {
        self.format().properties().name
    }

    /// Whether matrices are packed for products with quantized activations.
    pub fn is_quantized(self) -> bool {
        self.format().properties().is_quantized
    }

    /// Returns the precision of a model's LM head when its other matrices are in this one.
    pub fn lm_head(self) -> Precision {
        self.format().properties().lm_head.unwrap_or(self)
    }

    /// The precisions in which `hornbook quantize` writes files.
    pub fn in_files() -> impl Iterator<Item = Precision> {
        Self::ALL.into_iter().filter(|precision| precision.format().properties().file_help.is_some())
    }

    /// Returns the bytes of weights of this shape.
    pub fn bytes(self, shape: &[usize]) -> usize {
        self.format().tensors(shape).iter().map(StoredTensor::bytes).sum()
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|precision| precision.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|precision| precision.name()).collect();
            format!("expected one of {}", names.join(", "))
        })
    }
}

/// A borrowed weight matrix `[rows, columns]` in any precision.
#[derive(Clone, Copy, Debug)]
pub struct WeightMatrix<'a> {
    /// The precision.
    pub precision: Precision,
    /// The weights, as bytes.
    pub weights: &'a [u8],
    /// The scales, as bytes; empty if the precision has none.
    pub scales: &'a [u8],
    /// The number of rows: inputs.
    pub rows: usize,
    /// The number of columns: outputs.
    pub columns: usize,
}

impl WeightMatrix<'_> {
    /// Returns the weight of input `k` for output `j`, converted from its stored form.
    pub fn weight(self, k: usize, j: usize) -> f32 {
        self.precision.format().weight(self, k, j)
    }

    /// Computes `x · w + bias` for one token in f64: `x` is `[in]`, the result `[out]`. Activations are
    /// rounded or quantized as in the fast form.
    pub fn reference(self, x: &[f32], bias: &[f32]) -> Vec<f32> {
        self.precision.format().reference(x, self, bias)
    }

    /// Computes `y = epilogue(x · w + bias)`, where `x` is `[n_tokens, in]` and `y` is `[n_tokens, out]`.
    ///
    /// # Panics
    /// If the shapes do not match.
    pub fn linear(self, pool: &ThreadPool, x: Rows, bias: &[f32], epilogue: Epilogue, y: RowsMut) {
        self.precision.format().linear(pool, x, self, bias, epilogue, y);
    }
}

#[cfg(test)]
mod tests;
