//! Text to token ids and back: GPT-2's byte-level BPE.
//!
//! The pre-tokenizer splits a text into pre-tokens (words) with a regular expression. Each pre-token starts
//! as its UTF-8 bytes, which are merged pair by pair in order of merge rank. Every token therefore stands for
//! a fixed byte sequence, a vocabulary with all 256 bytes can encode every text, and decoding concatenates
//! the bytes. A token may hold part of a character, so streamed text is decoded with [`Utf8Decoder`].
//!
//! Pre-tokenization and merging use the `tokenizers` crate, so that the ids are those of Hugging Face.
//! Parsing the files and decoding are implemented here.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, AddedVocabulary, Model, NormalizerWrapper, OffsetType, PreTokenizedString};

use crate::Result;
use crate::text_file::without_bom;

mod catch_panic;
mod files;
mod merge_steps;
mod pre_tokens;
mod special_tokens;
mod token_bytes;
mod train;
mod utf8_decoder;

pub use merge_steps::{MergeStep, PreToken};
pub use special_tokens::{SpecialToken, SpecialTokens, invalid};
pub use train::{MIN_VOCAB_SIZE, train};
pub use utf8_decoder::Utf8Decoder;

use catch_panic::catch_panic;
use files::TokenizerSpec;
use pre_tokens::PreTokenizer;
use special_tokens::{DeclaredToken, find_file};
use token_bytes::TokenBytes;

/// Bytes of text a token is assumed to stand for at most, on average, where a normalizer or pre-tokenizer may
/// shorten the text.
const ASSUMED_TOKEN_LEN: usize = 1024;
/// Length in bytes from which a text is cut into pieces: tokenization takes a hundred times its memory.
const PIECE_LEN: usize = 32 << 10;
/// GPT-2's end-of-text token: special unless the files name others.
const END_OF_TEXT: &str = "<|endoftext|>";

/// A byte-level BPE tokenizer.
pub struct Tokenizer {
    /// The vocabulary's file, for error messages.
    file: PathBuf,
    normalizer: Option<NormalizerWrapper>,
    pre_tokenizer: PreTokenizer,
    model: BPE,
    /// The ids of each merge's pair and of the token it becomes, in order of rank.
    merges: Vec<[u32; 3]>,
    /// Matches added tokens, the special ones included.
    with_special: AddedVocabulary,
    /// Matches added tokens that are not special; names of special tokens are plain text.
    without_special: AddedVocabulary,
    token_bytes: TokenBytes,
    max_token_len: usize,
    /// Whether every text has the tokens of its pieces, cut between words.
    is_cut_between_words: bool,
    special_tokens: SpecialTokens,
}

impl Tokenizer {
    /// Builds a tokenizer from a model's files, each given as its path and content: `tokenizer.json`, or else
    /// `vocab.json` (token to id) and `merges.txt` (one pair per line, in order of merge rank) with
    /// `added_tokens.json`. `tokenizer_config.json` and `special_tokens_map.json` declare special tokens.
    /// Returns `None` if there is neither format.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] for a file that is malformed or inconsistent, or not byte-level BPE.
    /// Problems of `tokenizer_config.json` and `special_tokens_map.json` are left to
    /// [`Tokenizer::special_tokens`].
    pub fn from_files(files: &[(PathBuf, Cow<[u8]>)]) -> Result<Option<Self>> {
        let Some((first, _)) = files.first() else { return Ok(None) };
        catch_panic(|| Self::parse(files)).unwrap_or_else(|panic| Err(invalid(first, panic)))
    }

    fn parse(files: &[(PathBuf, Cow<[u8]>)]) -> Result<Option<Self>> {
        let file = |name| {
            let text = |(path, bytes)| match without_bom(bytes) {
                Ok(text) => Ok((path, text)),
                Err(problem) => Err(invalid(path, problem)),
            };
            find_file(files, name).map(text).transpose()
        };
        if let Some((path, json)) = file("tokenizer.json")? {
            let special = SpecialTokens::read(files)?;
            return Self::build(path, path, TokenizerSpec::from_json(path, json)?, special).map(Some);
        }
        let (Some(vocab), Some(merges)) = (file("vocab.json")?, file("merges.txt")?) else { return Ok(None) };
        let token = AddedToken::from(END_OF_TEXT, true);
        let default = DeclaredToken { file: vocab.0.into(), id: None, token };
        let special = SpecialTokens::read_with_default(files, Some(&default))?;
        let add_prefix_space = special.add_prefix_space.unwrap_or(false);
        let spec = TokenizerSpec::from_vocab_merges(vocab, merges, add_prefix_space)?;
        Self::build(vocab.0, merges.0, spec, special).map(Some)
    }

    /// Builds a tokenizer from the content of a `tokenizer.json`; `file` is its name in error messages.
    ///
    /// Truncation, padding and the post-processor are ignored on purpose: the engine handles prompts that are
    /// too long, and a prompt never gets tokens that its text does not contain.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] if the file is not JSON, is not a byte-level BPE tokenizer, or is
    /// inconsistent.
    pub fn from_json(file: &Path, bytes: &[u8]) -> Result<Self> {
        let special = SpecialTokens::default();
        let build = || Self::build(file, file, TokenizerSpec::from_json(file, bytes)?, special);
        catch_panic(build).unwrap_or_else(|panic| Err(invalid(file, panic)))
    }

    fn build(file: &Path, merges: &Path, spec: TokenizerSpec, mut special: SpecialTokens) -> Result<Self> {
        let failed = |error: tokenizers::Error| invalid(file, error.to_string());
        let pre_tokenizer = spec.pre_tokenizer.map(PreTokenizer::new).transpose().map_err(failed)?;
        let Some(pre_tokenizer) = pre_tokenizer.filter(PreTokenizer::is_byte_level) else {
            let problem = "pre_tokenizer: found none of type ByteLevel, expected one as in GPT-2";
            return Err(invalid(file, problem.into()));
        };
        let id = |token: &str| spec.vocab.get(token).copied();
        // The builder refuses a merge of tokens that are not in the vocabulary.
        let ids =
            |(left, right): &(String, String)| Some([id(left)?, id(right)?, id(&format!("{left}{right}"))?]);
        let merge_ids = spec.merges.iter().filter_map(ids).collect();
        let mut model = BPE::builder()
            .vocab_and_merges(spec.vocab.clone(), spec.merges)
            .ignore_merges(spec.ignore_merges)
            .fuse_unk(spec.fuse_unk)
            .byte_fallback(spec.byte_fallback)
            .build()
            .map_err(|e| invalid(merges, format!("merges: {e}")))?;
        model.unk_token = spec.unk_token;

        let mut declared = spec.added_tokens;
        let known: HashSet<String> = declared.iter().map(|known| known.token.content.clone()).collect();
        let others = std::mem::take(&mut special.tokens).into_iter();
        declared.extend(others.filter(|declared| !known.contains(&declared.token.content)));
        let tokens: Vec<_> = declared.iter().map(|declared| declared.token.clone()).collect();
        let mut with_special = AddedVocabulary::new();
        with_special.add_tokens(&tokens, &model, spec.normalizer.as_ref());
        let mut added_tokens = Vec::with_capacity(declared.len());
        for DeclaredToken { file, id, token } in &declared {
            let assigned = with_special.token_to_id(&token.content, &model);
            if assigned.is_none() || id.is_some_and(|id| assigned != Some(id)) {
                let found = id.map_or("none".into(), |id| id.to_string());
                let expected = assigned.map_or("a non-empty content".into(), |id| id.to_string());
                let problem =
                    format!("added token {:?}: found id {found}, expected {expected}", token.content);
                return Err(invalid(file, problem));
            }
            added_tokens.extend(assigned.map(|id| (id, token.content.as_str())));
        }
        // Whether every byte of a text is in a token: nothing is removed from it before or in BPE.
        let mut bytes = ByteLevel::alphabet().into_iter();
        let keeps_text = spec.normalizer.is_none()
            && pre_tokenizer.is_byte_level_alone()
            && tokens.iter().all(|token| !token.lstrip && !token.rstrip)
            && bytes.all(|byte| spec.vocab.contains_key(&*byte.encode_utf8(&mut [0; 4])));
        let is_cut_between_words = spec.normalizer.is_none()
            && pre_tokenizer.is_gpt2()
            && tokens.iter().all(|token| !token.rstrip && !token.content.contains(char::is_whitespace));
        let token_bytes = TokenBytes::new(file, &spec.vocab, &added_tokens)?;
        let max_token_len = if keeps_text { token_bytes.max_len().max(1) } else { ASSUMED_TOKEN_LEN };
        let mut without_special = with_special.clone();
        without_special.set_encode_special_tokens(true);
        Ok(Self {
            file: file.into(),
            normalizer: spec.normalizer,
            pre_tokenizer,
            model,
            merges: merge_ids,
            with_special,
            without_special,
            token_bytes,
            max_token_len,
            is_cut_between_words,
            special_tokens: special,
        })
    }

    /// Encodes a text to token ids. With `parse_special`, a special token's name in the text
    /// (`<|endoftext|>`) becomes that token; without, it is plain text, as it should be in a prompt from an
    /// untrusted source. Bytes without a token are dropped, unless the tokenizer has an unknown token.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] if the normalizer, pre-tokenizer or model fails on this text (GPT-2's
    /// cannot).
    pub fn encode(&self, text: &str, parse_special: bool) -> Result<Vec<u32>> {
        self.catch_failure(|| {
            let (mut ids, mut rest) = (vec![], text);
            loop {
                let (piece, next) =
                    rest.split_at(if self.is_cut_between_words { cut(rest) } else { rest.len() });
                let mut pre_tokens = self.pre_tokens(piece, parse_special)?;
                pre_tokens.tokenize(|pre_token| self.model.tokenize(pre_token.get()))?;
                ids.extend_from_slice(pre_tokens.into_encoding(None, 0, OffsetType::None)?.get_ids());
                if next.is_empty() {
                    return Ok(ids);
                }
                rest = next;
            }
        })
    }

    /// Matches added tokens, and splits the text between them.
    fn pre_tokens(&self, text: &str, parse_special: bool) -> tokenizers::Result<PreTokenizedString> {
        let added = if parse_special { &self.with_special } else { &self.without_special };
        let mut pre_tokens = added.extract_and_normalize(self.normalizer.as_ref(), text);
        self.pre_tokenizer.split(&mut pre_tokens)?;
        Ok(pre_tokens)
    }

    fn catch_failure<T>(&self, f: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
        let result = catch_panic(|| f().map_err(|error| error.to_string()));
        let failed = |error| invalid(&self.file, format!("the text cannot be tokenized: {error}"));
        result.and_then(|result| result).map_err(failed)
    }

    /// Returns a lower bound of the number of tokens of a text, known by its length: a text far too long need
    /// not be tokenized.
    pub fn min_token_count(&self, text: &str) -> usize {
        text.len().div_ceil(self.max_token_len)
    }

    /// Decodes token ids to text: concatenates their bytes and replaces invalid UTF-8 with U+FFFD. Special
    /// tokens give their names; ids outside the vocabulary give nothing.
    pub fn decode(&self, ids: &[u32]) -> String {
        let (text, mut rest) = self.decode_complete(ids);
        text + &rest.finish()
    }

    /// Decodes the complete characters of token ids, and returns the decoder for the tokens that follow: it
    /// holds the first bytes of a character that the ids end inside.
    pub fn decode_complete(&self, ids: &[u32]) -> (String, Utf8Decoder) {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.token_bytes(id)).copied().collect();
        let mut decoder = Utf8Decoder::new();
        (decoder.push(&bytes), decoder)
    }

    /// The bytes of a token; empty for an id outside the vocabulary.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.token_bytes.get(id)
    }

    /// The id of a token as spelled in its file (`<|endoftext|>`, `Ġthe`).
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.with_special.token_to_id(token, &self.model)
    }

    /// The special tokens that begin and end a text, and the problems of the files that name them.
    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.special_tokens
    }

    /// The size of the vocabulary: the largest id plus 1.
    pub fn vocab_size(&self) -> usize {
        self.token_bytes.len()
    }
}

/// Returns where a text's first piece ends: before a single space between words, which begins a pre-token of
/// GPT-2's pattern whatever stands before it; or at the end.
fn cut(text: &str) -> usize {
    let spaces = text.match_indices(' ').map(|(at, _)| at).skip_while(|&at| at < PIECE_LEN);
    let is_word = |c: Option<char>| c.is_some_and(|c| !c.is_whitespace());
    let mut cuts = spaces
        .filter(|&at| is_word(text[..at].chars().next_back()) && is_word(text[at + 1..].chars().next()));
    cuts.next().unwrap_or(text.len())
}
