//! The settings there are, and which values they take.

use super::PREFIX;
use crate::cli::MOST_THREADS;
use crate::model::Precision;
use crate::sampling::SamplingParams;

/// A setting.
#[derive(Debug)]
pub struct Setting {
    /// Its name in a file and among clap's arguments.
    pub key: &'static str,
    /// The table of the file it is in; none at the top.
    pub table: Option<&'static str>,
    /// What holds where no option has a default to show.
    pub otherwise: &'static str,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Model,
    Precision,
    KvPrecision,
    Threads,
    /// A whole number from 0 up.
    Count,
    /// A number within the sampler's bounds.
    Number(fn(&mut SamplingParams, f32)),
}

const fn machine(key: &'static str, otherwise: &'static str, kind: Kind) -> Setting {
    Setting { key, table: None, otherwise, kind }
}

const fn sampling(key: &'static str, otherwise: &'static str, kind: Kind) -> Setting {
    Setting { key, table: Some("sampling"), otherwise, kind }
}

/// All there are, in the order they are shown.
pub static KNOWN: [Setting; 14] = [
    machine("model", "", Kind::Model),
    machine("precision", "as stored", Kind::Precision),
    machine("threads", "one for each core", Kind::Threads),
    machine("kv_precision", "", Kind::KvPrecision),
    sampling("temperature", "", Kind::Number(|params, x| params.temperature = x)),
    sampling("top_k", "", Kind::Count),
    sampling("top_p", "", Kind::Number(|params, x| params.top_p = x)),
    sampling("min_p", "", Kind::Number(|params, x| params.min_p = x)),
    sampling("typical_p", "", Kind::Number(|params, x| params.typical_p = x)),
    sampling("repetition_penalty", "", Kind::Number(|params, x| params.repetition_penalty = x)),
    sampling("presence_penalty", "", Kind::Number(|params, x| params.presence_penalty = x)),
    sampling("frequency_penalty", "", Kind::Number(|params, x| params.frequency_penalty = x)),
    sampling("no_repeat_ngram_size", "", Kind::Count),
    sampling("max_tokens", "200", Kind::Count),
];

impl Setting {
    /// The setting of a name, in a table or at the top.
    pub fn find(table: Option<&str>, key: &str) -> Option<&'static Setting> {
        KNOWN.iter().find(|setting| setting.key == key && setting.table == table)
    }

    /// `sampling.temperature`
    pub fn name(&self) -> String {
        self.table.map_or_else(|| self.key.into(), |table| format!("{table}.{}", self.key))
    }

    /// `HORNBOOK_TEMPERATURE`
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.key.to_uppercase())
    }

    /// Whether a file gives its value as a number.
    pub fn is_number(&self) -> bool {
        matches!(self.kind, Kind::Threads | Kind::Count | Kind::Number(_))
    }

    /// Whether an option would take the value.
    ///
    /// # Errors
    /// What was expected.
    pub fn check(&self, text: &str) -> Result<(), String> {
        let ok = |ok: bool, expected: &str| if ok { Ok(()) } else { Err(expected.to_string()) };
        match self.kind {
            Kind::Model => ok(!text.is_empty(), "a model's name or folder"),
            Kind::Precision => {
                text.parse::<Precision>().map(drop).map_err(|e| e.replacen("expected ", "", 1))
            }
            Kind::KvPrecision => ok(["f32", "f16", "int8"].contains(&text), "f32, f16 or int8"),
            Kind::Threads => {
                let threads = text.parse().is_ok_and(|n| (1..=MOST_THREADS).contains(&n));
                ok(threads, &format!("a whole number from 1 to {MOST_THREADS}"))
            }
            Kind::Count => ok(text.parse::<usize>().is_ok(), "a whole number from 0 up"),
            Kind::Number(set) => {
                let Ok(number) = text.parse() else { return Err("a number".into()) };
                let mut params = SamplingParams::default();
                set(&mut params, number);
                params.validate(usize::MAX).map_err(|error| match error {
                    crate::Error::Parameter { expected, .. } => expected,
                    other => other.to_string(),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory;

    #[test]
    fn every_setting_is_an_option_of_generate() {
        let command = Cli::command();
        let generate = command.find_subcommand("generate").unwrap();
        for setting in &KNOWN {
            let option = generate.get_arguments().find(|arg| arg.get_id() == setting.key);
            let default = option.unwrap_or_else(|| panic!("{}", setting.key)).get_default_values();
            assert_eq!(default.is_empty(), !setting.otherwise.is_empty(), "{}", setting.key);
        }
    }

    #[test]
    fn values_are_held_to_the_options_bounds() {
        let check =
            |key: &str, text: &str| KNOWN.iter().find(|setting| setting.key == key).unwrap().check(text);
        for (key, text) in [
            ("model", "gpt2"),
            ("precision", "bf16-dot"),
            ("threads", "1024"),
            ("kv_precision", "f16"),
            ("temperature", "0"),
            ("top_p", "1"),
            ("presence_penalty", "-2"),
            ("top_k", "40"),
        ] {
            assert_eq!(check(key, text), Ok(()), "{key} {text}");
        }
        for (key, text, expected) in [
            ("model", "", "a model's name or folder"),
            ("precision", "f8", "one of f32, f16, bf16, bf16-dot, int8, int4"),
            ("threads", "0", "a whole number from 1 to 1024"),
            ("threads", "1025", "a whole number from 1 to 1024"),
            ("kv_precision", "int4", "f32, f16 or int8"),
            ("temperature", "-1", "a number from 0 up"),
            ("temperature", "warm", "a number"),
            ("top_p", "1.5", "a number from 0 to 1"),
            ("typical_p", "0", "a number above 0, up to 1"),
            ("top_k", "-1", "a whole number from 0 up"),
            ("top_k", "1.5", "a whole number from 0 up"),
        ] {
            assert_eq!(check(key, text), Err(expected.to_string()), "{key} {text}");
        }
    }
}
