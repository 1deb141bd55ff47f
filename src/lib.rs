//! Hornbook

pub mod checkpoint;
pub mod error;
pub mod kernels;
pub mod sampling;
pub mod tokenizer;

pub use error::{Error, Result};
