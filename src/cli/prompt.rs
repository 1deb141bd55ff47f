//! The prompt: an argument, a file, token ids or standard input.

use crate::{Error, Hornbook, Result};
use clap::Args;
use std::io::{IsTerminal, Read, stdin};
use std::path::PathBuf;

/// The options for the prompt.
#[derive(Args, Debug)]
pub struct PromptArgs {
    /// Prompt text [default: read from standard input]
    #[arg(group = "source", value_name = "PROMPT")]
    pub prompt: Option<String>,

    /// Read the prompt from a file
    #[arg(long, value_name = "FILE", group = "source")]
    pub prompt_file: Option<PathBuf>,

    /// Prompt as comma-separated token ids
    #[arg(long, value_name = "IDS", group = "source", value_delimiter = ',')]
    pub prompt_ids: Option<Vec<u32>>,

    /// Parse <|endoftext|> and other special tokens in the prompt
    #[arg(long)]
    pub special: bool,
}

/// A prompt as the user gave it.
pub enum Prompt {
    /// Text, and whether special tokens are parsed in it.
    Text(String, bool),
    /// Token ids.
    Ids(Vec<u32>),
}

/// The hint for a subcommand run at a terminal without the input that it requires.
pub fn missing_input_hint(subcommand: &str, input: &str) -> String {
    format!(
        "hornbook {subcommand} requires {input}. Examples:
  hornbook {subcommand} \"Once upon a time\"
  echo \"The little princess\" | hornbook {subcommand}
  hornbook {subcommand} --prompt-file story.txt
See 'hornbook {subcommand} --help' for all options.
"
    )
}

impl PromptArgs {
    /// Reads the prompt; `None` if there is none and standard input is a terminal.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be read, [`Error::Message`] for invalid UTF-8.
    pub fn read(&self) -> Result<Option<Prompt>> {
        if let Some(ids) = &self.prompt_ids {
            return Ok(Some(Prompt::Ids(ids.clone())));
        }
        let (bytes, path) = match (&self.prompt, &self.prompt_file) {
            (Some(text), _) => return Ok(Some(Prompt::Text(text.clone(), self.special))),
            (None, Some(file)) => (std::fs::read(file), file.clone()),
            (None, None) if stdin().is_terminal() => return Ok(None),
            (None, None) => {
                let mut bytes = vec![];
                (stdin().read_to_end(&mut bytes).map(|_| bytes), "standard input".into())
            }
        };
        let bytes = bytes.map_err(|source| Error::Io { path: path.clone(), action: "read", source })?;
        let mut text = String::from_utf8(bytes).map_err(|error| {
            let offset = error.utf8_error().valid_up_to();
            Error::Message(format!(
                "{}: found invalid UTF-8 at byte {offset}, expected UTF-8 text",
                path.display()
            ))
        })?;
        // The newline at the end of a file is not part of the prompt.
        if text.ends_with('\n') {
            text.pop();
            if text.ends_with('\r') {
                text.pop();
            }
        }
        Ok(Some(Prompt::Text(text, self.special)))
    }
}

impl Prompt {
    /// Returns the prompt's token ids.
    ///
    /// # Errors
    /// [`Error::Message`] for text if the model has no tokenizer.
    pub fn ids(self, hornbook: &Hornbook) -> Result<Vec<u32>> {
        match self {
            Prompt::Ids(ids) => Ok(ids),
            Prompt::Text(text, special) => hornbook.tokenizer()?.encode(&text, special),
        }
    }
}
