//! # 8. Sampling: how does a prediction become a token, and tokens a text?
//!
//! To generate text, choose a token from the predicted probabilities, append it to the text, and predict
//! again. *Greedy decoding* always takes the most likely token; such a text soon repeats itself. *Sampling*
//! draws a token at random, according to the probabilities. But there are thousands of unlikely tokens, and
//! one of them is drawn often enough to spoil a sentence. The *temperature* T controls this: the logits are
//! divided by T before the softmax. Below 1 the likely tokens become more likely, above 1 the unlikely ones
//! do.
//!
//! ```text
//! p[v] = e^(logits[v] / T) / Σ_u e^(logits[u] / T)
//! ```
//!
//! The unlikely tokens can also be removed: *top-k* keeps the k most likely tokens, *top-p* the smallest set
//! of most likely tokens whose probabilities add up to at least p. The random numbers come from a *seed*: the
//! same seed gives the same text, on every machine.
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
//! // Draw 1000 tokens at each of three temperatures, and count how often the most likely one is drawn.
//! let mut count = |temperature: f32| {
//!     let params = SamplingParams { temperature, seed: 1, ..SamplingParams::default() };
//!     let mut sampler = Sampler::new(params, 0);
//!     let likeliest = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
//!     (0..1000).filter(|_| sampler.sample(&logits, &ids, &[]).id as usize == likeliest).count()
//! };
//! let (cold, warm, hot) = (count(0.7), count(1.0), count(1.5));
//! assert!(cold > warm && warm > hot); // 0.7 sharpens the distribution, 1.5 flattens it
//! assert_eq!(count(0.0), 1000); // 0 is greedy decoding
//!
//! // The same seed gives the same text.
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
//! All steps of sampling, in order, are in [`sampling`](crate::sampling); the generation loop is in
//! [`generate`](mod@crate::generate).
//!
//! Next: [why the tenth token is not ten times as expensive as the first](super::cache).
