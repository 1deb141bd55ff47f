//! Results that are no numbers.
//!
//! A NaN or an infinity in the weights or activations passes through every operation (kernels keep NaN),
//! so that it shows in the sequence's logits, which are small enough to be checked after every pass. Only
//! then are the weights searched for the cause.

use super::{KvCache, Model};
use crate::kernels::attention::KvPrecision;
use crate::kernels::rows::Rows;
use crate::{Error, Result};

impl Model {
    /// Checks that the results for the tokens of a sequence, such as their logits, are finite numbers.
    /// `cache` is the sequence's.
    ///
    /// # Errors
    /// [`Error::Tensor`] with the weight that is not a finite number, or [`Error::NotFinite`] if all are.
    pub fn check_finite(&self, results: Rows, cache: &KvCache) -> Result<()> {
        // Without a branch on every element.
        let all_finite = |chunk: &[f32]| !chunk.iter().fold(false, |any, x| any | !x.is_finite());
        if (0..results.len()).all(|t| results.row(t).chunks(1024).all(all_finite)) {
            return Ok(());
        }
        let find = || self.weights.tensors().find(|tensor| tensor.check_finite().is_err()).cloned();
        if let Some(tensor) = self.not_finite.get_or_init(find) {
            tensor.check_finite()?;
        }
        Err(Error::NotFinite(match cache.first_not_finite_layer() {
            Some(layer) if cache.precision() == KvPrecision::F16 => format!(
                "the keys or values of layer {layer} are beyond the range of f16 (65504): keep them in f32 \
                 (--kv-precision f32)"
            ),
            _ => "the model's output is not finite: its activations are beyond the range of f32, though all \
                  weights are finite"
                .into(),
        }))
    }
}
