//! The command line, one file a subcommand.

mod batch;
mod bench;
mod bytes;
mod changes;
mod chat;
mod completions;
mod config;
mod engines;
mod explain;
mod generate;
mod heads;
mod health;
mod inspect;
mod kernel;
mod keys;
mod kv;
mod machine;
mod memory;
mod models;
mod perplexity;
mod positions;
mod progress;
mod prompt;
mod pull;
mod quantize;
mod sampling;
mod screen;
mod serve;
mod settings;
mod stats;
mod tokens;
mod version;

use crate::kernels::isa::Isa;
use crate::kernels::threads::Team;
use crate::{Error, Result};
use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use settings::Settings;
use std::error::Error as _;
use std::ffi::OsString;
use std::io::{ErrorKind, Write, stdout};
use std::num::{IntErrorKind, NonZeroUsize, ParseFloatError, ParseIntError};
use std::process::ExitCode;

/// GPT-2 on the CPU of this machine: no account, no download, output in a second.
#[derive(Debug, Parser)]
#[command(name = "hornbook", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "Examples:
  hornbook generate \"Once upon a time\"   continue a prompt with the built-in model
  hornbook generate --help               all that can be asked of it, with examples
  hornbook chat                          talk with a model
  hornbook serve                         OpenAI's API on this machine
  hornbook batch in.jsonl -o out.jsonl   a file of requests, as OpenAI's batches have them
  hornbook explain \"Once upon a time\"    every step from text to the next token
  hornbook tokens \"Once upon a time\"     how a text is cut into tokens
  hornbook heads                         which attention head does what
  hornbook positions                     how the model tells positions apart
  hornbook inspect \"Once upon a time\"    what goes on inside
  hornbook perplexity story.txt          how well the model predicts a text
  hornbook bench                         how fast it is on this machine
  hornbook pull gpt2                     a larger model, from the Hugging Face hub
  hornbook quantize gpt2 -p int8 -o DIR  the same model in a quarter of the bytes")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Generate(Box<generate::Generate>),
    Chat(Box<chat::Chat>),
    Explain(explain::Explain),
    Heads(heads::Heads),
    Positions(positions::PositionsArgs),
    Tokens(tokens::Tokens),
    Inspect(Box<inspect::Inspect>),
    Perplexity(perplexity::Perplexity),
    Bench(Box<bench::Bench>),
    Quantize(quantize::Quantize),
    Serve(Box<serve::Serve>),
    Keys(keys::Keys),
    Batch(batch::Batch),
    Pull(pull::Pull),
    Models(models::Models),
    Show(models::Show),
    Config(config::Config),
    Health(health::Health),
    Completions(completions::Completions),
    #[command(name = "man")]
    ManPages(completions::ManPages),
}

/// Reads a command line, with the settings as defaults.
///
/// # Errors
/// The exit code, once it was said in one line what is wrong, or help or the version was shown.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> std::result::Result<Cli, ExitCode> {
    // As long as the program lives, like the rest of what clap shows.
    let command = Cli::command().version(&*version::version().leak());
    let settings = Settings::load();
    let command = match &settings {
        Ok(settings) => settings.apply(command),
        Err(_) => command,
    };
    let parsed = command.try_get_matches_from(arguments);
    let cli = parsed.and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches));
    let cli = cli.map_err(|error| refuse(&error))?;
    match settings {
        // These are for installing the program, wherever that is done.
        Err(_) if matches!(cli.command, Command::Completions(_) | Command::ManPages(_)) => Ok(cli),
        Err(error) => {
            eprintln!("hornbook: {error}");
            Err(ExitCode::FAILURE)
        }
        Ok(_) => Ok(cli),
    }
}

/// Runs what was asked for.
///
/// # Errors
/// Whatever went wrong, to be shown in one line.
pub fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Generate(generate) => generate.run(),
        Command::Chat(chat) => chat.run(),
        Command::Explain(explain) => explain.run(),
        Command::Heads(heads) => heads.run(),
        Command::Positions(positions) => positions.run(),
        Command::Tokens(tokens) => tokens.run(),
        Command::Inspect(inspect) => inspect.run(),
        Command::Perplexity(perplexity) => perplexity.run(),
        Command::Bench(bench) => bench.run(),
        Command::Quantize(quantize) => quantize.run(),
        Command::Serve(serve) => serve.run(),
        Command::Keys(keys) => keys.run(),
        Command::Pull(pull) => pull.run(),
        Command::Models(models) => models.run(),
        Command::Show(show) => show.run(),
        Command::Config(config) => config.run(),
        Command::Health(health) => health.run(),
        Command::Completions(completions) => completions.run(),
        Command::ManPages(pages) => pages.run(),
        Command::Batch(batch) => batch.run(),
    }
}

/// Says in one line what the command line got wrong; prints help and version as they are.
fn refuse(error: &clap::Error) -> ExitCode {
    let message = error.to_string();
    let Some(message) = message.strip_prefix("error: ") else {
        error.exit();
    };
    // The first paragraph says what is wrong, the others how the command is used.
    let wrong: Vec<&str> = message.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let mut wrong = wrong.join(" ");
    if let (Some(reason), Some(number)) = (error.source(), expected_number(error)) {
        wrong = wrong.replace(&format!(": {reason}"), &format!(": expected {number}"));
    }
    let meant = meant(error).map_or_else(|| ";".into(), |meant| format!("; did you mean '{meant}'?"));
    eprintln!("hornbook: {wrong}{meant} --help says what can be asked");
    ExitCode::from(2)
}

/// What a number should have been, where a value is none or the wrong one; the standard library says what it is not.
fn expected_number(error: &clap::Error) -> Option<String> {
    let reason = error.source()?;
    if reason.is::<ParseFloatError>() {
        return Some("a number".into());
    }
    if let Some(reason) = reason.downcast_ref::<ParseIntError>() {
        return Some(match reason.kind() {
            IntErrorKind::Zero => "a whole number from 1 up".into(),
            IntErrorKind::PosOverflow => "a smaller whole number".into(),
            _ => "a whole number".into(),
        });
    }
    let reason = reason.to_string();
    let (_, range) = reason.split_once(" is not in ")?;
    let (least, most) = range.split_once("..=").or_else(|| range.split_once(".."))?;
    Some(match most.parse::<u32>() {
        Ok(most) if most < u32::MAX => format!("a whole number from {least} to {most}"),
        _ => format!("a whole number from {least} up"),
    })
}

/// The option, subcommand or value that clap takes a wrong one for.
fn meant(error: &clap::Error) -> Option<&str> {
    let kinds = [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue];
    kinds.into_iter().find_map(|kind| match error.get(kind)? {
        ContextValue::String(meant) => Some(meant.as_str()),
        ContextValue::Strings(all) => all.first().map(String::as_str),
        _ => None,
    })
}

/// The most threads anyone has a use for; a larger number is a slip of the finger.
const MOST_THREADS: usize = 1024;

/// The threads asked for, or one for each core, with the instruction set they compute with.
fn team(threads: Option<NonZeroUsize>) -> Result<Team> {
    match threads.map_or(0, NonZeroUsize::get) {
        n if n > MOST_THREADS => Err(Error::Parameter {
            name: "--threads".into(),
            found: n.to_string(),
            expected: format!("at most {MOST_THREADS}"),
        }),
        n => Ok(Team::new(n, Isa::choose()?)),
    }
}

/// What could not be written, as the crate's error.
fn write_error(source: std::io::Error) -> Error {
    Error::Io { path: "standard output".into(), action: "write", source }
}

/// A line on standard output. A reader who has had enough, as `head`, ends the program quietly.
fn write_line(line: &str) -> Result<()> {
    match writeln!(stdout().lock(), "{line}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(write_error),
    }
}

/// A value on standard output, for a program to read.
fn write_json(value: &serde_json::Value) -> Result<()> {
    write_line(&format!("{value:#}"))
}

/// Whether a write failed because nobody reads any more.
fn is_closed_pipe(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::BrokenPipe)
}
