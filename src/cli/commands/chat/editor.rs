//! Line editing at a terminal: history, multi-line input, completion.

use super::command::{COMMANDS, setting_names};
use super::input::is_complete;
use crate::cli::output::screen::Screen;
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
/// Maximum history entries.
const MAX_HISTORY_ENTRIES: usize = 1000;

/// The result of a prompt.
#[derive(Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    Text(String),
    /// Ctrl-C.
    Interrupted,
    /// Ctrl-D.
    EndOfInput,
}

/// A line editor with its history.
pub struct Editor {
    readline: rustyline::Editor<EditorHelper, DefaultHistory>,
    history: Option<PathBuf>,
}

impl Editor {
    /// Creates an editor; with `history` it loads the inputs of earlier runs, if there is a directory for
    /// them.
    pub fn new(screen: Screen, history: bool) -> Result<Self> {
        let config = Config::builder()
            .max_history_size(MAX_HISTORY_ENTRIES)
            .and_then(|config| config.history_ignore_dups(true));
        let config = config.map_err(terminal_error)?.build();
        let mut readline = rustyline::Editor::with_config(config).map_err(terminal_error)?;
        readline.set_helper(Some(EditorHelper {
            screen,
            files: FilenameCompleter::new(),
            empty: Cell::new(true),
        }));
        let history = history.then(history_file).flatten();
        if let Some(file) = &history {
            // A missing history is empty; an unreadable one is reported when it is written.
            let _ = readline.load_history(file);
        }
        Ok(Self { readline, history })
    }

    /// Prompts for an input.
    ///
    /// # Errors
    /// [`Error::Message`] if the terminal cannot be read.
    pub fn read(&mut self) -> Result<ReadOutcome> {
        match self.readline.readline(PROMPT) {
            Ok(text) => {
                self.add_to_history(&text);
                Ok(ReadOutcome::Text(text))
            }
            Err(ReadlineError::Interrupted) => {
                if self.readline.helper().is_some_and(|helper| helper.empty.get()) {
                    stderr_line!("press Ctrl-D or type /quit to exit; Ctrl-C stops an answer\n");
                }
                Ok(ReadOutcome::Interrupted)
            }
            Err(ReadlineError::Eof) => Ok(ReadOutcome::EndOfInput),
            Err(ReadlineError::Signal(_)) => Ok(ReadOutcome::Interrupted), // the window was resized
            Err(error) => Err(terminal_error(error)),
        }
    }

    /// Appends an input to the history file at once, so that it survives a crash.
    fn add_to_history(&mut self, text: &str) {
        if text.trim().is_empty() || !self.readline.add_history_entry(text).unwrap_or(false) {
            return;
        }
        let Some(file) = &self.history else { return };
        let folder = file.parent().map_or(Ok(()), std::fs::create_dir_all);
        let saved = folder.map_err(ReadlineError::from).and_then(|()| self.readline.append_history(file));
        if let Err(error) = saved {
            stderr_line!("{}: cannot write the history, so it is not saved: {error}", file.display());
            self.history = None;
        }
    }
}

fn terminal_error(error: ReadlineError) -> Error {
    Error::Message(format!("cannot read from the terminal: {error}"))
}

/// Path of the history file, which only its owner can read.
fn history_file() -> Option<PathBuf> {
    let folder = dirs::state_dir().or_else(dirs::data_local_dir)?;
    Some(folder.join("hornbook").join("chat_history"))
}

/// Validation, completion and hints for the input line.
struct EditorHelper {
    screen: Screen,
    files: FilenameCompleter,
    /// Whether the line is empty.
    empty: Cell<bool>,
}

impl Helper for EditorHelper {}

impl Validator for EditorHelper {
    fn validate(&self, context: &mut ValidationContext) -> rustyline::Result<ValidationResult> {
        Ok(match is_complete(context.input()) {
            true => ValidationResult::Valid(None),
            false => ValidationResult::Incomplete,
        })
    }
}

impl Completer for EditorHelper {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context) -> rustyline::Result<(usize, Vec<Pair>)> {
        let prefix = &line[..pos];
        match prefix.split_once(' ') {
            None if prefix.starts_with('/') => {
                let names = COMMANDS.iter().map(|spec| match spec.argument {
                    "" => spec.name.to_string(),
                    _ => format!("{} ", spec.name),
                });
                Ok((0, matching(prefix, names)))
            }
            Some(("/set", name)) => {
                Ok((pos - name.len(), matching(name, setting_names().map(|name| format!("{name} ")))))
            }
            Some(("/save" | "/load", _)) => self.files.complete_path(line, pos),
            _ => Ok((pos, vec![])),
        }
    }
}

fn matching(prefix: &str, candidates: impl Iterator<Item = String>) -> Vec<Pair> {
    let matches = candidates.filter(|candidate| candidate.starts_with(prefix));
    matches.map(|name| Pair { display: name.trim_end().into(), replacement: name }).collect()
}

/// Usage of a command, shown after the cursor.
struct UsageHint(String);

impl Hint for UsageHint {
    fn display(&self) -> &str {
        &self.0
    }

    fn completion(&self) -> Option<&str> {
        None
    }
}

impl Hinter for EditorHelper {
    type Hint = UsageHint;

    fn hint(&self, line: &str, _: usize, _: &Context) -> Option<UsageHint> {
        self.empty.set(line.is_empty());
        if line.is_empty() {
            return Some(UsageHint("type a message, or /help".into()));
        }
        let spec = COMMANDS.iter().find(|spec| !spec.argument.is_empty() && spec.name == line.trim_end())?;
        let space = if line.ends_with(' ') { "" } else { " " };
        Some(UsageHint(format!("{space}{}", spec.argument)))
    }
}

impl Highlighter for EditorHelper {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        self.screen.dim(hint).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn helper() -> EditorHelper {
        let screen = Screen { width: 80, color: false };
        EditorHelper { screen, files: FilenameCompleter::new(), empty: Cell::new(true) }
    }

    fn completions(line: &str) -> (usize, Vec<String>) {
        let history = DefaultHistory::new();
        let (start, pairs) = helper().complete(line, line.len(), &Context::new(&history)).unwrap();
        (start, pairs.into_iter().map(|pair| pair.replacement).collect())
    }

    #[test]
    fn commands_settings_and_files_are_completions() {
        assert_eq!(completions("/re"), (0, vec!["/reset".into(), "/retry".into()]));
        assert_eq!(completions("/sys"), (0, vec!["/system ".into()]));
        assert_eq!(completions("/set top_"), (5, vec!["top_k ".into(), "top_p ".into()]));
        assert_eq!(completions("top"), (3, vec![]));
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("talk.json"), "").unwrap();
        let (_, files) = completions(&format!("/load {}/ta", folder.path().display()));
        assert!(files.len() == 1 && files[0].ends_with("talk.json"), "{files:?}");
    }

    #[test]
    fn command_shows_its_argument_as_hint() {
        let history = DefaultHistory::new();
        let hint = |line: &str| helper().hint(line, line.len(), &Context::new(&history)).map(|hint| hint.0);
        assert_eq!(hint("").unwrap(), "type a message, or /help");
        assert_eq!(hint("/save").unwrap(), " FILE");
        assert_eq!(hint("/save ").unwrap(), "FILE");
        assert_eq!((hint("/save x"), hint("/retry"), hint("Hello")), (None, None, None));
    }
}
