//! The operations a GPT-2 is made of, each in a file of its own: the formula, a textbook form as plain as the formula,
//! a fast form, and tests that hold the second to the first.
//!
//! In the order a token meets them: [`embedding`], [`positions`], then in every block [`layer_norm`],
//! [`linear`], [`attention`] with its [`softmax`], [`mlp`] with its [`activation`], and at the end the head,
//! [`logits`].
//!
//! Underneath: [`simd`] says what a vector is, [`isa`] chooses the instructions when the program runs, [`threads`]
//! shares out the work. Kernels know slices, shapes and threads, and nothing of models.
//!
//! # Same bits
//! Every output is computed by one thread, in one order of additions that the formula fixes, with fused multiply-adds.
//! Threads, batches, chunks and vector widths decide only who computes what and when.

// An index that runs over a tile's registers, or over several slices at once, is the formula's own subscript.
#![allow(clippy::needless_range_loop)]

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
pub mod mlp;
pub mod positions;
pub mod quantized;
pub mod rows;
pub mod simd;
pub mod softmax;
pub mod threads;
mod tile;

#[cfg(test)]
mod check;
