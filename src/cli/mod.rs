//! The command line, one file a subcommand.

mod bench;
mod generate;
mod kernel;
mod keys;
mod kv;
mod memory;
mod perplexity;
mod progress;
mod quantize;
mod serve;
mod stats;

use crate::kernels::isa::Isa;
use crate::kernels::threads::Team;
use crate::{Error, Result};
use clap::{Parser, Subcommand};
use std::num::NonZeroUsize;
use std::process::ExitCode;

/// GPT-2 on the CPU of this machine: no account, no download, output in a second.
#[derive(Debug, Parser)]
#[command(name = "hornbook", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "Examples:
  hornbook generate \"Once upon a time\"   continue a prompt with the built-in model
  hornbook generate --help               all that can be asked of it, with examples
  hornbook serve                         OpenAI's API on this machine
  hornbook perplexity story.txt          how well the model predicts a text
  hornbook bench                         how fast it is on this machine
  hornbook quantize gpt2 -p int8 -o DIR  the same model in a quarter of the bytes")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Generate(Box<generate::Generate>),
    Perplexity(perplexity::Perplexity),
    Bench(bench::Bench),
    Quantize(quantize::Quantize),
    Serve(Box<serve::Serve>),
    Keys(keys::Keys),
}

/// Runs what was asked for.
///
/// # Errors
/// Whatever went wrong, to be shown in one line.
pub fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Generate(generate) => generate.run(),
        Command::Perplexity(perplexity) => perplexity.run(),
        Command::Bench(bench) => bench.run(),
        Command::Quantize(quantize) => quantize.run(),
        Command::Serve(serve) => serve.run(),
        Command::Keys(keys) => keys.run(),
    }
}

/// Says in one line what the command line got wrong; prints help and version as they are.
pub fn refuse(error: &clap::Error) -> ExitCode {
    let message = error.to_string();
    let Some(message) = message.strip_prefix("error: ") else {
        error.exit();
    };
    // The first paragraph says what is wrong, the others how the command is used.
    let wrong: Vec<&str> = message.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    eprintln!("hornbook: {}; --help says what can be asked", wrong.join(" "));
    ExitCode::from(2)
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
