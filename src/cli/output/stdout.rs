//! Standard output.

use crate::{Error, Result};
use std::io::{ErrorKind, Write, stdout};

/// The error of a failed write to standard output.
pub fn write_error(source: std::io::Error) -> Error {
    Error::Io { path: "standard output".into(), action: "write", source }
}

/// Prints a line to standard output. A closed pipe, as of `| head`, is no error.
pub fn write_line(line: &str) -> Result<()> {
    match writeln!(stdout().lock(), "{line}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(write_error),
    }
}

/// Prints a JSON value to standard output.
pub fn write_json(value: &serde_json::Value) -> Result<()> {
    write_line(&format!("{value:#}"))
}

/// Whether a write failed because the reader closed the pipe.
pub fn is_closed_pipe(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::BrokenPipe)
}
