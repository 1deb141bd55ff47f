//! `hornbook keys`: who may ask a server.

use crate::Result;
use crate::cli::write_line;
use crate::server::key_file;
use crate::server::keys::{self, Key};
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Give out keys for a server, and take them back
///
/// The file holds names, limits and the keys' SHA-256, never a key. A running server notices every change at once.
#[derive(Args, Debug)]
#[command(after_help = "Examples, of two tiers of 100 and 1000 requests a minute:
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
    /// Make a key and print it, this once
    Add(Add),
    /// Show the keys' names and limits
    List(KeysFile),
    /// Take a key back
    Remove(Remove),
}

#[derive(Args, Debug)]
struct KeysFile {
    /// The file the keys are kept in
    #[arg(long, value_name = "FILE", default_value = "keys.toml")]
    keys: PathBuf,
}

#[derive(Args, Debug)]
struct Add {
    /// Whose key it is
    name: String,

    /// Requests a minute [default: any number]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rpm: Option<u64>,

    /// Tokens a minute, of prompts and completions [default: any number]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    tpm: Option<u64>,

    /// A model it is good for (can be repeated) [default: all]
    #[arg(long, value_name = "MODEL")]
    model: Vec<String>,

    #[command(flatten)]
    file: KeysFile,
}

#[derive(Args, Debug)]
struct Remove {
    /// Whose key it is
    name: String,

    #[command(flatten)]
    file: KeysFile,
}

impl Keys {
    pub(super) fn run(self) -> Result<ExitCode> {
        match self.command {
            KeysCommand::Add(add) => add.run()?,
            KeysCommand::List(file) => list(&file)?,
            KeysCommand::Remove(Remove { name, file }) => {
                key_file::remove(&file.keys, &name)?;
                eprintln!("hornbook: {name}'s key is no longer good");
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Add {
    fn run(self) -> Result<()> {
        let Self { name, rpm, tpm, model, file } = self;
        let models = Some(model).filter(|models| !models.is_empty());
        let entry = Key { requests_per_minute: rpm, tokens_per_minute: tpm, models, ..Key::named(&name) };
        let key = key_file::add(&file.keys, &entry)?;
        write_line(&key)?;
        eprintln!("hornbook: this is {name}'s key; it is kept nowhere and will not be shown again");
        Ok(())
    }
}

fn list(file: &KeysFile) -> Result<()> {
    let limit =
        |limit: Option<u64>, of: &str| limit.map_or(String::new(), |n| format!("  {n} {of} a minute"));
    for key in keys::read(&file.keys)? {
        let models = key.models.map_or(String::new(), |models| format!("  {} only", models.join(", ")));
        let requests = limit(key.requests_per_minute, "requests");
        write_line(&format!("{:16}{requests}{}{models}", key.name, limit(key.tokens_per_minute, "tokens")))?;
    }
    Ok(())
}
