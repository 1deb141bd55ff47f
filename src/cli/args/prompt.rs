//! The prompt: an argument, a file, token ids or standard input.

use crate::{Hornbook, Result, text_file};
use clap::Args;
use std::io::{IsTerminal, stdin};
use std::num::ParseIntError;
use std::path::{Path, PathBuf};

/// The options for the prompt.
#[derive(Args, Debug)]
pub struct PromptArgs {
    /// Prompt text; - for standard input, which is also the default
    #[arg(group = "source", value_name = "PROMPT")]
    pub prompt: Option<String>,

    /// Read the prompt from a file; - for standard input
    #[arg(long, value_name = "FILE", group = "source")]
    pub prompt_file: Option<PathBuf>,

    /// Prompt as comma-separated token ids
    #[arg(long, value_name = "IDS", group = "source", value_delimiter = ',', value_parser = parse_token_id)]
    pub prompt_ids: Option<Vec<u32>>,

    /// Parse <|endoftext|> and other special tokens in the prompt
    #[arg(long)]
    pub special: bool,
}

/// Parses a token id of a list, which may have spaces after its commas.
pub fn parse_token_id(text: &str) -> std::result::Result<u32, ParseIntError> {
    text.trim().parse()
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
    /// As [`text_file::read`].
    pub fn read(&self) -> Result<Option<Prompt>> {
        if let Some(ids) = &self.prompt_ids {
            return Ok(Some(Prompt::Ids(ids.clone())));
        }
        let mut text = match (&self.prompt, &self.prompt_file) {
            (Some(text), _) if text != "-" => {
                let text = text.strip_prefix(text_file::BOM).unwrap_or(text);
                return Ok(Some(Prompt::Text(text.into(), self.special)));
            }
            (None, Some(file)) => text_file::read(file)?,
            (None, None) if stdin().is_terminal() => return Ok(None),
            _ => text_file::read(Path::new("-"))?,
        };
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
    /// [`Error::NoTokenizer`](crate::Error::NoTokenizer) for text.
    pub fn ids(self, hornbook: &Hornbook) -> Result<Vec<u32>> {
        match self {
            Prompt::Ids(ids) => Ok(ids),
            Prompt::Text(text, special) => hornbook.tokenizer()?.encode(&text, special),
        }
    }
}
