//! `/v1/embeddings`: the mean of a text's final hidden states, as floats or base64.

use super::AppState;
use super::error::ApiError;
use super::json::to_json;
use super::json::{Json, RequestBody};
use super::models::PathName;
use super::prompts::{Prompt, Prompts};
use super::request_context::RequestContext;
use super::response::respond_json;
use super::submission::Submission;
use crate::engine::{Event, Request, RequestKind};
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// An embedding request. All fields but `input` may be absent or null.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct EmbeddingRequest {
    /// The model; a model in the path takes precedence.
    model: Option<String>,
    /// The text or texts to embed.
    input: Option<Prompts>,
    /// `float` (the default), or `base64` of little-endian f32.
    encoding_format: Option<String>,
    /// Embedding size; must be the model's `n_embd`.
    dimensions: Option<i64>,
}

impl RequestBody for EmbeddingRequest {
    const FIELDS: &'static [&'static str] = &["input"];
}

/// An embedding response.
#[derive(Debug, Serialize, ToSchema)]
pub struct Embeddings {
    object: &'static str,
    data: Vec<Embedding>,
    model: String,
    usage: PromptUsage,
}

/// The embedding of one text.
#[derive(Debug, Serialize, ToSchema)]
pub struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

/// An embedding vector, `[n_embd]`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Vector {
    /// As floats.
    Float(Vec<f32>),
    /// As little-endian f32 in base64.
    Base64(String),
}

/// Token usage.
#[derive(Debug, Serialize, ToSchema)]
pub struct PromptUsage {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// Create embeddings of one or more texts.
#[utoipa::path(post, path = "/v1/embeddings", operation_id = "createEmbedding", tag = "embeddings",
    request_body = EmbeddingRequest,
    responses((status = 200, body = Embeddings, description = "One embedding per text")))]
pub async fn create(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    engine: Option<PathName>,
    Json(request): Json<EmbeddingRequest>,
) -> Result<Response, ApiError> {
    let key = context.key();
    let (served, name) = app.models.resolve(
        engine.as_ref().map(|PathName(name)| name.as_str()),
        request.model.as_deref(),
        key.as_deref(),
    )?;
    context.set_model(&name);
    let base64 = match request.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(other) => {
            let message = format!("found {other:?}, expected \"float\" or \"base64\"");
            return Err(ApiError::invalid_param("encoding_format", message));
        }
    };
    let n_embd = served.config().n_embd;
    if let Some(dimensions) =
        request.dimensions.filter(|&dimensions| usize::try_from(dimensions) != Ok(n_embd))
    {
        let message = format!("found {dimensions}, expected {n_embd}, the model's embedding size");
        return Err(ApiError::invalid_param("dimensions", message));
    }
    let Some(input) = request.input else {
        return Err(ApiError::invalid_param("input", "missing, expected one or more texts"));
    };
    let prompts = input.encode(&app, &served, "input").await?;
    let n_positions = served.config().n_positions;
    if prompts.iter().any(|prompt| prompt.ids.is_empty()) {
        return Err(ApiError::invalid_param(
            "input",
            "found an empty string, expected at least one character",
        ));
    }
    if let Some(prompt) = prompts.iter().find(|prompt| prompt.token_count() > n_positions) {
        return Err(ApiError::context_length_exceeded("input", n_positions, prompt.token_count(), 0));
    }
    if app.log_prompts {
        context.set_prompt(prompts.iter().map(|prompt| prompt.text.as_str()).collect::<Vec<_>>().join("\n"));
    }
    let tokens = prompts.iter().map(Prompt::token_count).sum();
    app.reserve(&context, tokens).await?;
    let mut vectors: Vec<Vec<f32>> = vec![vec![]; prompts.len()];
    let request = |prompt: Prompt| Request {
        prompt: prompt.ids,
        kind: RequestKind::Embed,
        adapter: served.adapter.clone(),
        priority: context.priority,
    };
    let requests = prompts.into_iter().map(request).collect();
    let mut submission = Submission::start(&app, &served, requests, "input")?;
    context.set_prompt_tokens(tokens);
    let embedding = move |(index, vector): (usize, Vec<f32>)| Embedding {
        object: "embedding",
        index,
        embedding: match base64 {
            true => Vector::Base64(
                STANDARD.encode(vector.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()),
            ),
            false => Vector::Float(vector),
        },
    };
    let body = async move {
        while let Some((index, event)) = submission.next().await? {
            match event {
                Event::Embedding(vector) => vectors[index] = vector,
                Event::Failed(error) => return Err(ApiError::failed(&error)),
                Event::Prompt(_) | Event::Token { .. } | Event::Finished { .. } => {}
            }
        }
        let data = vectors.into_iter().enumerate().map(embedding).collect();
        let usage = PromptUsage { prompt_tokens: tokens, total_tokens: tokens };
        Ok(to_json(&Embeddings { object: "list", data, model: name, usage }))
    };
    respond_json(context, body).await
}
