//! Parsing of tokenizer files: Hugging Face's `tokenizer.json`, or GPT-2's own `vocab.json` and `merges.txt`.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use tokenizers::models::bpe::Vocab;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, NormalizerWrapper, PreTokenizerWrapper};

use super::special_tokens::{DeclaredToken, NamedFile, invalid};
use crate::Result;

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
    /// The token of a byte that has none; without it, such bytes are dropped.
    pub unk_token: Option<String>,
    /// Whether adjacent unknown bytes become one unknown token.
    pub fuse_unk: bool,
    /// Whether a byte without a token becomes `<0x41>`.
    pub byte_fallback: bool,
    /// Added tokens, matched in a text before BPE.
    pub added_tokens: Vec<DeclaredToken>,
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
    unk_token: Option<String>,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
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
            unk_token: model.unk_token,
            fuse_unk: model.fuse_unk,
            byte_fallback: model.byte_fallback,
            added_tokens: (added_tokens.into_iter())
                .map(|added| DeclaredToken { file: file.into(), id: Some(added.id), token: added.token })
                .collect(),
        })
    }

    /// GPT-2's tokenizer from its two original files.
    pub fn from_vocab_merges(
        (vocab_file, vocab): NamedFile,
        (merges_file, merges): NamedFile,
        add_prefix_space: bool,
    ) -> Result<Self> {
        let vocab: Vocab = serde_json::from_slice(vocab).map_err(|e| invalid(vocab_file, e.to_string()))?;
        let text = str::from_utf8(merges).map_err(|e| invalid(merges_file, format!("not UTF-8: {e}")))?;
        let mut merges = Vec::with_capacity(vocab.len());
        for (n, line) in text.trim_end().lines().enumerate() {
            if n == 0 && line.starts_with("#version") {
                continue;
            }
            let merge: MergeRule =
                line.parse().map_err(|e| invalid(merges_file, format!("line {}: {e}", n + 1)))?;
            merges.push((merge.left, merge.right));
        }
        Ok(Self {
            normalizer: None,
            pre_tokenizer: Some(ByteLevel::new(add_prefix_space, true, true).into()),
            added_tokens: vec![],
            vocab,
            merges,
            ignore_merges: false,
            unk_token: None,
            fuse_unk: false,
            byte_fallback: false,
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
