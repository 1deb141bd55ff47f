//! The operations of GPT-2, one per module: the formula, a `reference` as simple as the formula, a fast
//! implementation, and tests that compare the two.
//!
//! In the order of the forward pass: [`embedding`], [`positions`], then in every block [`layer_norm`],
//! [`linear`], [`attention`] with its [`softmax`], [`mlp`] with its [`activation`], and finally the LM head,
//! [`logits`].
//!
//! [`quantized`] has the linear layer for packed bf16, int8 and int4 weights. All build on [`simd`], the
//! vector abstraction, [`isa`], the run-time choice of an instruction set, and [`thread_pool`]. Kernels work
//! on slices, shapes and threads, and do not depend on models.
//!
//! # Bitwise reproducibility
//! Each output is computed by fused multiply-adds (or, in int8 and int4, exact integer sums) in an order that
//! its formula and shape alone determine. Thread count, batch size, chunk size and vector width have no
//! effect on the result. The one exception is [`quantized::Bf16Dot`] on Intel's AMX, whose instruction sums
//! in an order of its own; there, the last bits differ from those of other instruction sets.

// Indices that run over register tiles, or over several slices at once, are the subscripts of the formulas.
#![allow(clippy::needless_range_loop)]
#![deny(missing_docs)]
#![deny(unsafe_op_in_unsafe_fn)]

pub mod activation;
pub mod attention;
pub mod elements;
pub mod embedding;
pub mod epilogue;
pub mod exp;
pub mod isa;
pub mod layer_norm;
pub mod linear;
pub mod logits;
mod microkernel;
pub mod mlp;
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
