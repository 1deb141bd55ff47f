//! From messages to a prompt.
//!
//! A base model has never seen a chat; it has seen transcripts. The built-in template (`chat.jinja`) writes one, with an
//! exchange to show how it goes where no system message does, and the answer ends where the next speaker would begin. A
//! template of one's own is Jinja as Hugging Face's tokenizers have it, with `messages`, `add_generation_prompt`,
//! `bos_token` and `eos_token`.

use super::error::ApiError;
use crate::{Error, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, ErrorKind, context};
use serde::Serialize;
use std::path::Path;

const BUILT_IN: &str = include_str!("chat.jinja");
const NAME: &str = "chat";

/// Who speaks next ends the answer.
const SPEAKERS: [&str; 2] = ["\nUser:", "\nAssistant:"];
/// The roles the built-in template has a name for.
const ROLES: [&str; 4] = ["system", "developer", "user", "assistant"];

/// A message, its text in one piece.
#[derive(Clone, Debug, Serialize)]
pub struct Turn {
    /// Who says it.
    pub role: String,
    /// What is said.
    pub content: String,
    /// The speaker's name, for templates that show it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// How messages become a prompt.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    built_in: bool,
}

impl ChatTemplate {
    /// The transcript.
    ///
    /// # Errors
    /// None in a program whose tests pass.
    pub fn built_in() -> Result<Self> {
        Self::new(Path::new("chat.jinja"), BUILT_IN.to_string(), true)
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
        Self::new(path, text, false)
    }

    fn new(path: &Path, text: String, built_in: bool) -> Result<Self> {
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
        Ok(Self { environment, built_in })
    }

    /// The prompt that a conversation is for the model; special tokens by their names.
    ///
    /// # Errors
    /// 400 where the template refuses the messages.
    pub fn render(&self, messages: &[Turn], special_token: &str) -> std::result::Result<String, ApiError> {
        if self.built_in
            && let Some((i, turn)) =
                messages.iter().enumerate().find(|(_, turn)| !ROLES.contains(&turn.role.as_str()))
        {
            let expected = "expected system, developer, user or assistant";
            return Err(ApiError::param(
                &format!("messages[{i}].role"),
                format!("found {:?}, {expected}", turn.role),
            ));
        }
        let rendered = self.environment.get_template(NAME).and_then(|template| {
            template.render(context! {
                messages => Value::from(Serde(messages)),
                add_generation_prompt => true,
                bos_token => special_token,
                eos_token => special_token,
            })
        });
        rendered.map_err(|error| ApiError::param("messages", format!("the template: {}", one_line(&error))))
    }

    /// Texts that end an answer.
    pub fn stop(&self) -> impl Iterator<Item = String> {
        SPEAKERS.into_iter().filter(|_| self.built_in).map(String::from)
    }

    /// Whether special tokens are found in the prompt: in one's own template they are meant.
    pub fn has_special_tokens(&self) -> bool {
        !self.built_in
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

    fn turns(messages: &[(&str, &str)]) -> Vec<Turn> {
        let turn =
            |&(role, content): &(&str, &str)| Turn { role: role.into(), content: content.into(), name: None };
        messages.iter().map(turn).collect()
    }

    fn open(text: &str) -> Result<ChatTemplate> {
        ChatTemplate::new(Path::new("own.jinja"), text.to_string(), false)
    }

    #[test]
    fn the_built_in_template_writes_a_transcript() {
        let template = ChatTemplate::built_in().unwrap();
        let prompt = template.render(&turns(&[("user", "Who are you?\n")]), "").unwrap();
        assert_eq!(
            prompt,
            "The following is a conversation between a user and a helpful assistant.\n\nUser: Hello.\n\
             Assistant: Hello! What can I do for you?\nUser: Who are you?\nAssistant:"
        );
        let messages = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", "{{ 1 }}")];
        let prompt = template.render(&turns(&messages), "").unwrap();
        assert_eq!(prompt, "Be brief.\n\nUser: Hi\nAssistant: Hello\nUser: {{ 1 }}\nAssistant:");
        let error = template.render(&turns(&[("user", "a"), ("tool", "b")]), "").unwrap_err();
        assert!(error.json().contains("messages[1].role"), "{}", error.json());
        assert_eq!(template.stop().collect::<Vec<_>>(), SPEAKERS);
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
        let error = template.render(&turns(&[("system", "x")]), "").unwrap_err();
        assert!(error.json().contains("the template: no system"), "{}", error.json());
        assert_eq!(template.stop().count(), 0);
    }

    #[test]
    fn what_is_not_jinja_is_refused_with_its_line() {
        let error = open("a\n{% for %}").unwrap_err().to_string();
        assert!(error.starts_with("own.jinja: line 2: ") && !error.contains('\n'), "{error}");
        let error = ChatTemplate::open(Path::new("/no/such.jinja")).unwrap_err().to_string();
        assert!(error.starts_with("/no/such.jinja: cannot read"), "{error}");
    }
}
