//! The message a model writes: its text and the log probabilities of its tokens, whatever the format of the
//! response.

use super::choice_buffer::{ChoiceBuffer, ChoiceDelta};
use crate::engine::Event;
use crate::generate::completion::finite_logprob;
use crate::tokenizer::Tokenizer;
use crate::{Hornbook, Token};
use serde::Serialize;
use utoipa::ToSchema;

/// A message in progress.
#[derive(Debug, Default)]
pub struct MessageBuffer {
    buffer: ChoiceBuffer,
    /// Whether leading white space is to be trimmed: it belongs to the template.
    trim_start: bool,
    /// Text other than leading white space has been taken.
    started: bool,
}

impl MessageBuffer {
    /// An empty message.
    pub fn new(trim_start: bool) -> Self {
        Self { trim_start, ..Self::default() }
    }

    /// Adds an engine event; `keep_tokens` if their log probabilities were requested.
    pub fn push_event(&mut self, event: Event, keep_tokens: bool) {
        match event {
            Event::Token { token, .. } => self.buffer.push(token, keep_tokens),
            Event::Finished { reason, .. } => self.buffer.finish(reason),
            Event::Prompt(_) | Event::Embedding(_) | Event::Failed(_) => {}
        }
    }

    /// Returns whether there is new text or a finish reason.
    pub fn is_ready(&self) -> bool {
        self.buffer.is_ready()
    }

    /// Takes the new part.
    pub fn take(&mut self) -> ChoiceDelta {
        let mut delta = self.buffer.take();
        if self.trim_start && !self.started {
            delta.text = delta.text.trim_start().to_string();
        }
        self.started |= !delta.text.is_empty();
        delta
    }

    /// Returns the number of tokens generated so far.
    pub fn token_count(&self) -> usize {
        self.buffer.token_count()
    }
}

/// A token with its logprob and those of its alternatives.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MessageLogprob {
    #[serde(flatten)]
    token: TokenLogprob,
    top_logprobs: Vec<TokenLogprob>,
}

/// A token with its logprob.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TokenLogprob {
    token: String,
    logprob: f32,
    /// The token's bytes, which may be part of a UTF-8 character.
    bytes: Vec<u8>,
}

impl TokenLogprob {
    fn new(tokenizer: &Tokenizer, id: u32, logprob: f32) -> Self {
        let bytes = tokenizer.token_bytes(id).to_vec();
        Self { token: String::from_utf8_lossy(&bytes).into_owned(), logprob: finite_logprob(logprob), bytes }
    }
}

/// Returns the logprobs of a message's tokens. End-of-text tokens are not part of the message.
pub fn message_logprobs(hornbook: &Hornbook, tokens: &[Token]) -> Vec<MessageLogprob> {
    let Some(tokenizer) = hornbook.try_tokenizer() else { return vec![] };
    let stop_ids = hornbook.stop_ids();
    let message_tokens = tokens.iter().filter(|token| !stop_ids.contains(&token.id));
    let logprob = |token: &Token| MessageLogprob {
        token: TokenLogprob::new(tokenizer, token.id, token.logprob),
        top_logprobs: token
            .top_logprobs
            .iter()
            .map(|&(id, logprob)| TokenLogprob::new(tokenizer, id, logprob))
            .collect(),
    };
    message_tokens.map(logprob).collect()
}
