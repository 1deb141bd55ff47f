//! Building the response from engine events: one object, or the events of a stream.
//!
//! ```text
//! response.created, response.in_progress,
//!   response.output_item.added, response.content_part.added,
//!     response.output_text.delta … , response.output_text.done,
//!   response.content_part.done, response.output_item.done,
//! response.completed | response.incomplete | response.failed
//! ```
//!
//! Each has its `type` and its number, and the last one the whole response.

use super::object::{OutputMessage, OutputText, ResponseError, ResponseObject, ResponseUsage, Status};
use crate::engine::Event;
use crate::generate::FinishReason;
use crate::server::error::ApiError;
use crate::server::json::to_json;
use crate::server::message::{MessageBuffer, MessageLogprob, message_logprobs};
use crate::server::models::ServedModel;
use crate::server::response::ResponseBuilder;
use axum::response::sse;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// An event of the stream.
#[derive(Debug, Serialize, ToSchema)]
pub struct StreamEvent {
    /// What happened, also the event's name.
    #[serde(rename = "type")]
    kind: &'static str,
    /// Number of the event, from 0.
    sequence_number: usize,
    #[serde(flatten)]
    body: EventBody,
}

/// What an event carries. There is one item with one part, so all indices are 0.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum EventBody {
    /// The response as it is now.
    Response { response: Box<ResponseObject> },
    /// A message has begun or ended.
    OutputItem { output_index: usize, item: OutputMessage },
    /// A part of a message has begun or ended.
    ContentPart { item_id: String, output_index: usize, content_index: usize, part: OutputText },
    /// New text.
    TextDelta {
        item_id: String,
        output_index: usize,
        content_index: usize,
        delta: String,
        logprobs: Vec<MessageLogprob>,
    },
    /// The whole text.
    TextDone {
        item_id: String,
        output_index: usize,
        content_index: usize,
        text: String,
        logprobs: Vec<MessageLogprob>,
    },
}

/// Builder of a response.
pub(super) struct ResponsesBuilder {
    response: ResponseObject,
    /// The model, for its tokenizer.
    served: Arc<ServedModel>,
    prompt_tokens: usize,
    include_logprobs: bool,
    buffer: MessageBuffer,
    /// The message without its content.
    message: OutputMessage,
    /// Its content so far.
    content: OutputText,
    finish_reason: FinishReason,
    /// Number of events sent.
    events: usize,
}

impl ResponsesBuilder {
    /// A builder of a response; `trim_start` as in [`MessageBuffer`].
    pub(super) fn new(
        response: ResponseObject,
        served: Arc<ServedModel>,
        prompt_tokens: usize,
        trim_start: bool,
        include_logprobs: bool,
    ) -> Self {
        Self {
            response,
            served,
            prompt_tokens,
            include_logprobs,
            buffer: MessageBuffer::new(trim_start),
            message: OutputMessage::new(),
            content: OutputText::default(),
            finish_reason: FinishReason::Length,
            events: 0,
        }
    }

    /// Takes the new part of the message, which is returned and added to its content.
    fn take(&mut self) -> (String, Vec<MessageLogprob>) {
        let delta = self.buffer.take();
        let logprobs = match self.include_logprobs {
            true => message_logprobs(self.served.hornbook(), &delta.tokens),
            false => vec![],
        };
        self.content.text += &delta.text;
        self.content.logprobs.extend_from_slice(&logprobs);
        self.finish_reason = delta.finish_reason.unwrap_or(self.finish_reason);
        (delta.text, logprobs)
    }

    /// Ends the message and the response.
    fn finish(&mut self) {
        self.message.status = match self.finish_reason {
            FinishReason::Length => Status::Incomplete,
            FinishReason::Stop => Status::Completed,
        };
        let mut message = self.message.clone();
        message.content = vec![self.content.clone()];
        let usage = ResponseUsage::new(self.prompt_tokens, self.buffer.token_count());
        self.response.finish(message, self.finish_reason, usage);
    }

    fn event(&mut self, kind: &'static str, body: EventBody) -> sse::Event {
        let event = StreamEvent { kind, sequence_number: self.events, body };
        self.events += 1;
        sse::Event::default().event(kind).data(to_json(&event))
    }

    fn response_event(&mut self, kind: &'static str) -> sse::Event {
        let response = Box::new(self.response.clone());
        self.event(kind, EventBody::Response { response })
    }

    fn item_event(&mut self, kind: &'static str, item: OutputMessage) -> sse::Event {
        self.event(kind, EventBody::OutputItem { output_index: 0, item })
    }

    fn part_event(&mut self, kind: &'static str, part: OutputText) -> sse::Event {
        let item_id = self.message.id.clone();
        self.event(kind, EventBody::ContentPart { item_id, output_index: 0, content_index: 0, part })
    }
}

impl ResponseBuilder for ResponsesBuilder {
    fn push_event(&mut self, _: usize, event: Event) {
        self.buffer.push_event(event, self.include_logprobs);
    }

    fn opening(&mut self) -> Vec<sse::Event> {
        vec![
            self.response_event("response.created"),
            self.response_event("response.in_progress"),
            self.item_event("response.output_item.added", self.message.clone()),
            self.part_event("response.content_part.added", OutputText::default()),
        ]
    }

    fn chunks(&mut self, _: usize) -> Vec<sse::Event> {
        if !self.buffer.is_ready() {
            return vec![];
        }
        let (delta, logprobs) = self.take();
        if delta.is_empty() && logprobs.is_empty() {
            return vec![];
        }
        let (item_id, output_index, content_index) = (self.message.id.clone(), 0, 0);
        let body = EventBody::TextDelta { item_id, output_index, content_index, delta, logprobs };
        vec![self.event("response.output_text.delta", body)]
    }

    fn closing(&mut self) -> Vec<sse::Event> {
        self.finish();
        let (item_id, output_index, content_index) = (self.message.id.clone(), 0, 0);
        let OutputText { text, logprobs, .. } = self.content.clone();
        let text = EventBody::TextDone { item_id, output_index, content_index, text, logprobs };
        let item = self.response.output[0].clone();
        let last = match self.message.status {
            Status::Completed => "response.completed",
            _ => "response.incomplete",
        };
        vec![
            self.event("response.output_text.done", text),
            self.part_event("response.content_part.done", self.content.clone()),
            self.item_event("response.output_item.done", item),
            self.response_event(last),
        ]
    }

    fn failure(&mut self, error: &ApiError) -> Vec<sse::Event> {
        let message = error.message().to_string();
        self.response.error = Some(ResponseError { code: "server_error", message });
        self.response.status = Status::Failed;
        vec![self.response_event("response.failed")]
    }

    fn into_body(mut self) -> String {
        self.take();
        self.finish();
        to_json(&self.response)
    }
}
