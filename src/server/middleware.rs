//! Middleware: request context and response headers, authorization, and the fallback handlers.

use super::AppState;
use super::absent::absent_part;
use super::connection_table::Connection;
use super::error::{ApiError, RefusedTokens};
use super::path::written_path;
use super::request_context::RequestContext;
use super::text::format_duration;
use crate::engine::Priority;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// Paths that need no API key.
pub const PUBLIC_PATHS: [&str; 5] = ["/health", "/openapi.json", "/", "/page/{file}", "/page/source/{*file}"];
/// Path that is still served during shutdown.
const METRICS_PATH: &str = "/metrics";

/// Version of OpenAI's API, for the `openai-version` header.
const OPENAI_VERSION: &str = "2020-10-01";

/// Extension of a request that the server makes by itself, with the name of the key that it makes it for: no
/// key is presented, and it does not count against the limit of requests.
#[derive(Clone)]
pub struct OnBehalf(pub String);

/// Attaches a [`RequestContext`] with a new id to the request, and adds the common headers to the response.
pub async fn request_context(State(app): State<Arc<AppState>>, mut request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map_or("(unknown)", |path| path.as_str());
    let route = format!("{} {path}", method_name(request.method()));
    let priority = request.extensions().get::<Priority>().copied().unwrap_or_default();
    let id = format!("req_{}", random_id());
    let context = Arc::new(RequestContext::new(id, route, priority, Arc::clone(&app.metrics)));
    if let Some(connection) = request.extensions().get::<Arc<Connection>>() {
        context.set_connection(Arc::clone(connection));
    }
    request.extensions_mut().insert(Arc::clone(&context));
    let mut response = next.run(request).await;
    context.set_status(response.status().as_u16());
    add_response_headers(response.headers_mut(), &app, &context).await;
    response
}

/// Rejects requests during shutdown, authenticates the API key, and applies its request limit.
pub async fn authorize(State(app): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map_or("", |path| path.as_str());
    if !app.is_serving() && path != METRICS_PATH {
        return ApiError::shutting_down().into_response();
    }
    let (Some(keys), false) = (&app.keyring, PUBLIC_PATHS.contains(&path)) else {
        return next.run(request).await;
    };
    let on_behalf = request.extensions().get::<OnBehalf>();
    let key = match on_behalf {
        Some(OnBehalf(name)) => keys.find(name),
        None => keys.authenticate(request.headers()),
    };
    let key = match key {
        Ok(key) => key,
        Err(error) => return error.into_response(),
    };
    let is_counted = on_behalf.is_none() && request.method() == Method::POST;
    if let Some(context) = request.extensions().get::<Arc<RequestContext>>() {
        context.set_key(Arc::clone(&key));
    }
    // Only POST requests compute anything; GET is free.
    if is_counted && let Err(error) = app.rate_limiter.take_request(&key).await {
        return error.into_response();
    }
    let response = next.run(request).await;
    if let Some(RefusedTokens(tokens)) = response.extensions().get() {
        app.rate_limiter.take_refused_tokens(&key, *tokens).await;
    }
    response
}

async fn add_response_headers(headers: &mut HeaderMap, app: &AppState, context: &RequestContext) {
    let mut set = |name: &'static str, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    };
    set("x-request-id", &context.id);
    set("request-id", &context.id); // read by openai 0.28
    set("openai-version", OPENAI_VERSION);
    set("openai-processing-ms", &context.elapsed().as_millis().to_string());
    let key = context.key();
    set("openai-organization", key.as_ref().map_or("hornbook", |key| &key.name));
    let Some(key) = key else { return };
    let states = app.rate_limiter.state(&key).await.into_iter();
    let states: Vec<_> = states.filter_map(|(resource, state)| Some((resource, state?))).collect();
    if !states.is_empty() {
        let policies = states.iter().map(|(resource, state)| state.policy(resource)).collect::<Vec<_>>();
        set("ratelimit-policy", &policies.join(", "));
    }
    for (resource, state) in states {
        for (field, value) in [
            ("limit", state.limit.to_string()),
            ("remaining", state.remaining.to_string()),
            ("reset", format_duration(state.reset)),
        ] {
            let name = format!("x-ratelimit-{field}-{resource}");
            if let (Ok(name), Ok(value)) =
                (axum::http::HeaderName::try_from(name), HeaderValue::from_str(&value))
            {
                headers.insert(name, value);
            }
        }
    }
}

/// Returns the name of a known method. Others become one label, since clients can invent any number of them.
fn method_name(method: &Method) -> &str {
    match *method {
        Method::GET | Method::POST | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE => {
            method.as_str()
        }
        _ => "(other)",
    }
}

/// Returns 128 random bits in hexadecimal.
pub fn random_id() -> String {
    format!("{:016x}{:016x}", random_u64(), random_u64())
}

/// Returns a random number from the operating system.
pub fn random_u64() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // Fallback: the standard library's random hash keys and the time.
    getrandom::u64().unwrap_or_else(|_| RandomState::new().hash_one(std::time::Instant::now()))
}

/// Handles unknown paths.
pub async fn not_found(request: Request) -> ApiError {
    let error = ApiError::not_found(request.method().as_str(), written_path(&request));
    match absent_part(request.uri().path()) {
        Some(what) => error.because(&format!("This server has {what}.")),
        None => error,
    }
}

/// Handles known paths with an unsupported method.
pub async fn method_not_allowed(request: Request) -> ApiError {
    ApiError::method_not_allowed(request.method().as_str(), written_path(&request))
}
