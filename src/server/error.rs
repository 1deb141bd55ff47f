//! Rejections: OpenAI's error object, with the status and headers that its client libraries act on.

use super::text::{format_duration, shorten};
use crate::Error;
use crate::engine::SubmitError;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::time::Duration;
use utoipa::ToSchema;

/// An error response, sent as `{"error": {"message", "type", "param", "code"}}`.
#[derive(Clone, Debug)]
pub struct ApiError {
    status: StatusCode,
    body: ErrorObject,
    /// Delay after which the client may retry.
    retry_after: Option<Duration>,
    /// Retrying can never succeed, although the status suggests it.
    should_not_retry: bool,
    /// The connection is closed after this response.
    close_connection: bool,
    /// Tokens of a prompt that was too long, which count against the key's limit all the same.
    refused_tokens: Option<RefusedTokens>,
}

/// Tokens of a refused request, an extension of its response.
#[derive(Clone, Copy, Debug)]
pub struct RefusedTokens(pub u64);

/// The inner object. All four keys are always present.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ErrorObject {
    /// Error message for a person.
    pub message: String,
    /// Error type: `invalid_request_error`, `requests`, `tokens` or `server_error`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The invalid request field.
    pub param: Option<String>,
    /// Error code for a program.
    pub code: Option<&'static str>,
}

/// The outer object.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody<'a> {
    error: &'a ErrorObject,
}

const INVALID: &str = "invalid_request_error";
/// Maximum length of a message, which may repeat a part of the request.
const MAX_MESSAGE_CHARS: usize = 1000;
/// Maximum length of a field's path.
const MAX_PARAM_CHARS: usize = 200;

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        let message = shorten(&message.into(), MAX_MESSAGE_CHARS).into_owned();
        let body = ErrorObject { message, kind, param: None, code: None };
        Self {
            status,
            body,
            retry_after: None,
            should_not_retry: false,
            close_connection: false,
            refused_tokens: None,
        }
    }

    fn code(mut self, code: &'static str) -> Self {
        self.body.code = Some(code);
        self
    }

    /// 400: the request is malformed.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID, message)
    }

    /// 400: a field is missing, malformed or out of range.
    pub fn invalid_param(param: &str, message: impl AsRef<str>) -> Self {
        let param = shorten(param, MAX_PARAM_CHARS);
        let mut error = Self::invalid(format!("{param}: {}", message.as_ref()));
        error.body.param = Some(param.into_owned());
        error
    }

    /// 400: a known field that would change the response and is not supported.
    pub fn unsupported_param(param: &str, instead: Option<&str>) -> Self {
        let way_out =
            instead.map_or("remove it from the request".into(), |name| format!("use {name} instead"));
        Self::invalid_param(param, format!("not supported by this server; {way_out}"))
            .code("unsupported_parameter")
    }

    /// 400: prompt and completion together exceed the model's context length.
    pub fn context_length_exceeded(
        param: &str,
        n_positions: usize,
        prompt: usize,
        completion: usize,
    ) -> Self {
        let mut error = Self::invalid(format!(
            "This model's maximum context length is {n_positions} tokens, however you requested {} tokens \
             ({prompt} in your prompt; {completion} for the completion). \
             Please reduce your prompt; or completion length.",
            prompt.saturating_add(completion)
        ))
        .code("context_length_exceeded");
        error.body.param = Some(param.to_string());
        error.refused_tokens = Some(RefusedTokens(prompt as u64));
        error
    }

    /// 401: no API key, or an unknown one.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, INVALID, message).code("invalid_api_key")
    }

    /// 403: a host or an origin that is not allowed.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, INVALID, message).code("forbidden")
    }

    /// 415: a compressed body.
    pub fn unsupported_encoding(encoding: &str) -> Self {
        let message = format!("Content-Encoding: found {encoding:?}, expected a body that is not compressed");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID, message).code("unsupported_content_encoding")
    }

    /// 501: a transfer coding other than `chunked` (RFC 9112, section 6.1).
    pub fn unsupported_transfer_coding(coding: &str) -> Self {
        let message = format!("Transfer-Encoding: found {coding:?}, expected chunked");
        Self::new(StatusCode::NOT_IMPLEMENTED, INVALID, message).code("unsupported_transfer_encoding")
    }

    /// 400, 414 or 431: the head of the request is malformed or too large.
    pub fn malformed(status: StatusCode, message: &str) -> Self {
        Self::new(status, INVALID, message)
    }

    /// 404: no such path.
    pub fn not_found(method: &str, path: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, INVALID, format!("Unknown request URL: {method} {path}"))
            .code("unknown_url")
    }

    /// 404: what the request asks for is off unless the server is started with a flag.
    pub fn off(what: &str, flag: &str) -> Self {
        let message = format!("This server does not do this: {what} only if it was started with {flag}.");
        Self::new(StatusCode::NOT_FOUND, INVALID, message).code("not_enabled")
    }

    /// Adds a sentence to the message.
    pub fn because(mut self, sentence: &str) -> Self {
        self.body.message = format!("{}. {sentence}", self.body.message);
        self
    }

    /// 404: no such model, or the key may not use it.
    pub fn model_not_found(name: &str) -> Self {
        let message = format!("The model `{name}` does not exist or you do not have access to it.");
        let mut error = Self::new(StatusCode::NOT_FOUND, INVALID, message).code("model_not_found");
        error.body.param = Some("model".into());
        error
    }

    /// 404: the route needs a store, in which it keeps these objects.
    pub fn no_store(objects: &str) -> Self {
        let message = format!(
            "This server keeps no {objects}: it has no store. Start it with hornbook serve --store DIR."
        );
        Self::new(StatusCode::NOT_FOUND, INVALID, message).code("no_store")
    }

    /// 404: no such object in the store, or it is another key's.
    pub fn no_such_object(object: &str, id: &str) -> Self {
        let id = shorten(id, MAX_PARAM_CHARS);
        Self::new(StatusCode::NOT_FOUND, INVALID, format!("No such {object}: {id}")).code("not_found")
    }

    /// 405: the path exists, but not for this method.
    pub fn method_not_allowed(method: &str, path: &str) -> Self {
        let message = format!("Not allowed to {method} on {path}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, INVALID, message).code("method_not_supported")
    }

    /// 408: the request body did not arrive in time.
    pub fn timeout() -> Self {
        let message = "the request body did not arrive in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, INVALID, message).code("request_timeout")
    }

    /// 413: the request body is too large.
    pub fn body_too_large(limit: usize) -> Self {
        let message = format!("the request body is too large, expected at most {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID, message).code("request_too_large")
    }

    /// 429: a rate limit is reached; `kind` is "requests" or "tokens".
    pub fn rate_limited(kind: &'static str, message: String, retry_after: Duration) -> Self {
        let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, kind, message).code("rate_limit_exceeded");
        error.retry_after = Some(retry_after);
        error
    }

    /// 429: a single request needs more tokens than the limit per minute.
    pub fn exceeds_rate_limit(message: String) -> Self {
        let mut error =
            Self::new(StatusCode::TOO_MANY_REQUESTS, "tokens", message).code("rate_limit_exceeded");
        error.should_not_retry = true;
        error
    }

    /// 429: a key has as many unfinished jobs as it may have.
    pub fn too_many_jobs(max: u64) -> Self {
        let message =
            format!("There are unfinished jobs, of which a key has at most {max}; wait for one to end.");
        let mut error =
            Self::new(StatusCode::TOO_MANY_REQUESTS, "requests", message).code("rate_limit_exceeded");
        error.should_not_retry = true;
        error
    }

    fn unavailable(message: &str, retry_after: Duration) -> Self {
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message);
        error.retry_after = Some(retry_after);
        error
    }

    /// 503: other requests need all the memory for large bodies.
    pub fn busy() -> Self {
        Self::unavailable("the server is busy with other large requests", Duration::from_secs(1))
    }

    /// 503: too many connections are in use.
    pub fn too_many_connections() -> Self {
        let mut error = Self::unavailable(
            "too many connections are in use; try again in a second",
            Duration::from_secs(1),
        );
        error.close_connection = true;
        error
    }

    /// 429: the queue is full, and should have room after this delay.
    pub fn queue_full(retry_after: Duration) -> Self {
        let delay = format_duration(retry_after);
        let message = format!("The request queue is full. Please try again in {delay}.");
        Self::rate_limited("requests", message, retry_after)
    }

    /// 503: the models are still loading.
    pub fn loading() -> Self {
        Self::unavailable("the server is loading its models; try again in a second", Duration::from_secs(1))
    }

    /// 503: the server is shutting down.
    pub fn shutting_down() -> Self {
        let message = "the server is shutting down; try again once it is back";
        let mut error = Self::unavailable(message, Duration::from_secs(5));
        error.close_connection = true;
        error
    }

    /// 500: the engine could not compute the request. The log has the whole error, which may name files.
    pub fn failed(error: &Error) -> Self {
        tracing::error!("{error}");
        Self::internal(error.without_path())
    }

    /// 507: the disk or the store's quota is full; 500: another error of the store.
    pub fn from_store_error(error: &Error) -> Self {
        match error {
            Error::Io { source, .. } if error.is_disk_full() => {
                tracing::error!("{error}");
                let message = format!("The server has no room for this: {source}");
                let mut error = Self::new(StatusCode::INSUFFICIENT_STORAGE, "server_error", message);
                error.should_not_retry = true;
                error.code("insufficient_storage")
            }
            error => Self::failed(error),
        }
    }

    /// 500: an error that is not the client's fault.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    /// The error for a request that the engine rejected; `prompt_param` is the request field its tokens came
    /// from.
    pub fn from_submit_error(error: SubmitError, prompt_param: &str) -> Self {
        match error {
            SubmitError::QueueFull => Self::queue_full(Duration::from_secs(1)),
            SubmitError::Closed => Self::shutting_down(),
            SubmitError::Invalid(Error::ContextOverflow { prompt_tokens, n_positions }) => {
                Self::context_length_exceeded(prompt_param, n_positions, prompt_tokens, 0)
            }
            SubmitError::Invalid(Error::Parameter { name, found, expected }) => {
                Self::invalid_param(&name, format!("found {found}, expected {expected}"))
            }
            SubmitError::Invalid(error @ Error::TokenId { .. }) => {
                Self::invalid_param(prompt_param, error.to_string())
            }
            SubmitError::Invalid(error) => Self::invalid(error.to_string()),
        }
    }

    /// Returns the HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the message for a person.
    pub fn message(&self) -> &str {
        &self.body.message
    }

    /// Returns the error object as JSON, as an SSE event of a started stream carries it.
    pub fn json(&self) -> String {
        let body = ErrorBody { error: &self.body };
        serde_json::to_string(&body).unwrap_or_default() // cannot fail: strings only
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.json()).into_response();
        if let Some(tokens) = self.refused_tokens {
            response.extensions_mut().insert(tokens);
        }
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(delay) = self.retry_after {
            // openai 0.28 reads seconds, newer clients prefer milliseconds.
            let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, seconds.max(1).into());
            headers.insert("retry-after-ms", (delay.as_millis() as u64).max(1).into());
        }
        if self.close_connection {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if self.status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        if self.should_not_retry {
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn error_object_always_has_all_four_keys() {
        let value: Value = serde_json::from_str(&ApiError::invalid("no").json()).unwrap();
        let expected = json!({"message": "no", "type": "invalid_request_error", "param": null, "code": null});
        assert_eq!(value, json!({"error": expected}));
        let value: Value = serde_json::from_str(&ApiError::unsupported_param("suffix", None).json()).unwrap();
        assert_eq!(value["error"]["param"], "suffix");
        assert_eq!(value["error"]["code"], "unsupported_parameter");
    }

    #[test]
    fn full_store_says_so_without_its_path() {
        use std::io::{Error as IoError, ErrorKind};
        let error = |kind| {
            let source = IoError::new(kind, "no space left on device");
            ApiError::from_store_error(&Error::Io { path: "/secret".into(), action: "write", source })
        };
        for (kind, status) in
            [(ErrorKind::StorageFull, 507), (ErrorKind::QuotaExceeded, 507), (ErrorKind::NotFound, 500)]
        {
            let error = error(kind);
            assert_eq!(error.status().as_u16(), status);
            assert!(error.json().contains("no space left") && !error.json().contains("secret"));
        }
    }

    #[test]
    fn retry_delay_is_sent_in_seconds_and_milliseconds() {
        let error = ApiError::rate_limited("requests", "slow down".into(), Duration::from_millis(1200));
        let response = error.into_response();
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(response.headers()["retry-after-ms"], "1200");
        let response = ApiError::rate_limited("tokens", String::new(), Duration::ZERO).into_response();
        assert_eq!(response.headers()["retry-after"], "1");
        assert!(!response.headers().contains_key("x-should-retry"));
        assert_eq!(
            ApiError::exceeds_rate_limit(String::new()).into_response().headers()["x-should-retry"],
            "false"
        );
    }
}
