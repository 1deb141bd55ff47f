//! The backward pass: for each operation of GPT-2, the gradients of a loss with respect to its inputs and
//! weights, given the gradient with respect to its output. They are derived by hand, one operation per file.
//!
//! A name `dx` stands for the gradient of the loss with respect to `x`, ∂L/∂x; it has the shape of `x`. By
//! the chain rule, every operation multiplies `dy`, the gradient of its output, with its own derivative.
//!
//! In reading order:
//!
//! 1. [`linear`]: two more matrix products.
//! 2. [`low_rank`]: what an adapter adds to one.
//! 3. [`layer_norm`].
//! 4. [`activation`].
//! 5. [`attention`]: attention weights are computed again, so that no matrix of them is kept.
//! 6. [`cross_entropy`]: the loss, and the gradients of the LM head.
//! 7. [`embedding`]: a sum for each token id.
//!
//! Each `reference` is in f64, so that finite differences can confirm it; the tests do. The fast forms are
//! held to it.
//!
//! # Bitwise reproducibility
//! Outputs are split between threads, sums never are: the gradient of a weight is summed over all tokens, in
//! their order, by one thread. The result does not depend on the number of threads or the instruction set.

pub mod activation;
pub mod attention;
pub mod cross_entropy;
pub mod embedding;
pub mod layer_norm;
pub mod linear;
pub mod low_rank;
