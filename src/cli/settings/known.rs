//! The settings there are, and which values they take.

use super::PREFIX;
use crate::Options;
use crate::cli::MOST_THREADS;
use crate::model::Precision;

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
    Context,
    Threads,
    /// A whole number from 0 up, and where it goes.
    Count(fn(&mut Options) -> &mut usize),
    /// A number within the sampler's bounds, and where it goes.
    Number(fn(&mut Options) -> &mut f32),
}

const fn machine(key: &'static str, otherwise: &'static str, kind: Kind) -> Setting {
    Setting { key, table: None, otherwise, kind }
}

const fn sampling(key: &'static str, otherwise: &'static str, kind: Kind) -> Setting {
    Setting { key, table: Some("sampling"), otherwise, kind }
}

/// All there are, in the order they are shown.
pub static KNOWN: [Setting; 15] = [
    machine("model", "", Kind::Model),
    machine("precision", "as stored", Kind::Precision),
    machine("threads", "one for each core", Kind::Threads),
    machine("kv_precision", "by precision", Kind::KvPrecision),
    machine("context", "", Kind::Context),
    sampling("temperature", "", Kind::Number(|o| &mut o.sampling.temperature)),
    sampling("top_k", "", Kind::Count(|o| &mut o.sampling.top_k)),
    sampling("top_p", "", Kind::Number(|o| &mut o.sampling.top_p)),
    sampling("min_p", "", Kind::Number(|o| &mut o.sampling.min_p)),
    sampling("typical_p", "", Kind::Number(|o| &mut o.sampling.typical_p)),
    sampling("repetition_penalty", "", Kind::Number(|o| &mut o.sampling.repetition_penalty)),
    sampling("presence_penalty", "", Kind::Number(|o| &mut o.sampling.presence_penalty)),
    sampling("frequency_penalty", "", Kind::Number(|o| &mut o.sampling.frequency_penalty)),
    sampling("no_repeat_ngram_size", "", Kind::Count(|o| &mut o.sampling.no_repeat_ngram_size)),
    sampling("max_tokens", "200", Kind::Count(|o| o.max_tokens.get_or_insert(200))),
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
        matches!(self.kind, Kind::Threads | Kind::Count(_) | Kind::Number(_))
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
            Kind::Context => ok(["stop", "shift"].contains(&text), "stop or shift"),
            Kind::Threads => {
                let threads = text.parse().is_ok_and(|n| (1..=MOST_THREADS).contains(&n));
                ok(threads, &format!("a whole number from 1 to {MOST_THREADS}"))
            }
            Kind::Count(_) | Kind::Number(_) => self.put(&mut Options::default(), text),
        }
    }

    /// Sets it among options, where it is one of theirs.
    ///
    /// # Errors
    /// What was expected; the options are then as they were.
    pub fn put(&self, options: &mut Options, text: &str) -> Result<(), String> {
        let mut changed = options.clone();
        match self.kind {
            Kind::Count(place) => {
                *place(&mut changed) = text.parse().map_err(|_| "a whole number from 0 up")?
            }
            Kind::Number(place) => *place(&mut changed) = text.parse().map_err(|_| "a number")?,
            _ => return Err("a setting of sampling".into()),
        }
        changed.sampling.validate(usize::MAX).map_err(|error| match error {
            crate::Error::Parameter { expected, .. } => expected,
            other => other.to_string(),
        })?;
        *options = changed;
        Ok(())
    }

    /// Its value among options, where it is one of theirs.
    pub fn value(&self, options: &mut Options) -> Option<String> {
        match self.kind {
            Kind::Count(place) => Some(place(options).to_string()),
            Kind::Number(place) => Some(place(options).to_string()),
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
            ("context", "shift"),
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
            ("context", "2048", "stop or shift"),
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
