//! A text that is generated token by token.

use crate::completion::TopLogprobs;
use crate::errors::parameter;
use crate::options::Arguments;
use crate::shared::{Shared, next_event};
use hornbook::engine::{Event, EventStream, RequestKind};
use pyo3::prelude::*;

/// A generated token.
#[pyclass(frozen, get_all, module = "hornbook")]
pub struct Token {
    /// Its id.
    id: u32,
    /// The text that is final with it: whole characters, so that it may be empty.
    text: String,
    /// Its logprob in the model's own distribution.
    logprob: f32,
    /// The ``logprobs=N`` most likely tokens: pairs of an id and its logprob.
    top_logprobs: TopLogprobs,
}

#[pymethods]
impl Token {
    fn __str__(&self) -> &str {
        &self.text
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let text = self.text.as_str().into_pyobject(py)?.repr()?;
        Ok(format!("<hornbook.Token {} {text}>", self.id))
    }
}

impl From<hornbook::Token> for Token {
    fn from(token: hornbook::Token) -> Self {
        let hornbook::Token { id, text, logprob, top_logprobs } = token;
        Self { id, text, logprob, top_logprobs }
    }
}

/// A text that is being generated: an iterator of its tokens. Dropping it ends the computation.
#[pyclass(module = "hornbook")]
pub struct Stream {
    model: Shared,
    events: EventStream,
    /// ``"stop"`` or ``"length"`` at the end; None before.
    #[pyo3(get)]
    finish_reason: Option<&'static str>,
    /// The seed that writes this text again.
    #[pyo3(get)]
    seed: u64,
}

#[pymethods]
impl Stream {
    fn __iter__(stream: PyRef<'_, Self>) -> PyRef<'_, Self> {
        stream
    }

    fn __next__(&mut self, py: Python<'_>) -> PyResult<Option<Token>> {
        self.model.engine()?; // in a fork, no event would come
        while let Some(event) = next_event(py, &mut self.events)? {
            match event {
                Event::Token { token, .. } => return Ok(Some(token.into())),
                Event::Finished { reason, .. } => self.finish_reason = Some(reason.as_str()),
                _ => {} // not requested
            }
        }
        Ok(None)
    }
}

impl Stream {
    /// Starts the one completion of a prompt.
    pub fn new(model: &Shared, prompt: Vec<u32>, arguments: &Arguments) -> PyResult<Self> {
        let given = [
            ("n", arguments.n.is_some()),
            ("num_beams", arguments.beams.is_some()),
            ("hooks", arguments.hooks.is_some()),
        ];
        if let Some((name, _)) = given.into_iter().find(|(_, is_given)| *is_given) {
            return Err(parameter(
                name,
                "a value",
                "None: a stream is one text, drawn from the model as it is",
            ));
        }
        let events = model.submit(prompt, RequestKind::Complete(arguments.params()))?;
        Ok(Self { model: model.clone(), events, finish_reason: None, seed: arguments.options.sampling.seed })
    }
}
