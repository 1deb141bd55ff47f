//! The library's errors as Python's exceptions, with the same sentence.

use hornbook::Error;
use pyo3::exceptions::{PyFileNotFoundError, PyOSError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use std::io::ErrorKind;

/// The exception of an error: `FileNotFoundError` and `OSError` for files, `RuntimeError` for what is not the
/// caller's fault, else `ValueError`.
pub fn exception(error: Error) -> PyErr {
    let message = error.to_string();
    match error {
        Error::ModelNotFound { .. } => PyFileNotFoundError::new_err(message),
        Error::Io { source, .. } if source.kind() == ErrorKind::NotFound => {
            PyFileNotFoundError::new_err(message)
        }
        Error::Io { .. } => PyOSError::new_err(message),
        Error::System { .. } | Error::Aborted { .. } | Error::NotFinite(_) => {
            PyRuntimeError::new_err(message)
        }
        _ => PyValueError::new_err(message),
    }
}

/// The `ValueError` of an argument out of range.
pub fn parameter(name: &str, found: impl ToString, expected: impl Into<String>) -> PyErr {
    exception(Error::Parameter { name: name.into(), found: found.to_string(), expected: expected.into() })
}

/// The `TypeError` of an object that cannot be pickled.
pub fn not_picklable(class: &str) -> PyErr {
    PyTypeError::new_err(format!(
        "a {class} belongs to the process that opened it and cannot be pickled or copied: \
         call Model.from_pretrained in each process"
    ))
}
