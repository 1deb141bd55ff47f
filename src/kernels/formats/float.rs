//! Row-major floats, `[in, out]` as in the checkpoint, multiplied in f32: see [`linear`].

use super::gptq::Feedback;
use super::{Format, Properties, StoredTensor, WeightMatrix};
use crate::elements::{Dtype, Element, Elements};
use crate::epilogue::Epilogue;
use crate::linear::{self, Matrix};
use crate::parallel::*;
use crate::rows::{Rows, RowsMut};
use crate::thread_pool::ThreadPool;
pub use Float::{Bf16, F16, F32};
use half::{bf16, f16};

/// Elements converted at a time, through a buffer of f32 in the L1 cache.
const CHUNK: usize = 1024;

/// Plain floats.
#[derive(Clone, Copy, Debug)]
pub enum Float {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// bfloat16.
    Bf16,
}

impl Float {
    fn dtype(self) -> Dtype {
        match self {
            F32 => Dtype::F32,
            F16 => Dtype::F16,
            Bf16 => Dtype::Bf16,
        }
    }
}

impl Format for Float {
    fn properties(&self) -> Properties {
        let (name, max_magnitude) = match self {
            F32 => ("f32", f32::MAX),
            F16 => ("f16", f16::MAX.to_f32()),
            Bf16 => ("bf16", bf16::MAX.to_f32()),
        };
        let uses_feedback = false;
        Properties { name, is_quantized: false, max_magnitude, lm_head: None, file_help: None, uses_feedback }
    }

    fn tensors(&self, shape: &[usize]) -> Vec<StoredTensor> {
        vec![StoredTensor { suffix: String::new(), dtype: self.dtype(), shape: shape.to_vec() }]
    }

    fn elements<'a>(&self, weights: &'a [u8]) -> Option<Elements<'a>> {
        Elements::new(self.dtype(), weights)
    }

    fn convert(&self, from: Matrix, transpose: bool, _: Option<&Feedback>, [to, _]: [&mut [u8]; 2]) {
        fn convert<E: Element>(from: Elements, to: &mut [E]) {
            to.par_chunks_mut(CHUNK).enumerate().for_each(|(i, to)| {
                let mut values = [0.0; CHUNK];
                let values = &mut values[..to.len()];
                from.read(i * CHUNK, values);
                to.iter_mut().zip(values).for_each(|(to, x)| *to = E::from_f32(*x));
            });
        }
        assert!(!transpose, "floats are stored in the order of the checkpoint");
        match self {
            F32 => convert::<f32>(from.elements, bytemuck::cast_slice_mut(to)),
            F16 => convert::<f16>(from.elements, bytemuck::cast_slice_mut(to)),
            Bf16 => convert::<bf16>(from.elements, bytemuck::cast_slice_mut(to)),
        }
    }

    fn weight(&self, w: WeightMatrix, k: usize, j: usize) -> f32 {
        matrix(w).weight(k, j)
    }

    fn reference(&self, x: &[f32], w: WeightMatrix, bias: &[f32]) -> Vec<f32> {
        linear::reference(x, matrix(w), bias)
    }

    fn linear(
        &self,
        pool: &ThreadPool,
        x: Rows,
        w: WeightMatrix,
        bias: &[f32],
        epilogue: Epilogue,
        y: RowsMut,
    ) {
        linear::linear(pool, x, matrix(w), bias, epilogue, y);
    }
}

fn matrix(w: WeightMatrix) -> Matrix {
    let elements = w.precision.format().elements(w.weights).expect("a format of floats");
    Matrix::new(elements, w.rows, w.columns)
}
