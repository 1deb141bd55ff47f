//! What a client reads when it is refused: OpenAI's error object, with the status and headers its libraries act on.

use crate::Error;
use crate::engine::SubmitError;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::time::Duration;
use utoipa::ToSchema;

/// A refusal. All of it is sent, as `{"error": {"message", "type", "param", "code"}}`.
#[derive(Clone, Debug)]
pub struct ApiError {
    status: StatusCode,
    body: ErrorObject,
    /// After which time another try makes sense.
    retry_after: Option<Duration>,
    /// No try will ever make sense, although the status says so.
    hopeless: bool,
    /// Nothing else will be answered on this connection.
    last: bool,
}

/// The inner object. All four keys are always there.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ErrorObject {
    /// What is wrong, for a person.
    pub message: String,
    /// Its kind: `invalid_request_error`, `requests`, `tokens` or `server_error`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The field that is wrong.
    pub param: Option<String>,
    /// What is wrong, for a program.
    pub code: Option<&'static str>,
}

/// The outer object.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody<'a> {
    error: &'a ErrorObject,
}

const INVALID: &str = "invalid_request_error";

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        let body = ErrorObject { message: message.into(), kind, param: None, code: None };
        Self { status, body, retry_after: None, hopeless: false, last: false }
    }

    fn code(mut self, code: &'static str) -> Self {
        self.body.code = Some(code);
        self
    }

    /// 400: the request cannot be understood.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID, message)
    }

    /// 400: a field is missing, malformed or out of range.
    pub fn param(param: &str, message: impl AsRef<str>) -> Self {
        let mut error = Self::invalid(format!("{param}: {}", message.as_ref()));
        error.body.param = Some(param.to_string());
        error
    }

    /// 400: a field that is known, would change the answer, and is not supported.
    pub fn unsupported(param: &str) -> Self {
        Self::param(param, "this server does not support it; leave it out").code("unsupported_parameter")
    }

    /// 400: prompt and completion do not fit the model's context together.
    pub fn context_length(param: &str, n_positions: usize, prompt: usize, completion: usize) -> Self {
        let mut error = Self::invalid(format!(
            "This model's maximum context length is {n_positions} tokens, however you requested {} tokens \
             ({prompt} in your prompt; {completion} for the completion). \
             Please reduce your prompt; or completion length.",
            prompt.saturating_add(completion)
        ))
        .code("context_length_exceeded");
        error.body.param = Some(param.to_string());
        error
    }

    /// 401: no key, or one that nobody was given.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, INVALID, message).code("invalid_api_key")
    }

    /// 404: no such path.
    pub fn not_found(method: &str, path: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, INVALID, format!("Unknown request URL: {method} {path}"))
            .code("unknown_url")
    }

    /// 404: no such model, or not for this key.
    pub fn model_not_found(name: &str) -> Self {
        let message = format!("The model `{name}` does not exist or you do not have access to it.");
        let mut error = Self::new(StatusCode::NOT_FOUND, INVALID, message).code("model_not_found");
        error.body.param = Some("model".into());
        error
    }

    /// 405: the path is there, the method is not.
    pub fn method_not_allowed(method: &str, path: &str) -> Self {
        let message = format!("Not allowed to {method} on {path}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, INVALID, message).code("method_not_supported")
    }

    /// 408: the body did not arrive in time.
    pub fn timeout() -> Self {
        let message = "the request's body did not arrive in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, INVALID, message).code("request_timeout")
    }

    /// 413: the body is too large.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("the request's body is too large, expected at most {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID, message).code("request_too_large")
    }

    /// 429: a limit is reached; `kind` is "requests" or "tokens".
    pub fn rate_limited(kind: &'static str, message: String, retry_after: Duration) -> Self {
        let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, kind, message).code("rate_limit_exceeded");
        error.retry_after = Some(retry_after);
        error
    }

    /// 429: one request alone asks for more than a minute's tokens.
    pub fn above_limit(message: String) -> Self {
        let mut error =
            Self::new(StatusCode::TOO_MANY_REQUESTS, "tokens", message).code("rate_limit_exceeded");
        error.hopeless = true;
        error
    }

    fn unavailable(message: &str, retry_after: Duration) -> Self {
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message);
        error.retry_after = Some(retry_after);
        error
    }

    /// 503: the server has no models yet.
    pub fn loading() -> Self {
        Self::unavailable("the server is loading its models; try again in a second", Duration::from_secs(1))
    }

    /// 503: the server is about to end.
    pub fn closing() -> Self {
        let message = "the server is shutting down; try again once it is back";
        let mut error = Self::unavailable(message, Duration::from_secs(5));
        error.last = true;
        error
    }

    /// 500: what cannot be blamed on the request.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    /// The model refused a request; `prompt` is what the API calls its tokens.
    pub fn refused(refused: SubmitError, prompt: &str) -> Self {
        match refused {
            SubmitError::QueueFull => {
                let message = "too many requests are waiting already; try again in a second".to_string();
                Self::rate_limited("requests", message, Duration::from_secs(1))
            }
            SubmitError::Closed => Self::closing(),
            SubmitError::Invalid(Error::ContextOverflow { prompt_tokens, n_positions }) => {
                Self::context_length(prompt, n_positions, prompt_tokens, 0)
            }
            SubmitError::Invalid(Error::Parameter { name, found, expected }) => {
                Self::param(&name, format!("found {found}, expected {expected}"))
            }
            SubmitError::Invalid(error @ Error::TokenId { .. }) => Self::param(prompt, error.to_string()),
            SubmitError::Invalid(error) => Self::invalid(error.to_string()),
        }
    }

    /// The status it is sent with.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The JSON, as a stream that has already begun carries it.
    pub fn json(&self) -> String {
        let body = ErrorBody { error: &self.body };
        serde_json::to_string(&body).unwrap_or_default() // strings only
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.json()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = self.retry_after {
            // The old client reads whole seconds, the new one prefers milliseconds.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, seconds.max(1).into());
            headers.insert("retry-after-ms", (wait.as_millis() as u64).max(1).into());
        }
        if self.last {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if self.hopeless {
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
    fn all_four_keys_are_always_there() {
        let value: Value = serde_json::from_str(&ApiError::invalid("no").json()).unwrap();
        let expected = json!({"message": "no", "type": "invalid_request_error", "param": null, "code": null});
        assert_eq!(value, json!({"error": expected}));
        let value: Value = serde_json::from_str(&ApiError::unsupported("suffix").json()).unwrap();
        assert_eq!(value["error"]["param"], "suffix");
        assert_eq!(value["error"]["code"], "unsupported_parameter");
    }

    #[test]
    fn a_wait_is_told_in_whole_seconds_and_in_milliseconds() {
        let error = ApiError::rate_limited("requests", "slow down".into(), Duration::from_millis(1200));
        let response = error.into_response();
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(response.headers()["retry-after-ms"], "1200");
        let response = ApiError::rate_limited("tokens", String::new(), Duration::ZERO).into_response();
        assert_eq!(response.headers()["retry-after"], "1");
        assert!(!response.headers().contains_key("x-should-retry"));
        assert_eq!(ApiError::above_limit(String::new()).into_response().headers()["x-should-retry"], "false");
    }
}
