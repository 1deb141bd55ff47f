//! Hornbook

pub mod error;
pub mod kernels;

pub use error::{Error, Result};
