//! The operations of GPT-2, one per module: the formula, a `reference` as simple as the formula, a fast
//! implementation, and tests that compare the two.
//!
//! In reading order, first the operations of the forward pass:
//!
//! 1. [`embedding`], [`positions`]: a token's id and its position become a vector.
//! 2. [`layer_norm`]: the shortest complete kernel.
//! 3. [`linear`]: for a few tokens `linear/gemv.rs`, for many `gemm/mod.rs`, and [`epilogue`];
//!    [`low_rank`](linear::low_rank), what an adapter adds.
//! 4. [`attention`], with its [`softmax`] and [`exp`].
//! 5. [`mlp`], with its [`activation`].
//! 6. [`logits`]: the LM head.
//! 7. [`quantized`]: the linear layer for packed weights; [`formats`]: all precisions of weights, and
//!    [`formats::gptq`], which rounds them so that errors cancel out.
//!
//! Then those of training:
//!
//! 8. [`backward`]: their gradients.
//! 9. [`optimizers`]: how a training step changes the weights.
//!
//! Then what they stand on:
//!
//! 10. `gemm/microkernel.rs`: the inner loop of linear layers, LM head and attention; then `gemm/blocking.rs`
//!     with all sizes of blocks, `gemm/pack.rs`, `gemm/prefetch.rs`.
//! 11. [`rows`], [`elements`], [`aligned_vec`]: matrices, the types of their elements, and their memory.
//! 12. [`simd`], the vector abstraction, and [`isa`], the run-time choice of an instruction set.
//! 13. [`thread_pool`].
//!
//! Kernels work on slices, shapes and threads, and do not depend on models.
//!
//! # Bitwise reproducibility
//! Each output is computed by fused multiply-adds (or, in int8 and int4, exact integer sums) in an order that
//! its formula and shape alone determine. Thread count, batch size, chunk size and vector width have no
//! effect on the result. The one exception is [`formats::Bf16Dot`] on Intel's AMX, whose instruction sums
//! in an order of its own; there, the last bits differ from those of other instruction sets.

// Indices that run over register tiles, or over several slices at once, are the subscripts of the formulas.
#![allow(clippy::needless_range_loop)]
#![deny(missing_docs)]
#![deny(unsafe_op_in_unsafe_fn)]

pub mod activation;
pub mod aligned_vec;
pub mod attention;
pub mod backward;
pub mod elements;
pub mod embedding;
pub mod epilogue;
pub mod exp;
pub mod formats;
mod gemm;
pub mod isa;
pub mod layer_norm;
pub mod linear;
pub mod logits;
pub mod mlp;
pub mod optimizers;
pub mod parallel;
pub mod positions;
pub mod quantized;
pub mod rows;
pub mod simd;
pub mod softmax;
#[cfg_attr(not(feature = "threads"), allow(dead_code))] // what only worker threads call
pub mod thread_pool;

#[cfg(test)]
mod testing;
