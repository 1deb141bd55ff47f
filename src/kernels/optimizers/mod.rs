//! Optimizers: how a training step changes the weights, given the gradients that
//! [`backward`](crate::backward) has computed.
//!
//! 1. [`gradient_norm`]: the length of all gradients together, by which they are clipped.
//! 2. [`adamw`]: for every kind of weight.
//! 3. [`muon`]: for matrices.

pub mod adamw;
pub mod gradient_norm;
pub mod muon;
