//! `/v1/chat/completions`: a conversation, and what comes next in it. What is answered is in [`chat_answer`].
//!
//! [`chat_answer`]: super::chat_answer

use super::App;
use super::answer::{Reply, respond};
use super::chat_answer::{Chat, ChatChoice};
use super::completions::asks_for_structure;
use super::error::{ApiError, ErrorBody};
use super::json::{Body, Json, Unsupported, asks, read};
use super::log::Call;
use super::models::Served;
use super::parameters::{Parameters, Send, whole};
use super::submission::Submission;
use crate::Error;
use crate::chat::ChatMessage;
use crate::engine::{CompletionParams, Request, RequestKind, SubmitError};
use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;
use utoipa::ToSchema;

/// The most alternatives to a token.
const MAX_TOP_LOGPROBS: usize = 20;
/// The most messages.
const MAX_MESSAGES: usize = 2048;

/// A request. Each field may be left out or null, but for `messages`; unknown ones are ignored.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct ChatRequest {
    /// The model; the one in the path comes before it.
    model: Option<String>,
    /// The conversation so far.
    messages: Option<Vec<Message>>,
    /// Whether each token's logprob is wanted. They are the model's own: temperature 1, nothing filtered.
    logprobs: Option<bool>,
    /// Alternatives with each, 0 to 20.
    top_logprobs: Option<i64>,
    #[serde(flatten)]
    parameters: Parameters,
}

/// A message.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Message {
    /// `system`, `developer`, `user` or `assistant`.
    role: String,
    /// What is said.
    #[serde(default)]
    content: Option<Content>,
    /// Who says it.
    #[serde(default)]
    name: Option<String>,
}

/// A text, or parts of one.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a string or a list of parts")]
pub enum Content {
    /// A text.
    Text(String),
    /// Parts of a text.
    Parts(Vec<Part>),
}

/// A part of a message.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Part {
    /// `text`
    #[serde(rename = "type")]
    kind: String,
    /// The text.
    #[serde(default)]
    text: Option<String>,
}

fn is_not_auto(choice: &Value) -> bool {
    asks(choice) && !matches!(choice.as_str(), Some("auto" | "none"))
}

fn asks_for_more_than_text(modalities: &Value) -> bool {
    asks(modalities) && *modalities != serde_json::json!(["text"])
}

impl Body for ChatRequest {
    const UNSUPPORTED: &'static [Unsupported] = &[
        ("tools", asks),
        ("tool_choice", is_not_auto),
        ("functions", asks),
        ("function_call", is_not_auto),
        ("response_format", asks_for_structure),
        ("audio", asks),
        ("modalities", asks_for_more_than_text),
        ("prediction", asks),
        ("web_search_options", asks),
        ("grammar", asks),
        ("json_schema", asks),
        ("guided_json", asks),
        ("guided_regex", asks),
        ("guided_choice", asks),
        ("guided_grammar", asks),
    ];

    fn check(value: &Value) -> Result<(), ApiError> {
        read::<Parameters>(value).map(drop)
    }
}

impl ChatRequest {
    /// The conversation, each message's text in one piece.
    fn turns(&self) -> Result<Vec<ChatMessage>, ApiError> {
        let messages = self.messages.as_deref().unwrap_or_default();
        if messages.is_empty() || messages.len() > MAX_MESSAGES {
            let (found, expected) = (messages.len(), format!("expected 1 to {MAX_MESSAGES} messages"));
            return Err(ApiError::param("messages", format!("found {found}, {expected}")));
        }
        let turn = |(i, message): (usize, &Message)| {
            let content = match &message.content {
                None => String::new(),
                Some(Content::Text(text)) => text.clone(),
                Some(Content::Parts(parts)) => {
                    if let Some(j) = parts.iter().position(|part| part.kind != "text") {
                        let message = format!("found {:?}, expected \"text\"", parts[j].kind);
                        return Err(ApiError::param(&format!("messages[{i}].content[{j}].type"), message));
                    }
                    parts.iter().filter_map(|part| part.text.as_deref()).collect()
                }
            };
            Ok(ChatMessage { role: message.role.clone(), content, name: message.name.clone() })
        };
        messages.iter().enumerate().map(turn).collect()
    }

    /// How many alternatives to each token, where logprobs are wanted.
    fn top_logprobs(&self) -> Result<Option<usize>, ApiError> {
        let top = whole("top_logprobs", self.top_logprobs, 0..=MAX_TOP_LOGPROBS)?;
        match (self.logprobs.unwrap_or(false), top) {
            (true, top) => Ok(Some(top.unwrap_or(0))),
            (false, Some(_)) => Err(ApiError::param(
                "top_logprobs",
                "found a number, expected none where logprobs is not true",
            )),
            (false, None) => Ok(None),
        }
    }
}

/// Answer in a conversation.
#[utoipa::path(post, path = "/v1/chat/completions", request_body = ChatRequest, responses(
    (status = 200, body = Reply<ChatChoice>, description = "The answer; with `stream`, server-sent events with deltas"),
    (status = "4XX", body = ErrorBody, description = "What is wrong"),
))]
pub async fn create(
    State(app): State<Arc<App>>,
    Extension(call): Extension<Arc<Call>>,
    engine: Option<Path<String>>,
    Json(request): Json<ChatRequest>,
) -> Result<Response, ApiError> {
    let key = call.key();
    let (served, name) =
        app.models.find(engine.as_deref().map(String::as_str), request.model.as_deref(), key.as_deref())?;
    call.asks_for(&name);
    let (send, n) = (request.parameters.send()?, request.parameters.n()?);
    let (asked, _) = request.parameters.max_tokens()?;
    let top_logprobs = request.top_logprobs()?;
    let mut options = request.parameters.options(served.config().vocab_size, 0)?;
    options.stop.extend_from_slice(served.template.stop());
    let (text, prompt) = prompt(&served, request.turns()?).await?;
    if app.log_prompts {
        call.prompt(text);
    }

    let n_positions = served.config().n_positions;
    let prompt_tokens = prompt.len().max(1);
    // Without a limit of its own an answer may go on to the end of the context, where there must be room for one token.
    let least = asked.unwrap_or(1);
    if prompt_tokens.saturating_add(least) > n_positions {
        return Err(ApiError::context_length("messages", n_positions, prompt_tokens, least));
    }
    let max_tokens = asked.unwrap_or(n_positions - prompt_tokens);
    options.max_tokens = Some(max_tokens);
    app.reserve(&call, prompt_tokens + n * max_tokens)?;
    let completion = CompletionParams {
        options,
        choices: n,
        top_logprobs: top_logprobs.unwrap_or(0),
        ..CompletionParams::default()
    };
    let requests = vec![Request { prompt, kind: RequestKind::Complete(completion) }];
    let submission = Submission::start(&app, &served, requests, "messages")?;
    call.admitted(prompt_tokens);
    let object = if send == Send::Whole { "chat.completion" } else { "chat.completion.chunk" };
    let answer = Chat {
        reply: Reply::new("chatcmpl", object, &name, None),
        deltas: Reply::new("chatcmpl", object, &name, None),
        trims: served.template.trims(),
        served,
        prompt_tokens,
        choices: (0..n).map(|_| Default::default()).collect(),
        logprobs: top_logprobs.is_some(),
        usage: matches!(send, Send::Stream { usage: true }),
    };
    respond(call, answer, submission, send).await
}

/// The conversation as the model reads it, as text and as tokens.
async fn prompt(served: &Arc<Served>, turns: Vec<ChatMessage>) -> Result<(String, Vec<u32>), ApiError> {
    let served = Arc::clone(served);
    let encoded = tokio::task::spawn_blocking(move || {
        let tokenizer = served.tokenizer("messages")?;
        served.template.apply(&turns, tokenizer, served.config()).map_err(|error| match error {
            Error::Parameter { .. } => ApiError::refused(SubmitError::Invalid(error), "messages"),
            error => ApiError::param("messages", error.to_string()),
        })
    });
    encoded.await.unwrap_or_else(|error| Err(ApiError::internal(error.to_string())))
}
