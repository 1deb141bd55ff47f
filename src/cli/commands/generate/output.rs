//! Streaming output of a completion as text or token ids; with `--json`, nothing before the end.

use crate::cli::output::screen::{Screen, terminal_width};
use crate::cli::output::stdout::write_error;
use crate::cli::output::word_wrap::WordWrap;
use crate::generate::completion::{Completion, Logprobs};
use crate::generate::{FinishReason, Token};
use crate::{Error, Hornbook, Result};
use clap::ValueEnum;
use serde_json::Value;
use std::io::{StdoutLock, Write, stdout};

/// The output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// Text
    Text,
    /// Comma-separated token ids; no tokenizer needed
    Ids,
}

impl OutputFormat {
    pub fn is_text(self) -> bool {
        self == OutputFormat::Text
    }
}

/// Standard output.
pub struct Output<'h> {
    hornbook: &'h Hornbook,
    format: OutputFormat,
    /// Nothing is streamed: everything goes into the JSON.
    silent: bool,
    out: StdoutLock<'static>,
    /// The line breaks and colors of text at a terminal.
    terminal: Option<(WordWrap, Screen)>,
    /// Whether the next id is the first on its line.
    first_id: bool,
    /// Whether the note on an empty text was printed.
    empty_note_printed: bool,
}

impl<'h> Output<'h> {
    pub fn new(hornbook: &'h Hornbook, format: OutputFormat, silent: bool) -> Self {
        let width = terminal_width().filter(|_| format.is_text() && !silent);
        let terminal = width.and_then(|width| Some((WordWrap::new(width), Screen::new(None).ok()?)));
        Self {
            hornbook,
            format,
            silent,
            out: stdout().lock(),
            terminal,
            first_id: true,
            empty_note_printed: false,
        }
    }

    /// Whether text is written to a terminal.
    pub fn is_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// Writes and flushes a token of a completion.
    pub fn token(&mut self, token: &Token) -> Result<()> {
        match self.format {
            OutputFormat::Text => self.text(&token.text),
            OutputFormat::Ids => self.ids(&[token.id]),
        }
    }

    /// Writes and flushes text; nothing in the format of ids.
    pub fn text(&mut self, text: &str) -> Result<()> {
        match &mut self.terminal {
            _ if self.format != OutputFormat::Text || text.is_empty() => Ok(()),
            Some((wrap, _)) => {
                let wrapped = wrap.push(text);
                self.write(&wrapped)
            }
            None => self.write(text),
        }
    }

    /// Writes the prompt, before its completion; dimmed at a terminal.
    pub fn prompt(&mut self, ids: &[u32]) -> Result<()> {
        match self.format {
            OutputFormat::Text => {
                let (text, _) = super::decode_prompt(self.hornbook, ids);
                let text = match &mut self.terminal {
                    Some((wrap, screen)) => {
                        let text = wrap.push(&text) + &wrap.finish();
                        if text.is_empty() { text } else { screen.dim(&text) }
                    }
                    None => text,
                };
                self.write(&text)
            }
            OutputFormat::Ids => self.ids(ids),
        }
    }

    /// Ends the line of a completion. An empty text looks like no result: a note, printed once, tells the
    /// tokens that ended it.
    pub fn end(&mut self, text: &str, ids: &[u32], finish_reason: FinishReason) -> Result<()> {
        self.first_id = true;
        if let Some((wrap, _)) = &mut self.terminal {
            let rest = wrap.end_line();
            self.write(&rest)?;
        }
        if !self.format.is_text() || !text.ends_with('\n') {
            self.write("\n")?;
        }
        let ended_at_once = text.is_empty() && finish_reason == FinishReason::Stop;
        if let (true, Some(tokenizer)) = (ended_at_once, self.hornbook.try_tokenizer())
            && self.format.is_text()
            && !self.silent
            && !std::mem::replace(&mut self.empty_note_printed, true)
        {
            let kind = if ids.len() == 1 { "token was" } else { "tokens were" };
            stderr_line!("hornbook: the text ended at once: the first {kind} {:?}", tokenizer.decode(ids));
        }
        Ok(())
    }

    /// Writes the separator between two completions.
    pub fn separator(&mut self) -> Result<()> {
        match self.format {
            OutputFormat::Text => self.write("---\n"),
            OutputFormat::Ids => Ok(()),
        }
    }

    /// Writes the completion as JSON, with one more field if given.
    pub fn json(&mut self, completion: &Completion, extra_field: Option<(&str, Value)>) -> Result<()> {
        let error = |error: serde_json::Error| Error::Message(error.to_string());
        let json = match extra_field {
            None => serde_json::to_string_pretty(completion).map_err(error)?,
            Some((name, value)) => {
                let mut json = serde_json::to_value(completion).map_err(error)?;
                json[name] = value;
                format!("{json:#}")
            }
        };
        writeln!(self.out, "{json}").and_then(|()| self.out.flush()).map_err(write_error)
    }

    /// Writes and flushes token ids.
    pub fn ids(&mut self, ids: &[u32]) -> Result<()> {
        for id in ids {
            let comma = if std::mem::take(&mut self.first_id) { "" } else { "," };
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

/// Prints the logprobs on standard error, one line per token.
pub fn print_logprobs(logprobs: &Logprobs) {
    for ((token, logprob), top) in
        logprobs.tokens.iter().zip(&logprobs.token_logprobs).zip(&logprobs.top_logprobs)
    {
        let logprob = logprob.map_or_else(|| "-".into(), |logprob| format!("{logprob:.4}"));
        let mut top: Vec<(&String, &f32)> = top.iter().flatten().collect();
        top.sort_by(|a, b| b.1.total_cmp(a.1));
        let top: Vec<String> = top.iter().map(|(token, logprob)| format!("{token:?} {logprob:.4}")).collect();
        stderr_line!("{:16} {logprob:>9}   {}", format!("{token:?}"), top.join("  "));
    }
}
