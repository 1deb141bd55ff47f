//! Training: the gradients of the loss, by hand, and the steps that the weights take.
//!
//! A step is: a forward pass that keeps what the backward pass needs (`forward.rs`, `activations.rs`), the
//! backward pass, which reads like the forward pass from its last line to its first (`backward.rs`), and
//! AdamW ([`Trainer::update`]). The operations themselves are in [`kernels`](crate::kernels) and
//! [`kernels::backward`](crate::kernels::backward), a formula each.
//!
//! The result has the same bits for any number of threads: outputs are split between them, never sums.

mod activations;
mod backward;
mod forward;
mod layout;
mod pass;
mod trainer;

pub use activations::Activations;
pub use layout::{Block, Layout, TensorPlace, WeightAndBias};
pub use pass::Batch;
pub use trainer::Trainer;
