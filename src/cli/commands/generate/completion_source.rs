//! Sources of completions: a sequential generation, or the engine's batch.

use crate::Result;
use crate::generate::{DraftStats, FinishReason, Generation, Token};
use crate::model::Observer;

/// Completions of a prompt, in order.
pub trait CompletionSource {
    /// Starts the next completion.
    fn start_next(&mut self) -> Result<()>;

    /// Returns the completion's next token; none after the last.
    fn next_token(&mut self) -> Result<Option<Token>>;

    /// Ends the completion here and returns the held-back text, if the source has it.
    fn finish(&mut self) -> String {
        String::new()
    }

    /// The completion's finish reason; none while it is in progress.
    fn finish_reason(&self) -> Option<FinishReason>;

    /// Draft statistics of all completions.
    fn draft_stats(&self) -> DraftStats {
        DraftStats::default()
    }
}

/// Completions generated one after the other.
pub struct SequentialCompletions<'h, O> {
    generation: Generation<'h, O>,
    started: bool,
}

impl<'h, O: Observer> SequentialCompletions<'h, O> {
    pub fn new(generation: Generation<'h, O>) -> Self {
        Self { generation, started: false }
    }
}

impl<O: Observer> CompletionSource for SequentialCompletions<'_, O> {
    fn start_next(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.started, true) {
            false => Ok(()),
            true => self.generation.restart(),
        }
    }

    fn next_token(&mut self) -> Result<Option<Token>> {
        self.generation.next().transpose()
    }

    fn finish(&mut self) -> String {
        self.generation.finish()
    }

    fn finish_reason(&self) -> Option<FinishReason> {
        self.generation.finish_reason()
    }

    fn draft_stats(&self) -> DraftStats {
        self.generation.draft_stats()
    }
}
