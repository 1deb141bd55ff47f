//! The memory of a run, and the micro-batch that fits into what is free.

use crate::Result;
use crate::checkpoint::Checkpoint;
use crate::memory;
use crate::train::{Activations, Scope, Settings};

/// The numbers that training keeps beside each number that is trained: its gradient and two moments.
const NUMBERS_PER_TRAINED: usize = 3;

/// What a run needs.
pub struct Requirements {
    n_weights: usize,
    n_trained: usize,
    /// Bytes that do not depend on the micro-batch.
    fixed_bytes: usize,
    bytes_per_token: usize,
    n_positions: usize,
    batch_tokens: usize,
    free_bytes: u64,
}

impl Requirements {
    /// What training a model needs.
    ///
    /// # Errors
    /// [`Error::Parameter`](crate::Error::Parameter) if the model does not have what is to be trained.
    pub fn new(checkpoint: &Checkpoint, settings: &Settings) -> Result<Self> {
        let size = |shape: &[usize]| shape.iter().product::<usize>();
        let n_weights = checkpoint.weights.tensors().map(|tensor| size(tensor.shape())).sum::<usize>();
        let [n_trained, n_kept] = settings.scope.sizes(&checkpoint.config)?;
        let of_adapter = if matches!(settings.scope, Scope::Lora(_)) { n_trained } else { 0 };
        let numbers = NUMBERS_PER_TRAINED + usize::from(settings.average_share > 0.0);
        Ok(Self {
            n_weights,
            n_trained,
            fixed_bytes: (n_weights + n_kept + of_adapter + numbers * n_trained) * size_of::<f32>(),
            bytes_per_token: Activations::bytes_per_token(&checkpoint.config),
            n_positions: checkpoint.config.n_positions,
            batch_tokens: settings.batch_tokens,
            free_bytes: memory::available(),
        })
    }

    /// The tokens of a micro-batch: a power of two of the longest sequences, at most the batch, whose
    /// activations take at most three quarters of the memory that the weights leave. The sums of gradients
    /// have other last bits for another micro-batch, so a run keeps the one it begins with.
    pub fn micro_batch_tokens(&self) -> usize {
        let room = self.free_bytes.saturating_sub(self.fixed_bytes as u64) / 4 * 3;
        let fits = |sequences: &usize| {
            let tokens = sequences * self.n_positions;
            tokens <= self.batch_tokens && (tokens * self.bytes_per_token) as u64 <= room
        };
        let powers = std::iter::successors(Some(1usize), |n| n.checked_mul(2));
        let largest = powers.take_while(fits).last().unwrap_or(1);
        (largest * self.n_positions).min(self.batch_tokens)
    }

    /// The tokens that a micro-batch needs room for: a sequence is never cut.
    pub fn max_tokens(&self, micro_batch_tokens: usize) -> usize {
        micro_batch_tokens.max(self.n_positions)
    }

    fn bytes(&self, max_tokens: usize) -> usize {
        self.fixed_bytes + max_tokens * self.bytes_per_token
    }

    /// Checks that there is the memory.
    ///
    /// # Errors
    /// [`Error::Parameter`](crate::Error::Parameter) if there is not.
    pub fn check(&self, max_tokens: usize) -> Result<()> {
        memory::check("--batch", &self.batch_tokens.to_string(), &[self.bytes(max_tokens)])
    }

    /// The weights and the memory in a few words.
    pub fn describe(&self, max_tokens: usize) -> String {
        let million = |n: usize| format!("{:.*}", if n < 10_000_000 { 2 } else { 0 }, n as f64 / 1e6);
        let trained = match self.n_trained < self.n_weights {
            true => format!("{} million trained", million(self.n_trained)),
            false => "all trained".into(),
        };
        format!(
            "{} million weights, {trained}; {:.0} MB of memory, of {:.0} MB free",
            million(self.n_weights),
            self.bytes(max_tokens) as f64 / 1e6,
            self.free_bytes as f64 / 1e6
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn micro_batch_is_a_power_of_two_of_sequences_that_fits() {
        let tokens = |batch_tokens, free_bytes| {
            let n_positions = 100;
            Requirements {
                n_weights: 1,
                n_trained: 1,
                fixed_bytes: 1000,
                bytes_per_token: 10,
                n_positions,
                batch_tokens,
                free_bytes,
            }
            .micro_batch_tokens()
        };
        assert_eq!(tokens(1000, 1 << 40), 800); // the rest of a batch is a second one
        assert_eq!(tokens(800, 1000 + 10_668), 800);
        assert_eq!(tokens(800, 1000 + 10_660), 400);
        assert_eq!(tokens(800, 0), 100); // at least one sequence; then `check` says what is missing
        assert_eq!(tokens(60, 1 << 40), 60);
    }
}
