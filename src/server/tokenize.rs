//! `/tokenize` and `/detokenize`: text to token ids and back.

use super::AppState;
use super::error::ApiError;
use super::json::{Json, RequestBody};
use super::json::{json_response, to_json};
use super::request_context::RequestContext;
use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// Maximum size of a text.
const MAX_TEXT_BYTES: usize = 1 << 20;

/// A request to tokenize a text.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct TokenizeRequest {
    /// The model; required if several are served.
    model: Option<String>,
    /// The text; llama.cpp's name `content` and `text` are accepted too.
    #[serde(alias = "content", alias = "text")]
    prompt: Option<String>,
    /// Whether to parse `<|endoftext|>` in the text as the special token.
    special: Option<bool>,
}

/// A request to decode token ids.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct DetokenizeRequest {
    /// The model; required if several are served.
    model: Option<String>,
    /// The token ids.
    tokens: Option<Vec<u32>>,
}

/// The tokens of a text.
#[derive(Serialize, ToSchema)]
pub struct Tokens {
    /// Number of tokens.
    count: usize,
    /// Context length of the model.
    max_model_len: usize,
    /// The token ids.
    tokens: Vec<u32>,
}

/// The text of tokens, under vLLM's name and llama.cpp's.
#[derive(Serialize, ToSchema)]
pub struct Text<'a> {
    /// The text.
    prompt: &'a str,
    /// The text.
    content: &'a str,
}

impl RequestBody for TokenizeRequest {}
impl RequestBody for DetokenizeRequest {}

/// Tokenize a text.
#[utoipa::path(post, path = "/tokenize", operation_id = "tokenize", tag = "tokens",
    request_body = TokenizeRequest, responses((status = 200, body = Tokens, description = "The token ids")))]
pub async fn tokenize(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    Json(request): Json<TokenizeRequest>,
) -> Result<Response, ApiError> {
    let (served, name) = app.models.resolve(None, request.model.as_deref(), context.key().as_deref())?;
    context.set_model(&name);
    let Some(text) = request.prompt else {
        return Err(ApiError::invalid_param("prompt", "missing, expected a string"));
    };
    let special = request.special.unwrap_or(false);
    let max_model_len = served.config().n_positions;
    if text.len() > MAX_TEXT_BYTES {
        let message = format!("found {} bytes of text, expected at most {MAX_TEXT_BYTES}", text.len());
        return Err(ApiError::invalid_param("prompt", message));
    }
    let encoded = app.memory.run(text.len(), move || {
        let tokenizer = served.tokenizer("prompt")?;
        tokenizer.encode(&text, special).map_err(|error| ApiError::invalid_param("prompt", error.to_string()))
    });
    let tokens = encoded.await?;
    Ok(json_response(to_json(&Tokens { count: tokens.len(), max_model_len, tokens })).into_response())
}

/// Decode token ids.
#[utoipa::path(post, path = "/detokenize", operation_id = "detokenize", tag = "tokens",
    request_body = DetokenizeRequest, responses((status = 200, body = Text, description = "The text")))]
pub async fn detokenize(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    Json(request): Json<DetokenizeRequest>,
) -> Result<Response, ApiError> {
    let (served, name) = app.models.resolve(None, request.model.as_deref(), context.key().as_deref())?;
    context.set_model(&name);
    let Some(tokens) = request.tokens else {
        return Err(ApiError::invalid_param("tokens", "missing, expected a list of token ids"));
    };
    let tokenizer = served.tokenizer("tokens")?;
    let vocab_size = served.config().vocab_size;
    if let Some(&id) = tokens.iter().find(|&&id| id as usize >= vocab_size) {
        return Err(ApiError::invalid_param("tokens", crate::Error::TokenId { id, vocab_size }.to_string()));
    }
    let text = tokenizer.decode(&tokens);
    Ok(json_response(to_json(&Text { prompt: &text, content: &text })).into_response())
}
