//! The command line, one file per subcommand.

#[macro_use]
mod stderr;

mod attention_kernel;
mod batch;
mod bench;
mod byte_size;
mod chat;
mod completions;
mod config;
mod engine_args;
mod explain;
mod generate;
mod heads;
mod health;
mod inspect;
mod interventions;
mod keys;
mod kv_precision;
mod memory;
mod model_args;
mod models;
mod perplexity;
mod positions;
mod precision;
mod progress;
mod prompt;
mod pull;
mod quantize;
mod sampling;
mod screen;
mod serve;
mod settings;
mod stats;
mod synonyms;
mod tokens;
mod usage_error;
mod version;
mod word_wrap;

use crate::checkpoint::Checkpoint;
use crate::kernels::isa::Isa;
use crate::kernels::thread_pool::ThreadPool;
use crate::model::Precision;
use crate::tokenizer::Tokenizer;
use crate::{Error, Hornbook, Result};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use settings::Settings;
use std::ffi::OsString;
use std::io::{ErrorKind, Write, stdout};
use std::num::NonZeroUsize;
use std::process::ExitCode;

/// GPT-2 inference on the CPU, with a small model built in
#[derive(Debug, Parser)]
#[command(name = "hornbook", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "Examples:
  hornbook generate \"Once upon a time\"   generate text with the built-in model
  hornbook generate --help               show all options, with more examples
  hornbook chat                          chat with a model
  hornbook serve                         serve the OpenAI API on this machine
  hornbook batch --help                  process a file of OpenAI batch requests
  hornbook explain \"Once upon a time\"    walk through the computation of the next token
  hornbook tokens \"Once upon a time\"     show how a text is tokenized
  hornbook heads                         score attention heads (induction, previous token, ...)
  hornbook positions                     compare position embeddings
  hornbook inspect \"Once upon a time\"    show attention, logit lens and logit attribution
  hornbook perplexity --help             measure perplexity on a text
  hornbook bench                         measure tokens per second on this machine
  hornbook pull gpt2                     download a model from the Hugging Face hub
  hornbook quantize gpt2 -p int8 -o DIR  quantize a model to a quarter of its size")]
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

/// Parses a command line, with the settings as default values.
///
/// # Errors
/// Returns the exit code after printing a one-line error, the help or the version.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> std::result::Result<Cli, ExitCode> {
    // clap wants a `&'static str`: leaked once.
    let command = accept_negative_numbers(Cli::command().version(&*version::version().leak()));
    let settings = Settings::load();
    let command = match &settings {
        Ok(settings) => settings.apply(command),
        Err(_) => command,
    };
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let parsed = command.try_get_matches_from(&arguments);
    let cli = parsed.and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches));
    let cli = cli.map_err(|error| usage_error::report(&error, &arguments))?;
    match settings {
        // Both serve to install the program, and work whatever the settings are.
        Err(_) if matches!(cli.command, Command::Completions(_) | Command::ManPages(_)) => Ok(cli),
        Err(error) => {
            report_error(&error);
            Err(ExitCode::FAILURE)
        }
        Ok(_) => Ok(cli),
    }
}

/// Reports an error in one line on standard error.
pub fn report_error(error: &Error) {
    stderr_line!("hornbook: {error}");
}

/// Makes a negative number the value of the option before it, so that the error names the range.
fn accept_negative_numbers(command: clap::Command) -> clap::Command {
    let accept = |arg: clap::Arg| match arg.is_positional() || !arg.get_action().takes_values() {
        true => arg,
        false => arg.allow_negative_numbers(true),
    };
    command.mut_args(accept).mut_subcommands(accept_negative_numbers)
}

/// Returns the exit code of an error: 2 for a mistake in the command line, 1 for a failure.
pub fn exit_code(error: &Error) -> ExitCode {
    match error {
        Error::Parameter { .. } | Error::TokenId { .. } => ExitCode::from(usage_error::USAGE_ERROR),
        _ => ExitCode::FAILURE,
    }
}

/// Runs the subcommand.
///
/// # Errors
/// Returns the subcommand's error, whose message is one line.
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

/// Upper bound of `--threads`; a larger number is a typing error.
const MAX_THREADS: usize = 1024;

/// The exit code of a program ended by Ctrl-C: 128 + SIGINT.
const INTERRUPTED: u8 = 130;

/// A pool of `threads`, or of one per core, with the instruction set in use.
fn thread_pool(threads: Option<NonZeroUsize>) -> Result<ThreadPool> {
    let threads = threads.map_or(0, NonZeroUsize::get);
    check_threads(threads)?;
    Ok(ThreadPool::new(threads, Isa::choose()?))
}

fn check_threads(threads: usize) -> Result<()> {
    match threads <= MAX_THREADS {
        true => Ok(()),
        false => Err(Error::Parameter {
            name: "--threads".into(),
            found: threads.to_string(),
            expected: format!("at most {MAX_THREADS}"),
        }),
    }
}

/// Opens a model, and prints notes on files that disagree with each other.
fn open_checkpoint(model: &str) -> Result<Checkpoint> {
    let checkpoint = Checkpoint::open(model)?;
    for note in &checkpoint.notes {
        stderr_line!("hornbook: {note}");
    }
    Ok(checkpoint)
}

/// Opens a model to run it, and prints notes on its files.
fn open_hornbook(model: &str, pool: ThreadPool, precision: Option<Precision>) -> Result<Hornbook> {
    let hornbook = Hornbook::with_precision(open_checkpoint(model)?, pool, precision)?;
    let special = hornbook.try_tokenizer().map(Tokenizer::special_tokens);
    print_tokenizer_problems(special.map_or(&[], |special| &special.problems));
    Ok(hornbook)
}

/// Prints notes on parts of the tokenizer's files that cannot be read and are not used.
fn print_tokenizer_problems(problems: &[Error]) {
    for problem in problems {
        stderr_line!("hornbook: {problem}; not used");
    }
}

/// The error of a failed write to standard output.
fn write_error(source: std::io::Error) -> Error {
    Error::Io { path: "standard output".into(), action: "write", source }
}

/// Prints a line to standard output. A closed pipe, as of `| head`, is no error.
fn write_line(line: &str) -> Result<()> {
    match writeln!(stdout().lock(), "{line}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(write_error),
    }
}

/// Prints a JSON value to standard output.
fn write_json(value: &serde_json::Value) -> Result<()> {
    write_line(&format!("{value:#}"))
}

/// Whether a write failed because the reader closed the pipe.
fn is_closed_pipe(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::BrokenPipe)
}
