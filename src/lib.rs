//! Hornbook

pub mod bench;
pub mod checkpoint;
pub mod cli;
pub mod error;
pub mod generate;
pub mod kernels;
pub mod model;
pub mod sampling;
pub mod tokenizer;

pub use error::{Error, Result};
pub use generate::{FinishReason, Generation, Hornbook, Options, Token};
