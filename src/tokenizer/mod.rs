//! Text to token ids and back: GPT-2's byte-level BPE.
//!
//! The pre-tokenizer splits a text into pre-tokens (words) with a regular expression. Each pre-token starts
//! as its UTF-8 bytes, which are merged pair by pair in order of merge rank. Every token therefore stands for
//! a fixed byte sequence, every text can be encoded, and decoding concatenates the bytes. A token may hold
//! part of a character, so streamed text is decoded with [`Utf8Decoder`].
//!
//! Pre-tokenization and merging use the `tokenizers` crate, so that the ids are those of Hugging Face.
//! Parsing the files and decoding are implemented here.

use std::path::Path;

use tokenizers::models::bpe::BPE;
use tokenizers::{AddedVocabulary, Model, NormalizerWrapper, OffsetType, PreTokenizer, PreTokenizerWrapper};

use crate::{Error, Result};

mod files;
mod merge_steps;
mod token_bytes;
mod utf8_decoder;

pub use merge_steps::{MergeStep, PreToken};
pub use utf8_decoder::Utf8Decoder;

use files::{TokenizerSpec, invalid};
use token_bytes::TokenBytes;

/// Bytes of text a token is assumed to stand for at most, on average, where a normalizer or pre-tokenizer may
/// shorten the text.
const ASSUMED_TOKEN_LEN: usize = 1024;

/// A byte-level BPE tokenizer.
pub struct Tokenizer {
    normalizer: Option<NormalizerWrapper>,
    pre_tokenizer: Option<PreTokenizerWrapper>,
    model: BPE,
    /// Matches added tokens, the special ones included.
    with_special: AddedVocabulary,
    /// Matches added tokens that are not special; names of special tokens are plain text.
    without_special: AddedVocabulary,
    token_bytes: TokenBytes,
    max_token_len: usize,
}

impl Tokenizer {
    /// Builds a tokenizer from the content of a `tokenizer.json`; `file` is its name in error messages.
    ///
    /// Truncation, padding and the post-processor are ignored on purpose: the engine handles prompts that are
    /// too long, and a prompt never gets tokens that its text does not contain.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the file is not JSON, is not a byte-level BPE tokenizer, or is inconsistent.
    pub fn from_json(file: &Path, bytes: &[u8]) -> Result<Self> {
        Self::from_spec(file, file, TokenizerSpec::from_json(file, bytes)?)
    }

    /// Builds GPT-2's tokenizer from its two original files: `vocab.json` (token to id) and `merges.txt` (one
    /// pair per line, in order of merge rank). `<|endoftext|>` is a special token if the vocabulary has it.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read, [`Error::Tokenizer`] if it is malformed.
    pub fn from_vocab_merges(vocab: &Path, merges: &Path) -> Result<Self> {
        Self::from_spec(vocab, merges, TokenizerSpec::from_vocab_merges(vocab, merges)?)
    }

    fn from_spec(file: &Path, merges: &Path, spec: TokenizerSpec) -> Result<Self> {
        let token_bytes = TokenBytes::new(file, &spec)?;
        let model = BPE::builder()
            .vocab_and_merges(spec.vocab, spec.merges)
            .ignore_merges(spec.ignore_merges)
            .build()
            .map_err(|e| invalid(merges, format!("merges: {e}")))?;
        let mut with_special = AddedVocabulary::new();
        let added: Vec<_> = spec.added_tokens.iter().map(|(_, t)| t.clone()).collect();
        with_special.add_tokens(&added, &model, spec.normalizer.as_ref());
        for (id, token) in &spec.added_tokens {
            let assigned = with_special.token_to_id(&token.content, &model);
            if assigned != Some(*id) {
                let expected = assigned.map_or("a non-empty content".into(), |id| id.to_string());
                return Err(invalid(
                    file,
                    format!("added_tokens: {:?}: found id {id}, expected {expected}", token.content),
                ));
            }
        }
        // Whether every byte of a text is in a token: nothing is removed from it before BPE.
        let keeps_text = spec.normalizer.is_none()
            && matches!(&spec.pre_tokenizer, Some(PreTokenizerWrapper::ByteLevel(_)))
            && spec.added_tokens.iter().all(|(_, token)| !token.lstrip && !token.rstrip);
        let max_token_len = if keeps_text { token_bytes.max_len().max(1) } else { ASSUMED_TOKEN_LEN };
        let mut without_special = with_special.clone();
        without_special.set_encode_special_tokens(true);
        Ok(Self {
            normalizer: spec.normalizer,
            pre_tokenizer: spec.pre_tokenizer,
            model,
            with_special,
            without_special,
            token_bytes,
            max_token_len,
        })
    }

    /// Encodes a text to token ids. With `parse_special`, a special token's name in the text
    /// (`<|endoftext|>`) becomes that token; without, it is plain text, as it should be in a prompt from an
    /// untrusted source.
    ///
    /// # Errors
    /// [`Error::Message`] if the normalizer, pre-tokenizer or model fails on this text (GPT-2's cannot).
    pub fn encode(&self, text: &str, parse_special: bool) -> Result<Vec<u32>> {
        let added = if parse_special { &self.with_special } else { &self.without_special };
        let encode = || -> tokenizers::Result<Vec<u32>> {
            let mut pre_tokens = added.extract_and_normalize(self.normalizer.as_ref(), text);
            if let Some(pre_tokenizer) = &self.pre_tokenizer {
                pre_tokenizer.pre_tokenize(&mut pre_tokens)?;
            }
            pre_tokens.tokenize(|pre_token| self.model.tokenize(pre_token.get()))?;
            let encoding = pre_tokens.into_encoding(None, 0, OffsetType::None)?;
            Ok(encoding.get_ids().to_vec())
        };
        encode().map_err(|e| Error::Message(format!("the text cannot be tokenized: {e}")))
    }

    /// Returns a lower bound of the number of tokens of a text, known by its length: a text far too long need
    /// not be tokenized, which takes a hundred times its memory.
    pub fn min_token_count(&self, text: &str) -> usize {
        text.len().div_ceil(self.max_token_len)
    }

    /// Decodes token ids to text: concatenates their bytes and replaces invalid UTF-8 with U+FFFD. Special
    /// tokens give their names; ids outside the vocabulary give nothing.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.token_bytes(id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The bytes of a token; empty for an id outside the vocabulary.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.token_bytes.get(id)
    }

    /// The id of a token as spelled in its file (`<|endoftext|>`, `Ġthe`).
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.with_special.token_to_id(token, &self.model)
    }

    /// The size of the vocabulary: the largest id plus 1.
    pub fn vocab_size(&self) -> usize {
        self.token_bytes.len()
    }
}
