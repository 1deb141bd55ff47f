//! Special tokens declared beside the vocabulary, in `tokenizer_config.json`, `special_tokens_map.json` and
//! `added_tokens.json`, and which of them begin and end a text.
//!
//! They get the ids that transformers gives them: those of `added_tokens_decoder` or `added_tokens.json` in
//! order of id, then the named ones, then the additional ones. What `tokenizer_config.json` declares takes
//! precedence. What cannot be read of the first two files is left out and reported: neither the vocabulary
//! nor token ids need it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokenizers::AddedToken;

use crate::text_file::without_bom;
use crate::{Error, Result};

/// The named special tokens, in the order in which transformers adds them.
const NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The fields with unnamed special tokens: as of transformers 5 and before.
const ADDITIONAL: [&str; 2] = ["extra_special_tokens", "additional_special_tokens"];

/// A special token and the file that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecialToken {
    /// The token as it stands in a text: `<|endoftext|>`.
    pub text: String,
    /// The name of the file.
    pub file: &'static str,
}

/// A token added to a vocabulary.
pub struct DeclaredToken {
    /// The file that declares it.
    pub file: PathBuf,
    /// Its id, if the file gives one.
    pub id: Option<u32>,
    pub token: AddedToken,
}

/// The special tokens declared beside a vocabulary.
#[derive(Default)]
pub struct SpecialTokens {
    /// The token that begins a text, from the first of `tokenizer_config.json` and `special_tokens_map.json`
    /// that names it.
    pub bos: Option<SpecialToken>,
    /// The token that ends a text, from the first of the two files that names it.
    pub eos: Option<SpecialToken>,
    /// The first problem of each of the two files that cannot be read whole; the rest of it is used.
    pub problems: Vec<Error>,
    /// In order of addition.
    pub(super) tokens: Vec<DeclaredToken>,
    /// Whether a text without a leading space gets one.
    pub(super) add_prefix_space: Option<bool>,
    /// The index in `tokens` of each content.
    indices: HashMap<String, usize>,
}

/// A token: its content, or an object with its flags.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a token: a string, or an object with its content and flags")]
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
#[serde(untagged, expecting = "expected a list of tokens, or an object of named tokens")]
enum Additional {
    List(Vec<Entry>),
    Named(BTreeMap<String, Entry>),
}

/// The path and content of a file.
pub type NamedFile<'a> = (&'a Path, &'a [u8]);

/// The file called `name`, if it is among `files`.
pub fn find_file<'a>(files: &'a [(PathBuf, Cow<[u8]>)], name: &str) -> Option<NamedFile<'a>> {
    let found = files.iter().find(|(path, _)| path.file_name().is_some_and(|file| file == name));
    found.map(|(path, bytes)| (path.as_path(), &**bytes))
}

/// A JSON object read from a file.
struct File<'a> {
    name: &'static str,
    path: &'a Path,
    fields: Map<String, Value>,
}

impl<'a> File<'a> {
    fn parse(name: &'static str, (path, bytes): NamedFile<'a>) -> Result<Self> {
        let text = without_bom(bytes).map_err(|problem| invalid(path, problem))?;
        let fields = serde_json::from_slice(text).map_err(|error| invalid(path, error.to_string()))?;
        Ok(Self { name, path, fields })
    }

    /// The value of a field; none if it is missing or null.
    fn get<T: DeserializeOwned>(&self, field: &str) -> Result<Option<T>> {
        let value = self.fields.get(field).cloned().unwrap_or_default();
        serde_json::from_value(value).map_err(|error| invalid(self.path, format!("{field}: {error}")))
    }
}

/// The problems of files, the first of each.
#[derive(Default)]
struct Problems<'a>(Vec<(&'a Path, Error)>);

impl<'a> Problems<'a> {
    /// The value, or none and a problem of the file.
    fn ok<T>(&mut self, path: &'a Path, result: Result<T>) -> Option<T> {
        let error = match result {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        if !self.0.iter().any(|(file, _)| *file == path) {
            self.0.push((path, error));
        }
        None
    }
}

impl SpecialTokens {
    /// Reads those of a model's files that declare special tokens, each given as its path and content.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for a malformed `added_tokens.json`, whose tokens are part of the vocabulary.
    pub fn read(files: &[(PathBuf, Cow<[u8]>)]) -> Result<Self> {
        Self::read_with_default(files, None)
    }

    /// As [`read`](Self::read); `default` stands for a bos, eos or unk token that the files do not mention.
    pub(super) fn read_with_default(
        files: &[(PathBuf, Cow<[u8]>)],
        default: Option<&DeclaredToken>,
    ) -> Result<Self> {
        let mut problems = Problems::default();
        let mut parse = |name| {
            let file = find_file(files, name)?;
            problems.ok(file.0, File::parse(name, file))
        };
        let (config, map) = (parse("tokenizer_config.json"), parse("special_tokens_map.json"));
        let mut special = Self::default();
        if let Some(config) = &config {
            special.add_prefix_space = problems.ok(config.path, config.get("add_prefix_space")).flatten();
            let declared: Option<Option<BTreeMap<u32, Flags>>> =
                problems.ok(config.path, config.get("added_tokens_decoder"));
            for (id, flags) in declared.flatten().into_iter().flatten() {
                special.push(config.path, Some(id), flags.into_token());
            }
        }
        let replaced = !special.tokens.is_empty() || find_file(files, "tokenizer.json").is_some();
        if let Some(added_tokens) = find_file(files, "added_tokens.json").filter(|_| !replaced) {
            let file = File::parse("added_tokens.json", added_tokens)?;
            let tokens = file.fields.keys().map(|content| Ok((file.get(content)?, content)));
            let mut tokens = tokens.collect::<Result<Vec<(Option<u32>, &String)>>>()?;
            tokens.sort_unstable();
            for (id, content) in tokens {
                special.push(file.path, id, AddedToken::from(content, false));
            }
        }
        let files: Vec<&File> = config.iter().chain(&map).collect();
        for name in NAMES {
            let is_mentioned = files.iter().any(|file| file.fields.contains_key(name));
            if let (false, Some(default), "bos_token" | "eos_token" | "unk_token") =
                (is_mentioned, default, name)
            {
                special.push(&default.file, default.id, default.token.clone());
            }
            for file in &files {
                let Some(token) = problems.ok(file.path, file.get::<Entry>(name)).flatten() else { continue };
                let token = token.into_special();
                let named = || Some(SpecialToken { text: token.content.clone(), file: file.name });
                match name {
                    "bos_token" => special.bos = named(),
                    "eos_token" => special.eos = named(),
                    _ => {}
                }
                special.push(file.path, None, token);
                break;
            }
        }
        for (field, file) in ADDITIONAL.iter().flat_map(|field| files.iter().map(move |file| (field, file))) {
            let entries = match problems.ok(file.path, file.get(field)).flatten() {
                None => vec![],
                Some(Additional::List(entries)) => entries,
                Some(Additional::Named(entries)) => entries.into_values().collect(),
            };
            entries.into_iter().for_each(|entry| special.push(file.path, None, entry.into_special()));
        }
        special.problems = problems.0.into_iter().map(|(_, error)| error).collect();
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

/// The error for an invalid tokenizer file. Control characters quoted from the file become spaces.
pub fn invalid(file: &Path, problem: String) -> Error {
    Error::Tokenizer { file: file.into(), problem: problem.replace(char::is_control, " ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Result<SpecialTokens> {
        let files: Vec<_> =
            files.iter().map(|(name, text)| (PathBuf::from(name), text.as_bytes().into())).collect();
        SpecialTokens::read(&files)
    }

    #[test]
    fn tokens_are_declared_in_order_of_transformers() {
        let config = r#"{"eos_token": {"content": "<e>", "lstrip": true, "__type": "AddedToken"},
            "pad_token": null, "additional_special_tokens": ["<a>", {"content": "<b>", "rstrip": true}]}"#;
        let map = r#"{"bos_token": "<s>", "eos_token": "<x>", "pad_token": "<p>",
            "additional_special_tokens": ["<a>"]}"#;
        let special = read(&[
            ("tokenizer_config.json", config),
            ("special_tokens_map.json", map),
            ("added_tokens.json", r#"{"<b>": 12, "<t>": 11}"#),
        ])
        .unwrap();
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
        let named = |text: &str, file| Some(SpecialToken { text: text.into(), file });
        assert_eq!(special.bos, named("<s>", "special_tokens_map.json"));
        assert_eq!(special.eos, named("<e>", "tokenizer_config.json"));
        assert!(special.problems.is_empty());
    }

    #[test]
    fn added_tokens_decoder_replaces_added_tokens_json() {
        let config = r#"{"added_tokens_decoder": {"300": {"content": "<e>", "special": true},
            "29": {"content": "<t>", "single_word": true}}}"#;
        let special = read(&[("tokenizer_config.json", config), ("added_tokens.json", r#"{"<u>": 301}"#)]);
        let declared: Vec<_> =
            special.unwrap().tokens.iter().map(|token| (token.id, token.token.clone())).collect();
        let plain = AddedToken::from("<t>", false).single_word(true);
        assert_eq!(declared, [(Some(29), plain), (Some(300), AddedToken::from("<e>", true))]);
    }

    /// What is malformed is left out, and reported once per file.
    #[test]
    fn problem_leaves_rest_of_files() {
        let map = r#"{"bos_token": "<s>", "eos_token": "<x>"}"#;
        for (config, expected, eos) in [
            ("[]", "expected a map", "<x>"),
            ("{", "EOF", "<x>"),
            (
                r#"{"eos_token": 5, "pad_token": 6}"#,
                "eos_token: expected a token: a string, or an object",
                "<x>",
            ),
            (
                r#"{"eos_token": "<e>", "added_tokens_decoder": {"x": {"content": "a"}}}"#,
                "added_tokens_decoder: ",
                "<e>",
            ),
            (
                r#"{"eos_token": "<e>", "additional_special_tokens": 1}"#,
                "additional_special_tokens: expected a list of tokens",
                "<e>",
            ),
        ] {
            let special = read(&[("tokenizer_config.json", config), ("special_tokens_map.json", map)]);
            let SpecialTokens { bos, eos: found, problems, .. } = special.unwrap();
            assert_eq!((bos.unwrap().text, found.unwrap().text), ("<s>".into(), eos.into()), "{config}");
            let [problem] = &problems[..] else { panic!("{config}: {problems:?}") };
            let problem = problem.to_string();
            assert!(
                problem.starts_with("tokenizer_config.json: ") && problem.contains(expected),
                "{problem}"
            );
        }
        let added = read(&[("added_tokens.json", r#"{"<a>": "x"}"#)]).err().unwrap();
        assert!(added.to_string().contains("added_tokens.json: <a>: "), "{added}");
    }
}
