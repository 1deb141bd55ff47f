//! Chat completion responses: messages or deltas, with the logprobs of their tokens.

use super::json::to_json;
use super::message::{MessageBuffer, MessageLogprob, message_logprobs};
use super::models::ServedModel;
use super::response::{CompletionResponse, ResponseBuilder, closing_events, data_event};
use crate::Token;
use crate::engine::Event;
use crate::generate::FinishReason;
use crate::generate::completion::Usage;
use axum::response::sse;
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
    content: Vec<MessageLogprob>,
    refusal: Option<Vec<MessageLogprob>>,
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
    /// Whether usage was requested for the stream.
    pub include_usage: bool,
}

/// State of a choice in progress.
pub struct ChoiceState {
    message: MessageBuffer,
    /// The chunk with the role has been sent.
    role_sent: bool,
}

impl ChoiceState {
    /// A choice of which nothing is generated yet; `trim_start` as in [`MessageBuffer`].
    pub fn new(trim_start: bool) -> Self {
        Self { message: MessageBuffer::new(trim_start), role_sent: false }
    }
}

impl ChatResponseBuilder {
    /// Returns the tokens' logprobs if requested.
    fn logprobs(&self, tokens: &[Token]) -> Option<ChatLogprobs> {
        let content = || message_logprobs(self.served.hornbook(), tokens);
        self.include_logprobs.then(|| ChatLogprobs { content: content(), refusal: None })
    }

    fn usage(&self) -> Usage {
        let completion_tokens = self.choices.iter().map(|choice| choice.message.token_count()).sum();
        let prompt_tokens = self.prompt_tokens;
        Usage { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
    }

    fn chunk_event(&self, choice: ChunkChoice) -> sse::Event {
        data_event(self.chunk.chunk_json(vec![choice], self.include_usage.then_some(None)))
    }
}

impl ResponseBuilder for ChatResponseBuilder {
    fn push_event(&mut self, _: usize, event: Event) {
        if let Event::Token { choice, .. } | Event::Finished { choice, .. } = event {
            self.choices[choice].message.push_event(event, self.include_logprobs);
        }
    }

    fn chunks(&mut self, _: usize) -> Vec<sse::Event> {
        let mut chunks = vec![];
        for index in 0..self.choices.len() {
            let empty = ChunkChoice { index, delta: Delta::default(), logprobs: None, finish_reason: None };
            if !std::mem::replace(&mut self.choices[index].role_sent, true) {
                let delta = Delta { role: Some("assistant"), content: Some(String::new()) };
                chunks.push(self.chunk_event(ChunkChoice { delta, ..empty.clone() }));
            }
            if !self.choices[index].message.is_ready() {
                continue;
            }
            let new = self.choices[index].message.take();
            let logprobs = self.logprobs(&new.tokens);
            let has_logprobs = logprobs.as_ref().is_some_and(|logprobs| !logprobs.content.is_empty());
            if !new.text.is_empty() || has_logprobs {
                let delta = Delta { role: None, content: Some(new.text) };
                chunks.push(self.chunk_event(ChunkChoice { delta, logprobs, ..empty.clone() }));
            }
            if new.finish_reason.is_some() {
                chunks.push(self.chunk_event(ChunkChoice { finish_reason: new.finish_reason, ..empty }));
            }
        }
        chunks
    }

    fn closing(&mut self) -> Vec<sse::Event> {
        let usage_chunk = || self.chunk.chunk_json(vec![], Some(Some(self.usage())));
        closing_events(self.include_usage.then(usage_chunk))
    }

    fn into_body(mut self) -> String {
        self.response.usage = Some(Some(self.usage()));
        for index in 0..self.choices.len() {
            let delta = self.choices[index].message.take();
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
