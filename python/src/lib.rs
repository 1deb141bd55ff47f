//! The extension module of the Python package `hornbook`: the library's types as Python's.
//!
//! - `model`: opens a model; the methods that write, and those that look inside.
//! - `shared`: the model behind Python's objects, and its engine.
//! - `prompt`: texts, or token ids, as arguments.
//! - `options`: the keyword arguments of `generate` and `stream`.
//! - `completion`: texts, of one prompt or of several at once.
//! - `stream`: a text, token by token.
//! - `forward`: one pass over a text: logits, activations, hooks.
//! - `hooks`: observers of a pass that record, or that call Python functions.
//! - `tokenizer`, `config`: what a model has beside its weights.
//! - `errors`: Python's exceptions.
//! - `command_line`: the program `hornbook`.
//!
//! Every call that computes releases the GIL. Arrays are Rust's memory, moved into numpy.

mod command_line;
mod completion;
mod config;
mod errors;
mod forward;
mod hooks;
mod model;
mod options;
mod prompt;
mod shared;
mod stream;
mod tokenizer;

use pyo3::prelude::*;

#[pymodule]
mod _hornbook {
    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");
    #[pymodule_export]
    use super::command_line::run_command_line;
    #[pymodule_export]
    use super::completion::Completion;
    #[pymodule_export]
    use super::config::Config;
    #[pymodule_export]
    use super::forward::Score;
    #[pymodule_export]
    use super::model::Model;
    #[pymodule_export]
    use super::stream::{Stream, Token};
    #[pymodule_export]
    use super::tokenizer::Tokenizer;
}
