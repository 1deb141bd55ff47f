//! One pass over a text: logits, logprobs, embeddings, activations, hooks.

use crate::errors::exception;
use crate::hooks::{Hooks, Recorder};
use crate::shared::{Shared, next_event};
use hornbook::engine::{CompletionParams, Event, RequestKind, ScoredToken};
use hornbook::generate::perplexity;
use hornbook::lens::ActivationCache;
use hornbook::model::{Observer, Session};
use hornbook::{Hornbook, Options};
use ndarray::{Array2, Array4};
use numpy::{PyArray1, PyArray2, PyArray4, PyArrayDyn};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// How well a model predicts a text.
#[pyclass(frozen, get_all, module = "hornbook")]
pub struct Score {
    /// The text's token ids.
    ids: Vec<u32>,
    /// The logprob of each token but the first, given those before it: float32 ``[len(ids) - 1]``.
    logprobs: Py<PyArray1<f32>>,
    /// The mean of ``-logprobs``, in nats.
    loss: f64,
    /// ``exp(loss)``.
    perplexity: f64,
}

#[pymethods]
impl Score {
    fn __repr__(&self) -> String {
        format!("<hornbook.Score of {} tokens, perplexity {:.3}>", self.ids.len(), self.perplexity)
    }
}

/// Scores texts, computed together.
pub fn score(py: Python<'_>, model: &Shared, texts: Vec<Vec<u32>>) -> PyResult<Vec<Score>> {
    let options = Options { max_tokens: Some(0), ..Options::default() };
    let params = CompletionParams { options, score_prompt: true, ..CompletionParams::default() };
    let request = |ids| model.submit(ids, RequestKind::Complete(params.clone()));
    let submitted = texts.into_iter().map(request).collect::<PyResult<Vec<_>>>()?;
    let scored = submitted.into_iter().map(|mut events| {
        let mut tokens: Vec<ScoredToken> = vec![];
        while let Some(event) = next_event(py, &mut events)? {
            if let Event::Prompt(scored) = event {
                tokens = scored;
            }
        }
        let logprobs: Vec<f32> = tokens.iter().filter_map(|token| token.logprob).collect();
        let nll = -logprobs.iter().map(|&logprob| f64::from(logprob)).sum::<f64>();
        let total = perplexity::Score { tokens: logprobs.len(), nll, divergence: None };
        Ok(Score {
            ids: tokens.iter().map(|token| token.id).collect(),
            logprobs: PyArray1::from_vec(py, logprobs).unbind(),
            loss: total.loss(),
            perplexity: total.perplexity(),
        })
    });
    scored.collect()
}

/// The mean of each text's final hidden states, `[n, n_embd]`, computed together.
pub fn embed(py: Python<'_>, model: &Shared, texts: Vec<Vec<u32>>) -> PyResult<Array2<f32>> {
    let (n, n_embd) = (texts.len(), model.config().n_embd);
    let submitted = texts.into_iter().map(|ids| model.submit(ids, RequestKind::Embed));
    let submitted = submitted.collect::<PyResult<Vec<_>>>()?;
    let mut embeddings = Vec::with_capacity(n * n_embd);
    for mut events in submitted {
        while let Some(event) = next_event(py, &mut events)? {
            if let Event::Embedding(embedding) = event {
                embeddings.extend(embedding);
            }
        }
    }
    Ok(Array2::from_shape_vec((n, n_embd), embeddings).expect("an embedding of each text"))
}

/// The logits after each token, `[T, vocab_size]`.
pub fn logits<'py>(py: Python<'py>, model: &Shared, ids: &[u32]) -> PyResult<Bound<'py, PyArray2<f32>>> {
    let compute = |hornbook: &Hornbook| {
        let vocab_size = hornbook.config().vocab_size;
        let mut logits = Vec::with_capacity(ids.len() * vocab_size);
        let mut session = Session::new(hornbook.model(), ids.len(), None);
        session.score(ids, |_, row| logits.extend_from_slice(row))?;
        Ok(Array2::from_shape_vec((ids.len(), vocab_size), logits).expect("a row of logits per token"))
    };
    let engine = model.engine()?;
    let logits = py.detach(|| engine.between_steps(compute)).map_err(exception)?;
    Ok(PyArray2::from_owned_array(py, logits))
}

/// The attention weights of all heads, `[n_layer, n_head, T, T]`.
pub fn attention<'py>(py: Python<'py>, model: &Shared, ids: &[u32]) -> PyResult<Bound<'py, PyArray4<f32>>> {
    let engine = model.engine()?;
    let capture = |hornbook: &Hornbook| ActivationCache::capture(hornbook.model(), ids, None, &mut ());
    let patterns: Array4<f32> =
        py.detach(|| engine.between_steps(capture).map(|cache| cache.patterns)).map_err(exception)?;
    Ok(PyArray4::from_owned_array(py, patterns))
}

/// The logits of a pass with an observer, which is returned with what it has seen.
fn observed<O: Observer + Send>(
    py: Python<'_>,
    model: &Shared,
    ids: &[u32],
    observer: O,
) -> PyResult<(Array2<f32>, O)> {
    model.engine()?; // refused in a fork
    let pass = || {
        let mut session = Session::observed(model.model(), ids.len(), None, observer);
        let rows = session.feed_all(ids)?;
        let logits: Vec<f32> = (0..rows.len()).flat_map(|t| rows.row(t)).copied().collect();
        let logits = Array2::from_shape_vec((ids.len(), model.config().vocab_size), logits);
        Ok((logits.expect("a row of logits per token"), session.into_observer()))
    };
    py.detach(pass).map_err(exception)
}

/// The logits, `[T, vocab_size]`, and the activations at the sites of these names, by name.
pub fn run_with_cache<'py>(
    py: Python<'py>,
    model: &Shared,
    ids: &[u32],
    names: Option<Vec<String>>,
) -> PyResult<(Bound<'py, PyArray2<f32>>, Bound<'py, PyDict>)> {
    let (logits, recorder) = observed(py, model, ids, Recorder::new(model, names)?)?;
    let cache = PyDict::new(py);
    for (site, values) in recorder.recorded {
        cache.set_item(site.to_string(), PyArrayDyn::from_owned_array(py, values))?;
    }
    Ok((PyArray2::from_owned_array(py, logits), cache))
}

/// The logits, `[T, vocab_size]`, of a pass that functions change.
pub fn run_with_hooks<'py>(
    py: Python<'py>,
    model: &Shared,
    ids: &[u32],
    hooks: Hooks,
) -> PyResult<Bound<'py, PyArray2<f32>>> {
    let (logits, mut hooks) = observed(py, model, ids, hooks)?;
    hooks.take_error()?;
    Ok(PyArray2::from_owned_array(py, logits))
}
