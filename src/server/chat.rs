//! `/v1/chat/completions`: request and handler. The response is in [`chat_response`].
//!
//! [`chat_response`]: super::chat_response

use super::AppState;
use super::chat_response::{ChatChoice, ChatResponseBuilder};
use super::error::ApiError;
use super::json::{Json, RequestBody};
use super::models::{PathName, ServedModel};
use super::parameters::{self, Parameters, ResponseMode};
use super::ranges::integer_in_range;
use super::request_context::RequestContext;
use super::response::{CompletionResponse, respond};
use super::submission::Submission;
use crate::Error;
use crate::chat::{ChatMessage, ChatTemplate};
use crate::engine::{CompletionParams, Request, RequestKind, SubmitError};
use crate::sampling::Overrides;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;
use utoipa::ToSchema;

/// Maximum number of alternatives per token.
const MAX_TOP_LOGPROBS: usize = 20;
/// Maximum number of messages.
const MAX_MESSAGES: usize = 2048;

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

/// A text, or a list of parts.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a string or a list of parts")]
pub enum Content {
    /// A text.
    Text(String),
    /// A list of parts, which are concatenated.
    Parts(Vec<Part>),
}

/// A part of a message's content.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Part {
    /// Part type; only `text` is supported.
    #[serde(rename = "type")]
    kind: String,
    /// The text.
    #[serde(default)]
    text: Option<String>,
}

impl RequestBody for ChatRequest {
    const FIELDS: &'static [&'static str] = &["messages", "top_logprobs"];

    fn validate(value: &Value) -> Result<(), ApiError> {
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
            let content = match &message.content {
                None => String::new(),
                Some(Content::Text(text)) => text.clone(),
                Some(Content::Parts(parts)) => {
                    if let Some(j) = parts.iter().position(|part| part.kind != "text") {
                        let message = format!("found {:?}, expected \"text\"", parts[j].kind);
                        return Err(ApiError::invalid_param(
                            &format!("messages[{i}].content[{j}].type"),
                            message,
                        ));
                    }
                    parts.iter().filter_map(|part| part.text.as_deref()).collect()
                }
            };
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
    let (mode, n) = (request.parameters.response_mode()?, request.parameters.n()?);
    let (requested_max_tokens, _) = request.parameters.max_tokens()?;
    request.parameters.check_copies(n)?;
    let top_logprobs = request.top_logprobs()?;
    let mut options =
        request.parameters.options(&request.sampling, served.default_sampling(), served.hornbook(), 0)?;
    let template = Arc::clone(served.template()?);
    options.stop.extend_from_slice(template.stop());
    let (text, prompt) = apply_template(&app, &served, &template, request.chat_messages()?).await?;
    if app.log_prompts {
        context.set_prompt(text);
    }

    let n_positions = served.config().n_positions;
    let prompt_tokens = prompt.len().max(1);
    // Without max_tokens the completion may fill the context, which must have room for one token.
    let min_completion = requested_max_tokens.unwrap_or(1);
    if prompt_tokens.saturating_add(min_completion) > n_positions {
        return Err(ApiError::context_length_exceeded(
            "messages",
            n_positions,
            prompt_tokens,
            min_completion,
        ));
    }
    let max_tokens = requested_max_tokens
        .unwrap_or_else(|| served.default_max_tokens(prompt_tokens, n_positions - prompt_tokens));
    options.max_tokens = Some(max_tokens);
    app.reserve(&context, prompt_tokens + n * max_tokens)?;
    let completion = CompletionParams {
        options,
        choices: n,
        top_logprobs: top_logprobs.unwrap_or(0),
        ..CompletionParams::default()
    };
    let (kind, adapter) = (RequestKind::Complete(completion), served.adapter.clone());
    let requests = vec![Request { prompt, kind, adapter, priority: context.priority }];
    let submission = Submission::start(&app, &served, requests, "messages")?;
    context.set_prompt_tokens(prompt_tokens);
    let object = if mode == ResponseMode::Complete { "chat.completion" } else { "chat.completion.chunk" };
    let builder = ChatResponseBuilder {
        response: CompletionResponse::new("chatcmpl", object, &name, None),
        chunk: CompletionResponse::new("chatcmpl", object, &name, None),
        trim_start: template.trims_answer(),
        served,
        prompt_tokens,
        choices: (0..n).map(|_| Default::default()).collect(),
        include_logprobs: top_logprobs.is_some(),
        include_usage: matches!(mode, ResponseMode::Stream { include_usage: true }),
    };
    respond(context, builder, submission, mode).await
}

/// Applies the chat template, on a blocking thread; returns the prompt as text and as tokens.
async fn apply_template(
    app: &AppState,
    served: &Arc<ServedModel>,
    template: &Arc<ChatTemplate>,
    messages: Vec<ChatMessage>,
) -> Result<(String, Vec<u32>), ApiError> {
    let (served, template) = (Arc::clone(served), Arc::clone(template));
    let bytes = messages.iter().map(|message| message.content.len()).sum();
    let work = move || {
        served.tokenizer("messages")?;
        template.apply(&messages, served.hornbook()).map_err(|error| match error {
            Error::Parameter { .. } | Error::ContextOverflow { .. } => {
                ApiError::from_submit_error(SubmitError::Invalid(error), "messages")
            }
            error => ApiError::invalid_param("messages", error.to_string()),
        })
    };
    app.memory.run(bytes, work).await
}
