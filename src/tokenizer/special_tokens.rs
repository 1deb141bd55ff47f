//! Special tokens declared beside the vocabulary, in `tokenizer_config.json`, `special_tokens_map.json` and
//! `added_tokens.json`.
//!
//! They get the ids that transformers gives them: those of `added_tokens_decoder` or `added_tokens.json` in
//! order of id, then the named ones, then the additional ones. What `tokenizer_config.json` declares takes
//! precedence.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::files::invalid;
use crate::Result;

/// The named special tokens, in the order in which transformers adds them.
const NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The fields with unnamed special tokens: as of transformers 5 and before.
const ADDITIONAL: [&str; 2] = ["extra_special_tokens", "additional_special_tokens"];

/// A token added to a vocabulary.
pub struct DeclaredToken {
    /// The file that declares it.
    pub file: PathBuf,
    /// Its id, if the file gives one.
    pub id: Option<u32>,
    pub token: AddedToken,
}

/// The tokens declared beside a vocabulary.
#[derive(Default)]
pub struct SpecialTokens {
    /// In order of addition.
    pub tokens: Vec<DeclaredToken>,
    /// Whether a text without a leading space gets one.
    pub add_prefix_space: Option<bool>,
    /// The index in `tokens` of each content.
    indices: HashMap<String, usize>,
}

/// A token: its content, or an object with its flags.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a token: a string, or an object with its content and flags")]
enum Entry {
    Content(String),
    Flags(Flags),
}

#[derive(Deserialize)]
struct Flags {
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    /// True if not given, except for special tokens.
    normalized: Option<bool>,
    #[serde(default)]
    special: bool,
}

impl Flags {
    fn into_token(self) -> AddedToken {
        let Self { content, single_word, lstrip, rstrip, normalized, special } = self;
        let normalized = normalized.unwrap_or(!special);
        AddedToken { content, single_word, lstrip, rstrip, normalized, special }
    }
}

impl Entry {
    fn into_special(self) -> AddedToken {
        match self {
            Self::Content(content) => AddedToken::from(content, true),
            Self::Flags(flags) => Flags { special: true, ..flags }.into_token(),
        }
    }
}

/// Unnamed special tokens: a list, or an object from names to tokens.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a list of tokens, or an object of named tokens")]
enum Additional {
    List(Vec<Entry>),
    Named(BTreeMap<String, Entry>),
}

/// The path and content of a file.
pub type NamedFile<'a> = (&'a Path, &'a [u8]);

/// A JSON object read from a file.
struct File<'a> {
    path: &'a Path,
    fields: Map<String, Value>,
}

impl<'a> File<'a> {
    fn parse(path: &'a Path, bytes: &[u8]) -> Result<Self> {
        let fields = serde_json::from_slice(bytes).map_err(|error| invalid(path, error.to_string()))?;
        Ok(Self { path, fields })
    }

    /// The value of a field; none if it is missing or null.
    fn get<T: DeserializeOwned>(&self, field: &str) -> Result<Option<T>> {
        let value = self.fields.get(field).cloned().unwrap_or_default();
        serde_json::from_value(value).map_err(|error| invalid(self.path, format!("{field}: {error}")))
    }
}

impl SpecialTokens {
    /// Parses those of the three files that exist. `default` stands for a bos, eos or unk token that they do
    /// not mention.
    ///
    /// # Errors
    /// [`Error::Tokenizer`](crate::Error::Tokenizer) for a file that is malformed.
    pub fn parse(
        config: Option<NamedFile>,
        map: Option<NamedFile>,
        added_tokens: Option<NamedFile>,
        default: Option<&DeclaredToken>,
    ) -> Result<Self> {
        let config = config.map(|(path, bytes)| File::parse(path, bytes)).transpose()?;
        let map = map.map(|(path, bytes)| File::parse(path, bytes)).transpose()?;
        let mut special = Self::default();
        let files: Vec<&File> = config.iter().chain(&map).collect();
        if let Some(config) = &config {
            special.add_prefix_space = config.get("add_prefix_space")?;
            let declared: Option<BTreeMap<u32, Flags>> = config.get("added_tokens_decoder")?;
            for (id, flags) in declared.into_iter().flatten() {
                special.push(config.path, Some(id), flags.into_token());
            }
        }
        if let (true, Some((path, bytes))) = (special.tokens.is_empty(), added_tokens) {
            let file = File::parse(path, bytes)?;
            let tokens = file.fields.keys().map(|content| Ok((file.get(content)?, content)));
            let mut tokens = tokens.collect::<Result<Vec<(Option<u32>, &String)>>>()?;
            tokens.sort_unstable();
            for (id, content) in tokens {
                special.push(path, id, AddedToken::from(content, false));
            }
        }
        for name in NAMES {
            let is_mentioned = files.iter().any(|file| file.fields.contains_key(name));
            if let (false, Some(default), "bos_token" | "eos_token" | "unk_token") =
                (is_mentioned, default, name)
            {
                special.push(&default.file, default.id, default.token.clone());
            }
            for file in &files {
                if let Some(token) = file.get::<Entry>(name)? {
                    special.push(file.path, None, token.into_special());
                    break;
                }
            }
        }
        for (field, file) in ADDITIONAL.iter().flat_map(|field| files.iter().map(move |file| (field, file))) {
            let entries = match file.get(field)? {
                None => vec![],
                Some(Additional::List(entries)) => entries,
                Some(Additional::Named(entries)) => entries.into_values().collect(),
            };
            entries.into_iter().for_each(|entry| special.push(file.path, None, entry.into_special()));
        }
        Ok(special)
    }

    /// Adds a token. One that was declared before keeps its flags, and becomes special if this one is.
    fn push(&mut self, file: &Path, id: Option<u32>, token: AddedToken) {
        if let Some(&known) = self.indices.get(&token.content) {
            self.tokens[known].token.special |= token.special;
        } else if !token.content.is_empty() {
            self.indices.insert(token.content.clone(), self.tokens.len());
            self.tokens.push(DeclaredToken { file: file.into(), id, token });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_declared_in_order_of_transformers() {
        let config = r#"{"eos_token": {"content": "<e>", "lstrip": true, "__type": "AddedToken"},
            "pad_token": null, "additional_special_tokens": ["<a>", {"content": "<b>", "rstrip": true}]}"#;
        let map = r#"{"bos_token": "<s>", "eos_token": "<x>", "pad_token": "<p>",
            "additional_special_tokens": ["<a>"]}"#;
        let added = r#"{"<b>": 12, "<t>": 11}"#;
        let file = |name: &'static str, text: &'static str| Some((Path::new(name), text.as_bytes()));
        let special =
            SpecialTokens::parse(file("config", config), file("map", map), file("added", added), None);
        let special = special.unwrap();
        let declared: Vec<_> = (special.tokens.iter())
            .map(|declared| (declared.id, declared.token.content.as_str(), declared.token.special))
            .collect();
        let expected = [
            (Some(11), "<t>", false),
            (Some(12), "<b>", true),
            (None, "<s>", true),
            (None, "<e>", true),
            (None, "<p>", true),
            (None, "<a>", true),
        ];
        assert_eq!(declared, expected);
        assert!(special.tokens[3].token.lstrip && !special.tokens[3].token.rstrip);
    }

    #[test]
    fn added_tokens_decoder_replaces_added_tokens_json() {
        let config = r#"{"added_tokens_decoder": {"300": {"content": "<e>", "special": true},
            "29": {"content": "<t>", "single_word": true}}}"#;
        let file = |text: &'static str| Some((Path::new("file"), text.as_bytes()));
        let special = SpecialTokens::parse(file(config), None, file(r#"{"<u>": 301}"#), None).unwrap();
        let declared: Vec<_> = special.tokens.iter().map(|d| (d.id, d.token.clone())).collect();
        let plain = AddedToken::from("<t>", false).single_word(true);
        assert_eq!(declared, [(Some(29), plain), (Some(300), AddedToken::from("<e>", true))]);
    }

    #[test]
    fn malformed_file_is_named_in_error() {
        for (text, expected) in [
            ("[]", "expected a map"),
            ("{", "EOF"),
            (r#"{"eos_token": 5}"#, "eos_token: a token: a string, or an object"),
            (r#"{"added_tokens_decoder": {"x": {"content": "a"}}}"#, "added_tokens_decoder: "),
            (r#"{"additional_special_tokens": 1}"#, "additional_special_tokens: a list of tokens"),
        ] {
            let error = SpecialTokens::parse(Some((Path::new("f.json"), text.as_bytes())), None, None, None);
            let error = error.err().unwrap().to_string();
            assert!(error.starts_with("f.json: ") && error.contains(expected), "{error}");
        }
        let added = SpecialTokens::parse(None, None, Some((Path::new("a.json"), br#"{"<a>": "x"}"#)), None);
        assert!(added.err().unwrap().to_string().contains("a.json: <a>: "));
    }
}
