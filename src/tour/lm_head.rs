//! # 7. The LM head: how does a row become a prediction?
//!
//! After the last block, a token's row encodes what should come next. The *LM head* (language-model head)
//! turns it into one score per token of the vocabulary: after a last layer norm, it takes the dot product of
//! the row with every token's row of a table. In GPT-2 this is the same table `wte` that gave the embeddings
//! at the start (*weight tying*). The scores are called *logits*. Softmax turns them into probabilities:
//!
//! ```text
//! logits[v] = Σ_k x[k] · wte[v, k]            x after the last layer norm
//! p[v]      = e^logits[v] / Σ_u e^logits[u]   softmax
//! ```
//!
//! This is the whole output of a language model: a probability for every possible next token. Training does
//! nothing but raise the probability of the tokens that really came next. The logarithm of a probability p,
//! ln p, is called *log probability* or *logprob*. The *surprisal* of a token is −ln p, with p its predicted
//! probability. The mean surprisal over a text is the training loss (*cross-entropy*). *Perplexity* is e to
//! the power of the mean surprisal: a perplexity of 20 means that the model is as uncertain as if it had to
//! choose among 20 equally likely tokens.
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
//! assert_eq!(logits.len(), 4096); // one per token of the vocabulary
//!
//! let p = softmax::reference(&logits);
//! assert!((p.iter().sum::<f32>() - 1.0).abs() < 1e-4); // probabilities
//!
//! let (best, logprob) = top_logprobs(&logits, 1)[0];
//! assert_eq!(fable.tokenizer()?.decode(&[best]), " time");
//! assert!(logprob.exp() > 0.2); // 0.29, in a vocabulary of 4096: fable was trained on fairy tales
//! # Ok(())
//! # }
//! ```
//!
//! The reference implementations are [`logits::reference`](crate::kernels::logits::reference) and
//! [`softmax::reference`](crate::kernels::softmax::reference). In a terminal: `hornbook perplexity` measures
//! a model on a text.
//!
//! Next: [how predictions become a text](super::sampling).
