//! The route table. Every path works with and without the `/v1` prefix, and with repeated slashes.

use super::access::origin_is_allowed;
use super::{AppState, chat, completions, embeddings, metrics, middleware, models, tokenize};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, Method, Request, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::json;
use std::sync::Arc;
use tower_http::cors::{AllowHeaders, AllowOrigin, AllowPrivateNetwork, CorsLayer, ExposeHeaders};
use utoipa::ToSchema;

/// Returns the router with all routes and middleware.
pub fn router(app: Arc<AppState>) -> Router {
    Router::new()
        .route("/completions", post(completions::create))
        .route("/chat/completions", post(chat::create))
        .route("/embeddings", post(embeddings::create))
        .route("/models", get(models::list))
        // Model names may contain slashes. Deletion is a route of OpenAI's that is not there.
        .route("/models/{*model}", get(models::retrieve).delete(middleware::not_found))
        .route("/engines", get(models::list_engines))
        .route("/engines/{engine}", get(models::retrieve_engine))
        .route("/engines/{engine}/completions", post(completions::create))
        .route("/engines/{engine}/chat/completions", post(chat::create))
        .route("/engines/{engine}/embeddings", post(embeddings::create))
        .route("/tokenize", post(tokenize::tokenize))
        .route("/detokenize", post(tokenize::detokenize))
        .route("/metrics", get(metrics::export))
        .route("/health", get(health))
        .route("/openapi.json", get(openapi))
        .fallback(middleware::not_found)
        .method_not_allowed_fallback(middleware::method_not_allowed)
        .layer(from_fn_with_state(Arc::clone(&app), middleware::authorize))
        .layer(cors_layer(app.cors_origins.clone()))
        .layer(from_fn_with_state(Arc::clone(&app), middleware::request_context))
        .with_state(app)
}

/// Report whether the server is ready.
#[utoipa::path(get, path = "/health", operation_id = "getHealth", tag = "server", responses(
    (status = 200, body = Health, description = "The server accepts requests")))]
pub async fn health() -> Response {
    // If the server is not ready, the request was already rejected with 503.
    super::response::json_object(&json!({"status": "ok"}))
}

/// The answer of `/health`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub struct Health {
    /// `ok`
    status: &'static str,
}

/// Retrieve this description of the API.
#[utoipa::path(get, path = "/openapi.json", operation_id = "getOpenApi", tag = "server", responses(
    (status = 200, body = serde_json::Value, description = "The description, in OpenAPI 3.1")))]
pub async fn openapi(State(app): State<Arc<AppState>>) -> Response {
    let configs = app.models.served().iter().map(|served| served.config());
    super::response::json_object(&super::openapi::description(configs))
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
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(AllowHeaders::mirror_request()) // Authorization and the clients' x-stainless-*
        .expose_headers(ExposeHeaders::list(exposed.filter_map(|name| name.try_into().ok())))
        .max_age(std::time::Duration::from_secs(3600))
}

/// The path as the client wrote it, before normalization.
#[derive(Clone)]
pub struct WrittenPath(String);

/// Normalizes the path of a request; what the client wrote is kept as [`WrittenPath`].
pub fn normalize_request<B>(request: &mut Request<B>) {
    let written = WrittenPath(request.uri().path().to_string());
    request.extensions_mut().insert(written);
    if let Some(uri) = normalize_path(request.uri()) {
        *request.uri_mut() = uri;
    }
}

/// Returns the path of a request as the client wrote it.
pub fn written_path<B>(request: &Request<B>) -> &str {
    request.extensions().get::<WrittenPath>().map_or(request.uri().path(), |WrittenPath(path)| path)
}

/// Returns the URI with its path normalized: without the `/v1` prefix and empty segments, so `/v1//engines/`
/// becomes `/engines`. `None` if the result is not a valid URI.
pub fn normalize_path(uri: &Uri) -> Option<Uri> {
    let segments: Vec<&str> = uri.path().split('/').filter(|segment| !segment.is_empty()).collect();
    let segments = match segments.as_slice() {
        ["v1", rest @ ..] => rest,
        all => all,
    };
    let mut path = format!("/{}", segments.join("/"));
    if let Some(query) = uri.query() {
        path = format!("{path}?{query}");
    }
    path.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_and_repeated_slashes_are_normalized_away() {
        for (path, normalized) in [
            ("/v1/completions", "/completions"),
            ("/completions", "/completions"),
            ("/v1//engines/gpt2/completions", "/engines/gpt2/completions"),
            ("//engines/a%2Fb/", "/engines/a%2Fb"),
            ("/v1/v1/models", "/v1/models"),
            ("/v1", "/"),
            ("/v1/models?x=1", "/models?x=1"),
            ("http://host/v1/models", "/models"),
        ] {
            assert_eq!(normalize_path(&path.parse().unwrap()).unwrap().to_string(), normalized, "{path}");
        }
    }
}
