//! JSON Lines: a document per line, which is a text, a prompt with its completion, or a conversation.

use super::{Document, DocumentReader};
use crate::chat::{ChatMessage, ChatTemplate};
use crate::text_file::Pieces;
use crate::{Error, Result};
use serde::Deserialize;
use std::cell::OnceCell;
use std::path::Path;

/// A line. Other fields are ignored, as data sets often have some; of these, the first in this order counts.
#[derive(Deserialize)]
struct Line {
    messages: Option<Vec<ChatMessage>>,
    text: Option<String>,
    prompt: Option<String>,
    completion: Option<String>,
}

/// A chat template and the tokens that it writes by name.
struct Chat {
    template: ChatTemplate,
    bos_token: String,
    eos_token: String,
}

impl DocumentReader<'_> {
    /// Reads a `.jsonl` file. Every line is checked, and those without text are left out.
    pub(super) fn read_json_lines(&self, path: &Path, documents: &mut Vec<Document>) -> Result<()> {
        let chat = OnceCell::new();
        for (i, line) in Pieces::open(path, "\n")?.enumerate() {
            let line = line?;
            if line.trim().is_empty() {
                continue;
            }
            let invalid = |problem| Error::InvalidFile { file: path.into(), line: Some(i + 1), problem };
            let document = match parse(&line).map_err(invalid)? {
                Line { messages: Some(messages), .. } => {
                    if chat.get().is_none() {
                        let _ = chat.set(self.chat()?);
                    }
                    let Some(chat) = chat.get() else { continue };
                    self.conversation(chat, &messages).map_err(|error| invalid(error.to_string()))?
                }
                Line { text: Some(text), .. } => Document::new(self.tokenizer.encode(&text, false)?),
                Line { prompt, completion, .. } => {
                    let mut document = Document::default();
                    let mut push = |text: Option<String>, weight| -> Result<()> {
                        document.push(&self.tokenizer.encode(&text.unwrap_or_default(), false)?, weight);
                        Ok(())
                    };
                    push(prompt, self.prompt_loss_weight)?;
                    push(completion, 1.0)?;
                    document
                }
            };
            if !document.ids.is_empty() {
                documents.push(document);
            }
        }
        Ok(())
    }

    /// Reads the chat template, and the names of the tokens that it may write.
    fn chat(&self) -> Result<Chat> {
        let special = self.tokenizer.special_tokens();
        let end_of_text = self.end_of_text.map(|id| self.tokenizer.decode(&[id])).unwrap_or_default();
        let name = |token: Option<&str>| token.unwrap_or(&end_of_text).to_string();
        Ok(Chat {
            template: (self.chat_template)()?,
            bos_token: name(special.bos.as_ref().map(|token| &*token.text)),
            eos_token: name(special.eos.as_ref().map(|token| &*token.text)),
        })
    }

    /// Renders a conversation, of which the assistant's tokens alone count. The parts are encoded one by one,
    /// as the prompt and the answer are when the model is used. An end-of-text token at either end is left to
    /// the data set, which puts one there.
    fn conversation(&self, chat: &Chat, messages: &[ChatMessage]) -> Result<Document> {
        let Chat { template, bos_token, eos_token } = chat;
        let mut document = Document::default();
        for span in template.spans(messages, bos_token, eos_token)? {
            let ids = self.tokenizer.encode(&span.text, !template.is_built_in())?;
            document.push(&ids, if span.is_answer { 1.0 } else { 0.0 });
        }
        let Document { ids, weights } = &mut document;
        let is_end = |id: Option<&u32>| self.end_of_text.is_some() && id.copied() == self.end_of_text;
        if is_end(ids.last()) {
            ids.pop();
            weights.pop();
        }
        if is_end(ids.first()) {
            ids.remove(0);
            weights.remove(0);
        }
        Ok(document)
    }
}

/// The texts of a `.jsonl` file.
pub(super) fn texts(path: &Path) -> Result<Vec<String>> {
    let text = |(i, line): (usize, Result<String>)| {
        let line = line?;
        let invalid = |problem| Error::InvalidFile { file: path.into(), line: Some(i + 1), problem };
        if line.trim().is_empty() {
            return Ok(line);
        }
        Ok(match parse(&line).map_err(invalid)? {
            Line { messages: Some(messages), .. } => {
                messages.into_iter().map(|message| message.content + "\n").collect()
            }
            Line { text: Some(text), .. } => text,
            Line { prompt, completion, .. } => prompt.unwrap_or_default() + &completion.unwrap_or_default(),
        })
    };
    Pieces::open(path, "\n")?.enumerate().map(text).collect()
}

/// Checks every line of a file as [`DocumentReader`] reads it, without a model. A line has at most
/// `max_line_bytes`, the most that is in memory.
///
/// # Errors
/// [`Error::InvalidFile`] that names the first line that is not valid, [`Error::Io`].
pub fn check(path: &Path, max_line_bytes: u64) -> Result<()> {
    let mut found_some = false;
    for (i, line) in Pieces::open(path, "\n")?.with_max_bytes(max_line_bytes).enumerate() {
        let line = line?;
        if !line.trim().is_empty() {
            let invalid = |problem| Error::InvalidFile { file: path.into(), line: Some(i + 1), problem };
            parse(&line).map_err(invalid)?;
            found_some = true;
        }
    }
    match found_some {
        true => Ok(()),
        false => Err(Error::invalid_file(path, "found no text, expected at least one document")),
    }
}

/// Parses a line, which has a text in one of the forms.
fn parse(line: &str) -> std::result::Result<Line, String> {
    const FORMS: &str = "{\"messages\": […]}, {\"text\": …} or {\"prompt\": …, \"completion\": …}";
    let mut json = serde_json::Deserializer::from_str(line);
    let parsed: std::result::Result<Line, _> = serde_path_to_error::deserialize(&mut json);
    let parsed = parsed.map_err(|error| {
        let is_data = error.inner().is_data();
        if is_data { error.to_string() } else { error.into_inner().to_string() }
    });
    let line = match parsed.and_then(|parsed| json.end().map(|()| parsed).map_err(|error| error.to_string()))
    {
        Ok(line) => line,
        Err(_) if !line.trim_start().starts_with('{') => {
            return Err(format!("found no JSON object, expected {FORMS}"));
        }
        // The place is a column of this one line.
        Err(text) => match text.split_once(" at line 1 column ") {
            Some((problem, column)) => {
                let is_data = problem.contains("invalid type") || problem.contains(" field ");
                let problem = problem.replace("invalid type: ", "found ");
                return Err(if is_data {
                    problem
                } else {
                    format!("found broken JSON at column {column} ({problem}), expected {FORMS}")
                });
            }
            None => return Err(text),
        },
    };
    match &line {
        Line { messages: Some(messages), .. } if messages.is_empty() => {
            Err("messages: found an empty list, expected at least one message".into())
        }
        Line { messages: Some(_), .. } | Line { text: Some(_), .. } => Ok(line),
        Line { prompt: Some(_), completion: Some(_), .. } => Ok(line),
        Line { prompt: None, completion: None, .. } => {
            Err(format!("found none of its fields, expected {FORMS}"))
        }
        Line { completion: None, .. } => Err("completion: found nothing, expected a string".into()),
        Line { .. } => Err("prompt: found nothing, expected a string".into()),
    }
}
