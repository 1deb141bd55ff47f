//! The response object.

use super::request::ResponsesRequest;
use crate::generate::FinishReason;
use crate::sampling::SamplingParams;
use crate::server::error::ApiError;
use crate::server::message::MessageLogprob;
use crate::server::middleware::random_id;
use crate::server::store::unix_time;
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A response, finished or not.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ResponseObject {
    pub(super) id: String,
    object: &'static str,
    created_at: u64,
    pub(super) completed_at: Option<u64>,
    pub(super) status: Status,
    /// Why the response failed, if it has.
    pub(super) error: Option<ResponseError>,
    /// Why the response is incomplete, if it is.
    pub(super) incomplete_details: Option<IncompleteDetails>,
    instructions: Option<String>,
    max_output_tokens: Option<i64>,
    metadata: BTreeMap<String, String>,
    model: String,
    /// One message, once it is finished.
    pub(super) output: Vec<OutputMessage>,
    temperature: f32,
    top_p: f32,
    top_logprobs: usize,
    truncation: String,
    text: TextConfig,
    tool_choice: String,
    /// Always empty: no tool is ever called.
    #[schema(value_type = Vec<serde_json::Value>)]
    tools: [(); 0],
    parallel_tool_calls: bool,
    /// Always null: responses are not stored.
    #[schema(value_type = Option<String>)]
    previous_response_id: (),
    /// Always false: responses are not stored.
    store: bool,
    background: bool,
    pub(super) usage: Option<ResponseUsage>,
}

/// The status of a response or of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ResponseStatus)]
pub enum Status {
    /// Text is being generated.
    InProgress,
    /// The model has finished.
    Completed,
    /// The maximum number of tokens is reached.
    Incomplete,
    /// The computation failed.
    Failed,
}

/// The error of a response.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ResponseError {
    pub(super) code: &'static str,
    pub(super) message: String,
}

/// Why a response is incomplete.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct IncompleteDetails {
    /// `max_output_tokens`, also where the end of the context is reached.
    pub(super) reason: &'static str,
}

/// The configuration of the output.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct TextConfig {
    format: TextFormat,
}

/// The format of the output.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct TextFormat {
    /// Always `text`.
    #[serde(rename = "type")]
    kind: &'static str,
}

/// The message of the assistant.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OutputMessage {
    #[serde(rename = "type")]
    kind: &'static str,
    pub(super) id: String,
    pub(super) status: Status,
    role: &'static str,
    /// One part, once it is finished.
    pub(super) content: Vec<OutputText>,
}

/// The text of a message.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct OutputText {
    #[serde(rename = "type")]
    kind: OutputTextKind,
    pub(super) text: String,
    /// Always empty.
    #[schema(value_type = Vec<serde_json::Value>)]
    annotations: [(); 0],
    /// The tokens with their logprobs; empty unless requested.
    pub(super) logprobs: Vec<MessageLogprob>,
}

/// The type of a part.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum OutputTextKind {
    #[default]
    OutputText,
}

/// Token usage.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ResponseUsage {
    input_tokens: usize,
    input_tokens_details: InputTokensDetails,
    output_tokens: usize,
    output_tokens_details: OutputTokensDetails,
    total_tokens: usize,
}

/// Details of the input tokens. The prefix cache does not count per request: both are 0.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
struct InputTokensDetails {
    cached_tokens: usize,
    cache_write_tokens: usize,
}

/// Details of the output tokens.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
struct OutputTokensDetails {
    /// Always 0.
    reasoning_tokens: usize,
}

impl ResponseUsage {
    /// Usage of so many tokens.
    pub(super) fn new(input_tokens: usize, output_tokens: usize) -> Self {
        Self {
            input_tokens,
            input_tokens_details: InputTokensDetails::default(),
            output_tokens,
            output_tokens_details: OutputTokensDetails::default(),
            total_tokens: input_tokens + output_tokens,
        }
    }
}

impl OutputMessage {
    /// An empty message with a new id.
    pub(super) fn new() -> Self {
        let id = format!("msg_{}", random_id());
        Self { kind: "message", id, status: Status::InProgress, role: "assistant", content: vec![] }
    }
}

impl ResponseObject {
    /// A response of which nothing is generated yet, with a new id and the current time.
    ///
    /// # Errors
    /// 400 for metadata out of bounds and an unknown truncation.
    pub(super) fn new(
        request: &ResponsesRequest,
        model: &str,
        sampling: &SamplingParams,
    ) -> Result<Self, ApiError> {
        let truncation = if request.truncates()? { "auto" } else { "disabled" };
        Ok(Self {
            id: format!("resp_{}", random_id()),
            object: "response",
            created_at: unix_time(),
            completed_at: None,
            status: Status::InProgress,
            error: None,
            incomplete_details: None,
            instructions: request.instructions.clone(),
            max_output_tokens: request.max_output_tokens,
            metadata: request.metadata()?,
            model: model.to_string(),
            output: vec![],
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            top_logprobs: request.top_logprobs()?.unwrap_or(0),
            truncation: truncation.to_string(),
            text: TextConfig { format: TextFormat { kind: "text" } },
            tool_choice: request.tool_choice.clone().unwrap_or_else(|| "auto".into()),
            tools: [],
            parallel_tool_calls: true,
            previous_response_id: (),
            store: false,
            background: false,
            usage: None,
        })
    }

    /// Ends the response with this message.
    pub(super) fn finish(&mut self, message: OutputMessage, reason: FinishReason, usage: ResponseUsage) {
        self.status = message.status;
        self.completed_at = (self.status == Status::Completed).then(unix_time);
        let details = IncompleteDetails { reason: "max_output_tokens" };
        self.incomplete_details = (reason == FinishReason::Length).then_some(details);
        self.output = vec![message];
        self.usage = Some(usage);
    }
}
