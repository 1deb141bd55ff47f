//! # 8. Sampling: how does a prediction become a token, and tokens a text?
//!
//! Choose a token by its probability, put it behind the text, and ask again. Always taking the most likely one sounds
//! safe and reads badly: such a text soon goes round in circles. Drawing by the probabilities as they are is livelier,
//! but there are thousands of unlikely tokens, and together they are drawn often enough to derail a sentence. Between the
//! two is the *temperature*: divide the logits by T before the softmax. Below 1 the likely tokens gain, above 1 the
//! others.
//!
//! ```text
//! p[v] = e^(logits[v] / T) / Σ_u e^(logits[u] / T)
//! ```
//!
//! And the tail can be cut off: *top-k* keeps the k most likely tokens, *top-p* as many as together reach the
//! probability p. What is left is drawn from. The random numbers come from a seed, so the same seed gives the same text,
//! on every machine.
//!
//! ```
//! use hornbook::model::Session;
//! use hornbook::sampling::{Sampler, SamplingParams};
//! use hornbook::{Hornbook, Options};
//! # fn main() -> hornbook::Result<()> {
//! let fable = Hornbook::open("fable")?;
//! let ids = fable.encode("The king")?;
//! let logits = Session::new(fable.model(), 8, None).feed(&ids)?.to_vec();
//!
//! // Draw a thousand times at three temperatures, and count how often it was the most likely token.
//! let mut best = |temperature: f32| {
//!     let params = SamplingParams { temperature, seed: 1, ..SamplingParams::default() };
//!     let mut sampler = Sampler::new(params, 0);
//!     let most = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).expect("a vocabulary");
//!     (0..1000).filter(|_| sampler.sample(&logits, &ids, &[]).id as usize == most).count()
//! };
//! let (cold, warm, hot) = (best(0.7), best(1.0), best(1.5));
//! assert!(cold > warm && warm > hot); // 0.7 sharpens, 1.5 blurs
//! assert_eq!(best(0.0), 1000); // and 0 takes the most likely one always
//!
//! // The same seed, the same text.
//! let text = |seed: u64| -> hornbook::Result<String> {
//!     let sampling = SamplingParams { seed, ..Options::default().sampling };
//!     let options = Options { sampling, max_tokens: Some(12), ..Options::default() };
//!     fable.generate(&ids, &options)?.map(|token| Ok(token?.text)).collect()
//! };
//! assert_eq!(text(7)?, text(7)?);
//! assert_ne!(text(7)?, text(8)?);
//! # Ok(())
//! # }
//! ```
//!
//! All steps in their order are in [`sampling`](crate::sampling), the loop around them in
//! [`generate`](mod@crate::generate).
//!
//! Next: [why the tenth token does not cost ten times the first](super::cache).
