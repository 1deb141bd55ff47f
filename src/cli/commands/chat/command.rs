//! Chat commands.

use crate::cli::args::settings::{SETTINGS, Setting};
use crate::{Error, Options, Result};
use rustyline::completion::unescape;
use std::path::PathBuf;

/// The description of a command.
pub struct CommandSpec {
    /// Name, including the slash.
    pub name: &'static str,
    /// Argument; in brackets if optional.
    pub argument: &'static str,
    /// Description.
    pub about: &'static str,
}

const fn spec(name: &'static str, argument: &'static str, about: &'static str) -> CommandSpec {
    CommandSpec { name, argument, about }
}

/// All commands, in the order of `/help`.
pub static COMMANDS: [CommandSpec; 10] = [
    spec("/help", "", "show this list"),
    spec("/reset", "", "clear the conversation, except for the system message"),
    spec("/system", "[TEXT]", "show or set the system message; \"\" removes it"),
    spec("/temperature", "[T]", "show or set the temperature: 0 is greedy, above 1 more random"),
    spec("/set", "[NAME VALUE]", "show or set a sampling setting or the seed; without a name, list all"),
    spec("/retry", "", "regenerate the last answer with the next seed"),
    spec("/save", "FILE", "save the conversation to a file"),
    spec("/load", "FILE", "load a conversation from a file"),
    spec("/stats", "", "show statistics of the last answer and the context usage"),
    spec("/quit", "", "exit, like Ctrl-D"),
];

/// Command names of other programs.
const ALIASES: [(&str, &str); 6] = [
    ("/?", "/help"),
    ("/clear", "/reset"),
    ("/regen", "/retry"),
    ("/exit", "/quit"),
    ("/bye", "/quit"),
    ("/q", "/quit"),
];

/// A parsed command.
#[derive(Debug, PartialEq)]
pub enum Command {
    Help,
    Reset,
    /// Shows the system message if `None`; removes it if empty.
    System(Option<String>),
    /// A setting's name and new value; shows the setting without a value, all settings if `None`.
    Set(Option<(String, Option<String>)>),
    Retry,
    Save(PathBuf),
    Load(PathBuf),
    Stats,
    Quit,
}

impl Command {
    /// Parses a line that starts with a slash.
    ///
    /// # Errors
    /// [`Error::Message`] for an unknown command, with a suggestion, and for a missing or unexpected
    /// argument.
    pub fn parse(line: &str) -> Result<Self> {
        let (given, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let alias = ALIASES.iter().find(|(alias, _)| *alias == given);
        let name = alias.map_or(given, |(_, name)| name);
        let Some(spec) = COMMANDS.iter().find(|spec| spec.name == name) else {
            let suggestion = Error::did_you_mean(given, COMMANDS.iter().map(|spec| spec.name));
            let suggestion = if suggestion.is_empty() { ";".into() } else { suggestion };
            return Err(Error::Message(format!(
                "unknown command '{}'{suggestion} see /help; \
                 to send a message that starts with /, put a space first",
                given.escape_debug()
            )));
        };
        let argument = Some(argument.trim()).filter(|argument| !argument.is_empty());
        let invalid = |expected: &str| {
            let found = argument.map_or("nothing".into(), |found| format!("'{}'", found.escape_debug()));
            Err(Error::Message(format!("{name}: found {found}, expected {expected}")))
        };
        if spec.argument.is_empty() && argument.is_some() {
            return invalid("no argument");
        }
        let file = argument.map(|file| {
            // Quoted or escaped, as completion writes it.
            let quoted = unquote(file);
            PathBuf::from(quoted.map_or_else(|| unescape(file, escape_char()).into_owned(), String::from))
        });
        Ok(match (name, argument) {
            ("/help", _) => Self::Help,
            ("/reset", _) => Self::Reset,
            ("/system", text) => Self::System(text.map(|text| unquote(text).unwrap_or(text).into())),
            ("/temperature", value) => Self::Set(Some(("temperature".into(), value.map(String::from)))),
            ("/set", None) => Self::Set(None),
            ("/set", Some(argument)) => {
                let (setting, value) = argument.split_once([' ', '=']).unwrap_or((argument, ""));
                let value = Some(value.trim()).filter(|value| !value.is_empty());
                Self::Set(Some((setting.into(), value.map(String::from))))
            }
            ("/retry", _) => Self::Retry,
            ("/stats", _) => Self::Stats,
            ("/quit", _) => Self::Quit,
            ("/save" | "/load", _) => match file {
                None => return invalid("a file name"),
                Some(file) if name == "/save" => Self::Save(file),
                Some(file) => Self::Load(file),
            },
            _ => unreachable!("every command is parsed"),
        })
    }
}

/// Removes the quotes around a text, if it has them.
fn unquote(text: &str) -> Option<&str> {
    text.strip_prefix('"')?.strip_suffix('"')
}

/// The escape character of file names; none where the backslash is the path separator.
fn escape_char() -> Option<char> {
    cfg!(unix).then_some('\\')
}

/// The sampling settings, which `/set` accepts in addition to `seed`.
pub fn settings() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(|setting| setting.table == Some("sampling"))
}

/// The names `/set` accepts.
pub fn setting_names() -> impl Iterator<Item = &'static str> {
    settings().map(|setting| setting.key).chain(["seed"])
}

/// Sets a setting, if there is a value, and returns its name and current value.
///
/// # Errors
/// [`Error::Message`] for an unknown name, [`Error::Parameter`] for an invalid value.
pub fn set_setting(options: &mut Options, name: &str, value: Option<&str>) -> Result<String> {
    let name = name.replace('-', "_");
    let invalid = |found: &str, expected: &str| Error::Parameter {
        name: name.clone(),
        found: found.into(),
        expected: expected.into(),
    };
    if name == "seed" {
        if let Some(value) = value {
            let expected = "a non-negative integer";
            options.sampling.seed = value.parse().map_err(|_| invalid(value, expected))?;
        }
        return Ok(format!("seed {}", options.sampling.seed));
    }
    let Some(setting) = settings().find(|setting| setting.key == name) else {
        let suggestion = Error::did_you_mean(&name, setting_names());
        let suggestion = if suggestion.is_empty() { ";".into() } else { suggestion };
        let name = name.escape_debug();
        return Err(Error::Message(format!("unknown setting '{name}'{suggestion} /set lists all")));
    };
    if let Some(value) = value {
        setting.apply_to(options, value).map_err(|expected| invalid(value, &expected))?;
    }
    Ok(format!("{name} {}", setting.value_in(options).unwrap_or_default()))
}

/// Lists all settings, one per line.
pub fn list_settings(options: &mut Options) -> String {
    let names = setting_names();
    let lines = names.map(|name| set_setting(options, name, None).unwrap_or_default());
    let padded = lines.map(|line| match line.split_once(' ') {
        Some((name, value)) => format!("{name:20}  {value}\n"),
        None => line,
    });
    padded.collect()
}

/// Lists all commands, one per line.
pub fn help() -> String {
    let line =
        |spec: &CommandSpec| format!("{:24}  {}\n", format!("{} {}", spec.name, spec.argument), spec.about);
    COMMANDS.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_parsed() {
        let system = |text: &str| Command::System(Some(text.into()));
        let set =
            |name: &str, value: Option<&str>| Command::Set(Some((name.into(), value.map(String::from))));
        for (line, expected) in [
            ("/help", Command::Help),
            ("/?", Command::Help),
            ("/reset ", Command::Reset),
            ("/system", Command::System(None)),
            ("/system  Be brief. ", system("Be brief.")),
            ("/system \"\"", system("")),
            ("/system one\ntwo", system("one\ntwo")),
            ("/temperature 0.5", set("temperature", Some("0.5"))),
            ("/temperature", set("temperature", None)),
            ("/set", Command::Set(None)),
            ("/set top_k", set("top_k", None)),
            ("/set top-k  40", set("top-k", Some("40"))),
            ("/set top_k=40", set("top_k", Some("40"))),
            ("/retry", Command::Retry),
            ("/save a b.json", Command::Save("a b.json".into())),
            ("/load \"a b.json\"", Command::Load("a b.json".into())),
            ("/stats", Command::Stats),
            ("/bye", Command::Quit),
        ] {
            assert_eq!(Command::parse(line).unwrap(), expected, "{line}");
        }
        #[cfg(unix)]
        assert_eq!(Command::parse("/load a\\ b.json").unwrap(), Command::Load("a b.json".into()));
        for spec in &COMMANDS {
            assert!(help().contains(spec.about));
            Command::parse(&format!("{} {}", spec.name, spec.argument)).unwrap();
        }
    }

    #[test]
    fn invalid_command_error_has_a_suggestion() {
        for (line, expected) in [
            ("/rest", "unknown command '/rest'; did you mean '/reset'? see /help"),
            ("/Quit", "unknown command '/Quit'; did you mean '/quit'? see /help"),
            ("/etc/passwd", "unknown command '/etc/passwd'; see /help; to send a message that starts with /"),
            ("/", "unknown command '/'; see /help"),
            ("/save", "/save: found nothing, expected a file name"),
            ("/load  ", "/load: found nothing, expected a file name"),
            ("/retry now", "/retry: found 'now', expected no argument"),
        ] {
            let error = Command::parse(line).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn settings_are_validated_and_set() {
        let mut options = Options::default();
        for (name, value, expected) in [
            ("temperature", Some("0.5"), "temperature 0.5"),
            ("temperature", None, "temperature 0.5"),
            ("top-k", Some("40"), "top_k 40"),
            ("max_tokens", None, "max_tokens 200"),
            ("max_tokens", Some("7"), "max_tokens 7"),
            ("seed", Some("9"), "seed 9"),
        ] {
            assert_eq!(set_setting(&mut options, name, value).unwrap(), expected);
        }
        let sampling = &options.sampling;
        assert_eq!((sampling.temperature, sampling.top_k, sampling.seed), (0.5, 40, 9));
        assert_eq!(options.max_tokens, Some(7));
        let before = options.clone();
        for (name, value, expected) in [
            ("temprature", "1", "unknown setting 'temprature'; did you mean 'temperature'? /set lists all"),
            ("model", "gpt2", "unknown setting 'model'; /set lists all"),
            ("temperature", "warm", "temperature: found warm, expected a number"),
            ("temperature", "-1", "temperature: found -1, expected a non-negative number"),
            ("top_p", "2", "top_p: found 2, expected a number from 0 to 1"),
            ("top_k", "-1", "top_k: found -1, expected a non-negative integer"),
            ("seed", "x", "seed: found x, expected a non-negative integer"),
        ] {
            assert_eq!(set_setting(&mut options, name, Some(value)).unwrap_err().to_string(), expected);
        }
        assert_eq!((&options.sampling, options.max_tokens), (&before.sampling, before.max_tokens));
        let list = list_settings(&mut options);
        assert_eq!(list.lines().count(), setting_names().count());
        assert!(
            list.contains("temperature           0.5\n") && list.contains("seed                  9\n"),
            "{list}"
        );
    }
}
