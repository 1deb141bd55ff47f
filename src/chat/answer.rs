//! An answer being generated.

use super::Conversation;
use crate::Result;
use crate::generate::{CompletionState, FinishReason};
use std::time::{Duration, Instant};

/// Prompt tokens per prefill pass; between passes the caller can stop the answer.
const PREFILL_CHUNK: usize = 128;

/// Token counts and timings of an answer.
#[derive(Clone, Debug)]
pub struct AnswerStats {
    /// Tokens of the prompt: the messages as rendered by the chat template.
    pub prompt_tokens: usize,
    /// Prompt tokens reused from the KV cache.
    pub reused_tokens: usize,
    /// Prompt tokens computed for this answer.
    pub prefilled_tokens: usize,
    /// Time to compute them.
    pub prefill: Duration,
    /// The answer's tokens, including an end-of-text token.
    pub tokens: Vec<u32>,
    /// Time to generate the tokens after the first.
    pub decode: Duration,
    /// Number of oldest messages left out of the prompt because they did not fit into the context.
    pub dropped_messages: usize,
    /// Finish reason; none if the caller stopped the answer.
    pub finish_reason: Option<FinishReason>,
}

impl AnswerStats {
    /// Statistics of an answer that has not started.
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

    /// Prefill speed in tokens per second; none without tokens or time.
    pub fn prefill_rate(&self) -> Option<f64> {
        rate(self.prefilled_tokens, self.prefill)
    }

    /// Decode speed in tokens per second; none for fewer than two tokens.
    pub fn decode_rate(&self) -> Option<f64> {
        rate(self.tokens.len().saturating_sub(1), self.decode)
    }
}

fn rate(tokens: usize, time: Duration) -> Option<f64> {
    (tokens > 0 && !time.is_zero()).then(|| tokens as f64 / time.as_secs_f64())
}

/// An answer being generated: an iterator of text chunks, some of them empty, between which the caller can
/// stop it. When it ends, by itself or by [`Answer::finish`], it becomes the conversation's last message; if
/// dropped before, it is discarded.
pub struct Answer<'c, 'h> {
    conversation: &'c mut Conversation<'h>,
    state: CompletionState,
    stats: AnswerStats,
    text: AnswerText,
    ended: bool,
}

impl<'c, 'h> Answer<'c, 'h> {
    /// Starts an answer. The session holds a proper prefix of the prompt.
    pub(super) fn new(
        conversation: &'c mut Conversation<'h>,
        state: CompletionState,
        stats: AnswerStats,
    ) -> Self {
        let trim = conversation.template().trims_answer();
        Self { conversation, state, stats, text: AnswerText { trim, ..AnswerText::default() }, ended: false }
    }

    /// Number of oldest messages left out of the prompt because they did not fit into the context.
    pub fn dropped_messages(&self) -> usize {
        self.stats.dropped_messages
    }

    /// Ends the answer here, keeps it in the conversation and returns the held-back text.
    pub fn finish(mut self) -> String {
        let rest = self.state.finish();
        let rest = self.text.push(&rest);
        self.end(None);
        rest
    }

    fn step(&mut self) -> Result<String> {
        if let Some(reason) = self.state.finish_reason() {
            self.end(Some(reason)); // max_tokens is 0
            return Ok(String::new());
        }
        let start = Instant::now();
        let Conversation { session, cached_tokens, speculation, hornbook, .. } = &mut *self.conversation;
        let uncomputed = &self.state.tokens()[cached_tokens.len()..];
        let in_prompt = self.state.generated().is_empty();
        let logits = if in_prompt {
            let (chunk, rest) = uncomputed.split_at(uncomputed.len().min(PREFILL_CHUNK));
            let logits = session.feed(chunk)?;
            cached_tokens.extend_from_slice(chunk);
            self.stats.prefilled_tokens += chunk.len();
            self.stats.prefill += start.elapsed();
            if !rest.is_empty() {
                return Ok(String::new());
            }
            logits
        } else {
            let logits = speculation.logits(session, &self.state)?;
            cached_tokens.extend_from_slice(uncomputed);
            logits
        };
        let token = self.state.step(logits, hornbook.try_tokenizer(), 0);
        if !in_prompt {
            self.stats.decode += start.elapsed();
        }
        let text = self.text.push(&token.text);
        if let Some(reason) = self.state.finish_reason() {
            self.end(Some(reason));
        }
        Ok(text)
    }

    fn end(&mut self, reason: Option<FinishReason>) {
        self.ended = true;
        let mut stats = self.stats.clone();
        stats.tokens = self.state.generated().to_vec();
        stats.finish_reason = reason;
        self.conversation.add_answer(std::mem::take(&mut self.text.text), stats);
    }
}

impl Iterator for Answer<'_, '_> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Result<String>> {
        (!self.ended).then(|| self.step())
    }
}

/// The text of an answer, optionally trimmed: in a transcript the white space around it belongs to the
/// template.
#[derive(Default)]
struct AnswerText {
    trim: bool,
    text: String,
    /// White space held back until more text follows.
    held_back: String,
}

impl AnswerText {
    /// Appends a chunk and returns the text that is final now.
    fn push(&mut self, chunk: &str) -> String {
        let mut text = std::mem::take(&mut self.held_back) + chunk;
        if self.trim {
            if self.text.is_empty() {
                text = text.trim_start().to_string();
            }
            self.held_back = text.split_off(text.trim_end().len());
        }
        self.text += &text;
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_text_is_trimmed_at_both_ends_only() {
        let chunks = [" ", "\n", "", "a ", " b", "\n\n", "c", "\n", " "];
        for (trim, expected) in [(true, "a  b\n\nc"), (false, " \na  b\n\nc\n ")] {
            let mut answer = AnswerText { trim, ..AnswerText::default() };
            let streamed: String = chunks.iter().map(|chunk| answer.push(chunk)).collect();
            assert_eq!((streamed.as_str(), answer.text.as_str()), (expected, expected));
        }
    }

    #[test]
    fn rates_without_tokens_or_time_are_none() {
        let mut stats = AnswerStats::new(10, 4, 0);
        assert_eq!((stats.prefill_rate(), stats.decode_rate()), (None, None));
        (stats.prefilled_tokens, stats.prefill) = (6, Duration::from_millis(500));
        (stats.tokens, stats.decode) = (vec![1, 2, 3], Duration::from_secs(4));
        assert_eq!((stats.prefill_rate(), stats.decode_rate()), (Some(12.0), Some(0.5)));
    }
}
