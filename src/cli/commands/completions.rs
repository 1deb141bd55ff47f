//! `hornbook completions` and `hornbook man`: shell completions and manual pages, generated from the
//! definitions of the command line.

use crate::checkpoint;
use crate::cli::Cli;
use crate::cli::output::stdout::write_line;
use crate::{Error, Result};
use clap::builder::PossibleValuesParser;
use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use std::path::PathBuf;
use std::process::ExitCode;

/// Generate shell completions
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hornbook completions bash >> ~/.bash_completion
  mkdir -p ~/.zfunc && hornbook completions zsh > ~/.zfunc/_hornbook
  mkdir -p ~/.config/fish/completions
  hornbook completions fish > ~/.config/fish/completions/hornbook.fish
  hornbook completions powershell >> $PROFILE")]
pub struct Completions {
    /// Shell to generate completions for
    shell: Shell,
}

/// Generate manual pages
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hornbook man | man -l -
  hornbook man generate | man -l -
  hornbook man --dir ~/.local/share/man/man1   write every page")]
pub struct ManPages {
    /// Subcommand to document [default: hornbook itself]
    subcommand: Option<String>,

    /// Write every page to this folder
    #[arg(long, value_name = "DIR", conflicts_with = "subcommand")]
    dir: Option<PathBuf>,
}

impl Completions {
    pub(super) fn run(self) -> Result<ExitCode> {
        let mut script = vec![];
        let mut command = with_model_names(Cli::command(), &model_names());
        clap_complete::generate(self.shell, &mut command, "hornbook", &mut script);
        write_line(String::from_utf8_lossy(&script).trim_end())?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The names that `--model` takes: the built-in model, those on the hub, and those in the local cache.
fn model_names() -> Vec<&'static str> {
    let hub = checkpoint::HUB_ALIASES.iter().map(|(name, _)| *name);
    // clap wants a `&'static str`: leaked once.
    let cached = checkpoint::cached_models().into_iter().map(|(name, _)| &*name.leak());
    let mut names: Vec<&str> = ["fable"].into_iter().chain(hub).chain(cached).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Makes the names of models values of every argument for a model.
fn with_model_names(command: Command, names: &[&'static str]) -> Command {
    let add_names = |arg: clap::Arg| match arg.get_id() == "model" {
        true => arg.value_parser(PossibleValuesParser::new(names.iter().copied())),
        false => arg,
    };
    command.mut_args(add_names).mut_subcommands(|subcommand| with_model_names(subcommand, names))
}

/// Leaves out the help subcommands, whose pages would only repeat the others.
fn without_help(command: Command) -> Command {
    command.disable_help_subcommand(true).mut_subcommands(without_help)
}

impl ManPages {
    pub(super) fn run(self) -> Result<ExitCode> {
        let mut command = without_help(Cli::command());
        command.build();
        if let Some(folder) = self.dir {
            let write_error = |source| Error::Io { path: folder.clone(), action: "write", source };
            std::fs::create_dir_all(&folder).map_err(write_error)?;
            clap_mangen::generate_to(command, &folder).map_err(write_error)?;
            return Ok(ExitCode::SUCCESS);
        }
        let command = match &self.subcommand {
            None => command,
            Some(name) => {
                let names: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
                let found = command.find_subcommand(name).cloned();
                found.ok_or_else(|| Error::Parameter {
                    name: "man".into(),
                    found: format!("'{}'", name.escape_debug()),
                    expected: format!(
                        "one of {}{}",
                        names.join(", "),
                        Error::did_you_mean(name, names.iter().copied())
                    ),
                })?
            }
        };
        let mut page = vec![];
        let written = Man::new(command).render(&mut page);
        written.map_err(|source| Error::Io { path: "manual page".into(), action: "write", source })?;
        write_line(String::from_utf8_lossy(&page).trim_end())?;
        Ok(ExitCode::SUCCESS)
    }
}
