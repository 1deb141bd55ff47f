//! `/tokenize` and `/detokenize`: text to token ids and back.

use super::AppState;
use super::error::ApiError;
use super::json::{Json, RequestBody};
use super::request_context::RequestContext;
use super::response::json_object;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use utoipa::ToSchema;

/// Maximum size of a text, which takes a hundred times as much memory to tokenize.
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

impl RequestBody for TokenizeRequest {}
impl RequestBody for DetokenizeRequest {}

/// Tokenize a text.
#[utoipa::path(post, path = "/tokenize", request_body = TokenizeRequest,
    responses((status = 200,
        description = "`tokens`, their `count`, and the context length as `max_model_len`")))]
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
    Ok(json_object(&json!({"count": tokens.len(), "max_model_len": max_model_len, "tokens": tokens})))
}

/// Decode token ids.
#[utoipa::path(post, path = "/detokenize", request_body = DetokenizeRequest,
    responses((status = 200, description = "The text, as `prompt` and `content`")))]
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
    Ok(json_object(&json!({"prompt": text, "content": text})))
}
