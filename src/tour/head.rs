//! # 7. The head: how do numbers become a prediction?
//!
//! After the last block a token's row stands for what should come next. To say which token that is, it is compared with
//! the row of every token of the vocabulary, by the same table that made tokens into rows at the start: the product of
//! two rows is large where they point the same way. These products are the *logits*, one for each token.
//!
//! ```text
//! logits[v] = Σ_k x[k] · wte[v, k]            x after a last layer norm
//! p[v]      = e^logits[v] / Σ_u e^logits[u]   softmax: from scores to probabilities
//! ```
//!
//! That is all a language model says: a probability for every token. It is trained by nothing but raising the probability
//! of the tokens that did come next. How well it does is measured by its surprise, −ln p of what came; e to the power of
//! the mean surprise is its *perplexity*, the number of equally likely tokens it would be as unsure among.
//!
//! ```
//! use hornbook::kernels::softmax;
//! use hornbook::model::Session;
//! use hornbook::sampling::top_logprobs;
//! use hornbook::Hornbook;
//! # fn main() -> hornbook::Result<()> {
//! let fable = Hornbook::open("fable")?;
//! let ids = fable.encode("Once upon a")?;
//! let logits = Session::new(fable.model(), 8, None).feed(&ids)?.to_vec();
//! assert_eq!(logits.len(), 4096); // one for each token of the vocabulary
//!
//! let p = softmax::reference(&logits);
//! assert!((p.iter().sum::<f32>() - 1.0).abs() < 1e-4); // probabilities
//!
//! let (best, logprob) = top_logprobs(&logits, 1)[0];
//! assert_eq!(fable.tokenizer()?.decode(&[best]), " time");
//! assert!(logprob.exp() > 0.2); // 0.29, in a vocabulary of 4096: it has read fairy tales
//! # Ok(())
//! # }
//! ```
//!
//! The textbook forms are [`logits::reference`](crate::kernels::logits::reference) and
//! [`softmax::reference`](crate::kernels::softmax::reference). `hornbook perplexity` measures a model on a text.
//!
//! Next: [how a prediction becomes a text](super::sampling).
