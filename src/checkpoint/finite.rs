//! Values that are no numbers: NaN and infinities, stored in a file or made by a conversion.
//!
//! Weights that are used in place are not scanned when a model is loaded, since that would read all of them:
//! whoever finds a result that is not finite calls [`Tensor::check_finite`] to name the cause. Conversions
//! are checked at once, by the floats they wrote: the elements, or the far fewer scales, which are not finite
//! if one of their weights is not.

use crate::kernels::parallel::*;
use half::{bf16, f16};

use super::tensor::Tensor;
use crate::error::{Error, Result};
use crate::kernels::elements::{Element, Elements};

/// The elements tested at a time, without a branch on each.
const CHUNK: usize = 4096;

impl Tensor {
    /// Checks that every element, or every scale of a quantized matrix, is a finite number.
    ///
    /// # Errors
    /// [`Error::Tensor`] with the first that is not.
    pub fn check_finite(&self) -> Result<()> {
        match self.first_not_finite() {
            Some((index, value)) => Err(self.value_error(index, value, "finite numbers".into())),
            None => Ok(()),
        }
    }

    /// Returns the tensor, converted from `source`, if all its values are finite.
    pub(super) fn check_converted_from(self, source: &Tensor) -> Result<Tensor> {
        if self.first_not_finite().is_none() {
            return Ok(self);
        }
        source.check_finite()?;
        let (index, value) = source.largest();
        let expected = format!(
            "numbers that {} can hold, at most {}: choose int8 or f32",
            self.precision,
            self.precision.format().properties().max_magnitude
        );
        Err(source.value_error(index, value, expected))
    }

    fn first_not_finite(&self) -> Option<(usize, f32)> {
        let tensors = self.precision.format().tensors(&self.shape);
        tensors.iter().zip(&self.buffers).find_map(|(tensor, bytes)| {
            match Elements::new(tensor.dtype, bytes)? {
                Elements::F32(e) => first(e, f32::is_finite),
                Elements::F16(e) => first(e, f16::is_finite),
                Elements::Bf16(e) => first(e, bf16::is_finite),
            }
        })
    }

    /// The element of largest magnitude, with its index; the elements are finite.
    fn largest(&self) -> (usize, f32) {
        let elements = self.elements();
        let all = (0..self.len()).into_par_iter().map(|i| (i, elements.get(i)));
        all.max_by(|a, b| a.1.abs().total_cmp(&b.1.abs())).expect("at least one element")
    }

    fn value_error(&self, index: usize, value: f32, expected: String) -> Error {
        let scale = if self.buffers.len() > 1 { " among the scales" } else { "" };
        Error::Tensor {
            file: self.origin.file.clone(),
            tensor: self.name().to_string(),
            found: format!("{value}{scale} at {:?}", self.place(index)),
            expected,
        }
    }

    /// The indices, as the file counts them, of the element or scale at `index`.
    fn place(&self, mut index: usize) -> Vec<usize> {
        if self.precision.is_quantized() {
            return vec![index];
        }
        let mut place = vec![];
        for &size in self.shape().iter().rev() {
            place.push(index % size);
            index /= size;
        }
        if !self.is_transposed {
            place.reverse();
        }
        place
    }
}

/// The first element that is not finite.
fn first<E: Element>(elements: &[E], is_finite: impl Fn(E) -> bool + Sync) -> Option<(usize, f32)> {
    let has_others = |chunk: &[E]| chunk.iter().fold(false, |any, e| any | !is_finite(*e));
    let chunk = elements.par_chunks(CHUNK).position_first(has_others)?;
    let index = chunk * CHUNK + elements[chunk * CHUNK..].iter().position(|e| !is_finite(*e))?;
    Some((index, elements[index].to_f32()))
}
