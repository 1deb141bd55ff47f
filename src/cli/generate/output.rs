//! Where tokens go as they come: text, ids, or nowhere until the JSON is complete.

use crate::cli::write_error;
use crate::generate::Token;
use crate::generate::completion::{Completion, Logprobs};
use crate::{Error, Hornbook, Result};
use clap::ValueEnum;
use serde_json::Value;
use std::io::{StdoutLock, Write, stdout};

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// The text
    Text,
    /// Token ids, separated by commas; needs no tokenizer
    Ids,
}

impl Form {
    pub fn is_text(self) -> bool {
        self == Form::Text
    }
}

/// Standard output.
pub struct Output<'h> {
    hornbook: &'h Hornbook,
    form: Form,
    /// All is in the JSON.
    silent: bool,
    out: StdoutLock<'static>,
    first: bool,
}

impl<'h> Output<'h> {
    pub fn new(hornbook: &'h Hornbook, form: Form, silent: bool) -> Self {
        Self { hornbook, form, silent, out: stdout().lock(), first: true }
    }

    /// A completion's token, at once.
    pub fn token(&mut self, token: &Token) -> Result<()> {
        match self.form {
            Form::Text => self.text(&token.text),
            Form::Ids => self.ids(&[token.id]),
        }
    }

    /// Text, at once.
    pub fn text(&mut self, text: &str) -> Result<()> {
        if self.form == Form::Text && !text.is_empty() {
            self.write(text)?;
        }
        Ok(())
    }

    /// The prompt, before its completion.
    pub fn prompt(&mut self, ids: &[u32]) -> Result<()> {
        match self.form {
            Form::Text => self.write(&super::decode(self.hornbook, ids)),
            Form::Ids => self.ids(ids),
        }
    }

    /// The end of a completion.
    pub fn end(&mut self, text: &str) -> Result<()> {
        self.first = true;
        match self.form {
            Form::Text if text.ends_with('\n') => Ok(()),
            _ => self.write("\n"),
        }
    }

    /// Between two completions.
    pub fn separator(&mut self) -> Result<()> {
        match self.form {
            Form::Text => self.write("---\n"),
            Form::Ids => Ok(()),
        }
    }

    /// The whole answer, and what else there is to say.
    pub fn json(&mut self, completion: &Completion, besides: Option<(&str, Value)>) -> Result<()> {
        let error = |error: serde_json::Error| Error::Message(error.to_string());
        let json = match besides {
            None => serde_json::to_string_pretty(completion).map_err(error)?,
            Some((name, value)) => {
                let mut answer = serde_json::to_value(completion).map_err(error)?;
                answer[name] = value;
                format!("{answer:#}")
            }
        };
        writeln!(self.out, "{json}").and_then(|()| self.out.flush()).map_err(write_error)
    }

    /// Token ids, at once.
    pub fn ids(&mut self, ids: &[u32]) -> Result<()> {
        for id in ids {
            let comma = if std::mem::take(&mut self.first) { "" } else { "," };
            self.write(&format!("{comma}{id}"))?;
        }
        Ok(())
    }

    fn write(&mut self, text: &str) -> Result<()> {
        if self.silent {
            return Ok(());
        }
        self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()).map_err(write_error)
    }
}

/// The logprobs on standard error, one line a token.
pub fn logprob_table(logprobs: &Logprobs) {
    for ((token, logprob), top) in
        logprobs.tokens.iter().zip(&logprobs.token_logprobs).zip(&logprobs.top_logprobs)
    {
        let logprob = logprob.map_or_else(|| "-".into(), |logprob| format!("{logprob:.4}"));
        let mut top: Vec<(&String, &f32)> = top.iter().flatten().collect();
        top.sort_by(|a, b| b.1.total_cmp(a.1));
        let top: Vec<String> = top.iter().map(|(token, logprob)| format!("{token:?} {logprob:.4}")).collect();
        eprintln!("{:16} {logprob:>9}   {}", format!("{token:?}"), top.join("  "));
    }
}
