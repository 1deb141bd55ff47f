//! A line of a terminal, edited: history, several lines, completion.

use super::command::{COMMANDS, setting_names};
use super::input::is_complete;
use crate::cli::screen::Screen;
use crate::{Error, Result};
use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::{Hint, Hinter};
use rustyline::history::DefaultHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Config, Context, Helper};
use std::borrow::Cow;
use std::cell::Cell;
use std::path::PathBuf;

const PROMPT: &str = ">>> ";
/// Lines of the history.
const KEPT: usize = 1000;

/// What came of a prompt.
#[derive(Debug, PartialEq, Eq)]
pub enum Typed {
    Text(String),
    /// Ctrl-C.
    Nothing,
    /// Ctrl-D.
    End,
}

/// A line editor with its history.
pub struct Editor {
    lines: rustyline::Editor<Help, DefaultHistory>,
    history: Option<PathBuf>,
}

impl Editor {
    /// One with what was typed in earlier runs, where a history is wanted and there is a place for it.
    pub fn new(screen: Screen, history: bool) -> Result<Self> {
        let config =
            Config::builder().max_history_size(KEPT).and_then(|config| config.history_ignore_dups(true));
        let config = config.map_err(terminal)?.build();
        let mut lines = rustyline::Editor::with_config(config).map_err(terminal)?;
        lines.set_helper(Some(Help { screen, files: FilenameCompleter::new(), empty: Cell::new(true) }));
        let history = history.then(history_file).flatten();
        if let Some(file) = &history {
            // A history that is not there yet is empty; one that cannot be read says so when it is to be written.
            let _ = lines.load_history(file);
        }
        Ok(Self { lines, history })
    }

    /// Asks for a text.
    ///
    /// # Errors
    /// [`Error::Message`] for a terminal that cannot be read.
    pub fn read(&mut self) -> Result<Typed> {
        match self.lines.readline(PROMPT) {
            Ok(text) => {
                self.keep(&text);
                Ok(Typed::Text(text))
            }
            Err(ReadlineError::Interrupted) => {
                if self.lines.helper().is_some_and(|help| help.empty.get()) {
                    eprintln!("Ctrl-D or /quit ends the conversation; Ctrl-C ends an answer\n");
                }
                Ok(Typed::Nothing)
            }
            Err(ReadlineError::Eof) => Ok(Typed::End),
            Err(ReadlineError::Signal(_)) => Ok(Typed::Nothing), // the window has another size
            Err(error) => Err(terminal(error)),
        }
    }

    /// Adds a text to the history, at once: it outlives whatever ends the program.
    fn keep(&mut self, text: &str) {
        if text.trim().is_empty() || !self.lines.add_history_entry(text).unwrap_or(false) {
            return;
        }
        let Some(file) = &self.history else { return };
        let folder = file.parent().map_or(Ok(()), std::fs::create_dir_all);
        let kept = folder.map_err(ReadlineError::from).and_then(|()| self.lines.append_history(file));
        if let Err(error) = kept {
            eprintln!("{}: cannot write the history, and will not: {error}", file.display());
            self.history = None;
        }
    }
}

fn terminal(error: ReadlineError) -> Error {
    Error::Message(format!("the terminal: {error}"))
}

/// Where the history is kept, readable to its owner alone.
fn history_file() -> Option<PathBuf> {
    let folder = dirs::state_dir().or_else(dirs::data_local_dir)?;
    Some(folder.join("hornbook").join("chat_history"))
}

/// What the editor knows of what is typed.
struct Help {
    screen: Screen,
    files: FilenameCompleter,
    /// Whether nothing was typed yet.
    empty: Cell<bool>,
}

impl Helper for Help {}

impl Validator for Help {
    fn validate(&self, context: &mut ValidationContext) -> rustyline::Result<ValidationResult> {
        Ok(match is_complete(context.input()) {
            true => ValidationResult::Valid(None),
            false => ValidationResult::Incomplete,
        })
    }
}

impl Completer for Help {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context) -> rustyline::Result<(usize, Vec<Pair>)> {
        let typed = &line[..pos];
        match typed.split_once(' ') {
            None if typed.starts_with('/') => {
                let spaced = COMMANDS.iter().map(|known| match known.argument {
                    "" => known.name.to_string(),
                    _ => format!("{} ", known.name),
                });
                Ok((0, beginning_with(typed, spaced)))
            }
            Some(("/set", name)) => {
                Ok((pos - name.len(), beginning_with(name, setting_names().map(|name| format!("{name} ")))))
            }
            Some(("/save" | "/load", _)) => self.files.complete_path(line, pos),
            _ => Ok((pos, vec![])),
        }
    }
}

fn beginning_with(typed: &str, all: impl Iterator<Item = String>) -> Vec<Pair> {
    let fitting = all.filter(|whole| whole.starts_with(typed));
    fitting.map(|whole| Pair { display: whole.trim_end().into(), replacement: whole }).collect()
}

/// What may be typed, shown behind what was.
struct Usage(String);

impl Hint for Usage {
    fn display(&self) -> &str {
        &self.0
    }

    fn completion(&self) -> Option<&str> {
        None
    }
}

impl Hinter for Help {
    type Hint = Usage;

    fn hint(&self, line: &str, _: usize, _: &Context) -> Option<Usage> {
        self.empty.set(line.is_empty());
        if line.is_empty() {
            return Some(Usage("a message, or /help".into()));
        }
        let known =
            COMMANDS.iter().find(|known| !known.argument.is_empty() && known.name == line.trim_end())?;
        let space = if line.ends_with(' ') { "" } else { " " };
        Some(Usage(format!("{space}{}", known.argument)))
    }
}

impl Highlighter for Help {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        self.screen.dim(hint).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help() -> Help {
        let screen = Screen { width: 80, color: false };
        Help { screen, files: FilenameCompleter::new(), empty: Cell::new(true) }
    }

    fn completed(line: &str) -> (usize, Vec<String>) {
        let history = DefaultHistory::new();
        let (start, pairs) = help().complete(line, line.len(), &Context::new(&history)).unwrap();
        (start, pairs.into_iter().map(|pair| pair.replacement).collect())
    }

    #[test]
    fn commands_settings_and_files_are_completed() {
        assert_eq!(completed("/re"), (0, vec!["/reset".into(), "/retry".into()]));
        assert_eq!(completed("/sys"), (0, vec!["/system ".into()]));
        assert_eq!(completed("/set top_"), (5, vec!["top_k ".into(), "top_p ".into()]));
        assert_eq!(completed("top"), (3, vec![]));
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("talk.json"), "").unwrap();
        let (_, files) = completed(&format!("/load {}/ta", folder.path().display()));
        assert!(files.len() == 1 && files[0].ends_with("talk.json"), "{files:?}");
    }

    #[test]
    fn a_command_shows_what_it_needs() {
        let history = DefaultHistory::new();
        let hint = |line: &str| help().hint(line, line.len(), &Context::new(&history)).map(|usage| usage.0);
        assert_eq!(hint("").unwrap(), "a message, or /help");
        assert_eq!(hint("/save").unwrap(), " FILE");
        assert_eq!(hint("/save ").unwrap(), "FILE");
        assert_eq!((hint("/save x"), hint("/retry"), hint("Hello")), (None, None, None));
    }
}
