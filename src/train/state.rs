//! The state of a run in a file: what the next step depends on. Written atomically, so that a run that is
//! killed at any moment goes on from its last state, to the same bits as one that never stopped.

use super::trainer::Trainer;
use crate::checkpoint::{F32Tensor, write_f32_tensors};
use crate::{Error, Result};
use safetensors::SafeTensors;
use std::path::Path;

/// The numbers of a training state, each as long as the layout.
const VECTORS: [&str; 3] = ["weights", "m", "v"];

impl Trainer {
    /// Writes weights, moments and the number of steps to a file.
    ///
    /// # Errors
    /// [`Error::Io`]; the file is then as before.
    pub fn save(&self, file: &Path) -> Result<()> {
        let step = [f32::from_bits(self.step())]; // as an integer, beside vectors of f32
        let vectors = VECTORS.into_iter().zip(self.state()).chain([("step", &step[..])]);
        let tensor = |(name, values)| F32Tensor {
            name: String::from(name),
            shape: vec![<[f32]>::len(values)],
            values,
        };
        write_f32_tensors(file, &vectors.map(tensor).collect::<Vec<_>>())
    }

    /// Restores what [`Trainer::save`] wrote.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Checkpoint`] for a file of another model.
    pub fn restore(&mut self, file: &Path) -> Result<()> {
        let bytes =
            std::fs::read(file).map_err(|source| Error::Io { path: file.into(), action: "read", source })?;
        let invalid = |problem: String| Error::Checkpoint { file: file.into(), problem };
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| invalid(error.to_string()))?;
        let read = |name: &str, to: &mut [f32]| {
            let found = tensors.tensor(name).map_err(|error| invalid(error.to_string()))?;
            let (found, expected) = (found.data(), size_of_val(to));
            if found.len() != expected {
                return Err(invalid(format!("{name}: found {} bytes, expected {expected}", found.len())));
            }
            to.iter_mut().zip(found.as_chunks().0).for_each(|(to, x)| *to = f32::from_le_bytes(*x));
            Ok(())
        };
        let mut step = [0.0];
        read("step", &mut step)?;
        VECTORS.into_iter().zip(self.state_mut(step[0].to_bits())).try_for_each(|(name, to)| read(name, to))
    }
}
