//! `/tokenize` and `/detokenize`: what a text costs, and what token ids say.

use super::App;
use super::answer::object;
use super::error::ApiError;
use super::json::{Body, Json};
use super::log::Call;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use utoipa::ToSchema;

/// A text.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct TokenizeRequest {
    /// The model, where more than one is served.
    model: Option<String>,
    /// The text; `content`, as llama.cpp calls it, is as good.
    #[serde(alias = "content", alias = "text")]
    prompt: Option<String>,
    /// Whether `<|endoftext|>` in the text is that one token.
    special: Option<bool>,
}

/// Token ids.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct DetokenizeRequest {
    /// The model, where more than one is served.
    model: Option<String>,
    /// The ids.
    tokens: Option<Vec<u32>>,
}

impl Body for TokenizeRequest {}
impl Body for DetokenizeRequest {}

/// A text's token ids.
#[utoipa::path(post, path = "/tokenize", request_body = TokenizeRequest,
    responses((status = 200, description = "`tokens`, their `count`, and the model's context as `max_model_len`")))]
pub async fn tokenize(
    State(app): State<Arc<App>>,
    Extension(call): Extension<Arc<Call>>,
    Json(request): Json<TokenizeRequest>,
) -> Result<Response, ApiError> {
    let (served, name) = app.models.find(None, request.model.as_deref(), call.key().as_deref())?;
    call.asks_for(&name);
    let Some(text) = request.prompt else {
        return Err(ApiError::param("prompt", "found nothing, expected a string"));
    };
    let special = request.special.unwrap_or(false);
    let max_model_len = served.config().n_positions;
    // A long text keeps a thread busy; not one of those that serve others.
    let encoded = tokio::task::spawn_blocking(move || {
        let tokenizer = served.tokenizer("prompt")?;
        tokenizer.encode(&text, special).map_err(|error| ApiError::param("prompt", error.to_string()))
    });
    let tokens = encoded.await.unwrap_or_else(|error| Err(ApiError::internal(error.to_string())))?;
    Ok(object(&json!({"count": tokens.len(), "max_model_len": max_model_len, "tokens": tokens})))
}

/// The text of token ids.
#[utoipa::path(post, path = "/detokenize", request_body = DetokenizeRequest,
    responses((status = 200, description = "The text, as `prompt` and as `content`")))]
pub async fn detokenize(
    State(app): State<Arc<App>>,
    Extension(call): Extension<Arc<Call>>,
    Json(request): Json<DetokenizeRequest>,
) -> Result<Response, ApiError> {
    let (served, name) = app.models.find(None, request.model.as_deref(), call.key().as_deref())?;
    call.asks_for(&name);
    let Some(tokens) = request.tokens else {
        return Err(ApiError::param("tokens", "found nothing, expected a list of token ids"));
    };
    let tokenizer = served.tokenizer("tokens")?;
    let vocab_size = served.config().vocab_size;
    if let Some(&id) = tokens.iter().find(|&&id| id as usize >= vocab_size) {
        return Err(ApiError::param("tokens", crate::Error::TokenId { id, vocab_size }.to_string()));
    }
    let text = tokenizer.decode(&tokens);
    Ok(object(&json!({"prompt": text, "content": text})))
}
