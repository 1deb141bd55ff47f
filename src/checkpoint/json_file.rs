//! JSON files of a model: their size is bounded, and an error names the field, or the place where the JSON is
//! broken.

use super::source::read_file;
use crate::error::{Error, Result};
use crate::text_file::without_bom;
use serde::de::DeserializeOwned;
use std::path::Path;

/// The largest file read. Typical files have a few hundred bytes; label tables and chat templates can add a
/// few hundred kilobytes.
const MAX_BYTES: u64 = 16 << 20;

/// Reads a JSON object from a file.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, else as [`parse`].
pub(super) fn read<T: DeserializeOwned>(file: &Path) -> Result<T> {
    parse(file, &read_bytes(file)?)
}

/// Reads a file that [`parse`] shall parse.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read.
pub(super) fn read_bytes(file: &Path) -> Result<Vec<u8>> {
    read_file(file, MAX_BYTES)
}

/// Parses the JSON object of `file`, with or without a byte order mark.
///
/// # Errors
/// [`Error::Checkpoint`] with the field that is invalid, or the line and column of broken JSON.
pub(super) fn parse<T: DeserializeOwned>(file: &Path, bytes: &[u8]) -> Result<T> {
    let invalid = |problem: String| {
        let problem = problem.replace(char::is_control, " ");
        Error::Checkpoint { file: file.into(), problem }
    };
    let text = without_bom(bytes).map_err(invalid)?;
    let is_object = text.trim_ascii_start().first() == Some(&b'{');
    let mut json = serde_json::Deserializer::from_slice(text);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| match error.inner() {
        inner if inner.is_data() && !is_object => "top level: found no JSON object, expected one".into(),
        inner if inner.is_data() => error
            .to_string()
            .replace("expected f32", "expected a number")
            .replace("expected usize", "expected a non-negative integer"),
        inner => broken(inner),
    });
    parsed.and_then(|value| json.end().map(|()| value).map_err(|error| broken(&error))).map_err(invalid)
}

fn broken(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let problem = text.split(" at line ").next().unwrap_or(&text);
    let (line, column) = (error.line(), error.column());
    format!("found broken JSON at line {line}, column {column} ({problem}), expected a complete JSON object")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Map, Value};

    #[test]
    fn byte_order_mark_is_removed_once() {
        let parse = |text: &str| parse::<Map<String, Value>>(Path::new("f.json"), text.as_bytes());
        assert!(parse("\u{feff}{}").is_ok());
        let error = parse("\u{feff}\u{feff}{}").unwrap_err().to_string();
        assert!(error.starts_with("f.json: found broken JSON at line 1, column 1"), "{error}");
    }

    #[test]
    fn utf16_is_named() {
        for text in ["\u{feff}{}", "{\"a\": 1}"] {
            let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let error = parse::<Map<String, Value>>(Path::new("f.json"), &bytes).unwrap_err().to_string();
            assert!(error.starts_with("f.json: found UTF-16") && error.contains("iconv"), "{error}");
        }
    }
}
