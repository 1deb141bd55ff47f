//! Which path leads where. Every path is good with `/v1` before it and without, and however many slashes it has.

use super::{App, chat, completions, embeddings, headers, metrics, models, tokenize};
use axum::Router;
use axum::http::{HeaderValue, Method, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::json;
use std::sync::Arc;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer, ExposeHeaders};
use utoipa::OpenApi;

/// The description at `/openapi.json`.
#[derive(OpenApi)]
#[openapi(
    info(title = "Hornbook", description = "OpenAI's API on a GPT-2 of your own."),
    paths(
        completions::create,
        chat::create,
        embeddings::create,
        models::list,
        models::show,
        tokenize::tokenize,
        tokenize::detokenize,
        metrics::show,
        health
    )
)]
struct Description;

/// All routes, with what goes around them.
pub fn router(app: Arc<App>) -> Router {
    let description = Description::openapi().to_json().unwrap_or_default();
    let cors = cors(app.cors.clone());
    Router::new()
        .route("/completions", post(completions::create))
        .route("/chat/completions", post(chat::create))
        .route("/embeddings", post(embeddings::create))
        .route("/models", get(models::list))
        .route("/models/{*model}", get(models::show)) // some names have slashes
        .route("/engines", get(models::list_engines))
        .route("/engines/{engine}", get(models::show_engine))
        .route("/engines/{engine}/completions", post(completions::create))
        .route("/engines/{engine}/chat/completions", post(chat::create))
        .route("/engines/{engine}/embeddings", post(embeddings::create))
        .route("/tokenize", post(tokenize::tokenize))
        .route("/detokenize", post(tokenize::detokenize))
        .route("/metrics", get(metrics::show))
        .route("/health", get(health))
        .route("/openapi.json", get(async || super::answer::json(description)))
        .fallback(headers::not_found)
        .method_not_allowed_fallback(headers::method_not_allowed)
        .layer(from_fn_with_state(Arc::clone(&app), headers::admit))
        .layer(cors)
        .layer(from_fn_with_state(Arc::clone(&app), headers::around))
        .with_state(app)
}

/// Whether the server is there and takes requests.
#[utoipa::path(get, path = "/health", responses(
    (status = 200, description = "It takes requests"),
    (status = 503, description = "It is loading its models, or shutting down")))]
async fn health() -> Response {
    super::answer::object(&json!({"status": "ok"})) // where it does not, nobody comes so far
}

/// Pages from this machine may ask, and those the operator names.
fn cors(allowed: Vec<String>) -> CorsLayer {
    let allowed = move |origin: &HeaderValue, _: &axum::http::request::Parts| {
        origin.to_str().is_ok_and(|origin| {
            is_loopback(origin) || allowed.iter().any(|allowed| allowed == "*" || allowed == origin)
        })
    };
    let names = ["x-request-id", "openai-processing-ms", "retry-after", "retry-after-ms"];
    let limits = ["limit", "remaining", "reset"]
        .into_iter()
        .flat_map(|what| ["requests", "tokens"].map(|of| format!("x-ratelimit-{what}-{of}")));
    let exposed = names.into_iter().map(String::from).chain(limits);
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(allowed))
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(AllowHeaders::mirror_request()) // Authorization and the clients' x-stainless-*
        .expose_headers(ExposeHeaders::list(exposed.filter_map(|name| name.try_into().ok())))
        .max_age(std::time::Duration::from_secs(3600))
}

/// Whether an origin is a page that this machine serves: `http://localhost:3000` and the like.
fn is_loopback(origin: &str) -> bool {
    let Some((_, host)) = origin.split_once("://") else { return false };
    let host = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(host, _)| host),
    };
    host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

/// A request's path without what does not matter: `/v1//engines/` is `/engines`.
pub fn plain(uri: &Uri) -> Option<Uri> {
    let parts: Vec<&str> = uri.path().split('/').filter(|part| !part.is_empty()).collect();
    let parts = match parts.as_slice() {
        ["v1", rest @ ..] => rest,
        all => all,
    };
    let mut path = format!("/{}", parts.join("/"));
    if let Some(query) = uri.query() {
        path = format!("{path}?{query}");
    }
    path.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_the_same_with_v1_and_any_slashes() {
        for (given, meant) in [
            ("/v1/completions", "/completions"),
            ("/completions", "/completions"),
            ("/v1//engines/gpt2/completions", "/engines/gpt2/completions"),
            ("//engines/a%2Fb/", "/engines/a%2Fb"),
            ("/v1/v1/models", "/v1/models"),
            ("/v1", "/"),
            ("/v1/models?x=1", "/models?x=1"),
            ("http://host/v1/models", "/models"),
        ] {
            assert_eq!(plain(&given.parse().unwrap()).unwrap().to_string(), meant, "{given}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for origin in [
            "http://localhost",
            "http://localhost:3000",
            "https://127.0.0.1:8080",
            "http://[::1]:1",
            "http://127.9.9.9",
        ] {
            assert!(is_loopback(origin), "{origin}");
        }
        for origin in [
            "null",
            "http://localhost.evil.com",
            "http://127.0.0.1.evil.com",
            "http://evil.com:80",
            "http://[::2]:1",
            "http://evil.com/localhost",
            "",
        ] {
            assert!(!is_loopback(origin), "{origin}");
        }
    }
}
