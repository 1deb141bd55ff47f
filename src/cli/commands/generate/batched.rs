//! Completions of one prompt, computed in the engine's batch and returned in order.

use super::completion_source::CompletionSource;
use crate::engine::{
    CompletionParams, Engine, EngineOptions, Event, EventStream, Priority, Request, RequestKind, SubmitError,
};
use crate::generate::{DraftStats, FinishReason, Token};
use crate::kernels::attention::KvPrecision;
use crate::{Error, Hornbook, Result};
use std::collections::VecDeque;

/// Maximum requests in flight after the one being printed. More than the engine's batch slots, so that the
/// slots of short completions are reused while a long one is running.
const MAX_IN_FLIGHT: usize = 64;

/// Starts an engine with an unbounded queue and a large prefill chunk, as there are no other clients.
pub fn start_engine(hornbook: Hornbook, kv_precision: Option<KvPrecision>) -> Result<Engine> {
    let options =
        EngineOptions { queue: usize::MAX, prefill_chunk: 512, kv_precision, ..EngineOptions::default() };
    Engine::start(hornbook, options)
}

/// Completions in the order of their `params`, each a request of one choice.
pub struct BatchedCompletions<'e, I> {
    engine: &'e Engine,
    prompt: Vec<u32>,
    params: I,
    in_flight: VecDeque<EventStream>,
    current: Option<EventStream>,
    finish_reason: Option<FinishReason>,
}

impl<'e, I: Iterator<Item = CompletionParams>> BatchedCompletions<'e, I> {
    pub fn new(engine: &'e Engine, prompt: &[u32], params: I) -> Self {
        Self {
            engine,
            prompt: prompt.to_vec(),
            params,
            in_flight: VecDeque::new(),
            current: None,
            finish_reason: None,
        }
    }

    /// Submits the next request, if there is one.
    fn submit_next(&mut self) -> Result<Option<EventStream>> {
        let Some(params) = self.params.next() else { return Ok(None) };
        let (prompt, kind) = (self.prompt.clone(), RequestKind::Complete(params));
        let request = Request { prompt, kind, adapter: None, priority: Priority::Live };
        self.engine.submit(request).map(Some).map_err(|error| match error {
            SubmitError::Invalid(error) => error,
            other => Error::Message(other.to_string()),
        })
    }
}

impl<I: Iterator<Item = CompletionParams>> CompletionSource for BatchedCompletions<'_, I> {
    fn start_next(&mut self) -> Result<()> {
        self.finish_reason = None;
        self.current = match self.in_flight.pop_front() {
            None => self.submit_next()?,
            submitted => submitted,
        };
        Ok(())
    }

    fn next_token(&mut self) -> Result<Option<Token>> {
        while let Some(event) = self.current.as_mut().and_then(EventStream::blocking_next) {
            // The others are submitted after the first event, so that they reuse the prompt's keys and
            // values.
            while self.in_flight.len() < MAX_IN_FLIGHT
                && let Some(stream) = self.submit_next()?
            {
                self.in_flight.push_back(stream);
            }
            match event {
                Event::Token { token, .. } => return Ok(Some(token)),
                Event::Finished { reason, .. } => self.finish_reason = Some(reason),
                Event::Failed(error) => return Err(error),
                Event::Prompt(_) | Event::Embedding(_) => {} // not requested
            }
        }
        Ok(None)
    }

    fn finish_reason(&self) -> Option<FinishReason> {
        self.finish_reason
    }

    fn draft_stats(&self) -> DraftStats {
        self.engine.statistics().drafts
    }
}
