//! The program `hornbook`, run in Python's process.

use hornbook::cli;
use pyo3::prelude::*;
use std::ffi::OsString;
use std::process::ExitCode;

/// Runs a command line, the program's name first, and returns its exit code.
#[pyfunction]
pub fn run_command_line(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    let code = py.detach(|| cli::main(arguments));
    (0..=u8::MAX).find(|&n| ExitCode::from(n) == code).unwrap_or(u8::MAX)
}
