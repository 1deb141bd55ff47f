//! # 1. Tokens: how does text become numbers?
//!
//! A model computes with numbers, so a text has to become a list of them. Letters would make long lists of little
//! meaning each; words would make an endless vocabulary that still lacks tomorrow's words. GPT-2 takes the middle:
//! *tokens*, runs of bytes that were common in the texts it was made for. Frequent words are one token, rare ones
//! several, and since every single byte is a token too, there is no text that cannot be written.
//!
//! The vocabulary is learned by counting. Start with the 256 bytes. Find the pair of neighbours that occurs most often,
//! give it a number of its own, put that number in its place everywhere, and repeat a few thousand times. What was learnt
//! is the list of pairs in their order, the *merges*. To cut a new text, apply them in the same order:
//!
//! ```text
//! tokens of a word = its bytes, one token each
//! repeat: of all neighbours that have a merge, join those whose merge was learnt first
//! ```
//!
//! A space belongs to the word behind it: ` the` and `the` are two tokens. The vocabulary of the built-in model has
//! 4096, that of OpenAI's GPT-2 has 50257.
//!
//! ```
//! use hornbook::Hornbook;
//! # fn main() -> hornbook::Result<()> {
//! let fable = Hornbook::open("fable")?;
//! let tokenizer = fable.tokenizer()?;
//!
//! let ids = tokenizer.encode("Once upon a time", false)?;
//! let pieces: Vec<String> = ids.iter().map(|&id| tokenizer.decode(&[id])).collect();
//! assert_eq!(pieces, ["Once", " upon", " a", " time"]); // common words: a token each
//!
//! assert!(tokenizer.encode("hippopotamus", false)?.len() > 3); // a rare one: several
//!
//! // How "the" is joined from its bytes: first h+e, then t+he.
//! let word = &tokenizer.merge_steps("the", false)?[0];
//! let step = |ids: &[u32]| ids.iter().map(|&id| tokenizer.decode(&[id])).collect::<Vec<_>>();
//! assert_eq!(step(&word.initial_tokens), ["t", "h", "e"]);
//! assert_eq!(step(&word.merges[0].tokens), ["t", "he"]);
//! assert_eq!(step(&word.merges[1].tokens), ["the"]);
//! # Ok(())
//! # }
//! ```
//!
//! The textbook form is [`Tokenizer::merge_steps`](crate::tokenizer::Tokenizer::merge_steps), the fast one
//! [`Tokenizer::encode`](crate::tokenizer::Tokenizer::encode); files and streaming are in
//! [`tokenizer`](crate::tokenizer). In a terminal: `hornbook tokens "hippopotamus" --merges`.
//!
//! Next: [what the model knows a token as](super::embedding).
