//! The requests of a batch, every line checked before any is run.

use crate::Error;
use crate::server::routes::plain;
use axum::http::Uri;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::io::{Read, stdin};
use std::path::Path;

type Result<T, E = Error> = std::result::Result<T, E>;

/// Where a request may go, as a path without `/v1`.
const PATHS: [&str; 3] = ["/completions", "/chat/completions", "/embeddings"];
/// The most line numbers in a message.
const MOST_NUMBERS: usize = 5;

/// A request.
#[derive(Debug, PartialEq)]
pub struct Line {
    /// What its answer is known by; no two are the same.
    pub custom_id: String,
    /// Where it goes.
    pub url: Uri,
    /// What it asks, in JSON.
    pub body: String,
}

/// The lines of a file, or of standard input.
///
/// # Errors
/// [`Error::Io`], and [`Error::Message`] that says what is wrong with which line.
pub fn read(file: &Path) -> Result<Vec<Line>> {
    let (bytes, name) = if file == Path::new("-") {
        let mut bytes = vec![];
        (stdin().read_to_end(&mut bytes).map(|_| bytes), Path::new("standard input"))
    } else {
        (std::fs::read(file), file)
    };
    let bytes = bytes.map_err(|source| Error::Io { path: name.into(), action: "read", source })?;
    parse(&bytes).map_err(|problem| Error::Message(format!("{}: {problem}", name.display())))
}

fn parse(bytes: &[u8]) -> Result<Vec<Line>, String> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let (mut lines, mut wrong, mut seen) = (vec![], vec![], HashMap::new());
    for (number, text) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        if text.trim_ascii().is_empty() {
            continue;
        }
        let line = line(text).and_then(|line| match seen.insert(line.custom_id.clone(), number) {
            None => Ok(line),
            Some(first) => {
                let id = &line.custom_id;
                Err(format!("custom_id: found {id:?}, which line {first} has, expected one of its own"))
            }
        });
        match line {
            Ok(line) => lines.push(line),
            Err(problem) => wrong.push((number, problem)),
        }
    }
    let Some(((number, problem), others)) = wrong.split_first() else {
        return if lines.is_empty() {
            Err("found no request, expected one a line".into())
        } else {
            Ok(lines)
        };
    };
    let mut numbers: Vec<String> = others.iter().map(|(number, _)| number.to_string()).collect();
    if numbers.len() > MOST_NUMBERS {
        numbers.truncate(MOST_NUMBERS);
        numbers.push("…".into());
    }
    Err(match others.len() {
        0 => format!("line {number}: {problem}"),
        1 => format!("line {number}: {problem} (line {} is wrong, too)", numbers[0]),
        n => format!("line {number}: {problem} ({n} other lines are wrong, too: {})", numbers.join(", ")),
    })
}

fn line(text: &[u8]) -> Result<Line, String> {
    let value: Value = serde_json::from_slice(text).map_err(|error| {
        let problem = error.to_string().replace(" at line 1 column ", " at column ");
        format!("found no JSON ({problem}), expected a request")
    })?;
    let field = |name: &str| value.get(name).unwrap_or(&Value::Null);
    let text = |name: &str| match field(name) {
        Value::String(text) => Ok(text),
        other => Err(format!("{name}: found {other}, expected a text")),
    };
    let custom_id = text("custom_id")?.clone();
    match text("method")?.as_str() {
        "POST" => {}
        other => return Err(format!("method: found {other:?}, expected \"POST\"")),
    }
    let given = text("url")?;
    let url = given.parse().ok().and_then(|url| plain(&url)).filter(|url| PATHS.contains(&url.path()));
    let url = url.ok_or_else(|| {
        format!("url: found {given:?}, expected /v1/completions, /v1/chat/completions or /v1/embeddings")
    })?;
    let Value::Object(body) = field("body") else {
        return Err(format!("body: found {}, expected an object", field("body")));
    };
    if streams(body) {
        return Err("body.stream: found true, expected none: an answer of a batch comes whole".into());
    }
    Ok(Line { custom_id, url, body: field("body").to_string() })
}

fn streams(body: &Map<String, Value>) -> bool {
    body.get("stream") == Some(&Value::Bool(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: &str) -> String {
        format!(r#"{{"custom_id": "{id}", "method": "POST", "url": "/v1/completions", "body": {{"n": 1}}}}"#)
    }

    #[test]
    fn blank_lines_and_windows_ones_are_read() {
        let text = format!("\u{feff}{}\r\n\r\n{}\n\n{}", request("a"), request("b"), request("é"));
        let ids: Vec<String> =
            parse(text.as_bytes()).unwrap().into_iter().map(|line| line.custom_id).collect();
        assert_eq!(ids, ["a", "b", "é"]);
        let line = parse(request("a").as_bytes()).unwrap().remove(0);
        assert_eq!((line.url.path(), line.body.as_str()), ("/completions", r#"{"n":1}"#));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let says = |text: &str| parse(text.as_bytes()).unwrap_err();
        let with = |from: &str, to: &str| format!("{}\n{}", request("a"), request("b").replace(from, to));
        assert_eq!(says("\n \n"), "found no request, expected one a line");
        assert!(says(&format!("{}\n{{\"custom", request("a"))).starts_with("line 2: found no JSON (EOF"));
        assert_eq!(says("[1]"), "line 1: custom_id: found null, expected a text");
        assert_eq!(says(&with("\"b\"", "7")), "line 2: custom_id: found 7, expected a text");
        assert_eq!(
            says(&with("\"b\"", "\"a\"")),
            "line 2: custom_id: found \"a\", which line 1 has, expected one of its own"
        );
        assert_eq!(says(&with("POST", "GET")), "line 2: method: found \"GET\", expected \"POST\"");
        assert!(
            says(&with("/v1/completions", "/v1/models")).starts_with("line 2: url: found \"/v1/models\"")
        );
        assert!(says(&with("/v1/completions", "no url")).starts_with("line 2: url: found \"no url\""));
        assert_eq!(says(&with("{\"n\": 1}", "[]")), "line 2: body: found [], expected an object");
        assert!(says(&with("\"n\": 1", "\"stream\": true")).starts_with("line 2: body.stream: found true"));
        assert!(says(&format!("x\n{}\ny", request("a"))).ends_with("(line 3 is wrong, too)"));
        assert!(says("x\ny\nz").ends_with("(2 other lines are wrong, too: 2, 3)"));
        assert!(says(&"x\n".repeat(9)).ends_with("(8 other lines are wrong, too: 2, 3, 4, 5, 6, …)"));
    }
}
