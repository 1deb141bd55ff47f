//! What a model writes in the middle of its training.

use super::inputs::end_of_text;
use crate::Result;
use crate::checkpoint::Checkpoint;
use crate::sampling::{Sampler, SamplingParams};
use crate::tokenizer::Tokenizer;
use crate::train::Run;
use std::time::{Duration, Instant};

/// The tokens of a sample.
const TOKENS: usize = 40;

/// Writes samples: the beginning of a text, always with the same random numbers.
pub struct Sample {
    tokenizer: Tokenizer,
    end_of_text: u32,
    n_positions: usize,
}

impl Sample {
    /// Prepares samples of a model; none if it has no token that a text begins after.
    ///
    /// # Errors
    /// Those of the tokenizer's files.
    pub fn new(checkpoint: &Checkpoint) -> Result<Option<Self>> {
        let tokenizer = Tokenizer::from_files(&checkpoint.tokenizer_files()?)?;
        let config = &checkpoint.config;
        Ok(tokenizer.and_then(|tokenizer| {
            let end_of_text = end_of_text(&tokenizer, config)?;
            Some(Self { tokenizer, end_of_text, n_positions: config.n_positions })
        }))
    }

    /// Writes a text with the weights that a run has now. `pause` is called after each token with the time
    /// that it took.
    ///
    /// # Errors
    /// As [`Run::next_logits`].
    pub fn write(&self, run: &mut Run, pause: &mut dyn FnMut(Duration)) -> Result<String> {
        let params = SamplingParams { temperature: 0.8, top_p: 0.95, ..SamplingParams::default() };
        let mut sampler = Sampler::new(params, 0);
        let mut ids = vec![self.end_of_text];
        while ids.len() <= TOKENS && ids.len() < self.n_positions {
            let (prompt, generated) = ids.split_at(1);
            let start = Instant::now();
            let id = sampler.sample(&run.next_logits(&ids)?, prompt, generated).id;
            pause(start.elapsed());
            if id == self.end_of_text {
                break;
            }
            ids.push(id);
        }
        Ok(self.tokenizer.decode(&ids[1..]))
    }
}
