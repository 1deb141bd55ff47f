//! From logits to the next token.
//!
//! This module knows logits and token ids, nothing of the model or the text behind them. One order holds everywhere:
//!
//! 1. logit bias, 2. repetition penalty, 3. presence and frequency penalties ([`penalties`]),
//! 4. no repeated n-gram ([`ngram`]), 5. no stop token before `min_tokens` ([`processors`] is these five in a row);
//! 6. temperature, where 0 takes the best token at once ([`sampler`]),
//! 7. top-k, 8. top-p, 9. min-p, 10. typical-p ([`candidates`]), and a draw among what is left.
//!
//! What transformers defines is done as its `LogitsProcessor`s do it, presence and frequency penalties as the OpenAI
//! API does. The logprobs reported with a token ([`logprobs`]) are of the model's own distribution, before all this.
//! Beam search ([`beam`]) draws nothing: it applies 1 to 5 to each beam's logprobs and keeps the best sums.
//!
//! The same seed gives the same tokens on every machine: exponentials are plain arithmetic (`softmax.rs`), logarithms
//! and powers are the `libm` crate's, sums do not depend on their order, and the random numbers are ChaCha8's.

pub mod beam;
pub mod candidates;
pub mod logprobs;
pub mod ngram;
pub mod params;
pub mod penalties;
pub mod processors;
pub mod sampler;
mod select;
mod softmax;
pub mod stop;

pub use beam::{BeamParams, BeamSearch, BeamStep, EarlyStopping, Hypothesis};
pub use logprobs::{LogSoftmax, log_softmax_at, top_logprobs};
pub use params::SamplingParams;
pub use processors::LogitsProcessors;
pub use sampler::{Sampled, Sampler};
pub use stop::StopMatcher;
