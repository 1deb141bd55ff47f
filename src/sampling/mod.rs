//! From logits to the next token.
//!
//! This module handles logits and token ids only; it does not depend on the model or the tokenizer. The steps
//! always run in this order:
//!
//! 1. The logits processors, in the order of [`processors`].
//! 2. The logits warpers, in the order of [`candidates`].
//! 3. A random draw among the remaining candidates by the Gumbel-max trick ([`gumbel`]). At temperature 0 the
//!    sampler returns the best token after step 1 (greedy decoding).
//!
//! The steps follow transformers' `LogitsProcessor`s, except for the presence and frequency penalties, which
//! follow the OpenAI API. The logprobs reported with a token ([`logprobs`]) are those of the model's own
//! distribution, before any of these steps. Beam search ([`beam`]) applies the logits processors to each
//! beam's logprobs and keeps the best sums.
//!
//! The parameters of the steps, with their ranges and their texts for users, are one table, [`PARAMETERS`].
//!
//! A seed gives the same tokens on every machine: exponentials are IEEE 754 arithmetic (`softmax.rs`),
//! logarithms and powers come from the `libm` crate, sums do not depend on their order, and the noise of a
//! draw is a function of a number from ChaCha8 and the token's id. Models that differ little, such as two
//! precisions of one, mostly draw the same tokens.

pub mod beam;
pub mod candidates;
pub mod constraints;
pub mod gumbel;
pub mod logprobs;
pub mod ngram;
mod overrides;
pub mod params;
pub mod penalties;
pub mod processors;
pub mod sampler;
mod softmax;
pub mod stop;
mod top_n;

pub use beam::{BeamHypothesis, BeamParams, BeamSearch, BeamStep, EarlyStopping};
pub use logprobs::{LogSoftmax, token_logprob, top_logprobs};
pub use overrides::Overrides;
pub use params::{Field, PARAMETERS, Parameter, Range, SamplingParams, Scalar};
pub use processors::LogitsProcessors;
pub use sampler::{SampledToken, Sampler, random_seed};
pub use stop::StopMatcher;
