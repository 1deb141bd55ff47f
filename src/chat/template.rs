//! From messages to a prompt.
//!
//! A base model has never seen a chat; it has seen transcripts. The built-in template (`transcript.jinja`) writes one, with an
//! exchange to show how it goes where no system message does, and the answer ends where the next speaker would begin. A
//! model's own template, or the user's, is Jinja as Hugging Face's tokenizers have it, with `messages`,
//! `add_generation_prompt`, `bos_token` and `eos_token`.

use crate::checkpoint::{Config, ModelChatTemplate};
use crate::tokenizer::Tokenizer;
use crate::{Error, Hornbook, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, ErrorKind, context};
use serde::{Deserialize, Serialize};
use std::path::Path;

const BUILT_IN: &str = include_str!("transcript.jinja");
const NAME: &str = "chat";

/// Who speaks next ends the answer.
const SPEAKERS: [&str; 2] = ["\nUser:", "\nAssistant:"];
/// The roles the built-in template has a name for.
const ROLES: [&str; 4] = ["system", "developer", "user", "assistant"];

/// A message, its text in one piece.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(expecting = "a message with role and content")]
pub struct ChatMessage {
    /// Who says it.
    pub role: String,
    /// What is said.
    pub content: String,
    /// The speaker's name, for templates that show it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl ChatMessage {
    /// What somebody without a name says.
    pub fn new(role: &str, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), name: None }
    }

    /// Whether it says how to answer, and is no part of the talk itself.
    pub fn is_system(&self) -> bool {
        ["system", "developer"].contains(&self.role.as_str())
    }
}

/// How messages become a prompt.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    built_in: bool,
    stop: Vec<String>,
}

impl ChatTemplate {
    /// The transcript.
    ///
    /// # Errors
    /// None in a program whose tests pass.
    pub fn transcript() -> Result<Self> {
        let stop = SPEAKERS.map(String::from).into();
        Ok(Self { built_in: true, stop, ..Self::new(Path::new("transcript.jinja"), BUILT_IN.to_string())? })
    }

    /// A file's.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Message`] for what is not Jinja.
    pub fn open(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Io {
            path: path.into(),
            action: "read",
            source,
        })?;
        Self::new(path, text)
    }

    /// The model's own, or where it has none the transcript.
    ///
    /// # Errors
    /// As [`ChatTemplateFiles::read`](crate::checkpoint::ChatTemplateFiles::read), and [`Error::Message`] for what is not Jinja.
    pub fn for_model(hornbook: &Hornbook) -> Result<Self> {
        match hornbook.chat_template_files().read()? {
            Some(ModelChatTemplate { file, text, stop_strings }) => {
                Ok(Self { stop: stop_strings, ..Self::new(&file, text)? })
            }
            None => Self::transcript(),
        }
    }

    fn new(path: &Path, text: String) -> Result<Self> {
        let mut environment = Environment::new();
        // As transformers sets Jinja up.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| Error::Message(one_line(&error)))?);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        let raise = |message: String| -> std::result::Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        };
        environment.add_function("raise_exception", raise);
        environment.add_template_owned(NAME, text).map_err(|error| {
            let line = error.line().map_or(String::new(), |line| format!("line {line}: "));
            Error::Message(format!("{}: {line}{}", path.display(), one_line(&error)))
        })?;
        Ok(Self { environment, built_in: false, stop: vec![] })
    }

    /// The prompt that a conversation is for a model, as text and as tokens.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a role that the transcript has no name for, [`Error::Message`] where the template refuses
    /// the messages.
    pub fn apply(
        &self,
        messages: &[ChatMessage],
        tokenizer: &Tokenizer,
        config: &Config,
    ) -> Result<(String, Vec<u32>)> {
        let end = config.eos_token_ids.first().copied();
        let special = end.map_or_else(String::new, |id| tokenizer.decode(&[id]));
        let text = self.render(messages, &special)?;
        // In one's own template special tokens are meant.
        let ids = tokenizer.encode(&text, !self.built_in)?;
        Ok((text, ids))
    }

    /// The prompt's text; special tokens by their names.
    fn render(&self, messages: &[ChatMessage], special_token: &str) -> Result<String> {
        if self.built_in
            && let Some((i, turn)) =
                messages.iter().enumerate().find(|(_, turn)| !ROLES.contains(&turn.role.as_str()))
        {
            return Err(Error::Parameter {
                name: format!("messages[{i}].role"),
                found: format!("{:?}", turn.role),
                expected: "system, developer, user or assistant".into(),
            });
        }
        let rendered = self.environment.get_template(NAME).and_then(|template| {
            template.render(context! {
                messages => Value::from(Serde(messages)),
                add_generation_prompt => true,
                bos_token => special_token,
                eos_token => special_token,
            })
        });
        rendered.map_err(|error| Error::Message(format!("the template: {}", one_line(&error))))
    }

    /// Texts that end an answer.
    pub fn stop(&self) -> &[String] {
        &self.stop
    }

    /// Whether it is the transcript, which was chosen for a model that has never seen a chat.
    pub fn is_built_in(&self) -> bool {
        self.built_in
    }

    /// Whether white space before an answer is the template's and not the answer's.
    pub fn trims(&self) -> bool {
        self.built_in
    }
}

fn one_line(error: &minijinja::Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), String::from).replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(messages: &[(&str, &str)]) -> Vec<ChatMessage> {
        messages.iter().map(|&(role, content)| ChatMessage::new(role, content)).collect()
    }

    fn open(text: &str) -> Result<ChatTemplate> {
        ChatTemplate::new(Path::new("own.jinja"), text.to_string())
    }

    #[test]
    fn the_built_in_template_writes_a_transcript() {
        let template = ChatTemplate::transcript().unwrap();
        let prompt = template.render(&turns(&[("user", "Who are you?\n")]), "").unwrap();
        assert_eq!(
            prompt,
            "The following is a conversation between a user and a helpful assistant.\n\nUser: Hello.\n\
             Assistant: Hello! What can I do for you?\nUser: Who are you?\nAssistant:"
        );
        let messages = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", "{{ 1 }}")];
        let prompt = template.render(&turns(&messages), "").unwrap();
        assert_eq!(prompt, "Be brief.\n\nUser: Hi\nAssistant: Hello\nUser: {{ 1 }}\nAssistant:");
        let error = template.render(&turns(&[("user", "a"), ("tool", "b")]), "").unwrap_err().to_string();
        assert_eq!(error, "messages[1].role: found \"tool\", expected system, developer, user or assistant");
        assert_eq!(template.stop(), SPEAKERS);
    }

    #[test]
    fn hugging_face_templates_are_understood() {
        let template = open(
            "{% if messages[0]['role'] == 'system' %}\n{{ raise_exception('no system') }}\n{% endif %}\n\
             {{ bos_token }}{% for m in messages %}<{{ m.role.upper() }}>{{ m['content'].strip() }}{% endfor %}\
             {% if add_generation_prompt %}<A>{% endif %}",
        )
        .unwrap();
        let prompt = template.render(&turns(&[("user", " hi ")]), "<|endoftext|>").unwrap();
        assert_eq!(prompt, "<|endoftext|><USER>hi<A>");
        let error = template.render(&turns(&[("system", "x")]), "").unwrap_err().to_string();
        assert_eq!(error, "the template: no system");
        assert!(template.stop().is_empty());
    }

    #[test]
    fn fable_has_one_of_its_own() {
        let template = ChatTemplate::for_model(&Hornbook::open("fable").unwrap()).unwrap();
        let start = "\"Good morning, grandmother,\" said the child.\n\n\
                     \"Good morning, my child,\" said the old woman. \"What is it that you wish to know?\"\n\n";
        let messages =
            [("system", "By the sea."), ("user", "Say \"ah\"!"), ("assistant", " Ah, "), ("user", "So?")];
        assert_eq!(
            template.render(&turns(&messages), "").unwrap(),
            format!(
                "By the sea.\n\n{start}\"Say 'ah'!\" asked the child.\n\n\"Ah,\" said the old woman.\n\n\
                 \"So?\" asked the child.\n\n\""
            )
        );
        let prompt = template.render(&turns(&[("user", "Who?")]), "").unwrap();
        assert!(prompt.starts_with("There was once a wise old woman"), "{prompt}");
        assert!(prompt.ends_with(&format!("{start}\"Who?\" asked the child.\n\n\"")), "{prompt}");
        assert_eq!(template.stop(), ["\""]);
    }

    #[test]
    fn what_is_not_jinja_is_refused_with_its_line() {
        let error = open("a\n{% for %}").unwrap_err().to_string();
        assert!(error.starts_with("own.jinja: line 2: ") && !error.contains('\n'), "{error}");
        let error = ChatTemplate::open(Path::new("/no/such.jinja")).unwrap_err().to_string();
        assert!(error.starts_with("/no/such.jinja: cannot read"), "{error}");
    }
}
