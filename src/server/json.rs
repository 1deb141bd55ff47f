//! JSON in and out. The extractor takes any Content-Type and one JSON object, and its rejections name the
//! field.

use super::AppState;
use super::bounded_json::parse_object;
use super::connection_table::Connection;
use super::error::ApiError;
use super::request_context::RequestContext;
use super::text::shorten;
use super::unsupported::{self, Unsupported};
use axum::body::{HttpBody, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};
use std::collections::HashSet;
use std::sync::Arc;

/// Above this, not every integer is an f64.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// Maximum lengths, in characters, of the strings that identify something.
const MAX_LENGTHS: &[(&str, usize)] = &[("user", 256), ("safety_identifier", 256), ("prompt_cache_key", 256)];

/// Extractor of a JSON request body.
pub struct Json<T>(pub T);

/// A type that a request body deserializes to.
pub trait RequestBody: DeserializeOwned {
    /// Fields of this type that are unsupported on other routes.
    const FIELDS: &'static [&'static str] = &[];

    /// Fields that this route alone does not support.
    const UNSUPPORTED: &'static [Unsupported] = &[];

    /// Validates flattened parts of the object, whose errors would otherwise not name the field.
    ///
    /// # Errors
    /// 400 that names the field.
    fn validate(_: &Value) -> Result<(), ApiError> {
        Ok(())
    }
}

/// Deserializes a value; errors name the field by its path, and say what was found and expected there.
///
/// # Errors
/// 400 that names the field.
pub fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let message = describe(find(value, error.path()), &error.inner().to_string());
        match path.as_str() {
            "." | "?" => ApiError::invalid(message),
            path => ApiError::invalid_param(path, message),
        }
    })
}

/// Returns the value at a path.
fn find<'a>(value: &'a Value, path: &Path) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, segment| match segment {
        Segment::Seq { index } => value.get(*index),
        Segment::Map { key } => value.get(key),
        Segment::Enum { .. } | Segment::Unknown => None,
    })
}

/// Says an error of deserialization in the words of JSON.
fn describe(found: Option<&Value>, message: &str) -> String {
    let expected = match message.rsplit_once(", expected ") {
        Some((_, expected)) => expected,
        None if message.contains(" field `") => return message.to_string(), // missing or duplicate
        None => message, // the `expecting` of an untagged enum
    };
    let expected = match expected {
        "i64" if found.is_some_and(Value::is_number) => "a whole number of at most 64 bits",
        "i64" => "an integer",
        "u32" => "an integer from 0 to 4294967295",
        "f32" => "a number",
        "a sequence" => "a list",
        expected if expected == "a map" || expected.starts_with("struct ") => "an object",
        expected => expected,
    };
    match found {
        Some(found) => format!("found {}, expected {expected}", shorten(&found.to_string(), 80)),
        None => format!("expected {expected}"),
    }
}

/// Makes integers of the numbers that are whole, such as 2.0, so that they are valid where one is expected.
pub fn make_whole_numbers_integers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let whole =
                number.as_f64().filter(|x| number.is_f64() && x.fract() == 0.0 && x.abs() < MAX_EXACT);
            *value = whole.map_or_else(|| value.clone(), |x| Value::from(x as i64));
        }
        Value::Array(items) => items.iter_mut().for_each(make_whole_numbers_integers),
        Value::Object(fields) => fields.values_mut().for_each(make_whole_numbers_integers),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// Parses a request body; `known` are the names of all fields of the API.
///
/// # Errors
/// 400 for anything but one JSON object with valid and supported fields.
pub fn parse<T: RequestBody>(bytes: &[u8], known: &HashSet<String>) -> Result<T, ApiError> {
    // A byte order mark is a signature and no part of the text (RFC 8259, section 8.1).
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    if bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF") {
        return Err(ApiError::invalid("the body is not JSON: found UTF-16, expected UTF-8"));
    }
    if bytes.trim_ascii().is_empty() {
        return Err(ApiError::invalid("the body is empty, expected a JSON object"));
    }
    let mut value = parse_object(bytes, known).map_err(|error| match error.is_data() {
        true if !bytes.trim_ascii_start().starts_with(b"{") => {
            ApiError::invalid("the body is not a JSON object")
        }
        true => ApiError::invalid(format!("the body is not valid: {error}")),
        false => ApiError::invalid(format!("the body is not JSON: {error}")),
    })?;
    make_whole_numbers_integers(&mut value);
    let Value::Object(fields) = &value else {
        return Err(ApiError::invalid("the body is not a JSON object"));
    };
    for (name, max) in MAX_LENGTHS {
        let chars = fields.get(*name).and_then(Value::as_str).map_or(0, |text| text.chars().count());
        if chars > *max {
            let message = format!("found a string of {chars} characters, expected at most {max}");
            return Err(ApiError::invalid_param(name, message));
        }
    }
    unsupported::check(fields, T::FIELDS, T::UNSUPPORTED)?;
    T::validate(&value)?;
    from_value(&value)
}

/// Checks that a body is sent as it is, in one piece or in chunks.
///
/// # Errors
/// 415 for a compressed body, 501 for an unknown transfer coding.
pub fn check_codings(headers: &HeaderMap) -> Result<(), ApiError> {
    let encodings = headers.get_all(header::CONTENT_ENCODING);
    let encoding = encodings.iter().find(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if let Some(encoding) = encoding {
        return Err(ApiError::unsupported_encoding(&String::from_utf8_lossy(encoding.as_bytes())));
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match codings.find(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        Some(coding) => {
            Err(ApiError::unsupported_transfer_coding(&String::from_utf8_lossy(coding.as_bytes())))
        }
        None => Ok(()),
    }
}

impl<T: RequestBody + Send + 'static> FromRequest<Arc<AppState>> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<AppState>) -> Result<Self, ApiError> {
        let limits = &app.http;
        check_codings(request.headers())?;
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
        let known = Arc::clone(&app.field_names);
        app.memory.run_on_body(bytes.len(), move || parse(&bytes, &known)).await.map(Json)
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

/// Serializes a response object. The types sent here cannot fail to serialize.
pub fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| ApiError::internal(error.to_string()).json())
}

/// Returns a response with a JSON body.
pub fn json_response(body: String) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], body)
}

/// Returns a response with a JSON value as its body.
pub fn json_object(value: &Value) -> Response {
    json_response(value.to_string()).into_response()
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
        inner: Option<Inner>,
    }

    #[derive(Debug, Deserialize)]
    struct Inner {
        id: Option<u32>,
        x: Option<f32>,
    }

    impl RequestBody for TestRequest {}

    fn parse<T: RequestBody>(bytes: &[u8]) -> Result<T, ApiError> {
        super::parse(bytes, &["n", "names"].map(String::from).into())
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
        let utf16: Vec<u8> = "\u{feff}{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let error = parse::<TestRequest>(&utf16).unwrap_err().json();
        assert!(error.contains("found UTF-16, expected UTF-8"), "{error}");
    }

    #[test]
    fn whole_number_is_an_integer() {
        for (body, n) in [(r#"{"n": 2.0}"#, 2), (r#"{"n": -1e3}"#, -1000), (r#"{"n": -0.0}"#, 0)] {
            assert_eq!(parse::<TestRequest>(body.as_bytes()).unwrap().n, Some(n), "{body}");
        }
        let inner = parse::<TestRequest>(br#"{"inner": {"id": 7.0, "x": 2}}"#).unwrap().inner.unwrap();
        assert_eq!((inner.id, inner.x), (Some(7), Some(2.0)));
    }

    #[test]
    fn identifier_of_excessive_length_is_refused() {
        for field in ["user", "safety_identifier"] {
            let body = |len: usize| format!("{{\"{field}\": \"{}\"}}", "é".repeat(len));
            parse::<TestRequest>(body(256).as_bytes()).unwrap();
            assert_eq!(
                message(&body(257)),
                format!("{field}: found a string of 257 characters, expected at most 256")
            );
        }
    }

    #[test]
    fn invalid_body_error_names_the_field() {
        for (body, expected) in [
            (r#"{"n": "two"}"#, "n: found \"two\", expected an integer"),
            (r#"{"n": 2.5}"#, "n: found 2.5, expected a whole number of at most 64 bits"),
            (r#"{"n": true}"#, "n: found true, expected an integer"),
            (r#"{"n": [1]}"#, "n: found [1], expected an integer"),
            (r#"{"n": 1e99}"#, "n: found 1e+99, expected a whole number of at most 64 bits"),
            (r#"{"names": ["a", 3]}"#, "names[1]: found 3, expected a string"),
            (r#"{"names": {"a": 3}}"#, "names: found {\"a\":3}, expected a list"),
            (r#"{"inner": 3}"#, "inner: found 3, expected an object"),
            (r#"{"inner": {"id": -1}}"#, "inner.id: found -1, expected an integer from 0 to 4294967295"),
            (r#"{"inner": {"x": "1"}}"#, "inner.x: found \"1\", expected a number"),
        ] {
            assert_eq!(message(body), expected, "{body}");
        }
        let long = message(&format!("{{\"n\": \"{}\"}}", "a".repeat(1_000_000)));
        assert!(long.ends_with("aaa…, expected an integer") && long.len() < 150, "{long}");
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
