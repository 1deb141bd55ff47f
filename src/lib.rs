//! Hornbook

pub mod checkpoint;
pub mod error;
pub mod kernels;
pub mod model;

pub use error::{Error, Result};
