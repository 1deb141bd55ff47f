//! `hornbook config`: the settings in effect and the source of each.

use crate::checkpoint::{Checkpoint, DEFAULT_MODEL, GENERATION_CONFIG};
use crate::cli::Cli;
use crate::cli::args::settings::{SETTINGS, Settings, Source, unknown_env_vars, user_config_file};
use crate::cli::output::stdout::write_json;
use crate::cli::output::stdout::write_line;
use crate::{Error, Options, Result};
use clap::{Args, CommandFactory};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// Show settings and where each value comes from
///
/// In order of precedence, a value comes from: a command-line option; an environment variable; the project's
/// hornbook.toml, in this folder or the nearest parent that has one; the user's hornbook.toml, in the
/// configuration folder (~/.config/hornbook on Linux); the model's generation_config.json; the built-in
/// default. A setting applies to every subcommand that has an option of the same name.
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
  HORNBOOK_ISA     force an instruction set, e.g. portable; an unknown one lists those there are
  HORNBOOK_LIMITS  the Redis server of 'hornbook serve --limits'")]
pub struct Config {
    /// Print one JSON array
    #[arg(long)]
    json: bool,
}

impl Config {
    pub(super) fn run(self) -> Result<ExitCode> {
        let settings = Settings::load()?;
        let command = Cli::command();
        let model = settings.get(&SETTINGS[0]).map_or(DEFAULT_MODEL, |(model, _)| model);
        let (file, of_model) = model_defaults(model).unwrap_or_else(|error| {
            stderr_line!("hornbook: {error}");
            Default::default()
        });
        let mut rows = vec![["setting".to_string(), "value".into(), "from".into()]];
        let mut all = vec![];
        for setting in SETTINGS.iter() {
            let options =
                command.find_subcommand("generate").into_iter().flat_map(clap::Command::get_arguments);
            let default =
                options.filter(|arg| arg.get_id() == setting.key).flat_map(|arg| arg.get_default_values());
            let default = default.map(|value| value.to_string_lossy().into_owned()).next();
            let default = default.or_else(|| setting.value_in(&Options::default()));
            let key = if setting.key == "max_tokens" { "max_new_tokens" } else { setting.key };
            let of_model = of_model.iter().find(|(name, _)| *name == key);
            let (value, from, source) = match (settings.get(setting), of_model) {
                (Some((value, source)), _) => (Some(value.into()), source_text(source), source_json(source)),
                (None, Some((_, value))) => {
                    let source = json!({"kind": "model", "path": file});
                    (Some(value.clone()), file.display().to_string(), source)
                }
                (None, None) => (default, "built-in".into(), json!({"kind": "built-in"})),
            };
            all.push(json!({"setting": setting.name(), "value": value, "from": source}));
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

/// The defaults in the `generation_config.json` of a model, and the path of that file.
fn model_defaults(model: &str) -> Result<(PathBuf, Vec<(&'static str, String)>)> {
    let checkpoint = Checkpoint::open(model)?;
    let defaults = checkpoint.generation_config()?.defaults();
    Ok((checkpoint.folder.unwrap_or(checkpoint.name.into()).join(GENERATION_CONFIG), defaults))
}

fn source_json(source: &Source) -> Value {
    match source {
        Source::Environment(name) => json!({"kind": "environment", "name": name}),
        Source::File(path, line) => json!({"kind": "file", "path": path, "line": line}),
    }
}
