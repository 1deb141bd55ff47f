//! `multipart/form-data` (RFC 7578, RFC 2046), read with a buffer of bounded size.
//!
//! ```text
//! --boundary CRLF
//! Content-Disposition: form-data; name="file"; filename="data.jsonl" CRLF
//! CRLF
//! data CRLF
//! --boundary--
//! ```
//!
//! A delimiter is CRLF, two hyphens and the boundary; the CRLF belongs to it, not to the data.

use super::body::BodyReader;
use crate::server::error::ApiError;

/// Maximum size of a part's headers.
const MAX_HEADER_BYTES: usize = 16 << 10;
/// Maximum length of a boundary (RFC 2046, section 5.1.1).
const MAX_BOUNDARY_BYTES: usize = 70;

/// Reader of the parts of a body.
pub struct Multipart {
    body: BodyReader,
    delimiter: Vec<u8>,
    /// What was read and not consumed; begins with the delimiter after the end of a part's data.
    buffer: Vec<u8>,
}

/// The beginning of a part.
#[derive(Debug, PartialEq, Eq)]
pub struct Part {
    /// Name of the form's field.
    pub name: String,
    /// Name of the file, if it is one.
    pub filename: Option<String>,
}

/// Returns the boundary in a `Content-Type`.
///
/// # Errors
/// 400 if it is no `multipart/form-data` with a boundary.
pub fn boundary(content_type: &str) -> Result<String, ApiError> {
    let (kind, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    let boundary = parameter(parameters, "boundary").filter(|boundary| {
        kind.trim().eq_ignore_ascii_case("multipart/form-data")
            && (1..=MAX_BOUNDARY_BYTES).contains(&boundary.len())
    });
    boundary.ok_or_else(|| {
        let message = format!("found {content_type:?}, expected multipart/form-data with a boundary");
        ApiError::invalid_param("Content-Type", message)
    })
}

impl Multipart {
    /// Reader of a body with this boundary.
    pub fn new(body: BodyReader, boundary: &str) -> Self {
        // As if the first delimiter had a line before it, like the others.
        Self { body, delimiter: format!("\r\n--{boundary}").into_bytes(), buffer: b"\r\n".to_vec() }
    }

    /// Reads more of the body. Returns whether there was more.
    async fn read(&mut self) -> Result<bool, ApiError> {
        let piece = self.body.next().await?;
        self.buffer.extend_from_slice(piece.as_deref().unwrap_or_default());
        Ok(piece.is_some())
    }

    /// Skips the rest of a part, and reads the headers of the next; `None` after the last.
    ///
    /// # Errors
    /// 400 if the body is no multipart body, and those of [`BodyReader::next`].
    pub async fn next_part(&mut self) -> Result<Option<Part>, ApiError> {
        while self.data().await?.is_some() {}
        self.buffer.drain(..self.delimiter.len());
        while self.buffer.len() < 2 {
            if !self.read().await? {
                return Err(incomplete());
            }
        }
        if self.buffer.starts_with(b"--") {
            // What follows the last part means nothing.
            self.buffer.clear();
            while self.body.next().await?.is_some() {}
            return Ok(None);
        }
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end;
            }
            if self.buffer.len() > MAX_HEADER_BYTES {
                let message = format!("a part has headers of more than {MAX_HEADER_BYTES} bytes");
                return Err(ApiError::invalid(message));
            }
            if !self.read().await? {
                return Err(incomplete());
            }
        };
        let part = Part::parse(&self.buffer[..end]);
        self.buffer.drain(..end + 4);
        part.map(Some)
    }

    /// Reads the next bytes of the current part; `None` at its end.
    ///
    /// # Errors
    /// 400 if the body ends before, and those of [`BodyReader::next`].
    pub async fn data(&mut self) -> Result<Option<Vec<u8>>, ApiError> {
        loop {
            let len = match find(&self.buffer, &self.delimiter) {
                Some(0) => return Ok(None),
                Some(start) => start,
                // The end may be the beginning of a delimiter.
                None => self.buffer.len().saturating_sub(self.delimiter.len() - 1),
            };
            if len > 0 {
                let rest = self.buffer.split_off(len);
                return Ok(Some(std::mem::replace(&mut self.buffer, rest)));
            }
            if !self.read().await? {
                return Err(incomplete());
            }
        }
    }

    /// Reads the rest of the current part as text of at most `max_bytes`; `name` is the field's.
    ///
    /// # Errors
    /// 400 if it is longer or not UTF-8, and those of [`Multipart::data`].
    pub async fn text(&mut self, name: &str, max_bytes: usize) -> Result<String, ApiError> {
        let mut text = vec![];
        while let Some(data) = self.data().await? {
            text.extend(data);
            if text.len() > max_bytes {
                let message = format!("found more than {max_bytes} bytes, the maximum for this field");
                return Err(ApiError::invalid_param(name, message));
            }
        }
        String::from_utf8(text)
            .map_err(|_| ApiError::invalid_param(name, "found text that is not UTF-8, expected UTF-8"))
    }
}

impl Part {
    fn parse(headers: &[u8]) -> Result<Self, ApiError> {
        let headers = String::from_utf8_lossy(headers);
        let disposition = headers.split("\r\n").find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
        });
        let (kind, parameters) = disposition.and_then(|value| value.split_once(';')).unwrap_or_default();
        let name = parameter(parameters, "name").filter(|_| kind.trim().eq_ignore_ascii_case("form-data"));
        let Some(name) = name else {
            let message = "a part has no Content-Disposition: form-data with a name";
            return Err(ApiError::invalid(message));
        };
        let extended = parameter(parameters, "filename*").and_then(|value| {
            let (_, encoded) = value.split_once("''")?; // UTF-8''percent-encoded (RFC 8187)
            let value = format!("x={}", encoded.replace('+', "%2B"));
            form_urlencoded::parse(value.as_bytes()).next().map(|(_, decoded)| decoded.into_owned())
        });
        let filename = extended.or_else(|| parameter(parameters, "filename"));
        Ok(Self { name, filename })
    }
}

/// Returns a parameter of a header's value, such as `name` in `name="file"; filename="a.jsonl"`.
fn parameter(parameters: &str, name: &str) -> Option<String> {
    let mut rest = parameters;
    loop {
        let (key, value) = rest.split_once('=')?;
        let (value, after) = match value.trim_start().strip_prefix('"') {
            None => {
                let (value, after) = value.split_once(';').unwrap_or((value, ""));
                (value.trim().to_string(), after)
            }
            Some(quoted) => {
                let (mut value, mut chars) = (String::new(), quoted.char_indices());
                let end = loop {
                    match chars.next()? {
                        (end, '"') => break end,
                        (_, '\\') => match chars.next()? {
                            (_, escaped @ ('"' | '\\')) => value.push(escaped),
                            (_, other) => value.extend(['\\', other]), // Windows paths are not escaped
                        },
                        (_, other) => value.push(other),
                    }
                };
                (value, quoted[end + 1..].split_once(';').map_or("", |(_, after)| after))
            }
        };
        let key = key.rsplit(';').next().unwrap_or_default();
        if key.trim().eq_ignore_ascii_case(name) {
            return Some(value);
        }
        rest = after;
    }
}

/// Returns where a delimiter begins.
fn find(buffer: &[u8], delimiter: &[u8]) -> Option<usize> {
    let mut start = 0;
    while let Some(found) = buffer[start..].iter().position(|byte| *byte == delimiter[0]) {
        start += found;
        if buffer[start..].starts_with(delimiter) {
            return Some(start);
        }
        start += 1;
    }
    None
}

fn incomplete() -> ApiError {
    ApiError::invalid("the body ends before the last part's end")
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, Bytes};
    use axum::extract::Request;
    use futures_util::stream::iter;
    use std::convert::Infallible;
    use std::time::Duration;

    /// Reads all parts of a body that arrives in pieces of a size.
    fn parts(text: &str, piece: usize) -> Result<Vec<(Part, String)>, ApiError> {
        let pieces: Vec<Result<Bytes, Infallible>> =
            text.as_bytes().chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let request = Request::new(Body::from_stream(iter(pieces)));
        let body = BodyReader::new(request, 1 << 20, Duration::from_secs(10))?;
        let mut multipart = Multipart::new(body, "XX");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut parts = vec![];
            while let Some(part) = multipart.next_part().await? {
                let text = multipart.text(&part.name, 1 << 20).await?;
                parts.push((part, text));
            }
            Ok(parts)
        })
    }

    fn part(name: &str, filename: Option<&str>, text: &str) -> (Part, String) {
        (Part { name: name.into(), filename: filename.map(String::from) }, text.into())
    }

    #[test]
    fn parts_are_the_same_however_the_body_is_cut() {
        let body = "preamble\r\n--XX\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n\
                    --XX  \r\ncontent-type: text/plain\r\ncontent-disposition: FORM-DATA; name=\"file\"; \
                    filename=\"a;\\\"b\\\".jsonl\"\r\n\r\n\r\n--X\r\n--XY\r\n\r\n\r\n--XX\r\n\
                    Content-Disposition: form-data; name=empty\r\n\r\n\r\n--XX--\r\nepilogue";
        let expected = [
            part("purpose", None, "batch"),
            part("file", Some("a;\"b\".jsonl"), "\r\n--X\r\n--XY\r\n\r\n"),
            part("empty", None, ""),
        ];
        for piece in (1..30).chain([body.len()]) {
            assert_eq!(parts(body, piece).unwrap(), expected, "{piece}");
        }
        assert_eq!(parts("--XX--", 3).unwrap(), []);
        let end = body.rfind("--\r\nepilogue").unwrap();
        for cut in 0..end {
            assert!(parts(&body[..cut], 7).is_err(), "{cut}");
        }
        assert_eq!(parts(&body[..end + 2], 7).unwrap(), expected);
    }

    #[test]
    fn malformed_body_is_refused() {
        for (body, message) in [
            ("", "the body ends before"),
            ("{\"purpose\": \"batch\"}", "the body ends before"),
            (
                "--XX\r\nContent-Disposition: attachment; name=\"a\"\r\n\r\n\r\n--XX--",
                "no Content-Disposition",
            ),
            ("--XX\r\n\r\n\r\n--XX--", "no Content-Disposition"),
            (&format!("--XX\r\nA: {}", "a".repeat(20_000)), "headers of more than 16384 bytes"),
        ] {
            let error = parts(body, 1000).unwrap_err().json();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn boundary_and_file_names_are_read_as_clients_write_them() {
        for (content_type, expected) in [
            ("multipart/form-data; boundary=abc", Some("abc")),
            ("Multipart/Form-Data;charset=utf-8; Boundary=\"a b\"", Some("a b")),
            ("multipart/form-data", None),
            ("multipart/form-data; boundary=", None),
            ("application/json; boundary=abc", None),
        ] {
            assert_eq!(boundary(content_type).ok().as_deref(), expected, "{content_type}");
        }
        for (disposition, filename) in [
            ("form-data; name=\"f\"; filename=\"C:\\data\\x.jsonl\"", "C:\\data\\x.jsonl"),
            ("form-data; filename=data.jsonl; name=f", "data.jsonl"),
            ("form-data; name=f; filename=\"?\"; filename*=utf-8''%C3%A9+1.jsonl", "é+1.jsonl"),
        ] {
            let header = format!("\r\nContent-Disposition: {disposition}");
            assert_eq!(Part::parse(header.as_bytes()).unwrap().filename.as_deref(), Some(filename));
        }
    }
}
