//! The state of a run in a file: what the next step depends on. Written atomically, so that a run that is
//! killed at any moment goes on from its last state, to the same bits as one that never stopped.

use super::trainer::Trainer;
use crate::checkpoint::{F32Tensor, write_f32_tensors};
use crate::{Error, Result};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What the state has beside its vectors.
#[derive(Debug, Deserialize, Serialize)]
struct Numbers {
    step: u32,
    averaged: u32,
    /// The lowest held-out loss, in nats per token.
    best_loss: Option<f64>,
}

/// The entry of the file's metadata that has the numbers, as JSON.
const NUMBERS: &str = "training";

impl Trainer {
    /// Writes weights, moments and the number of steps to a file, with the lowest held-out loss so far.
    ///
    /// # Errors
    /// [`Error::Io`]; the file is then as before.
    pub fn save(&self, file: &Path, best_loss: Option<f64>) -> Result<()> {
        let (vectors, [step, averaged]) = self.state();
        let numbers = serde_json::to_string(&Numbers { step, averaged, best_loss }).unwrap_or_default();
        let tensor = |(name, values): (&str, _)| F32Tensor {
            name: name.into(),
            shape: vec![<[f32]>::len(values)],
            values,
        };
        let tensors: Vec<_> = vectors.into_iter().map(tensor).collect();
        write_f32_tensors(file, serde_json::json!({ NUMBERS: numbers }), &tensors)
    }

    /// Restores what [`Trainer::save`] wrote. Returns the lowest held-out loss.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Checkpoint`] for a file of another model.
    pub fn restore(&mut self, file: &Path) -> Result<Option<f64>> {
        let bytes =
            std::fs::read(file).map_err(|source| Error::Io { path: file.into(), action: "read", source })?;
        let invalid = |problem: String| Error::Checkpoint { file: file.into(), problem };
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| invalid(error.to_string()))?;
        let metadata = SafeTensors::read_metadata(&bytes).map_err(|error| invalid(error.to_string()))?.1;
        let numbers = metadata.metadata().as_ref().and_then(|metadata| metadata.get(NUMBERS));
        let numbers = numbers.ok_or_else(|| invalid("found no state of a training run".into()))?;
        let numbers: Numbers = serde_json::from_str(numbers).map_err(|error| invalid(error.to_string()))?;
        self.set_state([numbers.step, numbers.averaged], |name, to| {
            let found = tensors.tensor(name).map_err(|error| invalid(error.to_string()))?;
            let (found, expected) = (found.data(), size_of_val(to));
            if found.len() != expected {
                return Err(invalid(format!("{name}: found {} bytes, expected {expected}", found.len())));
            }
            to.iter_mut().zip(found.as_chunks().0).for_each(|(to, x)| *to = f32::from_le_bytes(*x));
            Ok(())
        })?;
        Ok(numbers.best_loss)
    }
}
