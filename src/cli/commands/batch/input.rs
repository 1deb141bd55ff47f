//! Batch input: all requests, or all that is wrong with them.

use crate::batch::{BatchRequest, InvalidLine, Requests};
use crate::{Error, Result, text_file};
use std::path::Path;

/// Maximum number of line numbers listed in an error message.
const MAX_LISTED_LINES: usize = 5;
/// Maximum size of a request.
const MAX_LINE_BYTES: u64 = 1 << 30;

/// Reads all requests of a file, or of standard input for `-`.
///
/// # Errors
/// [`Error::Io`], or [`Error::Message`] that names the invalid lines.
pub fn read(file: &Path) -> Result<Vec<BatchRequest>> {
    let (mut requests, mut invalid) = (vec![], vec![]);
    for request in Requests::open(file, MAX_LINE_BYTES)? {
        match request? {
            Ok(request) => requests.push(request),
            Err(line) => invalid.push(line),
        }
    }
    let problem = match invalid.as_slice() {
        [] if requests.is_empty() => "found no requests, expected one per line".into(),
        [] => return Ok(requests),
        [first, others @ ..] => describe(first, others),
    };
    Err(Error::Message(format!("{}: {problem}", text_file::name(file).display())))
}

fn describe(first: &InvalidLine, others: &[InvalidLine]) -> String {
    let mut numbers: Vec<String> = others.iter().map(|other| other.line.to_string()).collect();
    if numbers.len() > MAX_LISTED_LINES {
        numbers.truncate(MAX_LISTED_LINES);
        numbers.push("…".into());
    }
    match others.len() {
        0 => first.to_string(),
        1 => format!("{first} (line {} is also invalid)", numbers[0]),
        n => format!("{first} ({n} more invalid lines: {})", numbers.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn further_invalid_lines_are_listed() {
        let error = |text: &str| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            let error = read(file.path()).unwrap_err().to_string();
            error.strip_prefix(&format!("{}: ", file.path().display())).unwrap().to_string()
        };
        assert_eq!(error("\n \n"), "found no requests, expected one per line");
        assert!(error("x\n{}").starts_with("line 1: not valid JSON (expected value at column 1)"));
        assert!(error("x\n{}").ends_with("(line 2 is also invalid)"));
        assert!(error("x\ny\nz").ends_with("(2 more invalid lines: 2, 3)"));
        assert!(error(&"x\n".repeat(9)).ends_with("(8 more invalid lines: 2, 3, 4, 5, 6, …)"));
    }
}
