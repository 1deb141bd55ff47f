//! The route table, and the handlers that the OpenAPI description is derived from. Every path works with and
//! without the `/v1` prefix, and with repeated slashes.

use super::access::origin_is_allowed;
use super::chat_response::{ChatChoice, ChunkChoice};
use super::error::ErrorBody;
use super::fine_tuning::{jobs, legacy};
use super::json::json_object;
use super::models::{routes as models, runtime_adapters};
use super::response::CompletionResponse;
use super::responses::StreamEvent;
use super::{
    AppState, batches, chat, completions, embeddings, files, health, lens, measure, metrics, middleware,
    openapi, page, responses, tokenize,
};
use crate::generate::completion::Choice;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, Method};
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::{get, post};
use std::sync::Arc;
use tower_http::cors::{AllowHeaders, AllowOrigin, AllowPrivateNetwork, CorsLayer, ExposeHeaders};
use utoipa::OpenApi;

/// Returns the router with all routes and middleware.
pub fn router(app: Arc<AppState>) -> Router {
    Router::new()
        .route("/completions", post(completions::create))
        .route("/chat/completions", post(chat::create))
        .route("/responses", post(responses::create))
        .route("/embeddings", post(embeddings::create))
        .route("/models", get(models::list))
        .route("/models/{*model}", get(models::retrieve).delete(models::delete)) // names may have slashes
        .route("/engines", get(models::list_engines))
        .route("/engines/{engine}", get(models::retrieve_engine))
        .route("/load_lora_adapter", post(runtime_adapters::load))
        .route("/unload_lora_adapter", post(runtime_adapters::unload))
        .route("/engines/{engine}/completions", post(completions::create))
        .route("/engines/{engine}/chat/completions", post(chat::create))
        .route("/engines/{engine}/embeddings", post(embeddings::create))
        .route("/files", get(files::routes::list).post(files::upload::create))
        .route("/files/{file_id}", get(files::routes::retrieve).delete(files::routes::delete))
        .route("/files/{file_id}/content", get(files::routes::content))
        .route("/batches", get(batches::routes::list).post(batches::routes::create))
        .route("/batches/{batch_id}", get(batches::routes::retrieve))
        .route("/batches/{batch_id}/cancel", post(batches::routes::cancel))
        .route("/fine_tuning/jobs", get(jobs::list).post(jobs::create))
        .route("/fine_tuning/jobs/{job_id}", get(jobs::retrieve))
        .route("/fine_tuning/jobs/{job_id}/cancel", post(jobs::cancel))
        .route("/fine_tuning/jobs/{job_id}/pause", post(jobs::pause))
        .route("/fine_tuning/jobs/{job_id}/resume", post(jobs::resume))
        .route("/fine_tuning/jobs/{job_id}/events", get(jobs::events))
        .route("/fine_tuning/jobs/{job_id}/checkpoints", get(jobs::list_checkpoints))
        .route("/fine-tunes", get(legacy::list).post(legacy::create))
        .route("/fine-tunes/{job_id}", get(legacy::retrieve).delete(legacy::delete))
        .route("/fine-tunes/{job_id}/cancel", post(legacy::cancel))
        .route("/fine-tunes/{job_id}/events", get(legacy::list_events))
        .route("/lens", post(lens::create))
        .route("/lens/{id}/attention/{layer}/{head}", get(lens::attention))
        .route("/lens/{id}/tokens/{token}", get(lens::token))
        .route("/lens/{id}/sites/{site}", get(lens::site))
        .route("/measure", get(measure::retrieve))
        .route("/measure/limits", post(measure::limits::measure))
        .route("/measure/attention", post(measure::attention::measure))
        .route("/", get(page::index))
        .route("/page/{file}", get(page::asset))
        .route("/page/source/{*file}", get(page::source))
        .route("/tokenize", post(tokenize::tokenize))
        .route("/detokenize", post(tokenize::detokenize))
        .route("/metrics", get(metrics::export))
        .route("/health", get(health::health))
        .route("/openapi.json", get(document))
        .fallback(middleware::not_found)
        .method_not_allowed_fallback(middleware::method_not_allowed)
        .layer(from_fn_with_state(Arc::clone(&app), middleware::authorize))
        .layer(cors_layer(app.cors_origins.clone()))
        .layer(from_fn_with_state(Arc::clone(&app), middleware::request_context))
        .with_state(app)
}

/// The handlers of the table above, by the descriptions in their attributes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Hornbook",
        description = "OpenAI-compatible API for GPT-2 models. Every path works with and without /v1.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    paths(
        completions::create,
        chat::create,
        responses::create,
        embeddings::create,
        models::list,
        models::retrieve,
        models::list_engines,
        models::retrieve_engine,
        models::delete,
        runtime_adapters::load,
        runtime_adapters::unload,
        files::upload::create,
        files::routes::list,
        files::routes::retrieve,
        files::routes::content,
        files::routes::delete,
        batches::routes::create,
        batches::routes::list,
        batches::routes::retrieve,
        batches::routes::cancel,
        jobs::list,
        jobs::create,
        jobs::retrieve,
        jobs::cancel,
        jobs::pause,
        jobs::resume,
        jobs::events,
        jobs::list_checkpoints,
        legacy::list,
        legacy::create,
        legacy::retrieve,
        legacy::delete,
        legacy::cancel,
        legacy::list_events,
        lens::create,
        lens::attention,
        lens::token,
        lens::site,
        measure::retrieve,
        measure::limits::measure,
        measure::attention::measure,
        tokenize::tokenize,
        tokenize::detokenize,
        metrics::export,
        health::health,
        document
    ),
    components(schemas(
        ErrorBody,
        ChatChoice,
        Choice,
        ChunkChoice,
        CompletionResponse<ChunkChoice>,
        StreamEvent
    ))
)]
struct Described;

/// Returns what the handlers say of themselves, which `openapi.rs` completes.
pub fn description() -> utoipa::openapi::OpenApi {
    Described::openapi()
}

/// Retrieve this description of the API.
#[utoipa::path(get, path = "/openapi.json", operation_id = "getOpenApi", tag = "server", responses(
    (status = 200, body = serde_json::Value, description = "The description, in OpenAPI 3.1")))]
async fn document(State(app): State<Arc<AppState>>) -> Response {
    let models = app.models.current();
    let configs = models.base_models().map(|served| served.config());
    json_object(&openapi::description(&description(), configs))
}

/// Returns a CORS layer that allows loopback origins and the configured ones.
fn cors_layer(allowed: Vec<String>) -> CorsLayer {
    let is_allowed = move |origin: &HeaderValue, _: &axum::http::request::Parts| {
        origin.to_str().is_ok_and(|origin| origin_is_allowed(origin, &allowed))
    };
    let names = ["x-request-id", "openai-processing-ms", "retry-after", "retry-after-ms", "ratelimit-policy"];
    let rate_limits = ["limit", "remaining", "reset"]
        .into_iter()
        .flat_map(|field| ["requests", "tokens"].map(|resource| format!("x-ratelimit-{field}-{resource}")));
    let exposed = names.into_iter().map(String::from).chain(rate_limits);
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(is_allowed.clone()))
        .allow_private_network(AllowPrivateNetwork::predicate(is_allowed))
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers(AllowHeaders::mirror_request()) // Authorization and the clients' x-stainless-*
        .expose_headers(ExposeHeaders::list(exposed.filter_map(|name| name.try_into().ok())))
        .max_age(std::time::Duration::from_secs(3600))
}
