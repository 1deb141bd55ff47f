//! The settings and the values they accept.

use super::PREFIX;
use crate::Options;
use crate::kernels::thread_pool::MAX_THREADS;
use crate::model::Precision;
use crate::sampling::{PARAMETERS, Parameter};
use std::sync::LazyLock;

/// A setting.
#[derive(Debug)]
pub struct Setting {
    /// Its key in a file, and the id of its clap argument.
    pub key: &'static str,
    /// Its table in a file; `None` at the top level.
    pub table: Option<&'static str>,
    /// Shown by `hornbook config` for no value.
    pub fallback: &'static str,
    kind: ValueKind,
}

#[derive(Debug)]
enum ValueKind {
    Model,
    Precision,
    KvPrecision,
    Context,
    Threads,
    Sampling(&'static Parameter),
    MaxTokens,
}

fn top_level(key: &'static str, fallback: &'static str, kind: ValueKind) -> Setting {
    Setting { key, table: None, fallback, kind }
}

fn sampling(key: &'static str, kind: ValueKind) -> Setting {
    Setting { key, table: Some("sampling"), fallback: "", kind }
}

/// All settings, in the order of `hornbook config`.
pub static SETTINGS: LazyLock<Vec<Setting>> = LazyLock::new(|| {
    let mut settings = vec![
        top_level("model", "", ValueKind::Model),
        top_level("precision", "as stored", ValueKind::Precision),
        top_level("threads", "one per core", ValueKind::Threads),
        top_level("kv_precision", "depends on precision", ValueKind::KvPrecision),
        top_level("context", "", ValueKind::Context),
    ];
    settings
        .extend(PARAMETERS.iter().map(|parameter| sampling(parameter.name, ValueKind::Sampling(parameter))));
    settings.push(sampling("max_tokens", ValueKind::MaxTokens));
    settings
});

impl Setting {
    /// Returns the setting with this key in this table, or at the top level.
    pub fn find(table: Option<&str>, key: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.key == key && setting.table == table)
    }

    /// Returns the full name, as `sampling.temperature`.
    pub fn name(&self) -> String {
        self.table.map_or_else(|| self.key.into(), |table| format!("{table}.{}", self.key))
    }

    /// Returns the environment variable, as `HORNBOOK_TEMPERATURE`.
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.key.to_uppercase())
    }

    /// Whether its value in a file is a number rather than a string.
    pub fn is_number(&self) -> bool {
        matches!(self.kind, ValueKind::Threads | ValueKind::Sampling(_) | ValueKind::MaxTokens)
    }

    /// Checks a value.
    ///
    /// # Errors
    /// Returns what was expected.
    pub fn check(&self, text: &str) -> Result<(), String> {
        let require = |valid: bool, expected: &str| if valid { Ok(()) } else { Err(expected.to_string()) };
        match self.kind {
            ValueKind::Model => require(!text.is_empty(), "a model name or folder"),
            ValueKind::Precision => {
                text.parse::<Precision>().map(drop).map_err(|e| e.replacen("expected ", "", 1))
            }
            ValueKind::KvPrecision => require(["f32", "f16", "int8"].contains(&text), "f32, f16 or int8"),
            ValueKind::Context => require(["stop", "shift"].contains(&text), "stop or shift"),
            ValueKind::Threads => {
                let in_range = text.parse().is_ok_and(|n| (1..=MAX_THREADS).contains(&n));
                require(in_range, &format!("an integer from 1 to {MAX_THREADS}"))
            }
            ValueKind::Sampling(_) | ValueKind::MaxTokens => self.apply_to(&mut Options::default(), text),
        }
    }

    /// Sets the value in `options`, for a setting of sampling.
    ///
    /// # Errors
    /// Returns what was expected, and leaves the options unchanged.
    pub fn apply_to(&self, options: &mut Options, text: &str) -> Result<(), String> {
        match self.kind {
            ValueKind::Sampling(parameter) => parameter.set(&mut options.sampling, parameter.parse(text)?),
            ValueKind::MaxTokens => {
                options.max_tokens = Some(text.parse().map_err(|_| "a non-negative integer")?);
            }
            _ => return Err("a sampling setting".into()),
        }
        Ok(())
    }

    /// Returns the value in `options`, for a setting of sampling.
    pub fn value_in(&self, options: &Options) -> Option<String> {
        match self.kind {
            ValueKind::Sampling(parameter) => Some(parameter.get(&options.sampling).to_string()),
            ValueKind::MaxTokens => Some(options.max_tokens.unwrap_or(200).to_string()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory;

    #[test]
    fn every_setting_is_option_of_generate() {
        let command = Cli::command();
        let generate = command.find_subcommand("generate").unwrap();
        for setting in SETTINGS.iter() {
            let option = generate.get_arguments().find(|arg| arg.get_id() == setting.key);
            let option = option.unwrap_or_else(|| panic!("{}", setting.key));
            let default = option.get_default_values();
            match setting.value_in(&Options::default()) {
                Some(value) if default.is_empty() => {
                    let help = option.get_help().unwrap().to_string();
                    assert!(help.contains(&format!("[default: {value}")), "{help}");
                }
                Some(value) => assert_eq!(default, [value.as_str()], "{}", setting.key),
                None => assert_eq!(default.is_empty(), !setting.fallback.is_empty(), "{}", setting.key),
            }
        }
    }

    #[test]
    fn setting_check_enforces_bounds_of_option() {
        let check =
            |key: &str, text: &str| SETTINGS.iter().find(|setting| setting.key == key).unwrap().check(text);
        for (key, text) in [
            ("model", "gpt2"),
            ("precision", "bf16-dot"),
            ("threads", "1024"),
            ("kv_precision", "f16"),
            ("context", "shift"),
            ("temperature", "0"),
            ("top_p", "1"),
            ("presence_penalty", "-2"),
            ("top_k", "40"),
        ] {
            assert_eq!(check(key, text), Ok(()), "{key} {text}");
        }
        for (key, text, expected) in [
            ("model", "", "a model name or folder"),
            ("precision", "f8", "one of f32, f16, bf16, bf16-dot, int8, int4"),
            ("threads", "0", "an integer from 1 to 1024"),
            ("threads", "1025", "an integer from 1 to 1024"),
            ("kv_precision", "int4", "f32, f16 or int8"),
            ("context", "2048", "stop or shift"),
            ("temperature", "-1", "a non-negative number"),
            ("temperature", "warm", "a number"),
            ("top_p", "1.5", "a number from 0 to 1"),
            ("typical_p", "0", "a number above 0 and at most 1"),
            ("top_k", "-1", "a non-negative integer"),
            ("top_k", "1.5", "a non-negative integer"),
        ] {
            assert_eq!(check(key, text), Err(expected.to_string()), "{key} {text}");
        }
    }
}
