//! JSON extractor: any Content-Type, one JSON object, and rejections that name the field.

use super::AppState;
use super::bounded_json::parse_object;
use super::connection_table::Connection;
use super::error::ApiError;
use super::request_context::RequestContext;
use axum::body::{HttpBody, to_bytes};
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
    // A byte order mark is a signature and no part of the text (RFC 8259, section 8.1).
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    if bytes.trim_ascii().is_empty() {
        return Err(ApiError::invalid("the body is empty, expected a JSON object"));
    }
    let value = parse_object(bytes).map_err(|error| match error.is_data() {
        true if !bytes.trim_ascii_start().starts_with(b"{") => {
            ApiError::invalid("the body is not a JSON object")
        }
        true => ApiError::invalid(format!("the body is not valid: {error}")),
        false => ApiError::invalid(format!("the body is not JSON: {error}")),
    })?;
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

impl<T: RequestBody + Send + 'static> FromRequest<Arc<AppState>> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<AppState>) -> Result<Self, ApiError> {
        let limits = &app.http;
        let encodings = request.headers().get_all(header::CONTENT_ENCODING);
        let encoding =
            encodings.iter().find(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
        if let Some(encoding) = encoding {
            return Err(ApiError::unsupported_encoding(&String::from_utf8_lossy(encoding.as_bytes())));
        }
        let declared = request.body().size_hint().upper();
        if declared.is_some_and(|bytes| bytes > limits.max_body_bytes as u64) {
            return Err(ApiError::body_too_large(limits.max_body_bytes));
        }
        let connection = request.extensions().get::<Arc<Connection>>().cloned();
        let context = request.extensions().get::<Arc<RequestContext>>().cloned();
        let max_bytes = declared.map_or(limits.max_body_bytes, |bytes| bytes as usize);
        let memory = app.memory.reserve_body(max_bytes, limits.body_timeout).await?;
        if let Some(connection) = &connection {
            connection.start_waiting();
        }
        let body = to_bytes(request.into_body(), limits.max_body_bytes);
        let body = tokio::time::timeout(limits.body_timeout, body).await;
        if let Some(connection) = &connection {
            connection.start_working();
        }
        let bytes = match body {
            Err(_) => return Err(ApiError::timeout()),
            Ok(Err(error)) if is_length_limit_error(&error) => {
                return Err(ApiError::body_too_large(limits.max_body_bytes));
            }
            Ok(Err(error)) => {
                return Err(ApiError::invalid(format!("the body could not be read: {error}")));
            }
            Ok(Ok(bytes)) => bytes,
        };
        if let Some(connection) = &connection {
            connection.set_unread_body(false);
        }
        if let Some(context) = &context {
            context.keep_body_memory(memory);
        }
        app.memory.run_on_body(bytes.len(), move || parse(&bytes)).await.map(Json)
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
    fn byte_order_mark_is_skipped() {
        assert_eq!(parse::<TestRequest>(b"\xEF\xBB\xBF{\"n\": 1}").unwrap().n, Some(1));
        assert_eq!(message("\u{feff}"), "the body is empty, expected a JSON object");
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
        assert!(
            message(&format!("{{\"n\": {}", "[".repeat(100_000)))
                .starts_with("the body is not JSON: recursion")
        );
    }
}
