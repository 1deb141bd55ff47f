//! `hornbook keys`: API keys of a server.

use crate::Result;
use crate::cli::output::stdout::write_line;
use crate::server::key_file;
use crate::server::keys::{self, Key};
use clap::builder::RangedI64ValueParser;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Manage the API keys of a server
///
/// The key file stores names, limits and SHA-256 hashes, never the keys. A running server picks up changes at
/// once.
#[derive(Args, Debug)]
#[command(after_help = "Examples, with tiers of 100 and 1000 requests per minute:
  hornbook keys add alice --rpm 100 --tpm 20000 --keys keys.toml
  hornbook keys add bob --rpm 1000 --keys keys.toml
  hornbook keys list --keys keys.toml
  hornbook keys remove alice --keys keys.toml
  hornbook serve --keys keys.toml")]
pub struct Keys {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Create a key and print it, once
    Add(Add),
    /// List the names and limits of the keys
    List(KeysFile),
    /// Revoke a key
    Remove(Remove),
}

#[derive(Args, Debug)]
struct KeysFile {
    /// Key file
    #[arg(long, value_name = "FILE", default_value = "keys.toml")]
    keys: PathBuf,
}

#[derive(Args, Debug)]
struct Add {
    /// Name of the key
    name: String,

    /// Limit of requests per minute [default: none]
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    rpm: Option<u64>,

    /// Limit of tokens per minute, of prompts and completions [default: none]
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    tpm: Option<u64>,

    /// Limit of fine-tuning jobs that have not ended [default: the server's --max-jobs-per-key]
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    max_jobs: Option<u64>,

    /// Model that the key may use (repeatable) [default: all]
    #[arg(long, value_name = "MODEL")]
    model: Vec<String>,

    #[command(flatten)]
    file: KeysFile,
}

#[derive(Args, Debug)]
struct Remove {
    /// Name of the key
    name: String,

    #[command(flatten)]
    file: KeysFile,
}

/// Parses an integer of at least 1.
fn at_least_one() -> RangedI64ValueParser<u64> {
    RangedI64ValueParser::new().range(1..)
}

impl Keys {
    pub(super) fn run(self) -> Result<ExitCode> {
        match self.command {
            KeysCommand::Add(add) => add.run()?,
            KeysCommand::List(file) => list(&file)?,
            KeysCommand::Remove(Remove { name, file }) => {
                key_file::remove(&file.keys, &name)?;
                stderr_line!("hornbook: removed key '{name}'");
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Add {
    fn run(self) -> Result<()> {
        let Self { name, rpm, tpm, max_jobs, model, file } = self;
        let models = Some(model).filter(|models| !models.is_empty());
        let entry =
            Key { requests_per_minute: rpm, tokens_per_minute: tpm, max_jobs, models, ..Key::named(&name) };
        let key = key_file::add(&file.keys, &entry)?;
        write_line(&key)?;
        stderr_line!("hornbook: created key '{name}'; it is not stored and will not be shown again");
        Ok(())
    }
}

fn list(file: &KeysFile) -> Result<()> {
    let limit = |limit: Option<u64>, unit: &str| limit.map_or(String::new(), |n| format!("  {n} {unit}"));
    for key in keys::read(&file.keys)? {
        let models = key.models.map_or(String::new(), |models| format!("  models: {}", models.join(", ")));
        let requests = limit(key.requests_per_minute, "requests per minute");
        let tokens = limit(key.tokens_per_minute, "tokens per minute");
        let jobs = limit(key.max_jobs, "fine-tuning jobs");
        write_line(&format!("{:16}{requests}{tokens}{jobs}{models}", key.name))?;
    }
    Ok(())
}
