//! The requests of a batch: read line by line, each checked.

use crate::Error;
use crate::text_file::Pieces;
use serde_json::Value;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;

type Result<T, E = Error> = std::result::Result<T, E>;

/// Supported endpoints, without `/v1`.
pub const ENDPOINTS: [&str; 4] = ["/completions", "/chat/completions", "/responses", "/embeddings"];
/// Maximum length of a custom id.
const MAX_ID_CHARS: usize = 256;

/// A request of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchRequest {
    /// Number of its line, from 1.
    pub line: usize,
    /// Unique id, repeated in the response.
    pub custom_id: String,
    /// One of [`ENDPOINTS`].
    pub endpoint: &'static str,
    /// Request body, as JSON.
    pub body: String,
}

/// A line that is no valid request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidLine {
    /// Number of the line, from 1.
    pub line: usize,
    /// The field that is not valid, if it is one.
    pub param: Option<&'static str>,
    /// What was found there and what was expected.
    pub problem: String,
}

impl fmt::Display for InvalidLine {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.param {
            Some(param) => write!(f, "line {}: {param}: {}", self.line, self.problem),
            None => write!(f, "line {}: {}", self.line, self.problem),
        }
    }
}

/// Reader of a file's requests, of which one is in memory at a time. Blank lines are skipped.
pub struct Requests {
    lines: std::iter::Enumerate<Pieces>,
    /// The custom ids so far, with their lines.
    ids: HashMap<String, usize>,
}

impl Requests {
    /// Opens a file, or standard input for `-`. A line has at most `max_line_bytes`.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn open(file: &Path, max_line_bytes: u64) -> Result<Self> {
        let lines = Pieces::open(file, "\n")?.with_max_bytes(max_line_bytes).enumerate();
        Ok(Self { lines, ids: HashMap::new() })
    }
}

/// The requests, and the lines that are none. An error is [`Error::Io`].
impl Iterator for Requests {
    type Item = Result<Result<BatchRequest, InvalidLine>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (i, text) = self.lines.next()?;
            let line = i + 1;
            let text = match text {
                Ok(text) if text.trim().is_empty() => continue,
                Ok(text) => text,
                Err(Error::InvalidFile { problem, .. }) => {
                    return Some(Ok(Err(InvalidLine { line, param: None, problem })));
                }
                Err(error) => return Some(Err(error)),
            };
            let request = parse(line, &text).and_then(|request| {
                match self.ids.insert(request.custom_id.clone(), line) {
                    None => Ok(request),
                    Some(first) => {
                        let id = &request.custom_id;
                        let problem =
                            format!("found {id:?}, already used in line {first}, expected a unique id");
                        Err((Some("custom_id"), problem))
                    }
                }
            });
            return Some(Ok(request.map_err(|(param, problem)| InvalidLine { line, param, problem })));
        }
    }
}

/// Parses a line. An error is the field and its problem.
fn parse(line: usize, text: &str) -> Result<BatchRequest, (Option<&'static str>, String)> {
    let value: Value = serde_json::from_str(text).map_err(|error| {
        let problem = error.to_string().replace(" at line 1 column ", " at column ");
        (None, format!("not valid JSON ({problem}), expected a request"))
    })?;
    if !value.is_object() {
        let problem = "found JSON that is no object, expected a request: an object in one line";
        return Err((None, problem.into()));
    }
    let field = |name: &str| value.get(name).unwrap_or(&Value::Null);
    let text = |name: &'static str| match field(name) {
        Value::String(text) => Ok(text),
        other => Err((Some(name), format!("found {other}, expected a string"))),
    };
    let custom_id = text("custom_id")?.clone();
    if custom_id.chars().count() > MAX_ID_CHARS {
        let problem = format!("found more than {MAX_ID_CHARS} characters, the maximum");
        return Err((Some("custom_id"), problem));
    }
    match text("method")?.as_str() {
        "POST" => {}
        other => return Err((Some("method"), format!("found {other:?}, expected \"POST\""))),
    }
    let url = text("url")?;
    let Some(endpoint) = endpoint(url) else {
        let (last, others) = ENDPOINTS.split_last().unwrap_or((&"", &[]));
        let others: Vec<String> = others.iter().map(|endpoint| format!("/v1{endpoint}")).collect();
        let problem = format!("found {url:?}, expected {} or /v1{last}", others.join(", "));
        return Err((Some("url"), problem));
    };
    let Value::Object(body) = field("body") else {
        return Err((Some("body"), format!("found {}, expected an object", field("body"))));
    };
    if body.get("stream") == Some(&Value::Bool(true)) {
        let problem = "found true, expected false: batch responses are not streamed";
        return Err((Some("body.stream"), problem.into()));
    }
    Ok(BatchRequest { line, custom_id, endpoint, body: field("body").to_string() })
}

/// Returns the endpoint of a URL: with or without a host, `/v1` and repeated slashes.
pub(super) fn endpoint(url: &str) -> Option<&'static str> {
    let path = match url.split_once("://") {
        Some((_, rest)) => &rest[rest.find('/')?..],
        None => url.starts_with('/').then_some(url)?,
    };
    let segments = path.split('?').next()?.split('/').filter(|segment| !segment.is_empty());
    let segments: Vec<&str> = segments.collect();
    let segments = segments.strip_prefix(&["v1"]).unwrap_or(&segments);
    let path = format!("/{}", segments.join("/"));
    ENDPOINTS.into_iter().find(|endpoint| *endpoint == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Result<BatchRequest, InvalidLine>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Requests::open(file.path(), 4096).unwrap().map(|request| request.unwrap()).collect()
    }

    fn request(id: &str) -> String {
        format!(r#"{{"custom_id": "{id}", "method": "POST", "url": "/v1/completions", "body": {{"n": 1}}}}"#)
    }

    #[test]
    fn blank_lines_and_crlf_are_accepted() {
        let text = format!("\u{feff}{}\r\n\r\n{}\n\n{}", request("a"), request("b"), request("é"));
        let requests = read(&text);
        let ids: Vec<&str> = requests.iter().map(|request| &*request.as_ref().unwrap().custom_id).collect();
        assert_eq!(ids, ["a", "b", "é"]);
        let first = requests[0].as_ref().unwrap();
        assert_eq!((first.endpoint, first.body.as_str()), ("/completions", r#"{"n":1}"#));
    }

    #[test]
    fn urls_are_endpoints_with_and_without_host_and_version() {
        for (url, expected) in [
            ("/v1/completions", Some("/completions")),
            ("/completions", Some("/completions")),
            ("//v1//chat/completions/", Some("/chat/completions")),
            ("http://host:8080/v1/embeddings?x=1", Some("/embeddings")),
            ("/v1/v1/completions", None),
            ("/v1/models", None),
            ("completions", None),
            ("http://completions", None),
            ("", None),
        ] {
            assert_eq!(endpoint(url), expected, "{url}");
        }
    }

    #[test]
    fn invalid_line_error_has_the_line_number() {
        let error = |text: &str| read(text).into_iter().find_map(Result::err).unwrap().to_string();
        let replace = |from: &str, to: &str| format!("{}\n{}", request("a"), request("b").replace(from, to));
        assert!(error(&format!("{}\n{{\"custom", request("a"))).starts_with("line 2: not valid JSON (EOF"));
        let no_object = "line 1: found JSON that is no object, expected a request: an object in one line";
        assert_eq!(error(&format!("[{}]", request("a"))), no_object);
        let long = format!("\"{}\"", "b".repeat(257));
        assert_eq!(
            error(&replace("\"b\"", &long)),
            "line 2: custom_id: found more than 256 characters, the maximum"
        );
        assert_eq!(error(&replace("\"b\"", "7")), "line 2: custom_id: found 7, expected a string");
        assert_eq!(
            error(&replace("\"b\"", "\"a\"")),
            "line 2: custom_id: found \"a\", already used in line 1, expected a unique id"
        );
        assert_eq!(error(&replace("POST", "GET")), "line 2: method: found \"GET\", expected \"POST\"");
        assert_eq!(
            error(&replace("/v1/completions", "/v1/models")),
            "line 2: url: found \"/v1/models\", expected /v1/completions, /v1/chat/completions, \
             /v1/responses or /v1/embeddings"
        );
        assert_eq!(error(&replace("{\"n\": 1}", "[]")), "line 2: body: found [], expected an object");
        assert!(
            error(&replace("\"n\": 1", "\"stream\": true")).starts_with("line 2: body.stream: found true")
        );
        assert!(error(&"x".repeat(5000)).starts_with("line 1: found more than 4096 bytes"));
    }
}
