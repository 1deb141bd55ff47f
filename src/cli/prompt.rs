//! Where a prompt comes from: an argument, a file, token ids or standard input.

use crate::{Error, Hornbook, Result};
use clap::Args;
use std::io::{IsTerminal, Read, stdin};
use std::path::PathBuf;

/// A prompt's options.
#[derive(Args, Debug)]
pub struct PromptArgs {
    /// The text; without it, standard input is read
    #[arg(group = "source", value_name = "PROMPT")]
    pub prompt: Option<String>,

    /// Take the prompt from a file
    #[arg(long, value_name = "FILE", group = "source")]
    pub prompt_file: Option<PathBuf>,

    /// Give the prompt as token ids, separated by commas
    #[arg(long, value_name = "IDS", group = "source", value_delimiter = ',')]
    pub prompt_ids: Option<Vec<u32>>,

    /// Read <|endoftext|> and other special tokens in the prompt as such, not as text
    #[arg(long)]
    pub special: bool,
}

/// A prompt, as given.
pub enum Prompt {
    /// To be encoded, special tokens or not.
    Text(String, bool),
    Ids(Vec<u32>),
}

/// Said on a terminal where there is no prompt.
pub fn what_to_type(subcommand: &str, need: &str) -> String {
    format!(
        "hornbook {subcommand} needs {need}. Try:
  hornbook {subcommand} \"Once upon a time\"
  echo \"The little princess\" | hornbook {subcommand}
  hornbook {subcommand} --prompt-file story.txt
More: hornbook {subcommand} --help
"
    )
}

impl PromptArgs {
    /// The prompt; none where there is nobody to ask for it.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be read, [`Error::Message`] for bytes that are no text.
    pub fn read(&self) -> Result<Option<Prompt>> {
        if let Some(ids) = &self.prompt_ids {
            return Ok(Some(Prompt::Ids(ids.clone())));
        }
        let (bytes, from) = match (&self.prompt, &self.prompt_file) {
            (Some(text), _) => return Ok(Some(Prompt::Text(text.clone(), self.special))),
            (None, Some(file)) => (std::fs::read(file), file.clone()),
            (None, None) if stdin().is_terminal() => return Ok(None),
            (None, None) => {
                let mut bytes = vec![];
                (stdin().read_to_end(&mut bytes).map(|_| bytes), "standard input".into())
            }
        };
        let bytes = bytes.map_err(|source| Error::Io { path: from.clone(), action: "read", source })?;
        let mut text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            Error::Message(format!(
                "{}: found a byte that is not UTF-8 at {at}, expected text",
                from.display()
            ))
        })?;
        // The newline that ends a file is not part of what it says.
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
    /// The prompt's tokens.
    ///
    /// # Errors
    /// [`Error::Message`] for a text where the model has no tokenizer.
    pub fn ids(self, hornbook: &Hornbook) -> Result<Vec<u32>> {
        match self {
            Prompt::Ids(ids) => Ok(ids),
            Prompt::Text(text, special) => hornbook.tokenizer()?.encode(&text, special),
        }
    }
}
