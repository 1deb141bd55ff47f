//! A conversation in a file: JSON that one can read and write by hand.

use crate::atomic_file::AtomicFile;
use crate::chat::ChatMessage;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::path::Path;

/// How a file looks, for whoever has written one by hand.
const EXPECTED: &str = r#"{"messages": [{"role": "user", "content": "..."}, ...]} as /save writes it"#;

/// What a file holds: `messages` as OpenAI's API has them, and for whoever reads it the model that answered.
#[derive(Serialize, Deserialize)]
#[serde(expecting = "an object with messages")]
struct Saved<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<Cow<'a, str>>,
    messages: Cow<'a, [ChatMessage]>,
}

/// Writes a conversation, whole or not at all.
///
/// # Errors
/// [`Error::Io`], and [`Error::Message`] if it is not a regular file.
pub fn save(file: &Path, model: &str, turns: &[ChatMessage]) -> Result<()> {
    let saved = Saved { model: Some(model.into()), messages: turns.into() };
    let json = serde_json::to_string_pretty(&saved).map_err(|error| Error::Message(error.to_string()))?;
    AtomicFile::create(file)?.write_and_commit(format!("{json}\n").as_bytes())
}

/// Reads one: what [`save`] writes, or its messages alone, as programs hand them to OpenAI's API.
///
/// # Errors
/// [`Error::Io`], and [`Error::Message`] for what is no conversation, with what is wrong and where.
pub fn load(file: &Path) -> Result<Vec<ChatMessage>> {
    let text =
        std::fs::read(file).map_err(|source| Error::Io { path: file.into(), action: "read", source })?;
    let mut json = serde_json::Deserializer::from_slice(&text);
    let wrong =
        |problem: String| Error::Message(format!("{}: {problem}; expected {EXPECTED}", file.display()));
    let turns = match text.trim_ascii_start().first() {
        Some(b'[') => serde_path_to_error::deserialize(&mut json),
        _ => serde_path_to_error::deserialize(&mut json).map(|saved: Saved| saved.messages.into_owned()),
    };
    let turns = turns.map_err(|error| match error.path().to_string().as_str() {
        "." | "?" => wrong(error.inner().to_string()),
        place => wrong(format!("{place}: {}", error.inner())),
    })?;
    json.end().map_err(|error| wrong(error.to_string()))?;
    Ok(turns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_can_be_read_by_people_and_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("talk.json");
        let mut turns =
            vec![ChatMessage::new("system", "Be \"brief\"."), ChatMessage::new("user", "Hé\nthere")];
        turns[1].name = Some("Ann".into());
        save(&file, "fable", &turns).unwrap();
        assert_eq!(load(&file).unwrap(), turns);
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("{\n  \"model\": \"fable\",\n  \"messages\": [\n    {\n"), "{text}");
        assert!(text.contains(r#""content": "Hé\nthere","#) && text.ends_with("}\n"), "{text}");
        // Over what is there, and nothing else is left behind.
        save(&file, "fable", &[]).unwrap();
        assert_eq!(load(&file).unwrap(), []);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        std::fs::write(&file, r#" [{"role": "user", "content": "Hi"}]"#).unwrap();
        assert_eq!(load(&file).unwrap(), [ChatMessage::new("user", "Hi")]);
        let error = save(folder.path(), "fable", &[]).unwrap_err().to_string();
        assert!(error.ends_with("is not a regular file, so it cannot be replaced"), "{error}");
    }

    #[test]
    fn what_is_no_conversation_is_refused_in_one_line() {
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
            assert!(error.ends_with(&format!("; expected {EXPECTED}")), "{content}: {error}");
        }
        let error = load(Path::new("/no/talk.json")).unwrap_err().to_string();
        assert!(error.starts_with("/no/talk.json: cannot read"), "{error}");
    }
}
