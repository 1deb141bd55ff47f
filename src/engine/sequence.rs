//! Sequences of tokens, and the tasks that use the model's output for them: completion and embedding.

use super::stream::ScoredToken;
use crate::Result;
use crate::Token;
use crate::generate::{CompletionState, DEFAULT_MAX_DRAFT_LEN, SequenceDraft};
use crate::kernels::rows::Rows;
use crate::model::{KvCache, LogitsWanted, Model, Observer, Site};
use ndarray::{ArrayViewMutD, Axis};
use std::ops::Range;

/// A sequence that holds a batch slot and takes part in forward passes.
pub(super) struct RunningSequence {
    pub(super) task: Task,
    /// Keys and values of the tokens computed so far.
    pub(super) cache: KvCache,
}

impl RunningSequence {
    /// Whether one token is to be computed, and the next one to be sampled from it.
    pub(super) fn is_in_decode(&self) -> bool {
        let Task::Complete(completion) = &self.task else { return false };
        let state = &completion.state;
        let uncomputed = state.window().len() - self.cache.len();
        uncomputed == 1 && !self.task.in_prompt() && !self.task.is_scoring() && !self.task.is_finished()
    }
}

/// The computation requested for a sequence.
pub(super) enum Task {
    Complete(Box<CompletionTask>),
    Embed(EmbeddingTask),
}

/// One completion of a request.
pub(super) struct CompletionTask {
    /// Index of the completion within its request.
    pub(super) index: usize,
    pub(super) state: CompletionState,
    /// Number of most likely tokens to report.
    pub(super) n_top_logprobs: usize,
    /// The prompt's tokens scored so far, always with the first one, which has no logprob; none if scoring
    /// was not requested or the scores were sent.
    pub(super) scored: Option<Vec<ScoredToken>>,
    /// The tokens expected to follow; always none if the engine's model has no draft model.
    pub(super) draft: SequenceDraft,
    /// The tokens sampled in the last step.
    pub(super) new_tokens: Vec<Token>,
}

/// The mean of a prompt's final hidden states.
pub(super) struct EmbeddingTask {
    tokens: Vec<u32>,
    /// Sum of the hidden states computed so far, `[n_embd]`. In f64 and in token order, so that chunking of
    /// the prefill makes no difference.
    sum: Vec<f64>,
    n_summed: usize,
}

impl Task {
    /// The known tokens, computed or not, without those discarded by a context shift.
    pub(super) fn tokens(&self) -> &[u32] {
        match self {
            Task::Complete(completion) => completion.state.window(),
            Task::Embed(embedding) => &embedding.tokens,
        }
    }

    /// Positions its KV cache needs.
    pub(super) fn positions(&self) -> usize {
        match self {
            Task::Complete(completion) => completion.state.max_positions(),
            Task::Embed(embedding) => embedding.tokens.len(),
        }
    }

    /// The first tokens of which only keys and values are needed, so that another sequence's can be reused.
    pub(super) fn reusable_prefix(&self) -> &[u32] {
        let tokens = self.tokens();
        match self {
            Task::Complete(completion) => {
                let scored = completion.scored.as_ref().map_or(tokens.len(), Vec::len);
                &tokens[..scored - 1]
            }
            Task::Embed(embedding) => &tokens[..embedding.n_summed],
        }
    }

    /// Whether nothing is left to compute.
    pub(super) fn is_finished(&self) -> bool {
        match self {
            Task::Complete(completion) => {
                completion.scored.is_none() && completion.state.finish_reason().is_some()
            }
            Task::Embed(embedding) => embedding.n_summed == embedding.tokens.len(),
        }
    }

    /// Whether no token has been generated yet.
    pub(super) fn in_prompt(&self) -> bool {
        match self {
            Task::Complete(completion) => completion.state.generated().is_empty(),
            Task::Embed(_) => true,
        }
    }

    /// Tokens expected after the known ones, that the next pass computes with the last of these.
    pub(super) fn draft(&self) -> &[u32] {
        match self {
            Task::Complete(completion) => completion.draft.to_compute(),
            Task::Embed(_) => &[],
        }
    }

    /// Whether its next tokens are prompt tokens to be scored.
    pub(super) fn is_scoring(&self) -> bool {
        matches!(self, Task::Complete(completion) if completion.scored.is_some())
    }

    /// The tokens whose logits are needed from a pass that computes the tokens before `end`.
    pub(super) fn logits_wanted(&self, end: usize) -> LogitsWanted {
        match self {
            Task::Complete(completion) if completion.scored.is_some() => LogitsWanted::All,
            Task::Complete(completion) if !completion.draft.to_compute().is_empty() => LogitsWanted::All,
            Task::Complete(completion) if end == completion.state.window().len() => LogitsWanted::Last,
            _ => LogitsWanted::None,
        }
    }
}

impl CompletionTask {
    pub(super) fn new(
        index: usize,
        state: CompletionState,
        n_top_logprobs: usize,
        score_prompt: bool,
    ) -> Self {
        let first = ScoredToken { id: state.tokens()[0], logprob: None, top_logprobs: vec![] };
        let scored = score_prompt.then(|| vec![first]);
        let draft = SequenceDraft::with_prompt_lookup(DEFAULT_MAX_DRAFT_LEN);
        Self { index, state, n_top_logprobs, scored, draft, new_tokens: vec![] }
    }

    /// The tokens of a pass that computes those with indices `new`, of the known ones and the draft.
    pub(super) fn pass_tokens(&self, new: Range<usize>) -> &[u32] {
        match self.draft.to_compute() {
            [] => &self.state.window()[new],
            _ => self.draft.pass_tokens(),
        }
    }
}

impl EmbeddingTask {
    pub(super) fn new(tokens: Vec<u32>, n_embd: usize) -> Self {
        Self { tokens, sum: vec![0.0; n_embd], n_summed: 0 }
    }

    /// Returns the tokens and a pooler for the given `rows` of a pass, which are those of the tokens from
    /// `first`. After a preemption, tokens may be computed again that are summed already.
    pub(super) fn pooler(&mut self, rows: Range<usize>, first: usize) -> (&[u32], MeanPooler<'_>) {
        let rows = (rows.start + self.n_summed - first).min(rows.end)..rows.end;
        (&self.tokens, MeanPooler { rows, sum: &mut self.sum, n_summed: &mut self.n_summed })
    }

    /// Checks that the mean so far consists of finite numbers.
    pub(super) fn check_finite(&self, model: &Model, cache: &KvCache) -> Result<()> {
        model.check_finite(Rows::dense(&self.mean(), self.sum.len()), cache)
    }

    pub(super) fn mean(&self) -> Vec<f32> {
        self.sum.iter().map(|sum| (sum / self.n_summed as f64) as f32).collect()
    }
}

/// Sums the final hidden states of some rows of a pass.
pub(super) struct MeanPooler<'a> {
    rows: Range<usize>,
    sum: &'a mut [f64],
    n_summed: &'a mut usize,
}

/// The poolers of all embeddings in a pass.
pub(super) struct MeanPoolers<'a>(pub(super) Vec<MeanPooler<'a>>);

impl Observer for MeanPoolers<'_> {
    fn is_interested(&self, site: Site) -> bool {
        site == Site::FinalNorm
    }

    fn observe(&mut self, _: Site, hidden: ArrayViewMutD<'_, f32>) {
        for MeanPooler { rows, sum, n_summed } in &mut self.0 {
            for row in rows.clone() {
                let row = hidden.index_axis(Axis(0), row);
                sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
            }
            **n_summed += rows.len();
        }
    }
}
