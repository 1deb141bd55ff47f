//! Errors of the command line, each in one line with what to type instead.

use crate::cli::Cli;
use crate::cli::args::synonyms;
use clap::builder::ValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, CommandFactory};
use std::error::Error as _;
use std::ffi::OsString;
use std::num::{IntErrorKind, NonZeroUsize, ParseFloatError, ParseIntError};
use std::process::ExitCode;

/// The exit code for a mistake in the command line.
pub const USAGE_ERROR: u8 = 2;

/// Prints a usage error in one line; prints help and version unchanged.
pub fn report(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    let message = error.to_string();
    let Some(message) = message.strip_prefix("error: ") else {
        error.exit();
    };
    // The first paragraph is the error, the others are tips and usage.
    let problem: Vec<&str> = message.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let mut problem = problem.join(" ");
    let line = CommandLine::new(arguments);
    if let (Some(reason), Some(number)) = (error.source(), line.expected_number(error)) {
        problem = problem.replace(&format!(": {reason}"), &format!(": expected {number}"));
    }
    let see = line.hint(error).map_or_else(|| "see".into(), |hint| format!("{hint} See"));
    stderr_line!("hornbook: {problem}; {see} '{} --help'", line.path);
    ExitCode::from(USAGE_ERROR)
}

/// The arguments, and the subcommand that they name.
struct CommandLine {
    arguments: Vec<String>,
    command: Command,
    /// The program and its subcommands, as `hornbook keys add`.
    path: String,
}

impl CommandLine {
    fn new(arguments: &[OsString]) -> Self {
        let mut command = Cli::command();
        let mut path = command.get_name().to_string();
        for argument in arguments.iter().skip(1) {
            let Some(subcommand) = command.find_subcommand(argument).cloned() else { break };
            path += &format!(" {}", subcommand.get_name());
            command = subcommand;
        }
        let arguments = arguments.iter().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
        Self { arguments, command, path }
    }

    /// What to type instead, as a sentence.
    fn hint(&self, error: &clap::Error) -> Option<String> {
        match error.kind() {
            ErrorKind::UnknownArgument => {
                let invalid = text(error, ContextKind::InvalidArg)?;
                match invalid.starts_with('-') {
                    true => self.unknown_option(invalid),
                    false => self.surplus_word(),
                }
            }
            ErrorKind::InvalidSubcommand => {
                self.unknown_subcommand(text(error, ContextKind::InvalidSubcommand)?)
            }
            ErrorKind::InvalidValue => {
                let ContextValue::Strings(values) = error.get(ContextKind::ValidValue)? else { return None };
                let given = text(error, ContextKind::InvalidValue)?;
                let values: Vec<&str> = values.iter().map(String::as_str).collect();
                did_you_mean(&[synonyms::value(given, &values).or_else(|| closest(given, &values))?])
            }
            _ => None,
        }
    }

    /// A hint for an option that the subcommand does not have: another name, or how to write a text that
    /// begins with a dash.
    fn unknown_option(&self, invalid: &str) -> Option<String> {
        // clap names the first letter of an unknown short option.
        let index = self.arguments.iter().position(|a| a == invalid);
        let index = index.or_else(|| self.arguments.iter().position(|a| a.starts_with(invalid)))?;
        let raw = &self.arguments[index];
        let (name, _) = raw.split_once('=').unwrap_or((raw, ""));
        if is_option_name(name) {
            let long = format!("--{}", name.trim_start_matches('-').to_lowercase().replace('_', "-"));
            let (short, names) = (!name.starts_with("--") && name.len() == 2, self.option_names());
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            if names.contains(&name) {
                return Some(format!("what follows -- is text: {name} comes before it."));
            }
            let found = match short {
                true => synonyms::option(name, &names),
                false => synonyms::option(&long, &names).or_else(|| closest(&long, &names)),
            };
            if let Some(found) = found {
                return did_you_mean(&[found]);
            }
            if synonyms::PROMPT_OPTIONS.contains(&name) && self.takes_prompt() {
                let prompt = self.arguments.get(index + 1).map_or("Once upon a time", String::as_str);
                return Some(format!("the prompt needs no option: {} {}.", self.path, quoted(prompt)));
            }
        }
        match index.checked_sub(1).map(|before| &self.arguments[before]) {
            Some(option) if self.takes_value(option) => {
                let separator = if option.starts_with("--") { "=" } else { "" };
                Some(format!(
                    "a value that begins with a dash is joined to its option: {option}{separator}{}.",
                    quoted(raw)
                ))
            }
            _ if !is_option_name(name) && self.command.get_positionals().next().is_some() => {
                let path = &self.path;
                Some(format!("a text that begins with a dash follows --: {path} -- {}.", quoted(raw)))
            }
            _ => None,
        }
    }

    /// A hint for a word after the prompt.
    fn surplus_word(&self) -> Option<String> {
        if !self.takes_prompt() {
            return None;
        }
        let prompt = quoted(&self.positional_words().join(" "));
        Some(format!("a prompt of several words stands in quotes: {} {prompt}.", self.path))
    }

    /// The words that are neither options nor their values.
    fn positional_words(&self) -> Vec<&str> {
        let subcommands = self.path.split(' ').count() - 1;
        let (mut words, mut arguments) = (vec![], self.arguments.iter().skip(subcommands));
        while let Some(argument) = arguments.next() {
            if !argument.starts_with('-') {
                words.push(argument.as_str());
            } else if self.takes_value(argument) {
                arguments.next();
            }
        }
        words
    }

    /// A hint for an unknown subcommand: another name, or `generate` for a prompt.
    fn unknown_subcommand(&self, word: &str) -> Option<String> {
        let names: Vec<&str> = self.command.get_subcommands().map(Command::get_name).collect();
        if word.chars().all(|c| c.is_ascii_lowercase() || c == '-') {
            let synonyms = synonyms::subcommands(word, &names);
            if !synonyms.is_empty() {
                return did_you_mean(&synonyms);
            }
            if let Some(name) = closest(word, &names) {
                return did_you_mean(&[name]);
            }
        }
        if !names.contains(&"generate") {
            return None;
        }
        if synonyms::DELETE.contains(&word) {
            return Some("a model is deleted with its folder, which 'hornbook show NAME' names.".into());
        }
        let index = self.arguments.iter().position(|argument| argument == word)?;
        Some(format!("to continue a text: {} generate {}.", self.path, quoted(&self.words_from(index))))
    }

    /// The words from an argument to the next option.
    fn words_from(&self, index: usize) -> String {
        let words = self.arguments[index..].iter().take_while(|argument| !argument.starts_with('-'));
        words.map(String::as_str).collect::<Vec<_>>().join(" ")
    }

    fn takes_prompt(&self) -> bool {
        self.command.get_positionals().any(|argument| argument.get_id() == "prompt")
    }

    /// Whether an argument is an option of the subcommand that takes a value.
    fn takes_value(&self, name: &str) -> bool {
        self.command.get_opts().any(|option| {
            long_name(option).as_deref() == Some(name) || short_name(option).as_deref() == Some(name)
        })
    }

    fn option_names(&self) -> Vec<String> {
        let options = self.command.get_arguments().filter(|argument| !argument.is_positional());
        options.flat_map(|option| long_name(option).into_iter().chain(short_name(option))).collect()
    }

    /// The number an option expects, where its value is not a number or out of range. The messages of the
    /// standard library do not name it.
    fn expected_number(&self, error: &clap::Error) -> Option<String> {
        let reason = error.source()?;
        if reason.is::<ParseFloatError>() {
            return Some("a number".into());
        }
        if let Some(reason) = reason.downcast_ref::<ParseIntError>() {
            let is_negative = text(error, ContextKind::InvalidValue)?.starts_with('-');
            return Some(match reason.kind() {
                IntErrorKind::Zero => "an integer of at least 1".into(),
                IntErrorKind::PosOverflow => "a smaller integer".into(),
                _ if is_negative => format!("an integer of at least {}", self.min_value(error)),
                _ => "an integer".into(),
            });
        }
        let reason = reason.to_string();
        let (_, range) = reason.split_once(" is not in ")?;
        let (min, max) = range.split_once("..=").or_else(|| range.split_once(".."))?;
        Some(match max.parse::<u32>() {
            Ok(max) if max < u32::MAX => format!("an integer from {min} to {max}"),
            _ => format!("an integer of at least {min}"),
        })
    }

    /// The smallest value of the unsigned option in the error.
    fn min_value(&self, error: &clap::Error) -> u32 {
        let name = text(error, ContextKind::InvalidArg).and_then(|name| name.split(' ').next());
        let option = self.command.get_arguments().find(|option| {
            name.is_some() && (long_name(option).as_deref() == name || short_name(option).as_deref() == name)
        });
        let non_zero = ValueParser::from(clap::value_parser!(NonZeroUsize)).type_id();
        u32::from(option.is_some_and(|option| option.get_value_parser().type_id() == non_zero))
    }
}

fn long_name(option: &Arg) -> Option<String> {
    option.get_long().map(|name| format!("--{name}"))
}

fn short_name(option: &Arg) -> Option<String> {
    option.get_short().map(|name| format!("-{name}"))
}

fn text(error: &clap::Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text),
        _ => None,
    }
}

/// Whether an argument looks like an option rather than a text: `--top_k`, `-t`, `-temp`.
fn is_option_name(argument: &str) -> bool {
    let name = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')).unwrap_or_default();
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

fn did_you_mean(names: &[&str]) -> Option<String> {
    Some(format!("did you mean '{}'?", names.join("' or '")))
}

/// The name that a misspelled or shortened one stands for, if there is no doubt.
fn closest<'a>(given: &str, names: &[&'a str]) -> Option<&'a str> {
    let given = given.to_lowercase();
    let bare = given.trim_start_matches('-');
    let max_distance = 1 + bare.len() / 5;
    let distance = |name: &str| strsim::osa_distance(&given, &name.to_lowercase());
    let nearest = names.iter().copied().filter(|name| name.len() > 2 || given.len() <= 2);
    let nearest = nearest.min_by_key(|name| distance(name)).filter(|name| distance(name) <= max_distance);
    let mut longer = names.iter().copied().filter(|name| bare.len() > 1 && name.starts_with(&given));
    nearest.or_else(|| longer.next().filter(|_| longer.next().is_none()))
}

/// A text as an argument, in quotes of the shell.
fn quoted(text: &str) -> String {
    match text.contains(['"', '$', '`', '\\', '!']) {
        true => format!("'{}'", text.replace('\'', r"'\''")),
        false => format!("\"{text}\""),
    }
}
