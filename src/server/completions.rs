//! `/v1/completions`: request and handler. The response is in [`completions_response`].
//!
//! [`completions_response`]: super::completions_response

use super::AppState;
use super::completion_limits::{CompletionLimits, MaxTokens};
use super::completions_response::CompletionsResponseBuilder;
use super::error::ApiError;
use super::json::{Json, RequestBody, from_value};
use super::models::PathName;
use super::parameters::{self, Parameters, ResponseMode};
use super::prompts::{MAX_PROMPTS, Prompt, Prompts};
use super::ranges::integer_in_range;
use super::request_context::RequestContext;
use super::response::{CompletionResponse, respond};
use super::submission::Submission;
use crate::engine::{CompletionParams, Request, RequestKind};
use crate::generate::completion::Choice;
use crate::sampling::Overrides;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;
use utoipa::ToSchema;

/// Default of `max_tokens`, as in OpenAI's API.
const DEFAULT_MAX_TOKENS: usize = 16;
/// Maximum number of alternatives per token.
const MAX_LOGPROBS: usize = 5;
/// Maximum of `best_of`.
const MAX_BEST_OF: usize = 20;

/// A completion request. All fields may be absent or null, which is the same; unknown fields are ignored.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct CompletionRequest {
    /// The model; a model in the path takes precedence.
    model: Option<String>,
    /// The prompt or prompts. Default: the end-of-text token, after which a text begins.
    prompt: Option<Prompts>,
    /// Number of completions to generate per prompt, of which the `n` with the highest mean logprob are
    /// returned.
    best_of: Option<i64>,
    /// Return logprobs with this many alternatives, 0 to 5: the model's own, at temperature 1 and without
    /// filters.
    logprobs: Option<i64>,
    /// Return the prompt before the completion; with `logprobs`, the prompt's tokens have logprobs too.
    echo: Option<bool>,
    /// Hornbook extension: return each choice's token ids.
    return_token_ids: Option<bool>,
    #[serde(flatten)]
    limits: CompletionLimits,
    #[serde(flatten)]
    parameters: Parameters,
    #[serde(flatten)]
    #[schema(ignore)]
    sampling: Overrides<i64>,
}

impl RequestBody for CompletionRequest {
    const FIELDS: &'static [&'static str] = &["echo", "best_of", "return_token_ids"];

    fn validate(value: &Value) -> Result<(), ApiError> {
        from_value::<CompletionLimits>(value)?;
        parameters::validate(value)
    }
}

/// Validated fields of a request.
struct ValidatedFields {
    n: usize,
    best_of: usize,
    max_tokens: MaxTokens,
    logprobs: Option<usize>,
    mode: ResponseMode,
}

impl CompletionRequest {
    fn validated(&self) -> Result<ValidatedFields, ApiError> {
        let mode = self.parameters.response_mode()?;
        let n = self.limits.n()?;
        let best_of = integer_in_range("best_of", self.best_of, 1..=MAX_BEST_OF)?.unwrap_or(n);
        if best_of < n {
            return Err(ApiError::invalid_param(
                "best_of",
                format!("found {best_of}, expected at least n, which is {n}"),
            ));
        }
        if best_of > n && mode != ResponseMode::Complete {
            let message = "found more than n, expected n with stream: the best are known only at the end";
            return Err(ApiError::invalid_param("best_of", message));
        }
        let max_tokens = self.limits.max_tokens()?;
        let logprobs = integer_in_range("logprobs", self.logprobs, 0..=MAX_LOGPROBS)?;
        Ok(ValidatedFields { n, best_of, max_tokens, logprobs, mode })
    }
}

/// Create completions of one or more prompts.
#[utoipa::path(post, path = "/v1/completions", operation_id = "createCompletion", tag = "completions",
    request_body = CompletionRequest, responses((status = 200,
        content((CompletionResponse<Choice> = "application/json"), (String = "text/event-stream")),
        description = "The completions; with `stream`, server-sent events of the same format")))]
pub async fn create(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    engine: Option<PathName>,
    Json(request): Json<CompletionRequest>,
) -> Result<Response, ApiError> {
    let key = context.key();
    let (served, name) = app.models.resolve(
        engine.as_ref().map(|PathName(name)| name.as_str()),
        request.model.as_deref(),
        key.as_deref(),
    )?;
    context.set_model(&name);
    let fields = request.validated()?;
    request.parameters.check_copies(request.prompt.as_ref().map_or(1, Prompts::count) * fields.best_of)?;
    let (defaults, hornbook) = (served.default_sampling(), served.hornbook());
    let mut options = request.parameters.options(&request.sampling, defaults, hornbook, fields.max_tokens)?;
    let echo = request.echo.unwrap_or(false);
    let prompts = match request.prompt {
        Some(prompts) => prompts.encode(&app, &served, "prompt").await?,
        None => vec![Prompt::default()],
    };
    let choices = prompts.len() * fields.best_of;
    if choices > MAX_PROMPTS {
        let message = format!("found {choices} completions over all prompts, expected at most {MAX_PROMPTS}");
        return Err(ApiError::invalid_param(
            if fields.best_of > fields.n { "best_of" } else { "n" },
            message,
        ));
    }
    let n_positions = served.config().n_positions;
    let longest_prompt = prompts.iter().map(Prompt::token_count).max().unwrap_or(0);
    let default_max_tokens = || served.default_max_tokens(longest_prompt, DEFAULT_MAX_TOKENS);
    let max_tokens = *options.max_tokens.get_or_insert_with(default_max_tokens);
    if let Some(prompt) =
        prompts.iter().find(|prompt| prompt.token_count().saturating_add(max_tokens) > n_positions)
    {
        return Err(ApiError::context_length_exceeded(
            "prompt",
            n_positions,
            prompt.token_count(),
            max_tokens,
        ));
    }
    if app.log_prompts {
        context.set_prompt(prompts.iter().map(|prompt| prompt.text.as_str()).collect::<Vec<_>>().join("\n"));
    }

    let prompt_tokens = prompts.iter().map(Prompt::token_count).sum();
    app.reserve(&context, prompt_tokens + choices * max_tokens).await?;
    let engine_request = |(i, prompt): (usize, &Prompt)| Request {
        prompt: prompt.ids.clone(),
        adapter: served.adapter.clone(),
        priority: context.priority,
        kind: RequestKind::Complete(CompletionParams {
            options: options.clone(),
            choices: fields.best_of,
            first_stream: (i * fields.best_of) as u64,
            top_logprobs: fields.logprobs.unwrap_or(0),
            score_prompt: echo && fields.logprobs.is_some(),
        }),
    };
    let requests = prompts.iter().enumerate().map(engine_request).collect();
    let submission = Submission::start(&app, &served, requests, "prompt")?;
    context.set_prompt_tokens(prompt_tokens);
    let builder = CompletionsResponseBuilder {
        response: CompletionResponse::new("cmpl", "text_completion", &name, None),
        prompts: prompts.into_iter().map(|prompt| (prompt, fields.best_of).into()).collect(),
        served,
        n: fields.n,
        echo,
        include_logprobs: fields.logprobs.is_some(),
        include_token_ids: request.return_token_ids.unwrap_or(false),
        include_usage: matches!(fields.mode, ResponseMode::Stream { include_usage: true }),
    };
    respond(context, builder, submission, fields.mode).await
}
