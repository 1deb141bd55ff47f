//! `/v1/embeddings`: the mean of a text's final hidden states, as numbers or as their bytes in base64.

use super::App;
use super::answer::{json, text};
use super::error::{ApiError, ErrorBody};
use super::json::{Body, Json};
use super::log::Call;
use super::prompts::{Prompt, Prompts};
use super::submission::Submission;
use crate::engine::{Event, Request, RequestKind};
use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// A request. Each field may be left out or null, but for `input`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct EmbeddingRequest {
    /// The model; the one in the path comes before it.
    model: Option<String>,
    /// One text or several.
    input: Option<Prompts>,
    /// `float` (the default) or `base64`, which is little-endian f32.
    encoding_format: Option<String>,
    /// The width of the embeddings, which is the model's and cannot be another.
    dimensions: Option<i64>,
}

impl Body for EmbeddingRequest {}

/// The answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct Embeddings {
    object: &'static str,
    data: Vec<Embedding>,
    model: String,
    usage: PromptUsage,
}

/// One text's.
#[derive(Debug, Serialize, ToSchema)]
pub struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

/// `[n_embd]`
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Vector {
    /// As numbers.
    Float(Vec<f32>),
    /// As bytes.
    Base64(String),
}

/// Tokens counted.
#[derive(Debug, Serialize, ToSchema)]
pub struct PromptUsage {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// Embed one text or several.
#[utoipa::path(post, path = "/v1/embeddings", request_body = EmbeddingRequest, responses(
    (status = 200, body = Embeddings, description = "One for each text"),
    (status = "4XX", body = ErrorBody, description = "What is wrong"),
))]
pub async fn create(
    State(app): State<Arc<App>>,
    Extension(call): Extension<Arc<Call>>,
    engine: Option<Path<String>>,
    Json(request): Json<EmbeddingRequest>,
) -> Result<Response, ApiError> {
    let key = call.key();
    let (served, name) =
        app.models.find(engine.as_deref().map(String::as_str), request.model.as_deref(), key.as_deref())?;
    call.asks_for(&name);
    let base64 = match request.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(other) => {
            let message = format!("found {other:?}, expected \"float\" or \"base64\"");
            return Err(ApiError::param("encoding_format", message));
        }
    };
    let n_embd = served.config().n_embd;
    if let Some(dimensions) = request.dimensions.filter(|&wanted| usize::try_from(wanted) != Ok(n_embd)) {
        let message = format!("found {dimensions}, expected {n_embd}, which is the model's width");
        return Err(ApiError::param("dimensions", message));
    }
    let Some(input) = request.input else {
        return Err(ApiError::param("input", "found nothing, expected a text or several"));
    };
    let prompts = input.read(&served, "input").await?;
    let n_positions = served.config().n_positions;
    if prompts.iter().any(|prompt| prompt.ids.is_empty()) {
        return Err(ApiError::param("input", "found an empty string, expected some text"));
    }
    if let Some(prompt) = prompts.iter().find(|prompt| prompt.tokens() > n_positions) {
        return Err(ApiError::context_length("input", n_positions, prompt.tokens(), 0));
    }
    if app.log_prompts {
        call.prompt(prompts.iter().map(|prompt| prompt.text.as_str()).collect::<Vec<_>>().join("\n"));
    }
    let tokens = prompts.iter().map(Prompt::tokens).sum();
    app.reserve(&call, tokens)?;
    let mut vectors: Vec<Vec<f32>> = vec![vec![]; prompts.len()];
    let requests =
        prompts.into_iter().map(|prompt| Request { prompt: prompt.ids, kind: RequestKind::Embed }).collect();
    let mut submission = Submission::start(&app, &served, requests, "input")?;
    call.admitted(tokens);
    while let Some((index, event)) = submission.next().await? {
        match event {
            Event::Embedding(vector) => vectors[index] = vector,
            Event::Failed(error) => return Err(ApiError::internal(error.to_string())),
            Event::Prompt(_) | Event::Token { .. } | Event::Finished { .. } => {}
        }
    }
    let embedding = |(index, vector): (usize, Vec<f32>)| Embedding {
        object: "embedding",
        index,
        embedding: match base64 {
            true => Vector::Base64(
                STANDARD.encode(vector.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()),
            ),
            false => Vector::Float(vector),
        },
    };
    let data = vectors.into_iter().enumerate().map(embedding).collect();
    let usage = PromptUsage { prompt_tokens: tokens, total_tokens: tokens };
    Ok(json(text(&Embeddings { object: "list", data, model: name, usage })).into_response())
}
