//! Batch input: parsing and validation of all request lines.

use crate::server::path::normalize_path;
use crate::{Error, text_file};
use axum::http::Uri;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::path::Path;

type Result<T, E = Error> = std::result::Result<T, E>;

/// Supported endpoints, without `/v1`.
const ENDPOINTS: [&str; 3] = ["/completions", "/chat/completions", "/embeddings"];
/// Maximum length of a custom id.
const MAX_ID_CHARS: usize = 256;
/// Maximum number of line numbers listed in an error message.
const MAX_LISTED_LINES: usize = 5;

/// A request of the batch.
#[derive(Debug, PartialEq)]
pub struct BatchRequest {
    /// Unique id, repeated in the response.
    pub custom_id: String,
    /// Endpoint, normalized.
    pub url: Uri,
    /// Request body, as JSON.
    pub body: String,
}

/// Reads all requests of a file, or of standard input for `-`.
///
/// # Errors
/// [`Error::Io`], or [`Error::Message`] that names the invalid lines.
pub fn read(file: &Path) -> Result<Vec<BatchRequest>> {
    let (name, bytes) = text_file::read_bytes(file)?;
    let requests = text_file::without_bom(&bytes).and_then(parse);
    requests.map_err(|problem| Error::Message(format!("{}: {problem}", name.display())))
}

fn parse(bytes: &[u8]) -> Result<Vec<BatchRequest>, String> {
    let (mut requests, mut errors, mut ids) = (vec![], vec![], HashMap::new());
    for (number, text) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        if text.trim_ascii().is_empty() {
            continue;
        }
        let request =
            parse_line(text).and_then(|request| match ids.insert(request.custom_id.clone(), number) {
                None => Ok(request),
                Some(first) => {
                    let id = &request.custom_id;
                    Err(format!(
                        "custom_id: found {id:?}, already used in line {first}, expected a unique id"
                    ))
                }
            });
        match request {
            Ok(request) => requests.push(request),
            Err(problem) => errors.push((number, problem)),
        }
    }
    let Some(((number, problem), others)) = errors.split_first() else {
        return if requests.is_empty() {
            Err("found no requests, expected one per line".into())
        } else {
            Ok(requests)
        };
    };
    let mut numbers: Vec<String> = others.iter().map(|(number, _)| number.to_string()).collect();
    if numbers.len() > MAX_LISTED_LINES {
        numbers.truncate(MAX_LISTED_LINES);
        numbers.push("…".into());
    }
    Err(match others.len() {
        0 => format!("line {number}: {problem}"),
        1 => format!("line {number}: {problem} (line {} is also invalid)", numbers[0]),
        n => format!("line {number}: {problem} ({n} more invalid lines: {})", numbers.join(", ")),
    })
}

fn parse_line(text: &[u8]) -> Result<BatchRequest, String> {
    let value: Value = serde_json::from_slice(text).map_err(|error| {
        let problem = error.to_string().replace(" at line 1 column ", " at column ");
        format!("not valid JSON ({problem}), expected a request")
    })?;
    if !value.is_object() {
        return Err("found JSON that is no object, expected a request: an object in one line".into());
    }
    let field = |name: &str| value.get(name).unwrap_or(&Value::Null);
    let text = |name: &str| match field(name) {
        Value::String(text) => Ok(text),
        other => Err(format!("{name}: found {other}, expected a string")),
    };
    let custom_id = text("custom_id")?.clone();
    if custom_id.chars().count() > MAX_ID_CHARS {
        return Err(format!("custom_id: found more than {MAX_ID_CHARS} characters, the maximum"));
    }
    match text("method")?.as_str() {
        "POST" => {}
        other => return Err(format!("method: found {other:?}, expected \"POST\"")),
    }
    let raw_url = text("url")?;
    let url = raw_url
        .parse()
        .ok()
        .and_then(|url| normalize_path(&url))
        .filter(|url| ENDPOINTS.contains(&url.path()));
    let url = url.ok_or_else(|| {
        format!("url: found {raw_url:?}, expected /v1/completions, /v1/chat/completions or /v1/embeddings")
    })?;
    let Value::Object(body) = field("body") else {
        return Err(format!("body: found {}, expected an object", field("body")));
    };
    if is_streaming(body) {
        return Err("body.stream: found true, expected false: batch responses are not streamed".into());
    }
    Ok(BatchRequest { custom_id, url, body: field("body").to_string() })
}

fn is_streaming(body: &Map<String, Value>) -> bool {
    body.get("stream") == Some(&Value::Bool(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: &str) -> String {
        format!(r#"{{"custom_id": "{id}", "method": "POST", "url": "/v1/completions", "body": {{"n": 1}}}}"#)
    }

    #[test]
    fn blank_lines_and_crlf_are_accepted() {
        let text = format!("{}\r\n\r\n{}\n\n{}", request("a"), request("b"), request("é"));
        let ids: Vec<String> =
            parse(text.as_bytes()).unwrap().into_iter().map(|line| line.custom_id).collect();
        assert_eq!(ids, ["a", "b", "é"]);
        let line = parse(request("a").as_bytes()).unwrap().remove(0);
        assert_eq!((line.url.path(), line.body.as_str()), ("/completions", r#"{"n":1}"#));
    }

    #[test]
    fn invalid_line_error_has_the_line_number() {
        let error = |text: &str| parse(text.as_bytes()).unwrap_err();
        let replace = |from: &str, to: &str| format!("{}\n{}", request("a"), request("b").replace(from, to));
        assert_eq!(error("\n \n"), "found no requests, expected one per line");
        assert!(error(&format!("{}\n{{\"custom", request("a"))).starts_with("line 2: not valid JSON (EOF"));
        let no_object = "line 1: found JSON that is no object, expected a request: an object in one line";
        assert_eq!(error(&format!("[{}]", request("a"))), no_object);
        let long = format!("\"{}\"", "b".repeat(257));
        assert!(
            error(&replace("\"b\"", &long)).starts_with("line 2: custom_id: found more than 256 characters")
        );
        assert_eq!(error(&replace("\"b\"", "7")), "line 2: custom_id: found 7, expected a string");
        assert_eq!(
            error(&replace("\"b\"", "\"a\"")),
            "line 2: custom_id: found \"a\", already used in line 1, expected a unique id"
        );
        assert_eq!(error(&replace("POST", "GET")), "line 2: method: found \"GET\", expected \"POST\"");
        assert!(
            error(&replace("/v1/completions", "/v1/models")).starts_with("line 2: url: found \"/v1/models\"")
        );
        assert!(error(&replace("/v1/completions", "no url")).starts_with("line 2: url: found \"no url\""));
        assert_eq!(error(&replace("{\"n\": 1}", "[]")), "line 2: body: found [], expected an object");
        assert!(
            error(&replace("\"n\": 1", "\"stream\": true")).starts_with("line 2: body.stream: found true")
        );
        assert!(error(&format!("x\n{}\ny", request("a"))).ends_with("(line 3 is also invalid)"));
        assert!(error("x\ny\nz").ends_with("(2 more invalid lines: 2, 3)"));
        assert!(error(&"x\n".repeat(9)).ends_with("(8 more invalid lines: 2, 3, 4, 5, 6, …)"));
    }
}
