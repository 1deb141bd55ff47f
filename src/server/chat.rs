//! `/v1/chat/completions`: request and handler. The response is in [`chat_response`].
//!
//! [`chat_response`]: super::chat_response

use super::AppState;
use super::chat_response::{ChatChoice, ChatResponseBuilder, ChoiceState};
use super::completion_limits::CompletionLimits;
use super::conversation::{AnswerParams, Content, Conversation, MAX_MESSAGES, MAX_TOP_LOGPROBS};
use super::error::ApiError;
use super::json::{Json, RequestBody, from_value};
use super::models::PathName;
use super::parameters::{self, Parameters, ResponseMode};
use super::ranges::integer_in_range;
use super::request_context::RequestContext;
use super::response::{CompletionResponse, respond};
use crate::chat::ChatMessage;
use crate::sampling::Overrides;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;
use utoipa::ToSchema;

/// A chat completion request. All fields but `messages` may be absent or null; unknown fields are ignored.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct ChatRequest {
    /// The model; a model in the path takes precedence.
    model: Option<String>,
    /// The conversation so far.
    messages: Option<Vec<Message>>,
    /// Whether to return each token's logprob: the model's own, at temperature 1 and without filters.
    logprobs: Option<bool>,
    /// Number of alternatives per token, 0 to 20; requires `logprobs`.
    top_logprobs: Option<i64>,
    #[serde(flatten)]
    limits: CompletionLimits,
    #[serde(flatten)]
    parameters: Parameters,
    #[serde(flatten)]
    #[schema(ignore)]
    sampling: Overrides<i64>,
}

/// A message of the conversation.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Message {
    /// `system`, `developer`, `user` or `assistant`.
    role: String,
    /// The text of the message.
    #[serde(default)]
    content: Option<Content>,
    /// Name of the author.
    #[serde(default)]
    name: Option<String>,
}

impl RequestBody for ChatRequest {
    const FIELDS: &'static [&'static str] = &["messages", "top_logprobs"];

    fn validate(value: &Value) -> Result<(), ApiError> {
        from_value::<CompletionLimits>(value)?;
        parameters::validate(value)
    }
}

impl ChatRequest {
    /// Returns the conversation, with the parts of each message concatenated.
    ///
    /// # Errors
    /// 400 for no messages or too many, and for parts that are not text.
    fn chat_messages(&self) -> Result<Vec<ChatMessage>, ApiError> {
        let messages = self.messages.as_deref().unwrap_or_default();
        if messages.is_empty() || messages.len() > MAX_MESSAGES {
            let (found, expected) = (messages.len(), format!("expected 1 to {MAX_MESSAGES} messages"));
            return Err(ApiError::invalid_param("messages", format!("found {found}, {expected}")));
        }
        let to_chat_message = |(i, message): (usize, &Message)| {
            let text = |content: &Content| content.text(&format!("messages[{i}].content"), &["text"]);
            let content = message.content.as_ref().map(text).transpose()?.unwrap_or_default();
            Ok(ChatMessage { role: message.role.clone(), content, name: message.name.clone() })
        };
        messages.iter().enumerate().map(to_chat_message).collect()
    }

    /// Returns the number of alternatives per token, or `None` without logprobs.
    fn top_logprobs(&self) -> Result<Option<usize>, ApiError> {
        let top = integer_in_range("top_logprobs", self.top_logprobs, 0..=MAX_TOP_LOGPROBS)?;
        match (self.logprobs.unwrap_or(false), top) {
            (true, top) => Ok(Some(top.unwrap_or(0))),
            (false, None | Some(0)) => Ok(None),
            (false, Some(top)) => Err(ApiError::invalid_param(
                "top_logprobs",
                format!("found {top}, expected 0 unless logprobs is true"),
            )),
        }
    }
}

/// Create a chat completion.
#[utoipa::path(post, path = "/v1/chat/completions", operation_id = "createChatCompletion", tag = "chat",
    request_body = ChatRequest, responses((status = 200,
        content((CompletionResponse<ChatChoice> = "application/json"), (String = "text/event-stream")),
        description = "The completion; with `stream`, events, each a `CompletionResponse_ChunkChoice`")))]
pub async fn create(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    engine: Option<PathName>,
    Json(request): Json<ChatRequest>,
) -> Result<Response, ApiError> {
    let key = context.key();
    let (served, name) = app.models.resolve(
        engine.as_ref().map(|PathName(name)| name.as_str()),
        request.model.as_deref(),
        key.as_deref(),
    )?;
    context.set_model(&name);
    let (mode, n) = (request.parameters.response_mode()?, request.limits.n()?);
    let max_tokens = request.limits.max_tokens()?;
    request.parameters.check_copies(n)?;
    let top_logprobs = request.top_logprobs()?;
    let (defaults, hornbook) = (served.default_sampling(), served.hornbook());
    let options = request.parameters.options(&request.sampling, defaults, hornbook, max_tokens)?;
    let conversation =
        Conversation { messages: request.chat_messages()?, param: "messages", truncate: false };
    let answers = AnswerParams { options, max_tokens, n, top_logprobs };
    let answers = conversation.answer(&app, &context, &served, answers).await?;
    let object = if mode == ResponseMode::Complete { "chat.completion" } else { "chat.completion.chunk" };
    let builder = ChatResponseBuilder {
        response: CompletionResponse::new("chatcmpl", object, &name, None),
        chunk: CompletionResponse::new("chatcmpl", object, &name, None),
        served,
        prompt_tokens: answers.prompt_tokens,
        choices: (0..n).map(|_| ChoiceState::new(answers.trim_start)).collect(),
        include_logprobs: top_logprobs.is_some(),
        include_usage: matches!(mode, ResponseMode::Stream { include_usage: true }),
    };
    respond(context, builder, answers.submission, mode).await
}
