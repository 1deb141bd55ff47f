//! Training texts: files of plain text, folders of them, and JSON Lines.

use crate::tokenizer::Tokenizer;
use crate::{Error, Result, text_file};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Separates the documents of a text file, whether or not the model's own token has this name.
const SEPARATOR: &str = "<|endoftext|>";

/// A document: its tokens, and how much predicting each of them counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// The token ids, without an end-of-text token.
    pub ids: Vec<u32>,
    /// One per token: 1, or the weight of a prompt.
    pub weights: Vec<f32>,
}

impl Document {
    fn push(&mut self, ids: &[u32], weight: f32) {
        self.ids.extend_from_slice(ids);
        self.weights.resize(self.ids.len(), weight);
    }
}

/// A line of a JSON Lines file.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Text { text: String },
    Completion { prompt: String, completion: String },
}

/// Reads the documents of a file or folder: those of a text file are separated by `<|endoftext|>`, those of a
/// `.jsonl` file are lines with `{"text": …}` or `{"prompt": …, "completion": …}`, of which the prompt counts
/// `prompt_loss_weight`. The `.txt` files of a folder are read in the order of their names.
///
/// # Errors
/// The file, and the line of a `.jsonl` file, that cannot be read.
pub fn read(path: &Path, tokenizer: &Tokenizer, prompt_loss_weight: f32) -> Result<Vec<Document>> {
    let mut documents = vec![];
    if path.is_dir() {
        let files = text_files(path)?;
        if files.is_empty() {
            return Err(Error::invalid_file(path, "found no .txt files, expected at least one"));
        }
        for file in files {
            read_text(&file, tokenizer, &mut documents)?;
        }
    } else if path.extension().is_some_and(|extension| extension == "jsonl") {
        read_json_lines(path, tokenizer, prompt_loss_weight, &mut documents)?;
    } else {
        read_text(path, tokenizer, &mut documents)?;
    }
    match documents.is_empty() {
        true => Err(Error::invalid_file(path, "found no text, expected at least one document")),
        false => Ok(documents),
    }
}

/// The `.txt` files of a folder and its folders, sorted.
fn text_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = |source| Error::Io { path: folder.into(), action: "read", source };
    let mut files = vec![];
    for entry in folder.read_dir().map_err(read)? {
        let path = entry.map_err(read)?.path();
        if path.is_dir() {
            files.extend(text_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "txt") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_text(path: &Path, tokenizer: &Tokenizer, documents: &mut Vec<Document>) -> Result<()> {
    let text = text_file::read(path)?;
    for text in text.split(SEPARATOR).map(str::trim).filter(|text| !text.is_empty()) {
        let mut document = Document::default();
        document.push(&tokenizer.encode(text, false)?, 1.0);
        documents.push(document);
    }
    Ok(())
}

fn read_json_lines(
    path: &Path,
    tokenizer: &Tokenizer,
    prompt_loss_weight: f32,
    documents: &mut Vec<Document>,
) -> Result<()> {
    let text = text_file::read(path)?;
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let mut document = Document::default();
        match serde_json::from_str(line) {
            Ok(Line::Text { text }) => document.push(&tokenizer.encode(&text, false)?, 1.0),
            Ok(Line::Completion { prompt, completion }) => {
                document.push(&tokenizer.encode(&prompt, false)?, prompt_loss_weight);
                document.push(&tokenizer.encode(&completion, false)?, 1.0);
            }
            Err(_) => {
                let expected = "{\"text\": …} or {\"prompt\": …, \"completion\": …} with strings";
                let (line, problem) = (Some(i + 1), format!("expected {expected}"));
                return Err(Error::InvalidFile { file: path.into(), line, problem });
            }
        }
        documents.push(document);
    }
    Ok(())
}
