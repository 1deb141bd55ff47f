//! The settings and the values they accept.

use super::PREFIX;
use crate::Options;
use crate::cli::args::open::MAX_THREADS;
use crate::model::Precision;

/// A setting.
#[derive(Debug)]
pub struct Setting {
    /// Its key in a file, and the id of its clap argument.
    pub key: &'static str,
    /// Its table in a file; `None` at the top level.
    pub table: Option<&'static str>,
    /// Shown by `hornbook config` if the option has no default value.
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
    /// A non-negative integer, and its field of the options.
    Count(fn(&mut Options) -> &mut usize),
    /// A number within the sampler's bounds, and its field of the options.
    Number(fn(&mut Options) -> &mut f32),
}

const fn top_level(key: &'static str, fallback: &'static str, kind: ValueKind) -> Setting {
    Setting { key, table: None, fallback, kind }
}

const fn sampling(key: &'static str, fallback: &'static str, kind: ValueKind) -> Setting {
    Setting { key, table: Some("sampling"), fallback, kind }
}

/// All settings, in the order of `hornbook config`.
pub static SETTINGS: [Setting; 15] = [
    top_level("model", "", ValueKind::Model),
    top_level("precision", "as stored", ValueKind::Precision),
    top_level("threads", "one per core", ValueKind::Threads),
    top_level("kv_precision", "depends on precision", ValueKind::KvPrecision),
    top_level("context", "", ValueKind::Context),
    sampling("temperature", "0.8", ValueKind::Number(|o| &mut o.sampling.temperature)),
    sampling("top_k", "0", ValueKind::Count(|o| &mut o.sampling.top_k)),
    sampling("top_p", "0.95", ValueKind::Number(|o| &mut o.sampling.top_p)),
    sampling("min_p", "0", ValueKind::Number(|o| &mut o.sampling.min_p)),
    sampling("typical_p", "1", ValueKind::Number(|o| &mut o.sampling.typical_p)),
    sampling("repetition_penalty", "1", ValueKind::Number(|o| &mut o.sampling.repetition_penalty)),
    sampling("presence_penalty", "", ValueKind::Number(|o| &mut o.sampling.presence_penalty)),
    sampling("frequency_penalty", "", ValueKind::Number(|o| &mut o.sampling.frequency_penalty)),
    sampling("no_repeat_ngram_size", "0", ValueKind::Count(|o| &mut o.sampling.no_repeat_ngram_size)),
    sampling("max_tokens", "200", ValueKind::Count(|o| o.max_tokens.get_or_insert(200))),
];

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
        matches!(self.kind, ValueKind::Threads | ValueKind::Count(_) | ValueKind::Number(_))
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
            ValueKind::Count(_) | ValueKind::Number(_) => self.apply_to(&mut Options::default(), text),
        }
    }

    /// Sets the value in `options`, for a setting of sampling.
    ///
    /// # Errors
    /// Returns what was expected, and leaves the options unchanged.
    pub fn apply_to(&self, options: &mut Options, text: &str) -> Result<(), String> {
        let mut changed = options.clone();
        match self.kind {
            ValueKind::Count(field) => {
                *field(&mut changed) = text.parse().map_err(|_| "a non-negative integer")?
            }
            ValueKind::Number(field) => *field(&mut changed) = text.parse().map_err(|_| "a number")?,
            _ => return Err("a sampling setting".into()),
        }
        changed.sampling.validate(usize::MAX).map_err(|error| match error {
            crate::Error::Parameter { expected, .. } => expected,
            other => other.to_string(),
        })?;
        *options = changed;
        Ok(())
    }

    /// Returns the value in `options`, for a setting of sampling.
    pub fn value_in(&self, options: &mut Options) -> Option<String> {
        match self.kind {
            ValueKind::Count(field) => Some(field(options).to_string()),
            ValueKind::Number(field) => Some(field(options).to_string()),
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
        for setting in &SETTINGS {
            let option = generate.get_arguments().find(|arg| arg.get_id() == setting.key);
            let default = option.unwrap_or_else(|| panic!("{}", setting.key)).get_default_values();
            assert_eq!(default.is_empty(), !setting.fallback.is_empty(), "{}", setting.key);
            if setting.table == Some("sampling") && default.is_empty() {
                let value = setting.value_in(&mut Options::default()).unwrap();
                assert_eq!(setting.fallback, value, "{}", setting.key);
                let help = option.and_then(|arg| arg.get_help()).unwrap().to_string();
                assert!(help.contains(&format!("[default: {value}")), "{help}");
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
