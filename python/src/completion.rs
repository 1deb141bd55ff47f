//! Completions, of one prompt or of several at once.

use crate::errors::{exception, parameter};
use crate::options::Arguments;
use crate::shared::{Shared, next_event};
use hornbook::FinishReason;
use hornbook::engine::{CompletionParams, Event, RequestKind};
use hornbook::generate::{Beam, beam_search_unless};
use hornbook::sampling::BeamParams;
use numpy::PyArray1;
use pyo3::prelude::*;

/// The most likely token ids at a position and their logprobs, best first.
pub type TopLogprobs = Vec<(u32, f32)>;

/// A generated text.
#[pyclass(frozen, get_all, module = "hornbook")]
pub struct Completion {
    /// The text after the prompt.
    text: String,
    /// Its token ids, including an end-of-text token.
    ids: Vec<u32>,
    /// The logprob of each token in the model's own distribution, float32 ``[len(ids)]``; None with beams.
    logprobs: Option<Py<PyArray1<f32>>>,
    /// For each token the ``logprobs=N`` most likely ones: pairs of an id and its logprob.
    top_logprobs: Vec<TopLogprobs>,
    /// ``"stop"`` or ``"length"``; None if it was not ended.
    finish_reason: Option<&'static str>,
    /// The sum of the logprobs divided by ``len(ids) ** length_penalty``, with beams; else None.
    score: Option<f64>,
    /// The seed that writes this text again.
    seed: u64,
}

#[pymethods]
impl Completion {
    fn __str__(&self) -> &str {
        &self.text
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let text = self.text.as_str().into_pyobject(py)?.repr()?;
        Ok(format!("<hornbook.Completion {text}>"))
    }
}

/// Generates the completions of each prompt.
pub fn generate(
    py: Python<'_>,
    model: &Shared,
    prompts: Vec<Vec<u32>>,
    arguments: &Arguments,
) -> PyResult<Vec<Vec<Completion>>> {
    let seed = arguments.options.sampling.seed;
    if arguments.hooks.is_some() || arguments.beams.is_some() {
        model.engine()?; // refused in a fork
        let each = |prompt: Vec<u32>| match arguments.beams {
            Some(params) => beams(py, model, &prompt, params, arguments),
            None => hooked(py, model, &prompt, arguments),
        };
        return prompts.into_iter().map(each).collect();
    }
    // All are submitted before the first is awaited, so that they are computed together.
    let submitted = prompts
        .into_iter()
        .map(|prompt| model.submit(prompt, RequestKind::Complete(arguments.params())))
        .collect::<PyResult<Vec<_>>>()?;
    let finished = submitted.into_iter().map(|mut events| {
        let CompletionParams { choices, .. } = arguments.params();
        let mut partial: Vec<PartialCompletion> =
            (0..choices).map(|_| PartialCompletion::default()).collect();
        while let Some(event) = next_event(py, &mut events)? {
            match event {
                Event::Token { choice, token } => partial[choice].push(token),
                Event::Finished { choice, reason } => partial[choice].finish_reason = Some(reason),
                _ => {} // not requested
            }
        }
        Ok(partial.into_iter().map(|partial| partial.finish(py, seed)).collect())
    });
    finished.collect()
}

/// Generates the completions of a prompt one after the other, in passes that functions change.
fn hooked(
    py: Python<'_>,
    model: &Shared,
    prompt: &[u32],
    arguments: &Arguments,
) -> PyResult<Vec<Completion>> {
    let Arguments { options, n, top_logprobs, hooks, .. } = arguments;
    let hooks = hooks.as_ref().expect("hooks").clone_ref(py);
    let started = py.detach(|| model.generate_observed(prompt, options, hooks));
    let mut generation = started.map_err(exception)?.with_top_logprobs(*top_logprobs);
    let mut completions = vec![];
    for choice in 0..n.unwrap_or(1) {
        if choice > 0 {
            py.detach(|| generation.restart()).map_err(exception)?;
        }
        let mut partial = PartialCompletion::default();
        loop {
            generation.observer().take_error()?;
            let Some(token) = py.detach(|| generation.next()) else { break };
            py.check_signals()?;
            partial.push(token.map_err(exception)?);
        }
        partial.finish_reason = generation.finish_reason();
        completions.push(partial.finish(py, options.sampling.seed));
    }
    Ok(completions)
}

/// The best completions of a prompt by beam search.
fn beams(
    py: Python<'_>,
    model: &Shared,
    prompt: &[u32],
    params: BeamParams,
    arguments: &Arguments,
) -> PyResult<Vec<Completion>> {
    let Arguments { options, n, hooks, .. } = arguments;
    if hooks.is_some() {
        return Err(parameter("hooks", "a dict", "None with num_beams"));
    }
    let mut heard = Ok(());
    let found = py.detach(|| {
        let is_interrupted = || {
            heard = Python::attach(|py| py.check_signals());
            heard.is_err()
        };
        beam_search_unless(is_interrupted, model, prompt, params, options)
    });
    heard?;
    let completion = |beam: Beam| Completion {
        text: beam.text,
        ids: beam.ids,
        logprobs: None,
        top_logprobs: vec![],
        finish_reason: Some(beam.finish_reason.as_str()),
        score: Some(beam.score),
        seed: options.sampling.seed,
    };
    Ok(found.map_err(exception)?.into_iter().take(n.unwrap_or(1)).map(completion).collect())
}

/// A completion of which there are some tokens.
#[derive(Default)]
struct PartialCompletion {
    text: String,
    ids: Vec<u32>,
    logprobs: Vec<f32>,
    top_logprobs: Vec<TopLogprobs>,
    finish_reason: Option<FinishReason>,
}

impl PartialCompletion {
    fn push(&mut self, token: hornbook::Token) {
        self.text += &token.text;
        self.ids.push(token.id);
        self.logprobs.push(token.logprob);
        self.top_logprobs.push(token.top_logprobs);
    }

    fn finish(self, py: Python<'_>, seed: u64) -> Completion {
        Completion {
            text: self.text,
            ids: self.ids,
            logprobs: Some(PyArray1::from_vec(py, self.logprobs).unbind()),
            top_logprobs: self.top_logprobs,
            finish_reason: self.finish_reason.map(FinishReason::as_str),
            score: None,
            seed,
        }
    }
}
