//! What an option is where the command line does not say: the environment, then a file, then what is built in.
//!
//! A setting becomes the default value of the option of its name, in every subcommand that has one. So a flag goes
//! before it, `--help` shows it, and no subcommand knows of it.

mod file;
mod known;

use crate::{Error, Result};
use clap::Command;
use file::Entry;
pub use known::{KNOWN, Setting};
use std::env::{current_dir, var_os};
use std::path::{Path, PathBuf};

/// The file's name, in a project's folder and in the user's.
const FILE: &str = "hornbook.toml";
/// Names a file to read instead; empty for none.
const CONFIG: &str = "HORNBOOK_CONFIG";
/// What the environment variables begin with.
const PREFIX: &str = "HORNBOOK_";
/// Variables that are no settings.
const OTHERS: [&str; 2] = [CONFIG, "HORNBOOK_ISA"];

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An environment variable.
    Environment(String),
    /// A line of a file.
    File(PathBuf, usize),
}

/// The settings that somebody made.
#[derive(Debug, Default)]
pub struct Settings {
    /// In the order of [`KNOWN`].
    made: Vec<(&'static Setting, String, Source)>,
    /// The files that were read, the one that counts more first.
    pub files: Vec<PathBuf>,
}

impl Settings {
    /// Reads the environment and the files.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that is there but cannot be read, [`Error::Message`] for one that cannot be understood
    /// and for a value no option would take, with its line or variable.
    pub fn load() -> Result<Self> {
        let files = files()?;
        let mut entries = vec![];
        for path in &files {
            entries.push(file::read(path)?);
        }
        let mut made = vec![];
        for setting in &KNOWN {
            let variable = setting.variable();
            let by_environment = match var_os(&variable).filter(|value| !value.is_empty()) {
                None => None,
                Some(value) => {
                    let text = value.to_string_lossy().into_owned();
                    let wrong =
                        |expected| Error::Parameter { name: variable.clone(), found: text.clone(), expected };
                    setting.check(&text).map_err(wrong)?;
                    Some((text, Source::Environment(variable)))
                }
            };
            let by_file = || {
                let pairs = files.iter().zip(&entries);
                pairs.flat_map(|(path, entries)| entries.iter().map(move |entry| (path, entry))).find_map(
                    |(path, entry)| {
                        let Entry { setting: of, value, line } = entry;
                        (of.key == setting.key).then(|| (value.clone(), Source::File(path.clone(), *line)))
                    },
                )
            };
            if let Some((value, source)) = by_environment.or_else(by_file) {
                made.push((setting, value, source));
            }
        }
        Ok(Self { made, files })
    }

    /// The value somebody gave a setting, and where.
    pub fn get(&self, setting: &Setting) -> Option<(&str, &Source)> {
        let made = self.made.iter().find(|(of, ..)| of.key == setting.key);
        made.map(|(_, value, source)| (value.as_str(), source))
    }

    /// The command line with these as defaults.
    pub fn apply(&self, command: Command) -> Command {
        command.mut_subcommands(|subcommand| {
            subcommand.mut_args(|arg| {
                let made = self.made.iter().find(|(setting, ..)| arg.get_id() == setting.key);
                let Some((_, value, _)) = made.filter(|_| !arg.is_positional() && !arg.is_required_set())
                else {
                    return arg;
                };
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                let help = help.split(" [default:").next().unwrap_or_default().to_string();
                // As long as the program lives, like the defaults in its text.
                arg.help(help).default_value(&*value.clone().leak())
            })
        })
    }
}

/// Variables that begin as ours do and are none of ours.
pub fn unknown_variables() -> Vec<String> {
    let mut unknown: Vec<String> = std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| name.starts_with(PREFIX) && !OTHERS.contains(&name.as_str()))
        .filter(|name| !KNOWN.iter().any(|setting| setting.variable() == *name))
        .collect();
    unknown.sort();
    unknown
}

/// The files there are: the project's, which is in this folder or the nearest above it, and the user's.
fn files() -> Result<Vec<PathBuf>> {
    if let Some(named) = var_os(CONFIG) {
        return Ok(if named.is_empty() { vec![] } else { vec![named.into()] });
    }
    let here = current_dir().unwrap_or_default();
    let of_project = here.ancestors().map(|folder| folder.join(FILE)).find(|file| file.is_file());
    let of_user = user_file().filter(|file| file.is_file() && Some(file) != of_project.as_ref());
    Ok(of_project.into_iter().chain(of_user).collect())
}

/// Where the user's file is, or would be.
pub fn user_file() -> Option<PathBuf> {
    dirs::config_dir().map(|folder| folder.join("hornbook").join(FILE))
}

/// A wrong line of a file.
fn wrong_line(path: &Path, line: usize, problem: &str) -> Error {
    Error::Message(format!("{}:{line}: {problem}", path.display()))
}
