//! How a model was taught to converse, where it says so.

use super::embedded;
use super::source::read_file;
use crate::error::{Error, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

/// These are written by people, a chat template of many pages among them.
const MAX_BYTES: u64 = 16 << 20;

const TEMPLATE: &str = "chat_template.jinja";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const GENERATION_CONFIG: &str = "generation_config.json";

/// Where a model may say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChatTemplateFiles {
    /// In the program, beside fable.
    Embedded,
    /// In its folder.
    Folder(PathBuf),
    /// Nowhere: it came from memory.
    None,
}

/// A model's own chat template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelChatTemplate {
    /// The file it is in, for messages.
    pub file: PathBuf,
    /// Jinja, as transformers has it.
    pub text: String,
    /// Texts that end an answer.
    pub stop: Vec<String>,
}

#[derive(Deserialize)]
struct TokenizerConfig {
    chat_template: Option<Template>,
}

/// Older files have several by name, of which one is the default.
#[derive(Deserialize)]
#[serde(untagged)]
enum Template {
    One(String),
    Several(Vec<Named>),
}

#[derive(Deserialize)]
struct Named {
    name: String,
    template: String,
}

#[derive(Deserialize)]
struct GenerationConfig {
    stop_strings: Option<Stop>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Several(Vec<String>),
}

impl ChatTemplateFiles {
    /// The template: `chat_template.jinja`, else what `tokenizer_config.json` has, else none; with the `stop_strings` of
    /// `generation_config.json`.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Checkpoint`] for a file that is there and cannot be understood.
    pub fn read(&self) -> Result<Option<ModelChatTemplate>> {
        let folder = match self {
            Self::None => return Ok(None),
            Self::Embedded => {
                let file = Path::new(embedded::NAME).join(TEMPLATE);
                let text = embedded::CHAT_TEMPLATE.to_string();
                let stop = stop_strings(Path::new(GENERATION_CONFIG), embedded::GENERATION_CONFIG)?;
                return Ok(Some(ModelChatTemplate { file, text, stop }));
            }
            Self::Folder(folder) => folder,
        };
        let (jinja, config) = (folder.join(TEMPLATE), folder.join(TOKENIZER_CONFIG));
        let (file, text) = if jinja.exists() {
            let text = String::from_utf8(read_file(&jinja, MAX_BYTES)?);
            let problem = "found a byte that is not UTF-8, expected text".to_string();
            (jinja.clone(), text.map_err(|_| Error::Checkpoint { file: jinja, problem })?)
        } else if config.exists() {
            let TokenizerConfig { chat_template } = json(&config, &read_file(&config, MAX_BYTES)?)?;
            let text = match chat_template {
                None => return Ok(None),
                Some(Template::One(text)) => Some(text),
                Some(Template::Several(all)) => {
                    all.into_iter().find(|named| named.name == "default").map(|named| named.template)
                }
            };
            let problem = "chat_template: found none that is called default, expected one".to_string();
            (config.clone(), text.ok_or(Error::Checkpoint { file: config, problem })?)
        } else {
            return Ok(None);
        };
        let config = folder.join(GENERATION_CONFIG);
        let stop = match config.exists() {
            true => stop_strings(&config, &read_file(&config, MAX_BYTES)?)?,
            false => vec![],
        };
        Ok(Some(ModelChatTemplate { file, text, stop }))
    }
}

fn stop_strings(file: &Path, bytes: &[u8]) -> Result<Vec<String>> {
    let GenerationConfig { stop_strings } = json(file, bytes)?;
    let stop = match stop_strings {
        None => vec![],
        Some(Stop::One(stop)) => vec![stop],
        Some(Stop::Several(stop)) => stop,
    };
    match stop.iter().any(String::is_empty) {
        true => Err(Error::Checkpoint {
            file: file.into(),
            problem: "stop_strings: found an empty string, expected at least one character".into(),
        }),
        false => Ok(stop),
    }
}

fn json<T: DeserializeOwned>(file: &Path, bytes: &[u8]) -> Result<T> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    serde_path_to_error::deserialize(&mut json)
        .map_err(|error| Error::Checkpoint { file: file.into(), problem: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_folder_says_it_in_either_file() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| fs::write(folder.path().join(name), content).unwrap();
        let read = || ChatTemplateFiles::Folder(folder.path().into()).read();
        assert_eq!(read().unwrap(), None);
        write(TOKENIZER_CONFIG, r#"{"model_max_length": 1024}"#);
        assert_eq!(read().unwrap(), None);
        for named in [r#""A""#, r#"[{"name": "rag", "template": "B"}, {"name": "default", "template": "A"}]"#]
        {
            write(TOKENIZER_CONFIG, &format!(r#"{{"chat_template": {named}}}"#));
            let ModelChatTemplate { file, text, stop } = read().unwrap().unwrap();
            assert_eq!((file, text.as_str(), stop), (folder.path().join(TOKENIZER_CONFIG), "A", vec![]));
        }
        write(TEMPLATE, "C");
        for (given, expected) in [(r#""x""#, vec!["x"]), (r#"["x", "y"]"#, vec!["x", "y"]), ("null", vec![])]
        {
            write(GENERATION_CONFIG, &format!(r#"{{"do_sample": true, "stop_strings": {given}}}"#));
            let ModelChatTemplate { file, text, stop } = read().unwrap().unwrap();
            assert_eq!((file, text.as_str()), (folder.path().join(TEMPLATE), "C"));
            assert_eq!(stop, expected);
        }
    }

    #[test]
    fn what_cannot_be_understood_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for (name, content, expected) in [
            (TOKENIZER_CONFIG, "{", "tokenizer_config.json: "),
            (TOKENIZER_CONFIG, r#"{"chat_template": 1}"#, "tokenizer_config.json: chat_template: "),
            (TOKENIZER_CONFIG, r#"{"chat_template": []}"#, "found none that is called default"),
            (TEMPLATE, "\u{e9}", ""),
            (GENERATION_CONFIG, r#"{"stop_strings": 1}"#, "generation_config.json: stop_strings: "),
            (GENERATION_CONFIG, r#"{"stop_strings": [""]}"#, "stop_strings: found an empty string"),
        ] {
            fs::write(folder.path().join(name), content).unwrap();
            let read = ChatTemplateFiles::Folder(folder.path().into()).read();
            match read {
                Ok(template) => assert!(expected.is_empty() && template.is_some(), "{content}"),
                Err(error) => assert!(error.to_string().contains(expected), "{error}"),
            }
        }
        fs::write(folder.path().join(TEMPLATE), b"\xFF").unwrap();
        let error = ChatTemplateFiles::Folder(folder.path().into()).read().unwrap_err().to_string();
        assert!(error.contains("chat_template.jinja: found a byte that is not UTF-8"), "{error}");
    }

    #[test]
    fn fable_says_it_too() {
        let ModelChatTemplate { text, stop, .. } = ChatTemplateFiles::Embedded.read().unwrap().unwrap();
        assert!(text.contains("asked the child") && stop == ["\""]);
        assert_eq!(ChatTemplateFiles::None.read().unwrap(), None);
    }
}
