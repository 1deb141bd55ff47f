//! What is read from the logits of a step: the next tokens, and the scores of prompts.
//!
//! A token costs 50 to 100 µs at GPT-2's vocabulary, so that sixteen would take a thread longer than some passes do. Each
//! is a piece of work of its own, for whichever of the model's threads is free.

use super::sequence::Choice;
use super::stream::ScoredToken;
use crate::Token;
use crate::generate::Writer;
use crate::kernels::rows::Rows;
use crate::kernels::threads::Team;
use crate::sampling::{LogSoftmax, top_logprobs};
use crate::tokenizer::Tokenizer;
use std::ops::Range;

/// All that is to be read from one pass.
#[derive(Default)]
pub(super) struct Readings<'a>(Vec<Reading<'a>>);

enum Reading<'a> {
    /// The next token of a completion.
    Write { logits: &'a [f32], writer: &'a mut Writer, fresh: &'a mut Option<Token>, alternatives: usize },
    /// How likely a token of the prompt was.
    Score { logits: &'a [f32], token: &'a mut ScoredToken, alternatives: usize },
}

impl<'a> Readings<'a> {
    /// Adds what `choice` wants of the logits of its tokens `computed`, `[n_wanted, vocab_size]`.
    pub(super) fn add(&mut self, choice: &'a mut Choice, computed: Range<usize>, logits: Rows<'a>) {
        let Choice { writer, scored, fresh, alternatives, .. } = choice;
        let alternatives = *alternatives;
        if let Some(scored) = scored {
            let (prompt, known) = (writer.prompt(), scored.len());
            let scorable = computed.start + 1..prompt.len().min(computed.end + 1); // each by the logits before it
            let token = |&id: &u32| ScoredToken { id, logprob: None, top_logprobs: vec![] };
            scored.extend(prompt[scorable].iter().map(token));
            for (row, token) in scored[known..].iter_mut().enumerate() {
                self.0.push(Reading::Score { logits: logits.row(row), token, alternatives });
            }
        }
        if computed.end == writer.window().len() && writer.finish_reason().is_none() {
            let logits = logits.row(logits.len() - 1);
            self.0.push(Reading::Write { logits, writer, fresh, alternatives });
        }
    }

    /// Reads everything.
    pub(super) fn read(mut self, team: &Team, tokenizer: Option<&Tokenizer>) {
        team.for_each_piece(&mut self.0, 1, |_, reading| match &mut reading[0] {
            Reading::Write { logits, writer, fresh, alternatives } => {
                **fresh = Some(writer.step(logits, tokenizer, *alternatives));
            }
            Reading::Score { logits, token, alternatives } => {
                token.logprob = Some(LogSoftmax::of(logits).at(logits[token.id as usize]));
                token.top_logprobs = top_logprobs(logits, *alternatives);
            }
        });
    }
}
