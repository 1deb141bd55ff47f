//! Reading a tokenizer's files: Hugging Face's `tokenizer.json`, or GPT-2's own `vocab.json` and `merges.txt`.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use tokenizers::models::bpe::Vocab;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, NormalizerWrapper, PreTokenizerWrapper};

use crate::{Error, Result};

/// The special token every GPT-2 ends a document with.
const END_OF_TEXT: &str = "<|endoftext|>";

/// What a tokenizer is made of, however its files are laid out.
pub struct Parts {
    pub normalizer: Option<NormalizerWrapper>,
    pub pre_tokenizer: Option<PreTokenizerWrapper>,
    /// Token, as spelled in the file, to id.
    pub vocab: Vocab,
    /// Pairs of tokens, first joined first.
    pub merges: Vec<(String, String)>,
    /// A word that is itself a token is not built by merges.
    pub ignore_merges: bool,
    /// Tokens with their ids that are found in a text before BPE sees it.
    pub added: Vec<(u32, AddedToken)>,
}

/// `tokenizer.json`, as far as it matters here.
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
    merges: Vec<Merge>,
}

impl Parts {
    pub fn from_json(file: &Path, bytes: &[u8]) -> Result<Self> {
        let wrong = |problem| wrong(file, problem);
        let not_bpe = |kind| wrong(format!("model.type: found {kind:?}, expected \"BPE\""));
        let parsed: TokenizerFile =
            serde_json::from_slice(bytes).map_err(|e| match ModelKind::of(bytes) {
                Some(kind) if kind != "BPE" => not_bpe(kind),
                _ => wrong(e.to_string()),
            })?;
        let TokenizerFile { added_tokens, normalizer, pre_tokenizer, model } = parsed;

        if let Some(kind) = model.kind.filter(|kind| kind != "BPE") {
            return Err(not_bpe(kind));
        }
        let by_byte = match &pre_tokenizer {
            Some(PreTokenizerWrapper::ByteLevel(_)) => true,
            Some(PreTokenizerWrapper::Sequence(steps)) => {
                let is_byte_level = |p: &_| matches!(p, PreTokenizerWrapper::ByteLevel(_));
                steps.as_ref().iter().any(is_byte_level)
            }
            _ => false,
        };
        if !by_byte {
            let expected = "expected one with ByteLevel, as GPT-2 has";
            return Err(wrong(format!("pre_tokenizer: {expected}")));
        }
        if model.dropout.is_some_and(|p| p != 0.0) {
            let problem = "model.dropout: found a number, expected null: encoding must not be random";
            return Err(wrong(problem.into()));
        }
        for (field, affix) in [
            ("continuing_subword_prefix", &model.continuing_subword_prefix),
            ("end_of_word_suffix", &model.end_of_word_suffix),
        ] {
            if let Some(affix) = affix.as_ref().filter(|a| !a.is_empty()) {
                return Err(wrong(format!("model.{field}: found {affix:?}, expected null")));
            }
        }
        Ok(Self {
            normalizer,
            pre_tokenizer,
            vocab: model.vocab,
            merges: model.merges.into_iter().map(|m| (m.left, m.right)).collect(),
            ignore_merges: model.ignore_merges,
            added: added_tokens.into_iter().map(|a| (a.id, a.token)).collect(),
        })
    }

    pub fn from_vocab_merges(vocab_file: &Path, merges_file: &Path) -> Result<Self> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| Error::Io { path: path.into(), action: "read", source })
        };
        let vocab: Vocab =
            serde_json::from_slice(&read(vocab_file)?).map_err(|e| wrong(vocab_file, e.to_string()))?;
        let text = String::from_utf8(read(merges_file)?)
            .map_err(|e| wrong(merges_file, format!("not UTF-8: {e}")))?;
        let mut merges = Vec::with_capacity(vocab.len());
        for (n, line) in text.trim_end().lines().enumerate() {
            if n == 0 && line.starts_with("#version") {
                continue;
            }
            let merge: Merge =
                line.parse().map_err(|e| wrong(merges_file, format!("line {}: {e}", n + 1)))?;
            merges.push((merge.left, merge.right));
        }
        let special = |&id: &u32| (id, AddedToken::from(END_OF_TEXT, true));
        Ok(Self {
            normalizer: None,
            pre_tokenizer: Some(ByteLevel::new(false, true, true).into()),
            added: vocab.get(END_OF_TEXT).map(special).into_iter().collect(),
            vocab,
            merges,
            ignore_merges: false,
        })
    }
}

/// Looks at nothing but the model's type, to name it where the rest of another kind's section makes no sense.
#[derive(Deserialize)]
struct ModelKind {
    model: ModelType,
}

#[derive(Deserialize)]
struct ModelType {
    #[serde(rename = "type")]
    kind: String,
}

impl ModelKind {
    fn of(json: &[u8]) -> Option<String> {
        Some(serde_json::from_slice::<Self>(json).ok()?.model.kind)
    }
}

/// One merge: `"a b"` as GPT-2 wrote them, or `["a", "b"]` as newer files do.
struct Merge {
    left: String,
    right: String,
}

impl FromStr for Merge {
    type Err = String;

    fn from_str(s: &str) -> std::result::Result<Self, String> {
        match s.split_once(' ') {
            Some((left, right)) if !right.contains(' ') => {
                Ok(Self { left: left.into(), right: right.into() })
            }
            _ => Err(format!("merge {s:?}: expected two tokens with one space between")),
        }
    }
}

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct MergeVisitor;
        impl<'de> Visitor<'de> for MergeVisitor {
            type Value = Merge;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a merge, \"a b\" or [\"a\", \"b\"]")
            }

            fn visit_str<E: de::Error>(self, s: &str) -> std::result::Result<Merge, E> {
                s.parse().map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Merge, A::Error> {
                let missing = |n| de::Error::invalid_length(n, &self);
                let left = seq.next_element()?.ok_or_else(|| missing(0))?;
                let right = seq.next_element()?.ok_or_else(|| missing(1))?;
                if seq.next_element::<de::IgnoredAny>()?.is_some() {
                    return Err(missing(3));
                }
                Ok(Merge { left, right })
            }
        }
        d.deserialize_any(MergeVisitor)
    }
}

/// A tokenizer file's fault, on one line even where the file's own words are quoted.
pub fn wrong(file: &Path, problem: String) -> Error {
    Error::Tokenizer { file: file.into(), problem: problem.replace(char::is_control, " ") }
}
