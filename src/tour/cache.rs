//! # 9. The KV cache: why does the tenth token not cost ten times the first?
//!
//! To write a token the model reads all tokens before it, and for the next one all of them again. But no token sees what
//! comes after it, so nothing about the earlier ones has changed: their keys and values in every block are what they
//! were. The *KV cache* keeps them. A new token computes its own query, key and value and looks back on the kept ones:
//!
//! ```text
//! without   1 + 2 + … + n tokens through the model to write n
//! with      n tokens, and 2 · n_layer · n_embd numbers kept for each
//! ```
//!
//! A prompt goes through in one pass, all tokens side by side (*prefill*), then one token at a time (*decode*). The two
//! are different races. Prefill uses every weight for many tokens and waits for the multipliers; decode reads all weights
//! for a single token and waits for memory. Nearly everything about the speed of language models follows from that.
//!
//! ```
//! use hornbook::model::Session;
//! use hornbook::Hornbook;
//! # fn main() -> hornbook::Result<()> {
//! let fable = Hornbook::open("fable")?;
//! let ids = fable.encode("Once upon a time there was a king who had three daughters")?;
//!
//! // All at once, and one by one from the cache.
//! let whole = Session::new(fable.model(), ids.len(), None).feed(&ids)?.to_vec();
//! let mut session = Session::new(fable.model(), ids.len(), None);
//! for id in &ids[..ids.len() - 1] {
//!     session.feed(&[*id])?;
//! }
//! let one_by_one = session.feed(&ids[ids.len() - 1..])?;
//! assert_eq!(whole, one_by_one); // the same logits, to the last bit
//!
//! assert_eq!(session.cache().len(), ids.len());
//! let bytes_a_token = session.cache().bytes() / session.cache().capacity();
//! assert!(bytes_a_token >= 2 * 6 * 256 * 4); // keys and values, 6 blocks, 256 numbers of 4 bytes
//! # Ok(())
//! # }
//! ```
//!
//! The cache is [`KvCache`](crate::model::KvCache), a sequence with its own is [`Session`](crate::model::Session);
//! [`engine`](crate::engine) lets many sequences share each pass over the weights, and their common beginnings.
//!
//! Next: [how all of it is made fast](super::kernels).
