//! Requests to the engine.

use super::sequence::{CompletionTask, EmbeddingTask, Task};
use crate::model::AdapterWeights;
use crate::{Error, Hornbook, Options, Result};
use std::sync::Arc;

/// Maximum completions of a prompt per request, as in OpenAI's API.
pub const MAX_CHOICES: usize = 128;

/// A prompt and what to compute from it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Token ids of the prompt. An empty prompt stands for the model's end-of-text token, after which a text
    /// begins.
    pub prompt: Vec<u32>,
    /// The kind of result.
    pub kind: RequestKind,
    /// The adapter to compute with, made by [`Model::adapter`](crate::model::Model::adapter) of the engine's
    /// model; none for the model's own, if it has one.
    pub adapter: Option<Arc<AdapterWeights>>,
    /// Which requests it makes way for.
    pub priority: Priority,
}

/// The order in which requests get batch slots and prompt tokens of a step. No bit of a result depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Somebody waits for the response.
    #[default]
    Live,
    /// Uses what live requests leave: it starts while none of them waits for a slot, gives its slot to one
    /// that arrives, and never fills the queue in front of one.
    Low,
}

/// The kind of result requested.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // one value per request
pub enum RequestKind {
    /// Completions of the prompt, its scores, or both.
    Complete(CompletionParams),
    /// The mean of the prompt's final hidden states (the output of the last layer norm), `[n_embd]`.
    Embed,
}

/// Parameters of a completion request.
#[derive(Clone, Debug)]
pub struct CompletionParams {
    /// Sampling and stopping. With `max_tokens` 0 nothing is generated; a value beyond the context is reduced
    /// to what fits, as in [`Hornbook::generate`]. Its `kv_precision` is ignored: see
    /// [`EngineOptions`](super::EngineOptions).
    pub options: Options,
    /// Completions of the prompt, 1 to [`MAX_CHOICES`]. The prompt is computed once.
    pub choices: usize,
    /// The random number stream of the first choice; the others use the following ones. Prompts that are sent
    /// together use different streams, so that equal prompts get different completions.
    pub first_stream: u64,
    /// Number of most likely tokens to report with every token, at most the vocabulary size.
    pub top_logprobs: usize,
    /// Whether to report the prompt's tokens with their logprobs, in one
    /// [`Event::Prompt`](super::Event::Prompt).
    pub score_prompt: bool,
}

impl Default for CompletionParams {
    /// One completion, without logprobs of other tokens or of the prompt.
    fn default() -> Self {
        let options = Options::default();
        Self { options, choices: 1, first_stream: 0, top_logprobs: 0, score_prompt: false }
    }
}

/// The reason a request was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The queue is full; a later attempt may succeed.
    #[error("the request queue is full; retry later")]
    QueueFull,
    /// The engine is closed.
    #[error("the engine is shutting down and accepts no more requests")]
    Closed,
    /// The request is invalid.
    #[error(transparent)]
    Invalid(#[from] Error),
}

impl Request {
    /// The request's sequences, validated against the model.
    pub(super) fn tasks(&self, hornbook: &Hornbook) -> Result<Vec<Task>> {
        let params = match &self.kind {
            RequestKind::Complete(params) => params,
            RequestKind::Embed => {
                let tokens = hornbook.validate_prompt(&self.prompt)?;
                return Ok(vec![Task::Embed(EmbeddingTask::new(tokens, hornbook.config().n_embd))]);
            }
        };
        let check_range = |name: &str, found: usize, min: usize, max: usize| match found {
            n if (min..=max).contains(&n) => Ok(()),
            n => Err(Error::Parameter {
                name: name.into(),
                found: n.to_string(),
                expected: format!("an integer from {min} to {max}"),
            }),
        };
        check_range("choices", params.choices, 1, MAX_CHOICES)?;
        check_range("top_logprobs", params.top_logprobs, 0, hornbook.config().vocab_size)?;
        let plan = hornbook.plan(&self.prompt, &params.options)?;
        if params.score_prompt {
            hornbook.validate_prompt(plan.prompt())?; // a context shift would leave discarded tokens unscored
        }
        let task = |i| {
            let state = plan.start_completion(params.first_stream.wrapping_add(i as u64));
            let score_prompt = params.score_prompt && i == 0;
            Task::Complete(Box::new(CompletionTask::new(i, state, params.top_logprobs, score_prompt)))
        };
        Ok((0..params.choices).map(task).collect())
    }
}
