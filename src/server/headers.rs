//! Around every request: an id, whose key it is, its limits, and the headers that go with every answer.

use super::App;
use super::error::ApiError;
use super::limits::shown;
use super::log::Call;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// What everyone may read without a key.
const OPEN: [&str; 2] = ["/health", "/openapi.json"];
/// What can be read to the end.
const TO_THE_END: &str = "/metrics";

/// The version of OpenAI's API that is spoken.
const VERSION: &str = "2020-10-01";

/// Gives a request its id and [`Call`], and its answer the headers.
pub async fn around(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map_or("(unknown)", |path| path.as_str());
    let route = format!("{} {path}", known(request.method()));
    let call = Arc::new(Call::new(format!("req_{}", random_id()), route, Arc::clone(&app.metrics)));
    request.extensions_mut().insert(Arc::clone(&call));
    let mut response = next.run(request).await;
    call.answered(response.status().as_u16());
    add(response.headers_mut(), &app, &call);
    response
}

/// Whether the server takes requests, whose key it is, and whether that key may ask once more.
pub async fn admit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map_or("", |path| path.as_str());
    if !app.is_open() && path != TO_THE_END {
        return ApiError::closing().into_response();
    }
    let (Some(keys), false) = (&app.keys, OPEN.contains(&path)) else {
        return next.run(request).await;
    };
    let key = match keys.authenticate(request.headers()) {
        Ok(key) => key,
        Err(error) => return error.into_response(),
    };
    if let Some(call) = request.extensions().get::<Arc<Call>>() {
        call.came_with(Arc::clone(&key));
    }
    // Lists cost nothing; what costs something is posted.
    if request.method() == Method::POST
        && let Err(error) = app.limits.request(&key)
    {
        return error.into_response();
    }
    next.run(request).await
}

fn add(headers: &mut HeaderMap, app: &App, call: &Call) {
    let mut set = |name: &'static str, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    };
    set("x-request-id", &call.id);
    set("request-id", &call.id); // the old client's name for it
    set("openai-version", VERSION);
    set("openai-processing-ms", &call.elapsed().as_millis().to_string());
    let key = call.key();
    set("openai-organization", key.as_ref().map_or("hornbook", |key| &key.name));
    let Some(key) = key else { return };
    for (of, state) in app.limits.state(&key) {
        let Some(state) = state else { continue };
        for (what, text) in [
            ("limit", state.limit.to_string()),
            ("remaining", state.remaining.to_string()),
            ("reset", shown(state.reset)),
        ] {
            let name = format!("x-ratelimit-{what}-{of}");
            if let (Ok(name), Ok(value)) =
                (axum::http::HeaderName::try_from(name), HeaderValue::from_str(&text))
            {
                headers.insert(name, value);
            }
        }
    }
}

/// A method's name, where it is one that counts; anyone can make up others.
fn known(method: &Method) -> &str {
    match *method {
        Method::GET | Method::POST | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE => {
            method.as_str()
        }
        _ => "(other)",
    }
}

/// 128 random bits in hexadecimal.
pub fn random_id() -> String {
    format!("{:016x}{:016x}", random(), random())
}

/// A random number.
pub fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // Without the system's random numbers, the standard library's hash keys and the time.
    getrandom::u64().unwrap_or_else(|_| RandomState::new().hash_one(std::time::Instant::now()))
}

/// No such path, in JSON.
pub async fn not_found(request: Request) -> ApiError {
    ApiError::not_found(known(request.method()), request.uri().path())
}

/// The path is there, the method is not.
pub async fn method_not_allowed(request: Request) -> ApiError {
    ApiError::method_not_allowed(known(request.method()), request.uri().path())
}
