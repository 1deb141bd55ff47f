//! Saved conversations: JSON files, readable and writable by hand.

use crate::atomic_file::AtomicFile;
use crate::chat::ChatMessage;
use crate::{Error, Result, text_file};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::path::Path;

/// The file format, for error messages.
const FORMAT: &str = r#"{"messages": [{"role": "user", "content": "..."}, ...]} as /save writes it"#;

/// Contents of a file: `messages` in OpenAI's format, and the model's name for information.
#[derive(Serialize, Deserialize)]
#[serde(expecting = "an object with messages")]
struct SavedConversation<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<Cow<'a, str>>,
    messages: Cow<'a, [ChatMessage]>,
}

/// Saves a conversation atomically.
///
/// # Errors
/// [`Error::Io`], and [`Error::Message`] if the path is not a regular file.
pub fn save(file: &Path, model: &str, messages: &[ChatMessage]) -> Result<()> {
    let saved = SavedConversation { model: Some(model.into()), messages: messages.into() };
    let json = serde_json::to_string_pretty(&saved).map_err(|error| Error::Message(error.to_string()))?;
    AtomicFile::create(file)?.write_and_commit(format!("{json}\n").as_bytes())
}

/// Loads a conversation: a file written by [`save`], or a bare list of messages as sent to OpenAI's API.
///
/// # Errors
/// As [`text_file::read_file`], and [`Error::Message`] for invalid contents, with the problem and its place.
pub fn load(file: &Path) -> Result<Vec<ChatMessage>> {
    let text = text_file::read_file(file)?;
    let mut json = serde_json::Deserializer::from_str(&text);
    let invalid =
        |problem: String| Error::Message(format!("{}: {problem}; expected {FORMAT}", file.display()));
    let messages = match text.trim_ascii_start().chars().next() {
        Some('[') => serde_path_to_error::deserialize(&mut json),
        _ => serde_path_to_error::deserialize(&mut json)
            .map(|saved: SavedConversation| saved.messages.into_owned()),
    };
    let messages = messages.map_err(|error| match error.path().to_string().as_str() {
        "." | "?" => invalid(error.inner().to_string()),
        path => invalid(format!("{path}: {}", error.inner())),
    })?;
    json.end().map_err(|error| invalid(error.to_string()))?;
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saved_conversation_is_pretty_json_and_loads() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("talk.json");
        let mut messages =
            vec![ChatMessage::new("system", "Be \"brief\"."), ChatMessage::new("user", "Hé\nthere")];
        messages[1].name = Some("Ann".into());
        save(&file, "fable", &messages).unwrap();
        assert_eq!(load(&file).unwrap(), messages);
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("{\n  \"model\": \"fable\",\n  \"messages\": [\n    {\n"), "{text}");
        assert!(text.contains(r#""content": "Hé\nthere","#) && text.ends_with("}\n"), "{text}");
        // Overwrites the file, without leaving a temporary one.
        save(&file, "fable", &[]).unwrap();
        assert_eq!(load(&file).unwrap(), []);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        std::fs::write(&file, r#" [{"role": "user", "content": "Hi"}]"#).unwrap();
        assert_eq!(load(&file).unwrap(), [ChatMessage::new("user", "Hi")]);
        let error = save(folder.path(), "fable", &[]).unwrap_err().to_string();
        assert!(error.ends_with("is not a regular file, so it cannot be replaced"), "{error}");
    }

    #[test]
    fn invalid_conversation_file_is_one_line_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("talk.json");
        for (content, problem) in [
            ("", "EOF while parsing a value at line 1 column 0"),
            ("7", "invalid type: integer `7`, expected an object with messages"),
            ("hello", "expected value at line 1 column 1"),
            (
                "[1]",
                "[0]: invalid type: integer `1`, expected a message with role and content at line 1 column 2",
            ),
            ("{}", "missing field `messages` at line 1 column 2"),
            (r#"{"messages": "#, "messages: EOF while parsing a value"),
            (r#"{"messages": [{"role": "user"}]}"#, "messages[0]: missing field `content`"),
            (r#"{"messages": [{"role": 1, "content": ""}]}"#, "messages[0].role: invalid type: integer `1`"),
            (r#"{"messages": []} x"#, "trailing characters at line 1 column 18"),
            (
                "{\"messages\": [{\"role\": \"user\", \"content\": \"\u{0}\"}]}",
                "messages[0].content: control character",
            ),
        ] {
            std::fs::write(&file, content).unwrap();
            let error = load(&file).unwrap_err().to_string();
            let expected = format!("{}: {problem}", file.display());
            assert!(error.starts_with(&expected) && !error.contains('\n'), "{content}: {error}");
            assert!(error.ends_with(&format!("; expected {FORMAT}")), "{content}: {error}");
        }
        let error = load(Path::new("/no/talk.json")).unwrap_err().to_string();
        assert!(error.starts_with("/no/talk.json: cannot read"), "{error}");
    }
}
