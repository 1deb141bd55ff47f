//! The chat template of a model, from its files.

use super::source::read_file;
use super::{embedded, json_file};
use crate::error::{Error, Result};
use crate::text_file;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The largest template read; it may have many pages.
const MAX_BYTES: u64 = 16 << 20;

const TEMPLATE: &str = "chat_template.jinja";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// The location of a model's chat template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChatTemplateFiles {
    /// Compiled into the program with `fable`.
    Embedded,
    /// In the model's folder.
    Folder(PathBuf),
    /// None: the model was loaded from memory.
    None,
}

/// A model's own chat template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelChatTemplate {
    /// Its file, for error messages.
    pub file: PathBuf,
    /// The Jinja template, as in transformers.
    pub text: String,
}

#[derive(Deserialize)]
struct TokenizerConfig {
    chat_template: Option<Template>,
}

/// One template, or in older files several named ones, of which one is called `default`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Template {
    One(String),
    Several(Vec<NamedTemplate>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

impl ChatTemplateFiles {
    /// Reads the template from `chat_template.jinja`, else from `tokenizer_config.json`. Returns `None` if
    /// there is no template.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Checkpoint`] for a file that exists and is unreadable or invalid.
    pub fn read(&self) -> Result<Option<ModelChatTemplate>> {
        let folder = match self {
            Self::None => return Ok(None),
            Self::Embedded => {
                let file = Path::new(embedded::NAME).join(TEMPLATE);
                let text = embedded::CHAT_TEMPLATE.to_string();
                return Ok(Some(ModelChatTemplate { file, text }));
            }
            Self::Folder(folder) => folder,
        };
        let (jinja, config) = (folder.join(TEMPLATE), folder.join(TOKENIZER_CONFIG));
        let (file, text) = if jinja.exists() {
            let text = text_file::decode(read_file(&jinja, MAX_BYTES)?);
            (jinja.clone(), text.map_err(|problem| Error::Checkpoint { file: jinja, problem })?)
        } else if config.exists() {
            let TokenizerConfig { chat_template } = json_file::read(&config)?;
            let text = match chat_template {
                None => return Ok(None),
                Some(Template::One(text)) => Some(text),
                Some(Template::Several(templates)) => {
                    templates.into_iter().find(|named| named.name == "default").map(|named| named.template)
                }
            };
            let problem = "chat_template: found no template named 'default', expected one".to_string();
            (config.clone(), text.ok_or(Error::Checkpoint { file: config, problem })?)
        } else {
            return Ok(None);
        };
        Ok(Some(ModelChatTemplate { file, text }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn template_is_read_from_either_file() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| fs::write(folder.path().join(name), content).unwrap();
        let read = || ChatTemplateFiles::Folder(folder.path().into()).read();
        assert_eq!(read().unwrap(), None);
        write(TOKENIZER_CONFIG, r#"{"model_max_length": 1024}"#);
        assert_eq!(read().unwrap(), None);
        for named in [r#""A""#, r#"[{"name": "rag", "template": "B"}, {"name": "default", "template": "A"}]"#]
        {
            write(TOKENIZER_CONFIG, &format!(r#"{{"chat_template": {named}}}"#));
            let ModelChatTemplate { file, text } = read().unwrap().unwrap();
            assert_eq!((file, text.as_str()), (folder.path().join(TOKENIZER_CONFIG), "A"));
        }
        write(TEMPLATE, "C");
        let ModelChatTemplate { file, text } = read().unwrap().unwrap();
        assert_eq!((file, text.as_str()), (folder.path().join(TEMPLATE), "C"));
    }

    #[test]
    fn invalid_file_is_named_in_error() {
        let folder = tempfile::tempdir().unwrap();
        for (name, content, expected) in [
            (TOKENIZER_CONFIG, "{", "tokenizer_config.json: found broken JSON at line 1, column 1 (EOF"),
            (TOKENIZER_CONFIG, r#"{"chat_template": 1}"#, "tokenizer_config.json: chat_template: "),
            (TOKENIZER_CONFIG, r#"{"chat_template": []}"#, "found no template named 'default'"),
            (TEMPLATE, "\u{e9}", ""),
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
        assert!(error.contains("chat_template.jinja: found invalid UTF-8"), "{error}");
    }

    #[test]
    fn fable_has_template() {
        let ModelChatTemplate { text, .. } = ChatTemplateFiles::Embedded.read().unwrap().unwrap();
        assert!(text.contains("asked the child"));
        assert_eq!(ChatTemplateFiles::None.read().unwrap(), None);
    }
}
