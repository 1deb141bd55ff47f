//! Work on a step's logits: sampling the next tokens and scoring prompts.
//!
//! Sampling a token takes 50 to 100 µs at GPT-2's vocabulary, so sixteen of them in sequence would take
//! longer than some forward passes. Each is a separate job, distributed over the model's threads.

use super::sequence::CompletionTask;
use super::stream::ScoredToken;
use crate::Token;
use crate::generate::{CompletionState, SequenceDraft};
use crate::kernels::rows::Rows;
use crate::kernels::thread_pool::ThreadPool;
use crate::sampling::{LogSoftmax, top_logprobs};
use crate::tokenizer::Tokenizer;
use std::ops::Range;

/// All jobs of one forward pass.
#[derive(Default)]
pub(super) struct LogitJobs<'a>(Vec<LogitJob<'a>>);

enum LogitJob<'a> {
    /// Sample the next token of a completion, and one more after each that its draft has foreseen.
    Sample {
        logits: Rows<'a>,
        state: &'a mut CompletionState,
        draft: &'a mut SequenceDraft,
        new_tokens: &'a mut Vec<Token>,
        n_top_logprobs: usize,
    },
    /// Compute the logprob of a prompt token.
    Score { logits: &'a [f32], token: &'a mut ScoredToken, n_top_logprobs: usize },
}

impl<'a> LogitJobs<'a> {
    /// Adds the jobs of `completion`, given the logits of its tokens `computed`, `[n_logits, vocab_size]`.
    pub(super) fn add(
        &mut self,
        completion: &'a mut CompletionTask,
        computed: Range<usize>,
        logits: Rows<'a>,
    ) {
        let CompletionTask { state, scored, draft, new_tokens, n_top_logprobs, .. } = completion;
        let n_top_logprobs = *n_top_logprobs;
        if let Some(scored) = scored {
            let (prompt, n_scored) = (state.prompt(), scored.len());
            // Each token is scored by the logits of the one before it. After a preemption, tokens may be
            // computed again that are scored already.
            let scorable = n_scored..prompt.len().min(computed.end + 1).max(n_scored);
            let token = |&id: &u32| ScoredToken { id, logprob: None, top_logprobs: vec![] };
            scored.extend(prompt[scorable].iter().map(token));
            for (i, token) in scored.iter_mut().enumerate().skip(n_scored) {
                let logits = logits.row(i - 1 - computed.start);
                self.0.push(LogitJob::Score { logits, token, n_top_logprobs });
            }
        }
        let n_drafted = draft.to_compute().len();
        if computed.end == state.window().len() + n_drafted && state.finish_reason().is_none() {
            let logits = logits.row_range(logits.len() - 1 - n_drafted, n_drafted + 1);
            self.0.push(LogitJob::Sample { logits, state, draft, new_tokens, n_top_logprobs });
        }
    }

    /// Runs all jobs.
    pub(super) fn run(mut self, pool: &ThreadPool, tokenizer: Option<&Tokenizer>) {
        pool.for_each_chunk(&mut self.0, 1, |_, job| match &mut job[0] {
            LogitJob::Sample { logits, state, draft, new_tokens, n_top_logprobs } => {
                for row in 0..logits.len() {
                    let token = state.step(logits.row(row), tokenizer, *n_top_logprobs);
                    let id = token.id;
                    new_tokens.push(token);
                    if !draft.accept(id) || state.finish_reason().is_some() {
                        break;
                    }
                }
            }
            LogitJob::Score { logits, token, n_top_logprobs } => {
                token.logprob = Some(LogSoftmax::new(logits).logprob(logits[token.id as usize]));
                token.top_logprobs = top_logprobs(logits, *n_top_logprobs);
            }
        });
    }
}
