//! Many completions of one prompt, computed together and handed over in their order.

use super::completion_source::CompletionSource;
use crate::engine::{
    CompletionParams, Engine, EngineOptions, Event, EventStream, Request, RequestKind, SubmitError,
};
use crate::generate::{FinishReason, Token};
use crate::kernels::attention::KvPrecision;
use crate::{Error, Hornbook, Result};
use std::collections::VecDeque;

/// CompletionSource that are computed, or wait for their turn, ahead of the one that is shown. More than the engine has seats
/// for: where short ones end before a long one, others go on in their place.
const AHEAD: usize = 64;

/// An engine that nobody else waits for.
pub fn start_engine(hornbook: Hornbook, kv_precision: Option<KvPrecision>) -> Result<Engine> {
    let options =
        EngineOptions { queue: usize::MAX, prefill_chunk: 512, kv_precision, ..EngineOptions::default() };
    Engine::start(hornbook, options)
}

/// CompletionSource in the order of their `jobs`, each a request of one choice.
pub struct BatchedCompletions<'e, I> {
    engine: &'e Engine,
    prompt: Vec<u32>,
    jobs: I,
    ahead: VecDeque<EventStream>,
    shown: Option<EventStream>,
    finish_reason: Option<FinishReason>,
}

impl<'e, I: Iterator<Item = CompletionParams>> BatchedCompletions<'e, I> {
    pub fn new(engine: &'e Engine, prompt: &[u32], jobs: I) -> Self {
        Self {
            engine,
            prompt: prompt.to_vec(),
            jobs,
            ahead: VecDeque::new(),
            shown: None,
            finish_reason: None,
        }
    }

    /// Sends off the next one.
    fn submit(&mut self) -> Result<Option<EventStream>> {
        let Some(job) = self.jobs.next() else { return Ok(None) };
        let request = Request { prompt: self.prompt.clone(), kind: RequestKind::Complete(job) };
        self.engine.submit(request).map(Some).map_err(|refused| match refused {
            SubmitError::Invalid(error) => error,
            other => Error::Message(other.to_string()),
        })
    }
}

impl<I: Iterator<Item = CompletionParams>> CompletionSource for BatchedCompletions<'_, I> {
    fn begin(&mut self) -> Result<()> {
        self.finish_reason = None;
        self.shown = match self.ahead.pop_front() {
            None => self.submit()?,
            ahead => ahead,
        };
        Ok(())
    }

    fn token(&mut self) -> Result<Option<Token>> {
        while let Some(event) = self.shown.as_mut().and_then(EventStream::blocking_next) {
            // The first goes ahead alone, until something has come of it: the others find its prompt computed.
            while self.ahead.len() < AHEAD
                && let Some(stream) = self.submit()?
            {
                self.ahead.push_back(stream);
            }
            match event {
                Event::Token { token, .. } => return Ok(Some(token)),
                Event::Finished { reason, .. } => self.finish_reason = Some(reason),
                Event::Failed(error) => return Err(error),
                Event::Prompt(_) | Event::Embedding(_) => {} // not asked for
            }
        }
        Ok(None)
    }

    fn finish_reason(&self) -> Option<FinishReason> {
        self.finish_reason
    }
}
