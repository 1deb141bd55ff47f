//! A request's body: any Content-Type, one JSON object, and a refusal that names the field.

use super::App;
use super::error::ApiError;
use axum::body::to_bytes;
use axum::extract::{FromRequest, Request};
use axum::http::header;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::Arc;

/// A request's body, read and checked against its type.
pub struct Json<T>(pub T);

/// A field's name, and what says whether a value of it asks for anything.
pub type Unsupported = (&'static str, fn(&Value) -> bool);

/// What a body can be read as.
pub trait Body: DeserializeOwned {
    /// Fields that would change the answer and are not supported.
    const UNSUPPORTED: &'static [Unsupported] = &[];

    /// Checks parts of the object that are types of their own, so that a refusal can name their fields.
    fn check(_: &Value) -> Result<(), ApiError> {
        Ok(())
    }
}

/// Whether a value asks for something: neither null nor false nor empty.
pub fn asks(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// A value as a type; an error names the field, as far in as it can.
pub fn read<T: DeserializeOwned>(value: &Value) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        match path.as_str() {
            "." | "?" => ApiError::invalid(error.inner().to_string()),
            path => ApiError::param(path, error.inner().to_string()),
        }
    })
}

/// Bytes as the body of a request.
pub fn parse<T: Body>(bytes: &[u8]) -> Result<T, ApiError> {
    if bytes.trim_ascii().is_empty() {
        return Err(ApiError::invalid("the body is empty, expected a JSON object"));
    }
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|error| ApiError::invalid(format!("the body is not JSON: {error}")))?;
    let Value::Object(fields) = &value else {
        return Err(ApiError::invalid("the body is not a JSON object"));
    };
    for (name, asks) in T::UNSUPPORTED {
        if fields.get(*name).is_some_and(asks) {
            return Err(ApiError::unsupported(name));
        }
    }
    T::check(&value)?;
    read(&value)
}

impl<T: Body> FromRequest<Arc<App>> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let limits = &app.http;
        let told = request.headers().get(header::CONTENT_LENGTH).and_then(|n| n.to_str().ok()?.parse().ok());
        if told.is_some_and(|bytes: u64| bytes > limits.max_body as u64) {
            return Err(ApiError::too_large(limits.max_body));
        }
        let body = to_bytes(request.into_body(), limits.max_body);
        match tokio::time::timeout(limits.body_time, body).await {
            Err(_) => Err(ApiError::timeout()),
            Ok(Ok(bytes)) => parse(&bytes).map(Json),
            Ok(Err(error)) if is_too_long(&error) => Err(ApiError::too_large(limits.max_body)),
            Ok(Err(error)) => Err(ApiError::invalid(format!("the body could not be read: {error}"))),
        }
    }
}

/// Whether reading ended at the limit rather than at the connection's end.
fn is_too_long(error: &axum::Error) -> bool {
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
    struct Asked {
        n: Option<i64>,
        names: Option<Vec<String>>,
    }

    impl Body for Asked {
        const UNSUPPORTED: &'static [Unsupported] = &[("suffix", asks)];
    }

    fn message(body: &str) -> String {
        let error = parse::<Asked>(body.as_bytes()).unwrap_err();
        serde_json::from_str::<Value>(&error.json()).unwrap()["error"]["message"].as_str().unwrap().into()
    }

    #[test]
    fn every_field_may_be_null_absent_or_unknown() {
        let asked: Asked =
            parse(br#"{"n": null, "names": ["a"], "what": {"is": "this"}, "suffix": ""}"#).unwrap();
        assert_eq!((asked.n, asked.names), (None, Some(vec!["a".to_string()])));
        assert_eq!(parse::<Asked>(b"{}").unwrap().n, None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(
            message(r#"{"n": "two"}"#).starts_with("n: invalid type: string \"two\""),
            "{}",
            message(r#"{"n": "two"}"#)
        );
        assert!(message(r#"{"names": ["a", 3]}"#).starts_with("names[1]: invalid type"));
        assert!(message(r#"{"suffix": "."}"#).starts_with("suffix: this server does not support it"));
        assert!(message("{").starts_with("the body is not JSON: EOF"));
        assert!(message("{} {}").starts_with("the body is not JSON: trailing"));
        assert_eq!(message("[1]"), "the body is not a JSON object");
        assert_eq!(message(" "), "the body is empty, expected a JSON object");
        assert!(message(&"[".repeat(100_000)).starts_with("the body is not JSON: recursion"));
    }
}
