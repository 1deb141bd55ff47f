//! `/v1/completions`: what is asked, checked field by field. What is answered is in [`completions_answer`].
//!
//! [`completions_answer`]: super::completions_answer

use super::answer::respond;
use super::completions_answer::Completions;
use super::error::{ApiError, ErrorBody};
use super::json::{Body, Json, Unsupported, asks, read};
use super::log::Call;
use super::parameters::{Parameters, Send, whole};
use super::prompts::{MAX_PROMPTS, Prompt, Prompts};
use super::submission::Submission;
use super::{App, answer::Reply};
use crate::engine::{CompletionParams, Request, RequestKind};
use crate::generate::completion::Choice;
use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;
use utoipa::ToSchema;

/// Tokens where `max_tokens` is not given, as in OpenAI's API.
const DEFAULT_MAX_TOKENS: usize = 16;
/// The most alternatives to a token.
const MAX_LOGPROBS: usize = 5;
/// The most choices to take the best from.
const MAX_BEST_OF: usize = 20;

/// A request. Each field may be left out or null, which is the same; unknown ones are ignored.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct CompletionRequest {
    /// The model; the one in the path comes before it.
    model: Option<String>,
    /// What to continue. Default: the beginning of a text.
    prompt: Option<Prompts>,
    /// Write this many per prompt and keep the `n` with the highest mean logprob.
    best_of: Option<i64>,
    /// Logprobs with this many alternatives, 0 to 5. They are the model's own: temperature 1, nothing filtered.
    logprobs: Option<i64>,
    /// Begin the text with the prompt; with `logprobs`, its tokens have theirs.
    echo: Option<bool>,
    /// Hornbook's own: each choice's token ids.
    return_token_ids: Option<bool>,
    #[serde(flatten)]
    parameters: Parameters,
}

/// Whether a response format is another than text.
pub fn asks_for_structure(format: &Value) -> bool {
    !format.is_null() && format.get("type").and_then(Value::as_str) != Some("text")
}

impl Body for CompletionRequest {
    const UNSUPPORTED: &'static [Unsupported] = &[
        ("suffix", asks),
        ("response_format", asks_for_structure),
        ("tools", asks),
        ("functions", asks),
        ("grammar", asks),
        ("json_schema", asks),
        ("guided_json", asks),
        ("guided_regex", asks),
        ("guided_choice", asks),
        ("guided_grammar", asks),
        ("use_beam_search", asks),
        ("prompt_logprobs", asks),
    ];

    fn check(value: &Value) -> Result<(), ApiError> {
        read::<Parameters>(value).map(drop)
    }
}

/// The counts and switches of a request, in their ranges.
struct Asked {
    n: usize,
    best_of: usize,
    max_tokens: usize,
    logprobs: Option<usize>,
    send: Send,
}

impl CompletionRequest {
    fn checked(&self) -> Result<Asked, ApiError> {
        let send = self.parameters.send()?;
        let n = self.parameters.n()?;
        let best_of = whole("best_of", self.best_of, 1..=MAX_BEST_OF)?.unwrap_or(n);
        if best_of < n {
            return Err(ApiError::param(
                "best_of",
                format!("found {best_of}, expected at least n, which is {n}"),
            ));
        }
        if best_of > n && send != Send::Whole {
            let message =
                "found more than n, expected no more where stream is true: which are best is known last";
            return Err(ApiError::param("best_of", message));
        }
        let max_tokens = self.parameters.max_tokens()?.0.unwrap_or(DEFAULT_MAX_TOKENS);
        let logprobs = whole("logprobs", self.logprobs, 0..=MAX_LOGPROBS)?;
        Ok(Asked { n, best_of, max_tokens, logprobs, send })
    }
}

/// Continue one prompt or several.
#[utoipa::path(post, path = "/v1/completions", request_body = CompletionRequest, responses(
    (status = 200, body = Reply<Choice>, description = "The completions; with `stream`, server-sent events of the same shape"),
    (status = "4XX", body = ErrorBody, description = "What is wrong"),
))]
pub async fn create(
    State(app): State<Arc<App>>,
    Extension(call): Extension<Arc<Call>>,
    engine: Option<Path<String>>,
    Json(request): Json<CompletionRequest>,
) -> Result<Response, ApiError> {
    let key = call.key();
    let (served, name) =
        app.models.find(engine.as_deref().map(String::as_str), request.model.as_deref(), key.as_deref())?;
    call.asks_for(&name);
    let asked = request.checked()?;
    let options = request.parameters.options(served.config().vocab_size, asked.max_tokens)?;
    if asked.logprobs.is_some() {
        served.tokenizer("logprobs")?;
    }
    let echo = request.echo.unwrap_or(false);
    let prompts = match request.prompt {
        Some(prompts) => prompts.read(&served, "prompt").await?,
        None => vec![Prompt { ids: vec![], text: String::new() }],
    };
    let choices = prompts.len() * asked.best_of;
    if choices > MAX_PROMPTS {
        let message =
            format!("found {choices} completions of all prompts together, expected at most {MAX_PROMPTS}");
        return Err(ApiError::param(if asked.best_of > asked.n { "best_of" } else { "n" }, message));
    }
    let n_positions = served.config().n_positions;
    if let Some(prompt) =
        prompts.iter().find(|prompt| prompt.tokens().saturating_add(asked.max_tokens) > n_positions)
    {
        return Err(ApiError::context_length("prompt", n_positions, prompt.tokens(), asked.max_tokens));
    }
    if app.log_prompts {
        call.prompt(prompts.iter().map(|prompt| prompt.text.as_str()).collect::<Vec<_>>().join("\n"));
    }

    let prompt_tokens = prompts.iter().map(Prompt::tokens).sum();
    app.reserve(&call, prompt_tokens + choices * asked.max_tokens)?;
    let request_of = |(i, prompt): (usize, &Prompt)| Request {
        prompt: prompt.ids.clone(),
        kind: RequestKind::Complete(CompletionParams {
            options: options.clone(),
            choices: asked.best_of,
            first_stream: (i * asked.best_of) as u64,
            top_logprobs: asked.logprobs.unwrap_or(0),
            score_prompt: echo && asked.logprobs.is_some(),
        }),
    };
    let requests = prompts.iter().enumerate().map(request_of).collect();
    let submission = Submission::start(&app, &served, requests, "prompt")?;
    call.admitted(prompt_tokens);
    let answer = Completions {
        reply: Reply::new("cmpl", "text_completion", &name, None),
        prompts: prompts.into_iter().map(|prompt| (prompt, asked.best_of).into()).collect(),
        served,
        n: asked.n,
        echo,
        logprobs: asked.logprobs.is_some(),
        token_ids: request.return_token_ids.unwrap_or(false),
        usage: matches!(asked.send, Send::Stream { usage: true }),
    };
    respond(call, answer, submission, asked.send).await
}
