//! **New here? Take the [tour]**: from a text to the next token in ten pages, for someone who knows what a matrix is and
//! has never met a language model. [Tokens](tour::tokens) → [embedding](tour::embedding) →
//! [positions](tour::positions) → [attention](tour::attention) → [MLP](tour::mlp) → [layer norm](tour::layer_norm) →
//! [LM head](tour::lm_head) → [sampling](tour::sampling) → [cache](tour::cache) → [kernels](tour::kernels).
//!
#![doc = include_str!("../README.md")]
//!
//! # The code in reading order
//!
//! The modules in the order to read them, each standing on those before it alone:
//!
//! 1. [`kernels`]: the operations, one a file. [`layer_norm`](kernels::layer_norm) is the shortest whole example of
//!    how such a file goes; [`attention`](kernels::attention) is the one a transformer is named for.
//! 2. [`checkpoint`]: from files to tensors that can be trusted.
//! 3. [`model`]: the forward pass, token ids to logits. Whoever reads one file reads this one.
//! 4. [`tokenizer`]: text to token ids and back.
//! 5. [`sampling`]: logits to the next token.
//! 6. [`generate`]: all of it joined, as an iterator of tokens.
//! 7. [`chat`]: a conversation.
//! 8. [`engine`]: many requests at once.
//! 9. [`server`]: the engine behind OpenAI's API.
//! 10. [`mod@bench`]: how fast it is, beside what the machine allows.
//! 11. [`hub`]: models from elsewhere.
//! 12. [`lens`]: what goes on inside.
//! 13. [`cli`]: the program `hornbook`.
//!
//! [`error`] holds what can go wrong, always one line to be shown as it is.

#![deny(missing_docs)]
#![deny(unsafe_op_in_unsafe_fn)]

mod atomic_file;
pub mod bench;
pub mod chat;
pub mod checkpoint;
pub mod cli;
pub mod engine;
pub mod error;
pub mod generate;
pub mod hub;
pub mod kernels;
pub mod lens;
pub mod model;
pub mod sampling;
pub mod server;
pub mod tokenizer;
pub mod tour;

pub use error::{Error, Result};
pub use generate::{FinishReason, Generation, Hornbook, Options, Token};
