//! Text to token ids and back: GPT-2's byte-level BPE.
//!
//! A text is cut into words by a regular expression, each word is turned into its UTF-8 bytes, and the bytes are joined
//! pair by pair in the order the vocabulary's merges were learnt. Every token therefore stands for a fixed run of
//! bytes, every text can be encoded, and decoding is nothing but laying the bytes end to end. A token may hold half a
//! character, which is why text that is shown while it is being written goes through [`Utf8Stream`].
//!
//! Cutting and joining are the `tokenizers` crate's, so that the ids are those of Hugging Face; reading the files
//! and decoding are here.

use std::path::Path;

use tokenizers::models::bpe::BPE;
use tokenizers::{AddedVocabulary, Model, NormalizerWrapper, OffsetType, PreTokenizer, PreTokenizerWrapper};

use crate::{Error, Result};

mod bytes;
mod files;
mod merges;
mod stream;

pub use merges::{Merge, Word};
pub use stream::Utf8Stream;

use bytes::TokenBytes;
use files::{Parts, wrong};

/// A byte-level BPE tokenizer.
pub struct Tokenizer {
    normalizer: Option<NormalizerWrapper>,
    pre_tokenizer: Option<PreTokenizerWrapper>,
    model: BPE,
    /// Finds special tokens in a text.
    with_special: AddedVocabulary,
    /// The same tokens, the special ones left alone as plain text.
    without_special: AddedVocabulary,
    bytes: TokenBytes,
}

impl Tokenizer {
    /// Builds a tokenizer from the contents of a `tokenizer.json`; `file` only names it in messages.
    ///
    /// Truncation, padding and the post-processor are left out on purpose: the engine decides what becomes of a prompt
    /// that is too long, and a prompt is never given tokens that its text does not have.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the file is not JSON, is no byte-level BPE, or contradicts itself.
    pub fn from_json(file: &Path, bytes: &[u8]) -> Result<Self> {
        Self::from_parts(file, file, Parts::from_json(file, bytes)?)
    }

    /// Builds GPT-2's tokenizer from its two original files: `vocab.json` (token to id) and `merges.txt` (one pair a
    /// line, first learnt first). `<|endoftext|>` is a special token where the vocabulary has it.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be read, [`Error::Tokenizer`] when it is malformed.
    pub fn from_vocab_merges(vocab: &Path, merges: &Path) -> Result<Self> {
        Self::from_parts(vocab, merges, Parts::from_vocab_merges(vocab, merges)?)
    }

    fn from_parts(file: &Path, merges: &Path, parts: Parts) -> Result<Self> {
        let bytes = TokenBytes::new(file, &parts)?;
        let model = BPE::builder()
            .vocab_and_merges(parts.vocab, parts.merges)
            .ignore_merges(parts.ignore_merges)
            .build()
            .map_err(|e| wrong(merges, format!("merges: {e}")))?;
        let mut with_special = AddedVocabulary::new();
        let added: Vec<_> = parts.added.iter().map(|(_, t)| t.clone()).collect();
        with_special.add_tokens(&added, &model, parts.normalizer.as_ref());
        for (id, token) in &parts.added {
            let given = with_special.token_to_id(&token.content, &model);
            if given != Some(*id) {
                let expected = given.map_or("a name".into(), |id| id.to_string());
                return Err(wrong(
                    file,
                    format!("added_tokens: {:?}: found id {id}, expected {expected}", token.content),
                ));
            }
        }
        let mut without_special = with_special.clone();
        without_special.set_encode_special_tokens(true);
        Ok(Self {
            normalizer: parts.normalizer,
            pre_tokenizer: parts.pre_tokenizer,
            model,
            with_special,
            without_special,
            bytes,
        })
    }

    /// The ids of a text. With `special` a special token's name in the text (`<|endoftext|>`) becomes that one token;
    /// without, it is text like any other, which is what a prompt from a stranger should be.
    ///
    /// # Errors
    /// [`Error::Message`] when the tokenizer's own rules fail on this text (GPT-2's cannot).
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let added = if special { &self.with_special } else { &self.without_special };
        let encode = || -> tokenizers::Result<Vec<u32>> {
            let mut words = added.extract_and_normalize(self.normalizer.as_ref(), text);
            if let Some(pre_tokenizer) = &self.pre_tokenizer {
                pre_tokenizer.pre_tokenize(&mut words)?;
            }
            words.tokenize(|word| self.model.tokenize(word.get()))?;
            let encoding = words.into_encoding(None, 0, OffsetType::None)?;
            Ok(encoding.get_ids().to_vec())
        };
        encode().map_err(|e| Error::Message(format!("the text cannot be tokenized: {e}")))
    }

    /// The text of some ids: their bytes laid end to end, whatever is not UTF-8 shown as U+FFFD. Special tokens are
    /// shown by name; an id outside the vocabulary has no text.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.token_bytes(id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The bytes one token stands for; empty for an id outside the vocabulary.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.bytes.get(id)
    }

    /// The id of a token spelled as its file spells it (`<|endoftext|>`, `Ġthe`).
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.with_special.token_to_id(token, &self.model)
    }

    /// One more than the largest id.
    pub fn vocab_size(&self) -> usize {
        self.bytes.len()
    }
}
