//! Where completions come from: one generation after another, or many at once.

use crate::Result;
use crate::generate::{DraftStats, FinishReason, Generation, Token};
use crate::model::Observer;

/// CompletionSource of a prompt in their order, whoever computes them and when.
pub trait CompletionSource {
    /// Goes on to the next one.
    fn begin(&mut self) -> Result<()>;

    /// Its next token; none after the last.
    fn token(&mut self) -> Result<Option<Token>>;

    /// Ends it here, and returns the text that was held back where that is known.
    fn end(&mut self) -> String {
        String::new()
    }

    /// Why it ended; none while it goes on.
    fn finish_reason(&self) -> Option<FinishReason>;

    /// What came of drafts.
    fn draft_stats(&self) -> DraftStats {
        DraftStats::default()
    }
}

/// One after the other.
pub struct SequentialCompletions<'h, O> {
    generation: Generation<'h, O>,
    begun: bool,
}

impl<'h, O: Observer> SequentialCompletions<'h, O> {
    pub fn new(generation: Generation<'h, O>) -> Self {
        Self { generation, begun: false }
    }
}

impl<O: Observer> CompletionSource for SequentialCompletions<'_, O> {
    fn begin(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.begun, true) {
            false => Ok(()),
            true => self.generation.restart(),
        }
    }

    fn token(&mut self) -> Result<Option<Token>> {
        self.generation.next().transpose()
    }

    fn end(&mut self) -> String {
        self.generation.finish()
    }

    fn finish_reason(&self) -> Option<FinishReason> {
        self.generation.finish_reason()
    }

    fn draft_stats(&self) -> DraftStats {
        self.generation.draft_stats()
    }
}
