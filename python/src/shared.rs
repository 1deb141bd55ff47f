//! A model that Python's objects share: its engine, and the process that it belongs to.

use crate::errors::exception;
use hornbook::Hornbook;
use hornbook::engine::{
    Engine, EngineOptions, Event, EventStream, Priority, Request, RequestKind, SubmitError,
};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use std::ops::Deref;
use std::process;
use std::sync::Arc;

/// The most bytes of keys and values kept for texts that begin as an earlier one did.
const PREFIX_CACHE_BYTES: usize = 64 << 20;
/// The most prompt tokens per step: there are no clients whom a long prompt could delay.
const PREFILL_CHUNK: usize = 512;

/// An open model.
#[derive(Clone)]
pub struct Shared {
    engine: Arc<Engine>,
    process: u32,
}

impl Shared {
    /// Starts the engine of a model, in whose batch all generated texts are computed.
    pub fn new(hornbook: Hornbook) -> PyResult<Self> {
        let options = EngineOptions {
            queue: usize::MAX,
            prefix_cache_bytes: PREFIX_CACHE_BYTES,
            prefill_chunk: PREFILL_CHUNK,
            ..EngineOptions::default()
        };
        let engine = Engine::start(hornbook, options).map_err(exception)?;
        Ok(Self { engine: Arc::new(engine), process: process::id() })
    }

    /// The engine, to compute with.
    ///
    /// # Errors
    /// `RuntimeError` in a fork of the process, which has the model's memory but none of its threads.
    pub fn engine(&self) -> PyResult<&Engine> {
        match self.is_forked() {
            false => Ok(&self.engine),
            true => Err(PyRuntimeError::new_err(
                "this model was opened before the process was forked, and a fork has no threads: \
                 call Model.from_pretrained again in this process",
            )),
        }
    }

    /// Submits a request to the engine.
    pub fn submit(&self, prompt: Vec<u32>, kind: RequestKind) -> PyResult<EventStream> {
        let request = Request { prompt, kind, adapter: None, priority: Priority::Live };
        self.engine()?.submit(request).map_err(|error| match error {
            SubmitError::Invalid(error) => exception(error),
            other => PyRuntimeError::new_err(other.to_string()),
        })
    }

    fn is_forked(&self) -> bool {
        process::id() != self.process
    }
}

/// What needs no threads: names, configuration, tokenizer.
impl Deref for Shared {
    type Target = Hornbook;

    fn deref(&self) -> &Hornbook {
        self.engine.hornbook()
    }
}

impl Drop for Shared {
    /// Keeps the engine in a fork, where dropping it would wait for a thread that is not there.
    fn drop(&mut self) {
        if self.is_forked() {
            std::mem::forget(Arc::clone(&self.engine));
        }
    }
}

/// Waits for the next event, without the GIL; then for Ctrl-C.
pub fn next_event(py: Python<'_>, events: &mut EventStream) -> PyResult<Option<Event>> {
    let event = py.detach(|| events.blocking_next());
    py.check_signals()?;
    match event {
        Some(Event::Failed(error)) => Err(exception(error)),
        event => Ok(event),
    }
}
