//! A sequence of tokens, and what is wanted of the numbers the model finds for it.

use super::stream::ScoredToken;
use crate::Token;
use crate::generate::Writer;
use crate::model::{KvCache, Observer, Site, Wanted};
use ndarray::{ArrayViewMutD, Axis};
use std::ops::Range;

/// A sequence that has a seat: it takes part in passes through the model.
pub(super) struct Seated {
    pub(super) task: Task,
    /// Its tokens as far as they were computed.
    pub(super) cache: KvCache,
}

impl Seated {
    /// Tokens that are known and not yet computed.
    pub(super) fn left(&self) -> usize {
        self.task.tokens().len() - self.cache.len()
    }
}

/// What a sequence is for.
pub(super) enum Task {
    Write(Box<Choice>),
    Embed(Embedding),
}

/// One completion of a request.
pub(super) struct Choice {
    /// Which.
    pub(super) index: usize,
    pub(super) writer: Writer,
    /// The likeliest tokens to report.
    pub(super) alternatives: usize,
    /// The prompt's tokens as far as they are scored, which the first is from the start; none where that is not wanted,
    /// or done.
    pub(super) scored: Option<Vec<ScoredToken>>,
    /// What the last step wrote.
    pub(super) fresh: Option<Token>,
}

/// The mean of a prompt's final hidden states.
pub(super) struct Embedding {
    tokens: Vec<u32>,
    /// Their sum as far as they were seen, `[n_embd]`. In f64, and one by one in their order: chunks make no difference.
    sum: Vec<f64>,
    seen: usize,
}

impl Task {
    /// The tokens known so far, those not yet computed included, but for what the model is to forget.
    pub(super) fn tokens(&self) -> &[u32] {
        match self {
            Task::Write(choice) => choice.writer.window(),
            Task::Embed(embedding) => &embedding.tokens,
        }
    }

    /// The positions its cache needs.
    pub(super) fn positions(&self) -> usize {
        match self {
            Task::Write(choice) => choice.writer.positions(),
            Task::Embed(embedding) => embedding.tokens.len(),
        }
    }

    /// The first tokens of which nothing is wanted but keys and values, so that those may be another sequence's.
    pub(super) fn spare(&self) -> &[u32] {
        let tokens = self.tokens();
        match self {
            Task::Write(choice) => {
                let scored = choice.scored.as_ref().map_or(tokens.len(), Vec::len);
                &tokens[..scored - 1]
            }
            Task::Embed(embedding) => &tokens[..embedding.seen],
        }
    }

    /// Whether nothing is left to compute.
    pub(super) fn is_done(&self) -> bool {
        match self {
            Task::Write(choice) => choice.scored.is_none() && choice.writer.finish_reason().is_some(),
            Task::Embed(embedding) => embedding.seen == embedding.tokens.len(),
        }
    }

    /// Whether nothing was written yet.
    pub(super) fn in_prompt(&self) -> bool {
        match self {
            Task::Write(choice) => choice.writer.generated().is_empty(),
            Task::Embed(_) => true,
        }
    }

    /// Whether its next tokens are the prompt's and to be scored.
    pub(super) fn scores(&self) -> bool {
        matches!(self, Task::Write(choice) if choice.scored.is_some())
    }

    /// Of which tokens logits are wanted when those up to `end` are computed.
    pub(super) fn wanted(&self, end: usize) -> Wanted {
        match self {
            Task::Write(choice) if choice.scored.is_some() => Wanted::All,
            Task::Write(choice) if end == choice.writer.window().len() => Wanted::Last,
            _ => Wanted::None,
        }
    }
}

impl Choice {
    pub(super) fn new(index: usize, writer: Writer, alternatives: usize, score_prompt: bool) -> Self {
        let first = ScoredToken { id: writer.tokens()[0], logprob: None, top_logprobs: vec![] };
        Self { index, writer, alternatives, scored: score_prompt.then(|| vec![first]), fresh: None }
    }
}

impl Embedding {
    pub(super) fn new(tokens: Vec<u32>, n_embd: usize) -> Self {
        Self { tokens, sum: vec![0.0; n_embd], seen: 0 }
    }

    /// The tokens, and what looks at the hidden states of `rows` of a pass for it.
    pub(super) fn look(&mut self, rows: Range<usize>) -> (&[u32], Look<'_>) {
        (&self.tokens, Look { rows, sum: &mut self.sum, seen: &mut self.seen })
    }

    pub(super) fn mean(&self) -> Vec<f32> {
        self.sum.iter().map(|sum| (sum / self.seen as f64) as f32).collect()
    }
}

/// Adds up the final hidden states of some rows of a pass.
pub(super) struct Look<'a> {
    rows: Range<usize>,
    sum: &'a mut [f64],
    seen: &'a mut usize,
}

/// All who look at a pass.
pub(super) struct Looks<'a>(pub(super) Vec<Look<'a>>);

impl Observer for Looks<'_> {
    fn wants(&self, site: Site) -> bool {
        site == Site::FinalNorm
    }

    fn see(&mut self, _: Site, hidden: ArrayViewMutD<'_, f32>) {
        for Look { rows, sum, seen } in &mut self.0 {
            for row in rows.clone() {
                let row = hidden.index_axis(Axis(0), row);
                sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
            }
            **seen += rows.len();
        }
    }
}
