//! An answer being written.

use super::Conversation;
use crate::Result;
use crate::generate::{CompletionState, FinishReason};
use std::time::{Duration, Instant};

/// Tokens of a prompt read between two looks at whether the answer is still wanted.
const CHUNK: usize = 128;

/// What an answer cost.
#[derive(Clone, Debug)]
pub struct AnswerStats {
    /// Tokens of the conversation as the model was given it.
    pub prompt_tokens: usize,
    /// How many of them had been read before.
    pub reused_tokens: usize,
    /// How many were read for this answer.
    pub prefilled_tokens: usize,
    /// How long that took.
    pub prefill: Duration,
    /// The answer's tokens, one that ended it included.
    pub tokens: Vec<u32>,
    /// How long those after the first took.
    pub decode: Duration,
    /// The oldest turns, left out because the context had no room for them.
    pub dropped_messages: usize,
    /// Why the answer ended; none where it was not wanted any more.
    pub finish_reason: Option<FinishReason>,
}

impl AnswerStats {
    /// What is about to be spent.
    pub(super) fn new(prompt_tokens: usize, reused_tokens: usize, dropped_messages: usize) -> Self {
        Self {
            prompt_tokens,
            reused_tokens,
            prefilled_tokens: 0,
            prefill: Duration::ZERO,
            tokens: vec![],
            decode: Duration::ZERO,
            dropped_messages,
            finish_reason: None,
        }
    }

    /// Tokens of the prompt read in a second; none where it took no time.
    pub fn prefill_rate(&self) -> Option<f64> {
        rate(self.prefilled_tokens, self.prefill)
    }

    /// Tokens written in a second; none for fewer than two.
    pub fn decode_rate(&self) -> Option<f64> {
        rate(self.tokens.len().saturating_sub(1), self.decode)
    }
}

fn rate(tokens: usize, time: Duration) -> Option<f64> {
    (tokens > 0 && !time.is_zero()).then(|| tokens as f64 / time.as_secs_f64())
}

/// An answer being written: an iterator of pieces of text, some of them empty, so that whoever shows them can look in
/// between whether it is still wanted. Once it has ended, by itself or by [`Answer::finish`], it is the conversation's
/// last turn; dropped before, it was never said.
pub struct Answer<'c, 'h> {
    conversation: &'c mut Conversation<'h>,
    writer: CompletionState,
    cost: AnswerStats,
    shown: Shown,
    ended: bool,
}

impl<'c, 'h> Answer<'c, 'h> {
    /// The session holds the first tokens of the writer's prompt, and not its last.
    pub(super) fn new(
        conversation: &'c mut Conversation<'h>,
        writer: CompletionState,
        cost: AnswerStats,
    ) -> Self {
        let trims = conversation.template().trims();
        Self { conversation, writer, cost, shown: Shown { trims, ..Shown::default() }, ended: false }
    }

    /// The oldest turns, left out because the context had no room for them.
    pub fn dropped_messages(&self) -> usize {
        self.cost.dropped_messages
    }

    /// Ends the answer here and returns the text that was held back. What was said stays said.
    pub fn finish(mut self) -> String {
        let rest = self.writer.finish();
        let rest = self.shown.push(&rest);
        self.end(None);
        rest
    }

    fn step(&mut self) -> Result<String> {
        if let Some(reason) = self.writer.finish_reason() {
            self.end(Some(reason)); // nothing at all was wanted
            return Ok(String::new());
        }
        let begun = Instant::now();
        let Conversation { session, read, hornbook, .. } = &mut *self.conversation;
        let unread = &self.writer.tokens()[read.len()..];
        let (now, later) = unread.split_at(unread.len().min(CHUNK));
        let logits = session.feed(now)?;
        read.extend_from_slice(now);
        let in_prompt = self.writer.generated().is_empty();
        if in_prompt {
            self.cost.prefilled_tokens += now.len();
            self.cost.prefill += begun.elapsed();
            if !later.is_empty() {
                return Ok(String::new());
            }
        }
        let token = self.writer.step(logits, hornbook.try_tokenizer(), 0);
        if !in_prompt {
            self.cost.decode += begun.elapsed();
        }
        let text = self.shown.push(&token.text);
        if let Some(reason) = self.writer.finish_reason() {
            self.end(Some(reason));
        }
        Ok(text)
    }

    fn end(&mut self, reason: Option<FinishReason>) {
        self.ended = true;
        let mut cost = self.cost.clone();
        cost.tokens = self.writer.generated().to_vec();
        cost.finish_reason = reason;
        self.conversation.answered(std::mem::take(&mut self.shown.text), cost);
    }
}

impl Iterator for Answer<'_, '_> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Result<String>> {
        (!self.ended).then(|| self.step())
    }
}

/// What is shown of an answer: in a transcript the white space around it belongs to the transcript.
#[derive(Default)]
struct Shown {
    trims: bool,
    text: String,
    /// White space that is shown once more follows.
    held: String,
}

impl Shown {
    /// Adds a piece and returns what may be shown now.
    fn push(&mut self, piece: &str) -> String {
        let mut now = std::mem::take(&mut self.held) + piece;
        if self.trims {
            if self.text.is_empty() {
                now = now.trim_start().to_string();
            }
            self.held = now.split_off(now.trim_end().len());
        }
        self.text += &now;
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_is_shown_only_within_an_answer() {
        let pieces = [" ", "\n", "", "a ", " b", "\n\n", "c", "\n", " "];
        for (trims, expected) in [(true, "a  b\n\nc"), (false, " \na  b\n\nc\n ")] {
            let mut shown = Shown { trims, ..Shown::default() };
            let said: String = pieces.iter().map(|piece| shown.push(piece)).collect();
            assert_eq!((said.as_str(), shown.text.as_str()), (expected, expected));
        }
    }

    #[test]
    fn a_rate_needs_tokens_and_time() {
        let mut cost = AnswerStats::new(10, 4, 0);
        assert_eq!((cost.prefill_rate(), cost.decode_rate()), (None, None));
        (cost.prefilled_tokens, cost.prefill) = (6, Duration::from_millis(500));
        (cost.tokens, cost.decode) = (vec![1, 2, 3], Duration::from_secs(4));
        assert_eq!((cost.prefill_rate(), cost.decode_rate()), (Some(12.0), Some(0.5)));
    }
}
