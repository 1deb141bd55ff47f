//! Chat completion responses: messages or deltas, with logprobs in the chat API's own shape.

use super::choice_buffer::{ChoiceBuffer, ChoiceDelta};
use super::json::to_json;
use super::models::ServedModel;
use super::response::{CompletionResponse, ResponseBuilder};
use crate::Token;
use crate::engine::Event;
use crate::generate::FinishReason;
use crate::generate::completion::{Usage, finite_logprob};
use crate::tokenizer::Tokenizer;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// A choice of a complete response.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChatChoice {
    index: usize,
    message: AssistantMessage,
    logprobs: Option<ChatLogprobs>,
    #[schema(value_type = Option<String>)]
    finish_reason: Option<FinishReason>,
}

/// The assistant's message.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AssistantMessage {
    role: &'static str,
    content: String,
    /// Always null: the models have no refusals.
    refusal: Option<String>,
}

/// A choice of a chunk.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChunkChoice {
    index: usize,
    delta: Delta,
    logprobs: Option<ChatLogprobs>,
    #[schema(value_type = Option<String>)]
    finish_reason: Option<FinishReason>,
}

/// The part of a message added by a chunk.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
}

/// The logprobs of a message's tokens.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChatLogprobs {
    content: Vec<ChatTokenLogprob>,
    refusal: Option<Vec<ChatTokenLogprob>>,
}

/// A token with its logprob and those of its alternatives.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChatTokenLogprob {
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

/// Builder of a chat completion response.
pub struct ChatResponseBuilder {
    /// The complete response.
    pub response: CompletionResponse<ChatChoice>,
    /// The template of its chunks.
    pub chunk: CompletionResponse<ChunkChoice>,
    /// The model, for its tokenizer.
    pub served: Arc<ServedModel>,
    /// Number of prompt tokens.
    pub prompt_tokens: usize,
    /// The choices in progress.
    pub choices: Vec<ChoiceState>,
    /// Whether logprobs were requested.
    pub include_logprobs: bool,
    /// Whether leading whitespace of a message is trimmed.
    pub trim_start: bool,
    /// Whether usage was requested for the stream.
    pub include_usage: bool,
}

/// State of a choice in progress.
#[derive(Default)]
pub struct ChoiceState {
    buffer: ChoiceBuffer,
    /// The chunk with the role has been sent.
    role_sent: bool,
    /// Text other than leading whitespace has been sent.
    content_started: bool,
}

impl ChatResponseBuilder {
    /// Takes the new part of a choice, trimming the message's leading whitespace.
    fn take_delta(&mut self, index: usize) -> ChoiceDelta {
        let choice = &mut self.choices[index];
        let mut delta = choice.buffer.take();
        if self.trim_start && !choice.content_started {
            delta.text = delta.text.trim_start().to_string();
        }
        choice.content_started |= !delta.text.is_empty();
        delta
    }

    /// Returns the tokens' logprobs if requested. End-of-text tokens are not part of the message.
    fn logprobs(&self, tokens: &[Token]) -> Option<ChatLogprobs> {
        let tokenizer = self.served.hornbook().try_tokenizer().filter(|_| self.include_logprobs)?;
        let stop_ids = self.served.hornbook().stop_ids();
        let message_tokens = tokens.iter().filter(|token| !stop_ids.contains(&token.id));
        let content = message_tokens.map(|token| ChatTokenLogprob {
            token: TokenLogprob::new(tokenizer, token.id, token.logprob),
            top_logprobs: token
                .top_logprobs
                .iter()
                .map(|&(id, logprob)| TokenLogprob::new(tokenizer, id, logprob))
                .collect(),
        });
        Some(ChatLogprobs { content: content.collect(), refusal: None })
    }

    fn usage(&self) -> Usage {
        let completion_tokens = self.choices.iter().map(|choice| choice.buffer.token_count()).sum();
        let prompt_tokens = self.prompt_tokens;
        Usage { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
    }

    fn chunk_json(&self, choice: ChunkChoice) -> String {
        self.chunk.chunk_json(vec![choice], self.include_usage.then_some(None))
    }
}

impl ResponseBuilder for ChatResponseBuilder {
    fn push_event(&mut self, _: usize, event: Event) {
        let keep = self.include_logprobs;
        match event {
            Event::Token { choice, token } => self.choices[choice].buffer.push(token, keep),
            Event::Finished { choice, reason } => self.choices[choice].buffer.finish(reason),
            Event::Prompt(_) | Event::Embedding(_) | Event::Failed(_) => {}
        }
    }

    fn chunks(&mut self, _: usize) -> Vec<String> {
        let mut chunks = vec![];
        for index in 0..self.choices.len() {
            let empty = ChunkChoice { index, delta: Delta::default(), logprobs: None, finish_reason: None };
            if !std::mem::replace(&mut self.choices[index].role_sent, true) {
                let delta = Delta { role: Some("assistant"), content: Some(String::new()) };
                chunks.push(self.chunk_json(ChunkChoice { delta, ..empty.clone() }));
            }
            if !self.choices[index].buffer.is_ready() {
                continue;
            }
            let new = self.take_delta(index);
            let logprobs = self.logprobs(&new.tokens);
            let has_logprobs = logprobs.as_ref().is_some_and(|logprobs| !logprobs.content.is_empty());
            if !new.text.is_empty() || has_logprobs {
                let delta = Delta { role: None, content: Some(new.text) };
                chunks.push(self.chunk_json(ChunkChoice { delta, logprobs, ..empty.clone() }));
            }
            if new.finish_reason.is_some() {
                chunks.push(self.chunk_json(ChunkChoice { finish_reason: new.finish_reason, ..empty }));
            }
        }
        chunks
    }

    fn usage_chunk(&self) -> String {
        self.chunk.chunk_json(vec![], Some(Some(self.usage())))
    }

    fn into_body(mut self) -> String {
        self.response.usage = Some(Some(self.usage()));
        for index in 0..self.choices.len() {
            let delta = self.take_delta(index);
            let message = AssistantMessage { role: "assistant", content: delta.text, refusal: None };
            let logprobs = self.logprobs(&delta.tokens);
            self.response.choices.push(ChatChoice {
                index,
                message,
                logprobs,
                finish_reason: delta.finish_reason,
            });
        }
        to_json(&self.response)
    }
}
