//! From logits to the next token.
//!
//! This module handles logits and token ids only; it does not depend on the model or the tokenizer. The steps
//! always run in this order:
//!
//! - Logits processors ([`processors`]): 1. logit bias, 2. repetition penalty, 3. presence and frequency
//!   penalties ([`penalties`]), 4. no repeated n-grams ([`ngram`]), 5. no stop token before `min_tokens`, no
//!   bad words, and allowed tokens only ([`constraints`]).
//! - Logits warpers ([`candidates`]): 6. temperature, 7. top-k, 8. top-p, 9. min-p, 10. typical-p.
//! - A random draw among the remaining candidates by inverse-CDF sampling ([`sampler`]). At temperature 0 the
//!   sampler returns the best token after step 5 (greedy decoding).
//!
//! The steps follow transformers' `LogitsProcessor`s, except for the presence and frequency penalties, which
//! follow the OpenAI API. The logprobs reported with a token ([`logprobs`]) are those of the model's own
//! distribution, before any of these steps. Beam search ([`beam`]) applies steps 1 to 5 to each beam's
//! logprobs and keeps the best sums.
//!
//! A seed gives the same tokens on every machine: exponentials are IEEE 754 arithmetic (`softmax.rs`),
//! logarithms and powers come from the `libm` crate, sums do not depend on their order, and the random number
//! generator is ChaCha8.

pub mod beam;
pub mod candidates;
pub mod constraints;
pub mod logprobs;
pub mod ngram;
pub mod params;
pub mod penalties;
pub mod processors;
pub mod sampler;
mod softmax;
pub mod stop;
mod top_n;

pub use beam::{BeamHypothesis, BeamParams, BeamSearch, BeamStep, EarlyStopping};
pub use logprobs::{LogSoftmax, token_logprob, top_logprobs};
pub use params::SamplingParams;
pub use processors::LogitsProcessors;
pub use sampler::{SampledToken, Sampler};
pub use stop::StopMatcher;
