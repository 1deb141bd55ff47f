//! # 9. The KV cache: why is the tenth token not ten times as expensive as the first?
//!
//! To predict a token, the model processes all tokens before it; for the next token it would process all of
//! them again. But the causal mask keeps earlier tokens from depending on later ones, so the keys and values
//! of the earlier tokens never change. The *KV cache* stores them. Only the new token goes through the model:
//! its query attends to the keys and values in the cache.
//!
//! ```text
//! without cache   1 + 2 + … + n tokens go through the model to generate n
//! with cache      n tokens do, and 2 · n_layer · n_embd values are stored per token
//! ```
//!
//! The prompt goes through the model in one pass, all tokens together (*prefill*). The generated tokens
//! follow one at a time (*decode*). Their speed has different limits. Prefill uses every weight for many
//! tokens, so it is limited by arithmetic (*compute-bound*). Decode reads all weights from memory for a
//! single token, so it is limited by memory bandwidth (*memory-bound*). Most of the techniques for fast
//! language models follow from this difference.
//!
//! ```
//! use hornbook::model::Session;
//! use hornbook::Hornbook;
//! # fn main() -> hornbook::Result<()> {
//! let fable = Hornbook::open("fable")?;
//! let ids = fable.encode("Once upon a time there was a king who had three daughters")?;
//!
//! // The prompt in one pass, and token by token with the cache.
//! let single_pass = Session::new(fable.model(), ids.len(), None).feed(&ids)?.to_vec();
//! let mut session = Session::new(fable.model(), ids.len(), None);
//! for id in &ids[..ids.len() - 1] {
//!     session.feed(&[*id])?;
//! }
//! let one_by_one = session.feed(&ids[ids.len() - 1..])?;
//! assert_eq!(single_pass, one_by_one); // the same logits, to the last bit
//!
//! assert_eq!(session.cache().len(), ids.len());
//! let bytes_per_token = session.cache().bytes() / session.cache().capacity();
//! assert!(bytes_per_token >= 2 * 6 * 256 * 4); // keys and values, 6 blocks, 256 values of 4 bytes
//! # Ok(())
//! # }
//! ```
//!
//! The cache is [`KvCache`](crate::model::KvCache), a sequence with its cache is a
//! [`Session`](crate::model::Session). The [`engine`](crate::engine) processes many sequences in one pass
//! over the weights (*batching*) and shares the cache of their common prefixes.
//!
//! Next: [how the operations are made fast](super::kernels).
