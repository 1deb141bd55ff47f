//! Chat templates: messages to a prompt.
//!
//! A base model has not been trained on a chat format, but on texts that include transcripts. The built-in
//! template (`transcript.jinja`) renders one, with an example exchange if there is no system message, and
//! stop strings at the next speaker. A model's own template, or the user's, is Jinja as in Hugging Face
//! tokenizers, with `messages`, `add_generation_prompt`, `bos_token` and `eos_token`.

use super::jinja::Jinja;
use crate::checkpoint::{ChatTemplateFiles, GenerationConfig, ModelChatTemplate};
use crate::{Error, Hornbook, Result, text_file};
use minijinja::context;
use minijinja::value::{Serde, Value};
use serde::{Deserialize, Serialize};
use std::path::Path;

const TRANSCRIPT: &str = include_str!("transcript.jinja");

/// Stop strings of the built-in template: the next speaker.
const TRANSCRIPT_STOP: [&str; 2] = ["\nUser:", "\nAssistant:"];
/// Roles the built-in template accepts.
const TRANSCRIPT_ROLES: [&str; 4] = ["system", "developer", "user", "assistant"];

/// A message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(expecting = "a message with role and content")]
pub struct ChatMessage {
    /// Role: system, developer, user or assistant; a model's template may define others.
    pub role: String,
    /// Text.
    pub content: String,
    /// The author's name, for templates that use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl ChatMessage {
    /// Creates a message without a name.
    pub fn new(role: &str, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), name: None }
    }

    /// Whether it is a system message, under either of the role's names.
    pub fn is_system(&self) -> bool {
        ["system", "developer"].contains(&self.role.as_str())
    }
}

/// A Jinja template that renders messages into a prompt.
#[derive(Debug)]
pub struct ChatTemplate {
    jinja: Jinja,
    built_in: bool,
    stop: Vec<String>,
}

/// What a template renders beside the messages.
#[derive(Clone, Copy)]
pub(super) struct Rendering<'a> {
    pub bos_token: &'a str,
    pub eos_token: &'a str,
    pub add_generation_prompt: bool,
    pub marks_generation: bool,
}

impl<'a> Rendering<'a> {
    /// A prompt, to which the model writes the answer.
    pub fn prompt(bos_token: &'a str, eos_token: &'a str) -> Self {
        Self { bos_token, eos_token, add_generation_prompt: true, marks_generation: false }
    }
}

impl ChatTemplate {
    /// The built-in template, a transcript.
    ///
    /// # Errors
    /// None for the built-in text, which is tested.
    pub fn transcript() -> Result<Self> {
        let stop = TRANSCRIPT_STOP.map(String::from).into();
        Ok(Self { built_in: true, stop, ..Self::parse(Path::new("transcript.jinja"), TRANSCRIPT)? })
    }

    /// Reads a template from a file, or from standard input for `-`.
    ///
    /// # Errors
    /// As `text_file::read`, and [`Error::Checkpoint`] for a file that is no chat template.
    pub fn open(path: &Path) -> Result<Self> {
        Self::parse_reading_messages(path, &text_file::read(path)?)
    }

    fn parse_reading_messages(path: &Path, text: &str) -> Result<Self> {
        let template = Self::parse(path, text)?;
        // A template may also refuse every conversation.
        match ["messages", "raise_exception"].iter().any(|name| template.jinja.reads(name)) {
            true => Ok(template),
            false => Err(Error::Checkpoint {
                file: path.into(),
                problem: "found text that never reads `messages`, expected a Jinja chat template, such as \
                          {% for message in messages %}{{ message.content }}{% endfor %}"
                    .into(),
            }),
        }
    }

    /// The model's own template, or the built-in one if it has none.
    ///
    /// # Errors
    /// As [`ChatTemplateFiles::read`](crate::checkpoint::ChatTemplateFiles::read), and [`Error::Checkpoint`]
    /// for invalid Jinja and for a text that is no chat template.
    pub fn for_model(hornbook: &Hornbook) -> Result<Self> {
        Self::from_files(hornbook.chat_template_files(), hornbook.generation_config())
    }

    /// The template of a model's files, as [`ChatTemplate::for_model`], with the stop strings of its
    /// `generation_config.json`.
    ///
    /// # Errors
    /// As [`ChatTemplate::for_model`].
    pub fn from_files(files: &ChatTemplateFiles, generation_config: &GenerationConfig) -> Result<Self> {
        match files.read()? {
            Some(ModelChatTemplate { file, text }) => {
                let stop = generation_config.stop_strings.clone().unwrap_or_default();
                Ok(Self { stop, ..Self::parse_reading_messages(&file, &text)? })
            }
            None => Self::transcript(),
        }
    }

    /// Compiles the text of a template; `path` names it in errors.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for invalid Jinja.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let jinja = Jinja::compile(text)
            .map_err(|problem| Error::Checkpoint { file: path.into(), problem: problem.to_string() })?;
        Ok(Self { jinja, built_in: false, stop: vec![] })
    }

    /// Renders messages into a prompt, as text and as tokens.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a role unknown to the built-in template, [`Error::ChatTemplate`] if the
    /// template rejects the messages, [`Error::NoTokenizer`], [`Error::ContextOverflow`] if the text is too
    /// long to be tokenized.
    pub fn apply(&self, messages: &[ChatMessage], hornbook: &Hornbook) -> Result<(String, Vec<u32>)> {
        let (tokenizer, n_positions) = (hornbook.tokenizer()?, hornbook.config().n_positions);
        let rendered = self.render(messages, Rendering::prompt(hornbook.bos_token(), hornbook.eos_token()));
        let text = rendered.map_err(|error| {
            // A message too long for the context may be too long for the template as well.
            let contents = messages.iter().map(|message| tokenizer.min_token_count(&message.content));
            match contents.max() {
                Some(prompt_tokens) if prompt_tokens > n_positions => {
                    Error::ContextOverflow { prompt_tokens, n_positions }
                }
                _ => error,
            }
        })?;
        let prompt_tokens = tokenizer.min_token_count(&text);
        if prompt_tokens > n_positions {
            return Err(Error::ContextOverflow { prompt_tokens, n_positions });
        }
        // Special tokens are parsed, except in the built-in template.
        let ids = tokenizer.encode(&text, !self.built_in)?;
        Ok((text, ids))
    }

    /// Renders text, in which special tokens appear by name.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a role unknown to the built-in template, [`Error::ChatTemplate`] if the
    /// template rejects the messages.
    pub(super) fn render(&self, messages: &[ChatMessage], rendering: Rendering) -> Result<String> {
        if self.built_in
            && let Some((i, message)) = messages
                .iter()
                .enumerate()
                .find(|(_, message)| !TRANSCRIPT_ROLES.contains(&message.role.as_str()))
        {
            return Err(Error::Parameter {
                name: format!("messages[{i}].role"),
                found: format!("{:?}", message.role),
                expected: "system, developer, user or assistant".into(),
            });
        }
        let Rendering { bos_token, eos_token, add_generation_prompt, marks_generation } = rendering;
        let rendered = self.jinja.render(context! {
            messages => Value::from(Serde(messages)),
            tools => (),
            documents => (),
            add_generation_prompt,
            bos_token,
            eos_token,
            __marks_generation => marks_generation,
        });
        rendered.map_err(|problem| Error::ChatTemplate { problem })
    }

    /// Stop strings of an answer.
    pub fn stop(&self) -> &[String] {
        &self.stop
    }

    /// Whether it is the built-in template, used for a model without one.
    pub fn is_built_in(&self) -> bool {
        self.built_in
    }

    /// Whether white space around an answer belongs to the template and is trimmed.
    pub fn trims_answer(&self) -> bool {
        self.built_in
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(messages: &[(&str, &str)]) -> Vec<ChatMessage> {
        messages.iter().map(|&(role, content)| ChatMessage::new(role, content)).collect()
    }

    fn prompt(template: &ChatTemplate, messages: &[ChatMessage], bos: &str, eos: &str) -> Result<String> {
        template.render(messages, Rendering::prompt(bos, eos))
    }

    fn open(text: &str) -> Result<ChatTemplate> {
        ChatTemplate::parse(Path::new("own.jinja"), text)
    }

    #[test]
    fn built_in_template_renders_a_transcript() {
        let template = ChatTemplate::transcript().unwrap();
        let text = prompt(&template, &messages(&[("user", "Who are you?\n")]), "", "").unwrap();
        assert_eq!(
            text,
            "The following is a conversation between a user and a helpful assistant.\n\nUser: Hello.\n\
             Assistant: Hello! What can I do for you?\nUser: Who are you?\nAssistant:"
        );
        let dialog = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", "{{ 1 }}")];
        let text = prompt(&template, &messages(&dialog), "", "").unwrap();
        assert_eq!(text, "Be brief.\n\nUser: Hi\nAssistant: Hello\nUser: {{ 1 }}\nAssistant:");
        let error =
            prompt(&template, &messages(&[("user", "a"), ("tool", "b")]), "", "").unwrap_err().to_string();
        assert_eq!(error, "messages[1].role: found \"tool\", expected system, developer, user or assistant");
        assert_eq!(template.stop(), TRANSCRIPT_STOP);
    }

    #[test]
    fn hugging_face_template_renders() {
        let template = open(
            "{% if messages[0]['role'] == 'system' %}\n{{ raise_exception('no system') }}\n{% endif %}\n\
             {{ bos_token }}{% for m in messages %}\
             <{{ m.role.upper() }}>{{ m['content'].strip() + eos_token }}{% endfor %}\
             {% if add_generation_prompt %}<A>{% endif %}",
        )
        .unwrap();
        let text = prompt(&template, &messages(&[("user", " hi ")]), "<s>", "</s>").unwrap();
        assert_eq!(text, "<s><USER>hi</s><A>");
        let error = prompt(&template, &messages(&[("system", "x")]), "", "").unwrap_err().to_string();
        assert_eq!(error, "chat template: no system");
        assert!(template.stop().is_empty());
    }

    #[test]
    fn fable_uses_its_own_template() {
        let template = ChatTemplate::for_model(&Hornbook::open("fable").unwrap()).unwrap();
        let start = "\"Good morning, grandmother,\" said the child.\n\n\
                     \"Good morning, my child,\" said the old woman. \
                     \"What is it that you wish to know?\"\n\n";
        let dialog =
            [("system", "By the sea."), ("user", "Say \"ah\"!"), ("assistant", " Ah, "), ("user", "So?")];
        assert_eq!(
            prompt(&template, &messages(&dialog), "", "").unwrap(),
            format!(
                "By the sea.\n\n{start}\"Say 'ah'!\" asked the child.\n\n\"Ah,\" said the old woman.\n\n\
                 \"So?\" asked the child.\n\n\""
            )
        );
        let text = prompt(&template, &messages(&[("user", "Who?")]), "", "").unwrap();
        assert!(text.starts_with("There was once a wise old woman"), "{text}");
        assert!(text.ends_with(&format!("{start}\"Who?\" asked the child.\n\n\"")), "{text}");
        assert_eq!(template.stop(), ["\""]);
    }

    #[test]
    fn invalid_jinja_error_names_file_and_line() {
        let error = open("a\n{% for %}").unwrap_err().to_string();
        assert!(error.starts_with("own.jinja: line 2: ") && !error.contains('\n'), "{error}");
        let readme = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/LICENSE-MIT"));
        let error = ChatTemplate::open(readme).unwrap_err().to_string();
        assert!(error.contains("LICENSE-MIT: found text that never reads `messages`"), "{error}");
        let error = ChatTemplate::open(Path::new("/no/such.jinja")).unwrap_err().to_string();
        assert!(error.starts_with("/no/such.jinja: cannot read"), "{error}");
    }
}
