//! Kernels.
pub mod activation;
pub mod elements;
