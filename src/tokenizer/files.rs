//! Parsing of tokenizer files: Hugging Face's `tokenizer.json`, or GPT-2's own `vocab.json` and `merges.txt`.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use tokenizers::models::bpe::Vocab;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, NormalizerWrapper, PreTokenizerWrapper};

use crate::{Error, Result};

/// GPT-2's end-of-text special token.
const END_OF_TEXT: &str = "<|endoftext|>";

/// The components of a byte-level BPE tokenizer, in either file format.
pub struct TokenizerSpec {
    pub normalizer: Option<NormalizerWrapper>,
    pub pre_tokenizer: Option<PreTokenizerWrapper>,
    /// Token, as spelled in the file, to id.
    pub vocab: Vocab,
    /// Pairs of tokens in order of merge rank.
    pub merges: Vec<(String, String)>,
    /// A pre-token that is itself in the vocabulary becomes that token without merges.
    pub ignore_merges: bool,
    /// Added tokens with their ids, matched in a text before BPE.
    pub added_tokens: Vec<(u32, AddedToken)>,
}

/// The fields of `tokenizer.json` that are used.
#[derive(Deserialize)]
struct TokenizerFile {
    #[serde(default)]
    added_tokens: Vec<AddedEntry>,
    normalizer: Option<NormalizerWrapper>,
    pre_tokenizer: Option<PreTokenizerWrapper>,
    model: ModelSection,
}

#[derive(Deserialize)]
struct AddedEntry {
    id: u32,
    #[serde(flatten)]
    token: AddedToken,
}

#[derive(Deserialize)]
struct ModelSection {
    #[serde(rename = "type")]
    kind: Option<String>,
    dropout: Option<f32>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    ignore_merges: bool,
    vocab: Vocab,
    merges: Vec<MergeRule>,
}

impl TokenizerSpec {
    pub fn from_json(file: &Path, bytes: &[u8]) -> Result<Self> {
        let invalid = |problem| invalid(file, problem);
        let not_bpe = |kind| invalid(format!("model.type: found {kind:?}, expected \"BPE\""));
        let parsed: TokenizerFile =
            serde_json::from_slice(bytes).map_err(|e| match ModelTypeFile::parse(bytes) {
                Some(kind) if kind != "BPE" => not_bpe(kind),
                _ => invalid(e.to_string()),
            })?;
        let TokenizerFile { added_tokens, normalizer, pre_tokenizer, model } = parsed;

        if let Some(kind) = model.kind.filter(|kind| kind != "BPE") {
            return Err(not_bpe(kind));
        }
        let is_byte_level = match &pre_tokenizer {
            Some(PreTokenizerWrapper::ByteLevel(_)) => true,
            Some(PreTokenizerWrapper::Sequence(steps)) => {
                let is_byte_level = |p: &_| matches!(p, PreTokenizerWrapper::ByteLevel(_));
                steps.as_ref().iter().any(is_byte_level)
            }
            _ => false,
        };
        if !is_byte_level {
            return Err(invalid(
                "pre_tokenizer: found none of type ByteLevel, expected one as in GPT-2".into(),
            ));
        }
        if model.dropout.is_some_and(|p| p != 0.0) {
            let problem =
                "model.dropout: found a number, expected null, since encoding must be deterministic";
            return Err(invalid(problem.into()));
        }
        for (field, affix) in [
            ("continuing_subword_prefix", &model.continuing_subword_prefix),
            ("end_of_word_suffix", &model.end_of_word_suffix),
        ] {
            if let Some(affix) = affix.as_ref().filter(|a| !a.is_empty()) {
                return Err(invalid(format!("model.{field}: found {affix:?}, expected null")));
            }
        }
        Ok(Self {
            normalizer,
            pre_tokenizer,
            vocab: model.vocab,
            merges: model.merges.into_iter().map(|m| (m.left, m.right)).collect(),
            ignore_merges: model.ignore_merges,
            added_tokens: added_tokens.into_iter().map(|a| (a.id, a.token)).collect(),
        })
    }

    pub fn from_vocab_merges(vocab_file: &Path, merges_file: &Path) -> Result<Self> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| Error::Io { path: path.into(), action: "read", source })
        };
        let vocab: Vocab =
            serde_json::from_slice(&read(vocab_file)?).map_err(|e| invalid(vocab_file, e.to_string()))?;
        let text = String::from_utf8(read(merges_file)?)
            .map_err(|e| invalid(merges_file, format!("not UTF-8: {e}")))?;
        let mut merges = Vec::with_capacity(vocab.len());
        for (n, line) in text.trim_end().lines().enumerate() {
            if n == 0 && line.starts_with("#version") {
                continue;
            }
            let merge: MergeRule =
                line.parse().map_err(|e| invalid(merges_file, format!("line {}: {e}", n + 1)))?;
            merges.push((merge.left, merge.right));
        }
        let special = |&id: &u32| (id, AddedToken::from(END_OF_TEXT, true));
        Ok(Self {
            normalizer: None,
            pre_tokenizer: Some(ByteLevel::new(false, true, true).into()),
            added_tokens: vocab.get(END_OF_TEXT).map(special).into_iter().collect(),
            vocab,
            merges,
            ignore_merges: false,
        })
    }
}

/// The model type alone, for the error message when the rest of the file does not parse as BPE.
#[derive(Deserialize)]
struct ModelTypeFile {
    model: ModelType,
}

#[derive(Deserialize)]
struct ModelType {
    #[serde(rename = "type")]
    kind: String,
}

impl ModelTypeFile {
    fn parse(json: &[u8]) -> Option<String> {
        Some(serde_json::from_slice::<Self>(json).ok()?.model.kind)
    }
}

/// One merge rule: `"a b"` in GPT-2's files, or `["a", "b"]` in newer ones.
struct MergeRule {
    left: String,
    right: String,
}

impl FromStr for MergeRule {
    type Err = String;

    fn from_str(s: &str) -> std::result::Result<Self, String> {
        match s.split_once(' ') {
            Some((left, right)) if !right.contains(' ') => {
                Ok(Self { left: left.into(), right: right.into() })
            }
            _ => Err(format!("merge {s:?}: expected two tokens separated by one space")),
        }
    }
}

impl<'de> Deserialize<'de> for MergeRule {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct MergeVisitor;
        impl<'de> Visitor<'de> for MergeVisitor {
            type Value = MergeRule;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a merge, \"a b\" or [\"a\", \"b\"]")
            }

            fn visit_str<E: de::Error>(self, s: &str) -> std::result::Result<MergeRule, E> {
                s.parse().map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<MergeRule, A::Error> {
                let missing = |n| de::Error::invalid_length(n, &self);
                let left = seq.next_element()?.ok_or_else(|| missing(0))?;
                let right = seq.next_element()?.ok_or_else(|| missing(1))?;
                if seq.next_element::<de::IgnoredAny>()?.is_some() {
                    return Err(missing(3));
                }
                Ok(MergeRule { left, right })
            }
        }
        d.deserialize_any(MergeVisitor)
    }
}

/// The error for an invalid tokenizer file. Control characters quoted from the file become spaces.
pub fn invalid(file: &Path, problem: String) -> Error {
    Error::Tokenizer { file: file.into(), problem: problem.replace(char::is_control, " ") }
}
