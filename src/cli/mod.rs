//! The command line: its subcommands, the options they share, and what they write to.

#[macro_use]
mod output;

mod args;
mod commands;

use crate::Error;
use crate::kernels::isa::Isa;
use args::settings::Settings;
use args::usage_error;
use clap::{CommandFactory, FromArgMatches, Parser};
use commands::Command;
use std::ffi::OsString;
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
  hornbook quantize gpt2 -p int8 -o DIR  quantize a model to a quarter of its size
  hornbook merge gpt2 my-adapter -o DIR  merge a LoRA adapter into its model")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Runs a command line, the program's name first, and reports an error in one line.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match parse(arguments) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    cli.command.run().unwrap_or_else(|error| {
        report_error(&error);
        exit_code(&error)
    })
}

/// Parses a command line, with the settings as default values.
///
/// # Errors
/// Returns the exit code after printing a one-line error, the help or the version.
fn parse(arguments: impl IntoIterator<Item = OsString>) -> std::result::Result<Cli, ExitCode> {
    // clap wants a `&'static str`: leaked once.
    let command = accept_negative_numbers(Cli::command().version(&*version().leak()));
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
        Err(_) if cli.command.is_for_installation() => Ok(cli),
        Err(error) => {
            report_error(&error);
            Err(ExitCode::FAILURE)
        }
        Ok(_) => Ok(cli),
    }
}

/// Reports an error in one line on standard error.
fn report_error(error: &Error) {
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
fn exit_code(error: &Error) -> ExitCode {
    match error {
        Error::Parameter { .. } | Error::TokenId { .. } => ExitCode::from(usage_error::USAGE_ERROR),
        _ => ExitCode::FAILURE,
    }
}

/// The exit code of a program ended by Ctrl-C: 128 + SIGINT.
const INTERRUPTED: u8 = 130;

/// `0.1.0 (9fefcf3a1b2c, avx2)`: the version, the commit if known, and the instruction set in use.
fn version() -> String {
    let isa = Isa::choose().map_or("no instruction set", Isa::name);
    let commit = match env!("HORNBOOK_COMMIT") {
        "" => String::new(),
        commit => format!("{commit}, "),
    };
    format!("{} ({commit}{isa})", env!("CARGO_PKG_VERSION"))
}
