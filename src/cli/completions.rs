//! `hornbook completions` and `hornbook man`: shell completions and manual pages, generated from the
//! definitions of the command line.

use super::{Cli, write_line};
use crate::{Error, Result};
use clap::{Args, CommandFactory};
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
        clap_complete::generate(self.shell, &mut Cli::command(), "hornbook", &mut script);
        write_line(String::from_utf8_lossy(&script).trim_end())?;
        Ok(ExitCode::SUCCESS)
    }
}

impl ManPages {
    pub(super) fn run(self) -> Result<ExitCode> {
        let mut command = Cli::command();
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
