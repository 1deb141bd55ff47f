//! Training texts: files of plain text, folders of them, JSON Lines, and files of tokens.

mod json_lines;
mod token_file;

pub use json_lines::check as check_json_lines;

use crate::chat::ChatTemplate;
use crate::text_file::Pieces;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
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
    fn new(ids: Vec<u32>) -> Self {
        Self { weights: vec![1.0; ids.len()], ids }
    }

    fn push(&mut self, ids: &[u32], weight: f32) {
        self.ids.extend_from_slice(ids);
        self.weights.resize(self.ids.len(), weight);
    }
}

/// What documents are read with: a model's vocabulary and chat template.
pub struct DocumentReader<'a> {
    /// Encodes texts.
    pub tokenizer: &'a Tokenizer,
    /// The size of the model's vocabulary.
    pub vocab_size: usize,
    /// The token between documents.
    pub end_of_text: Option<u32>,
    /// How much predicting a token of a prompt counts, beside one of its completion.
    pub prompt_loss_weight: f32,
    /// Reads the chat template, for the first conversation of a file.
    pub chat_template: &'a dyn Fn() -> Result<ChatTemplate>,
}

impl DocumentReader<'_> {
    /// Reads the documents of a file or folder: the `.txt` and `.jsonl` files of the folder and its folders,
    /// in the order of their names.
    ///
    /// | file | documents |
    /// |---|---|
    /// | `.jsonl` | lines with `messages`, `text`, or `prompt` and `completion` |
    /// | `.bin` | tokens, as nanoGPT or llm.c write them |
    /// | any other | text, separated by `<\|endoftext\|>` |
    ///
    /// # Errors
    /// The file, and the line or token in it, that cannot be read.
    pub fn read(&self, path: &Path) -> Result<Vec<Document>> {
        let mut documents = vec![];
        if path.is_dir() {
            let files = texts_in(path)?;
            if files.is_empty() {
                return Err(Error::invalid_file(
                    path,
                    "found no .txt or .jsonl files, expected at least one",
                ));
            }
            files.iter().try_for_each(|file| self.read_file(file, &mut documents))?;
        } else {
            self.read_file(path, &mut documents)?;
        }
        match documents.is_empty() {
            true => Err(Error::invalid_file(path, "found no text, expected at least one document")),
            false => Ok(documents),
        }
    }

    fn read_file(&self, path: &Path, documents: &mut Vec<Document>) -> Result<()> {
        if has_extension(path, "jsonl") {
            return self.read_json_lines(path, documents);
        }
        if has_extension(path, "bin") {
            return self.read_token_file(path, documents);
        }
        for text in Pieces::open(path, SEPARATOR)? {
            let text = text?;
            if !text.trim().is_empty() {
                documents.push(Document::new(self.tokenizer.encode(text.trim(), false)?));
            }
        }
        Ok(())
    }
}

/// Reads the texts of a file or folder, to train a tokenizer on: all that a line of JSON has is one text.
///
/// # Errors
/// As [`DocumentReader::read`], and for a file of tokens.
pub fn read_texts(path: &Path) -> Result<Vec<String>> {
    if path.is_dir() {
        let texts = texts_in(path)?.iter().map(|file| read_texts(file)).collect::<Result<Vec<_>>>()?;
        return Ok(texts.concat());
    }
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("jsonl") => json_lines::texts(path),
        Some("bin") => Err(Error::invalid_file(path, "found tokens, expected texts to find tokens in")),
        _ => Pieces::open(path, SEPARATOR)?.collect(),
    }
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

/// The text files of a folder and its folders, sorted.
fn texts_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = |source| Error::Io { path: folder.into(), action: "read", source };
    let mut files = vec![];
    for entry in folder.read_dir().map_err(read)? {
        let path = entry.map_err(read)?.path();
        if path.is_dir() {
            files.extend(texts_in(&path)?);
        } else if ["txt", "jsonl"].iter().any(|extension| has_extension(&path, extension)) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests;
