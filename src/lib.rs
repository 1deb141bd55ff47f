//! **New here? Start with the [tour]**: from text to the next token in ten pages, for readers who know what a
//! matrix is and are new to language models. [Tokens](tour::tokens) → [embedding](tour::embedding) →
//! [positions](tour::positions) → [attention](tour::attention) → [MLP](tour::mlp) →
//! [layer norm](tour::layer_norm) → [LM head](tour::lm_head) → [sampling](tour::sampling) →
//! [cache](tour::cache) → [kernels](tour::kernels).
//!
#![doc = include_str!("../README.md")]
//!
//! # The code in reading order
//!
//! Read first: [`model::reference`], the whole of GPT-2 in sixty lines, which call the formula of each
//! operation. After it, each module depends only on modules listed before it:
//!
//! 1. [`kernels`]: the operations, one per file. [`layer_norm`](kernels::layer_norm) is the shortest complete
//!    example of such a file; [`attention`](kernels::attention) is the operation that defines a transformer.
//! 2. [`checkpoint`]: loading and validating model files.
//! 3. [`model`]: the forward pass, token ids to logits: the same as the file above, made fast.
//! 4. [`tokenizer`]: text to token ids and back.
//! 5. [`sampling`]: logits to the next token.
//! 6. [`generate`]: text generation, as an iterator of tokens.
//! 7. [`chat`]: conversations and chat templates.
//! 8. [`engine`]: continuous batching of concurrent requests.
//! 9. [`batch`]: files of requests and files of responses.
//! 10. [`mod@bench`]: performance measurements and the machine's limits.
//! 11. [`server`]: the OpenAI-compatible HTTP API on top of the engine.
//! 12. [`hub`]: downloads from the Hugging Face Hub.
//! 13. [`lens`]: interpretability: attention maps, logit lens, ablation.
//! 14. [`train`]: the backward pass, the optimizer, and runs that go on where they stopped.
//! 15. [`cli`]: the command-line program `hornbook`.
//!
//! [`error`] defines the crate's error type, whose messages are one line each.

#![deny(missing_docs)]
#![deny(unsafe_op_in_unsafe_fn)]

#[cfg_attr(not(feature = "cli"), allow(dead_code))] // what only the program and the server write
mod atomic_file;
#[cfg(feature = "server")]
pub mod batch;
#[cfg(feature = "server")]
pub mod bench;
pub mod chat;
pub mod checkpoint;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "server")]
pub mod engine;
pub mod error;
pub mod generate;
#[cfg(feature = "hub")]
pub mod hub;
pub mod lens;
#[cfg(any(feature = "cli", feature = "server"))]
#[cfg_attr(not(feature = "cli"), allow(dead_code))]
mod memory;
pub mod model;
pub mod sampling;
#[cfg(feature = "server")]
pub mod server;
#[cfg_attr(not(feature = "cli"), allow(dead_code))]
mod text_file;
pub mod tokenizer;
pub mod tour;
pub mod train;

#[doc(inline)]
pub use hornbook_kernels as kernels;

pub use error::{Error, Result};
pub use generate::{FinishReason, Generation, Hornbook, Options, Token};
