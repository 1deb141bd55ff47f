//! `hornbook config`: the settings in effect and the source of each.

use super::settings::{SETTINGS, Settings, Source, unknown_env_vars, user_config_file};
use super::{Cli, write_json, write_line};
use crate::{Error, Result};
use clap::{Args, CommandFactory};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Show settings and where each value comes from
///
/// In order of precedence, a value comes from: a command-line option; an environment variable; the project's
/// hornbook.toml, in this folder or the nearest parent that has one; the user's hornbook.toml, in the
/// configuration folder (~/.config/hornbook on Linux); the built-in default. A setting applies to every
/// subcommand that has an option of the same name.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hornbook config
  HORNBOOK_TEMPERATURE=0.5 hornbook config
  hornbook config --json

hornbook.toml (every line is optional):
  model = \"gpt2\"
  precision = \"int8\"
  threads = 4
  kv_precision = \"f16\"
  context = \"shift\"

  [sampling]
  temperature = 0.7
  top_k = 40
  top_p = 0.9
  min_p = 0.05
  typical_p = 1.0
  repetition_penalty = 1.1
  presence_penalty = 0.0
  frequency_penalty = 0.0
  no_repeat_ngram_size = 3
  max_tokens = 300

Environment:
  HORNBOOK_MODEL, HORNBOOK_TEMPERATURE, ...  any setting, by its name in capitals
  HORNBOOK_CONFIG  read this file instead of the two above; empty: read none
  HORNBOOK_ISA     force an instruction set: portable, avx2, avx512 or amx")]
pub struct Config {
    /// Print one JSON array
    #[arg(long)]
    json: bool,
}

impl Config {
    pub(super) fn run(self) -> Result<ExitCode> {
        let settings = Settings::load()?;
        let command = Cli::command();
        let mut rows = vec![["setting".to_string(), "value".into(), "from".into()]];
        let mut all = vec![];
        for setting in &SETTINGS {
            let options =
                command.find_subcommand("generate").into_iter().flat_map(clap::Command::get_arguments);
            let default =
                options.filter(|arg| arg.get_id() == setting.key).flat_map(|arg| arg.get_default_values());
            let default = default.map(|value| value.to_string_lossy().into_owned()).next();
            let (value, from, source) = match settings.get(setting) {
                Some((value, source)) => (Some(value.to_string()), source_text(source), Some(source)),
                None => (default, "built-in".into(), None),
            };
            all.push(json!({"setting": setting.name(), "value": value, "from": source_json(source)}));
            rows.push([setting.name(), value.unwrap_or_else(|| setting.fallback.into()), from]);
        }
        if self.json {
            write_json(&Value::from(all))?;
        } else {
            let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            let (name, value) = (width(0), width(1));
            for row in &rows {
                write_line(&format!("{:name$}  {:value$}  {}", row[0], row[1], row[2]))?;
            }
            if let (true, Some(file)) = (settings.files.is_empty(), user_config_file()) {
                stderr_line!(
                    "hornbook: no hornbook.toml in this folder or its parents, and no {}",
                    file.display()
                );
            }
        }
        let variables: Vec<String> = SETTINGS.iter().map(|setting| setting.variable()).collect();
        for name in unknown_env_vars() {
            let suggestion = Error::did_you_mean(&name, variables.iter().map(String::as_str));
            stderr_line!("hornbook: unknown environment variable {name}{suggestion}");
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn source_text(source: &Source) -> String {
    match source {
        Source::Environment(name) => name.clone(),
        Source::File(path, line) => format!("{}:{line}", path.display()),
    }
}

fn source_json(source: Option<&Source>) -> Value {
    match source {
        None => json!({"kind": "built-in"}),
        Some(Source::Environment(name)) => json!({"kind": "environment", "name": name}),
        Some(Source::File(path, line)) => json!({"kind": "file", "path": path, "line": line}),
    }
}
