//! # 1. Tokens: how does text become integers?
//!
//! A model computes with numbers, so the text must first become a list of integers. One integer per letter
//! would make the list long, and a single letter means little. One integer per word would need a huge
//! vocabulary, and new words would still be missing. GPT-2 uses something in between: *tokens*, sequences of
//! bytes that are frequent in the training text. A frequent word is one token, a rare word is several tokens.
//! Every single byte is a token too, so any text can be encoded.
//!
//! The vocabulary is learned with *byte-pair encoding* (BPE). Start with the 256 bytes as tokens. Find the
//! pair of neighboring tokens that occurs most often in the training text. Make it a new token, and replace
//! the pair by it everywhere. Repeat this a few thousand times. The result is the ordered list of pairs,
//! called the *merges*. To encode a new text, apply the merges in the same order:
//!
//! ```text
//! tokens of a word = its bytes, one token each
//! repeat: among all neighboring pairs that have a merge, join the pair whose merge was learned first
//! ```
//!
//! A space belongs to the word that follows it: ` the` and `the` are two different tokens. The built-in model
//! `fable` has a vocabulary of 4096 tokens, OpenAI's GPT-2 has 50257.
//!
//! ```
//! use hornbook::Hornbook;
//! # fn main() -> hornbook::Result<()> {
//! let fable = Hornbook::open("fable")?;
//! let tokenizer = fable.tokenizer()?;
//!
//! let ids = tokenizer.encode("Once upon a time", false)?;
//! let texts: Vec<String> = ids.iter().map(|&id| tokenizer.decode(&[id])).collect();
//! assert_eq!(texts, ["Once", " upon", " a", " time"]); // common words: one token each
//!
//! assert!(tokenizer.encode("hippopotamus", false)?.len() > 3); // a rare word: several tokens
//!
//! // The merges that turn the bytes of "the" into one token: first h+e, then t+he.
//! let word = &tokenizer.merge_steps("the", false)?[0];
//! let step = |ids: &[u32]| ids.iter().map(|&id| tokenizer.decode(&[id])).collect::<Vec<_>>();
//! assert_eq!(step(&word.initial_tokens), ["t", "h", "e"]);
//! assert_eq!(step(&word.merges[0].tokens), ["t", "he"]);
//! assert_eq!(step(&word.merges[1].tokens), ["the"]);
//! # Ok(())
//! # }
//! ```
//!
//! The reference implementation is [`Tokenizer::merge_steps`](crate::tokenizer::Tokenizer::merge_steps), the
//! fast one is [`Tokenizer::encode`](crate::tokenizer::Tokenizer::encode). The module
//! [`tokenizer`](crate::tokenizer) also covers tokenizer files and streaming. In a terminal: `hornbook tokens
//! "hippopotamus" --merges`.
//!
//! Next: [which vector stands for a token](super::embedding).
