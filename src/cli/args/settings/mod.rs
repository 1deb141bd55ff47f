//! Settings: default values of options from the environment and from `hornbook.toml`.
//!
//! A setting becomes the default value of the option of the same name, in every subcommand that has one. An
//! option on the command line therefore overrides it, `--help` shows it, and no subcommand needs to handle
//! it.

mod file;
mod schema;

use crate::{Error, Result};
use clap::Command;
use file::Entry;
pub use schema::{SETTINGS, Setting};
use std::env::{current_dir, var_os};
use std::path::{Path, PathBuf};

/// Name of the settings file, in a project's folder and in the user's configuration folder.
const FILE_NAME: &str = "hornbook.toml";
/// Variable with the path of a file to read instead; empty for none.
const CONFIG_VARIABLE: &str = "HORNBOOK_CONFIG";
/// Prefix of the environment variables.
const PREFIX: &str = "HORNBOOK_";
/// Variables with the prefix that are not settings.
const OTHER_VARIABLES: [&str; 3] = [CONFIG_VARIABLE, "HORNBOOK_ISA", "HORNBOOK_LIMITS"];

/// The source of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An environment variable.
    Environment(String),
    /// A line of a file, counted from 1.
    File(PathBuf, usize),
}

/// The settings given by the environment and the files.
#[derive(Debug, Default)]
pub struct Settings {
    /// In the order of [`SETTINGS`].
    values: Vec<(&'static Setting, String, Source)>,
    /// The files that were read, in order of precedence.
    pub files: Vec<PathBuf>,
}

impl Settings {
    /// Reads the environment and the files.
    ///
    /// # Errors
    /// [`Error::Io`] for an existing file that cannot be read, [`Error::Message`] with the line for an
    /// invalid file, [`Error::Parameter`] for an invalid environment variable.
    pub fn load() -> Result<Self> {
        let files = settings_files()?;
        let mut entries = vec![];
        for path in &files {
            entries.push(file::read(path)?);
        }
        let mut values = vec![];
        for setting in SETTINGS.iter() {
            let variable = setting.variable();
            let from_env = match var_os(&variable).filter(|value| !value.is_empty()) {
                None => None,
                Some(value) => {
                    let text = value.to_string_lossy().into_owned();
                    let invalid =
                        |expected| Error::Parameter { name: variable.clone(), found: text.clone(), expected };
                    setting.check(&text).map_err(invalid)?;
                    Some((text, Source::Environment(variable)))
                }
            };
            let from_file = || {
                let pairs = files.iter().zip(&entries);
                pairs.flat_map(|(path, entries)| entries.iter().map(move |entry| (path, entry))).find_map(
                    |(path, entry)| {
                        let Entry { setting: candidate, value, line } = entry;
                        let source = || (value.clone(), Source::File(path.clone(), *line));
                        (candidate.key == setting.key).then(source)
                    },
                )
            };
            if let Some((value, source)) = from_env.or_else(from_file) {
                values.push((setting, value, source));
            }
        }
        Ok(Self { values, files })
    }

    /// Returns the value of a setting and its source, if it is set.
    pub fn get(&self, setting: &Setting) -> Option<(&str, &Source)> {
        let found = self.values.iter().find(|(candidate, ..)| candidate.key == setting.key);
        found.map(|(_, value, source)| (value.as_str(), source))
    }

    /// Returns the command line with the settings as default values.
    pub fn apply(&self, command: Command) -> Command {
        command.mut_subcommands(|subcommand| {
            subcommand.mut_args(|arg| {
                let found = self.values.iter().find(|(setting, ..)| arg.get_id() == setting.key);
                let Some((_, value, _)) = found.filter(|_| !arg.is_positional() && !arg.is_required_set())
                else {
                    return arg;
                };
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                let help = help.split(" [default:").next().unwrap_or_default().to_string();
                arg.help(help).default_value(value.clone())
            })
        })
    }
}

/// Returns the environment variables that have the prefix but are not known.
pub fn unknown_env_vars() -> Vec<String> {
    let mut unknown: Vec<String> = std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| name.starts_with(PREFIX) && !OTHER_VARIABLES.contains(&name.as_str()))
        .filter(|name| !SETTINGS.iter().any(|setting| setting.variable() == *name))
        .collect();
    unknown.sort();
    unknown
}

/// Returns the existing files in order of precedence: the project's, in this folder or its nearest parent
/// that has one, and the user's.
fn settings_files() -> Result<Vec<PathBuf>> {
    if let Some(path) = var_os(CONFIG_VARIABLE) {
        return Ok(if path.is_empty() { vec![] } else { vec![path.into()] });
    }
    let current_dir = current_dir().unwrap_or_default();
    let project_file =
        current_dir.ancestors().map(|folder| folder.join(FILE_NAME)).find(|file| file.is_file());
    let user_file = user_config_file().filter(|file| file.is_file() && Some(file) != project_file.as_ref());
    Ok(project_file.into_iter().chain(user_file).collect())
}

/// Returns the path of the user's file, whether it exists or not.
pub fn user_config_file() -> Option<PathBuf> {
    dirs::config_dir().map(|folder| folder.join("hornbook").join(FILE_NAME))
}

/// The error for a line of a file.
fn line_error(path: &Path, line: usize, problem: &str) -> Error {
    Error::Message(format!("{}:{line}: {problem}", path.display()))
}
