//! JSON extractor: any Content-Type, one JSON object, and rejections that name the field.

use super::AppState;
use super::error::ApiError;
use axum::body::to_bytes;
use axum::extract::{FromRequest, Request};
use axum::http::header;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::Arc;

/// Extractor of a JSON request body.
pub struct Json<T>(pub T);

/// An unsupported field: its name, and a predicate for values that would change the response.
pub type UnsupportedField = (&'static str, fn(&Value) -> bool);

/// A type that a request body deserializes to.
pub trait RequestBody: DeserializeOwned {
    /// Known fields that are not supported.
    const UNSUPPORTED: &'static [UnsupportedField] = &[];

    /// Validates flattened parts of the object, whose errors would otherwise not name the field.
    ///
    /// # Errors
    /// 400 that names the field.
    fn validate(_: &Value) -> Result<(), ApiError> {
        Ok(())
    }
}

/// Returns whether a value is set: not null, false, zero or empty.
pub fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// Deserializes a value; errors name the field by its path.
///
/// # Errors
/// 400 that names the field.
pub fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        match path.as_str() {
            "." | "?" => ApiError::invalid(error.inner().to_string()),
            path => ApiError::invalid_param(path, error.inner().to_string()),
        }
    })
}

/// Parses a request body.
///
/// # Errors
/// 400 for anything but one JSON object with valid and supported fields.
pub fn parse<T: RequestBody>(bytes: &[u8]) -> Result<T, ApiError> {
    if bytes.trim_ascii().is_empty() {
        return Err(ApiError::invalid("the body is empty, expected a JSON object"));
    }
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|error| ApiError::invalid(format!("the body is not JSON: {error}")))?;
    let Value::Object(fields) = &value else {
        return Err(ApiError::invalid("the body is not a JSON object"));
    };
    for (name, is_used) in T::UNSUPPORTED {
        if fields.get(*name).is_some_and(is_used) {
            return Err(ApiError::unsupported_param(name));
        }
    }
    T::validate(&value)?;
    from_value(&value)
}

impl<T: RequestBody> FromRequest<Arc<AppState>> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<AppState>) -> Result<Self, ApiError> {
        let limits = &app.http;
        let content_length =
            request.headers().get(header::CONTENT_LENGTH).and_then(|n| n.to_str().ok()?.parse().ok());
        if content_length.is_some_and(|bytes: u64| bytes > limits.max_body_bytes as u64) {
            return Err(ApiError::body_too_large(limits.max_body_bytes));
        }
        let body = to_bytes(request.into_body(), limits.max_body_bytes);
        match tokio::time::timeout(limits.body_timeout, body).await {
            Err(_) => Err(ApiError::timeout()),
            Ok(Ok(bytes)) => parse(&bytes).map(Json),
            Ok(Err(error)) if is_length_limit_error(&error) => {
                Err(ApiError::body_too_large(limits.max_body_bytes))
            }
            Ok(Err(error)) => Err(ApiError::invalid(format!("the body could not be read: {error}"))),
        }
    }
}

/// Returns whether reading the body failed because it exceeds the size limit.
fn is_length_limit_error(error: &axum::Error) -> bool {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(default)]
    #[derive(Default)]
    struct TestRequest {
        n: Option<i64>,
        names: Option<Vec<String>>,
    }

    impl RequestBody for TestRequest {
        const UNSUPPORTED: &'static [UnsupportedField] = &[("suffix", is_set)];
    }

    fn message(body: &str) -> String {
        let error = parse::<TestRequest>(body.as_bytes()).unwrap_err();
        serde_json::from_str::<Value>(&error.json()).unwrap()["error"]["message"].as_str().unwrap().into()
    }

    #[test]
    fn null_absent_and_unknown_fields_are_accepted() {
        let request: TestRequest =
            parse(br#"{"n": null, "names": ["a"], "unknown": {"a": 1}, "suffix": ""}"#).unwrap();
        assert_eq!((request.n, request.names), (None, Some(vec!["a".to_string()])));
        assert_eq!(parse::<TestRequest>(b"{}").unwrap().n, None);
    }

    #[test]
    fn invalid_body_error_names_the_field() {
        assert!(
            message(r#"{"n": "two"}"#).starts_with("n: invalid type: string \"two\""),
            "{}",
            message(r#"{"n": "two"}"#)
        );
        assert!(message(r#"{"names": ["a", 3]}"#).starts_with("names[1]: invalid type"));
        assert!(message(r#"{"suffix": "."}"#).starts_with("suffix: not supported by this server"));
        assert!(message("{").starts_with("the body is not JSON: EOF"));
        assert!(message("{} {}").starts_with("the body is not JSON: trailing"));
        assert_eq!(message("[1]"), "the body is not a JSON object");
        assert_eq!(message(" "), "the body is empty, expected a JSON object");
        assert!(message(&"[".repeat(100_000)).starts_with("the body is not JSON: recursion"));
    }
}
