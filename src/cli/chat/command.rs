//! The commands of a conversation.

use crate::cli::settings::{SETTINGS, Setting};
use crate::{Error, Options, Result};
use rustyline::completion::unescape;
use std::path::PathBuf;

/// A command there is.
pub struct Known {
    /// With its slash.
    pub name: &'static str,
    /// What follows; in brackets where it may be left out.
    pub argument: &'static str,
    /// What it does.
    pub about: &'static str,
}

const fn known(name: &'static str, argument: &'static str, about: &'static str) -> Known {
    Known { name, argument, about }
}

/// All there are, in the order they are shown.
pub static COMMANDS: [Known; 10] = [
    known("/help", "", "this list"),
    known("/reset", "", "forget what was said, but for the system message"),
    known("/system", "[TEXT]", "tell the model how to answer; \"\" takes it back"),
    known(
        "/temperature",
        "[T]",
        "below 1 favours likely words, above 1 unlikely ones, 0 takes the likeliest",
    ),
    known("/set", "[NAME VALUE]", "any setting of sampling, or seed; without a name all are shown"),
    known("/retry", "", "another answer to the last message, with the next seed"),
    known("/save", "FILE", "write the conversation to a file"),
    known("/load", "FILE", "go on with a conversation from a file"),
    known("/stats", "", "what the last answer cost, and how full the context is"),
    known("/quit", "", "end; Ctrl-D does, too"),
];

/// What people type who come from other programs.
const OTHER_NAMES: [(&str, &str); 6] = [
    ("/?", "/help"),
    ("/clear", "/reset"),
    ("/regen", "/retry"),
    ("/exit", "/quit"),
    ("/bye", "/quit"),
    ("/q", "/quit"),
];

/// A command, with what it needs.
#[derive(Debug, PartialEq)]
pub enum Command {
    Help,
    Reset,
    /// Without a text it is shown; an empty one takes it back.
    System(Option<String>),
    /// A name and, where it is not only asked for, a value; without both all are shown.
    Set(Option<(String, Option<String>)>),
    Retry,
    Save(PathBuf),
    Load(PathBuf),
    Stats,
    Quit,
}

impl Command {
    /// Reads a line that begins with a slash.
    ///
    /// # Errors
    /// [`Error::Message`] for what is no command, with the one that was meant, and for a command without what it needs.
    pub fn parse(line: &str) -> Result<Self> {
        let (given, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let other = OTHER_NAMES.iter().find(|(other, _)| *other == given);
        let name = other.map_or(given, |(_, name)| name);
        let Some(known) = COMMANDS.iter().find(|known| known.name == name) else {
            let meant = Error::did_you_mean(given, COMMANDS.iter().map(|known| known.name));
            let meant = if meant.is_empty() { ";".into() } else { meant };
            return Err(Error::Message(format!(
                "there is no command '{}'{meant} /help lists them; a message may begin with a space and then /",
                given.escape_debug()
            )));
        };
        let argument = Some(argument.trim()).filter(|argument| !argument.is_empty());
        let wrong = |expected: &str| {
            let found = argument.map_or("nothing".into(), |found| format!("'{}'", found.escape_debug()));
            Err(Error::Message(format!("{name}: found {found}, expected {expected}")))
        };
        if known.argument.is_empty() && argument.is_some() {
            return wrong("nothing to follow");
        }
        let file = argument.map(|file| {
            // As completion writes it.
            let quoted = unquoted(file);
            PathBuf::from(quoted.map_or_else(|| unescape(file, escape()).into_owned(), String::from))
        });
        Ok(match (name, argument) {
            ("/help", _) => Self::Help,
            ("/reset", _) => Self::Reset,
            ("/system", text) => Self::System(text.map(|text| unquoted(text).unwrap_or(text).into())),
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
                None => return wrong("a file"),
                Some(file) if name == "/save" => Self::Save(file),
                Some(file) => Self::Load(file),
            },
            _ => unreachable!("every command is read"),
        })
    }
}

/// A text without the quotes around it, where it has them.
fn unquoted(text: &str) -> Option<&str> {
    text.strip_prefix('"')?.strip_suffix('"')
}

/// What stands before a space in a file's name; where backslashes part folders, nothing.
fn escape() -> Option<char> {
    cfg!(unix).then_some('\\')
}

/// The settings `/set` knows, and `seed`.
pub fn settings() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(|setting| setting.table == Some("sampling"))
}

/// Their names.
pub fn setting_names() -> impl Iterator<Item = &'static str> {
    settings().map(|setting| setting.key).chain(["seed"])
}

/// Changes a setting, where there is a value, and says what then holds.
///
/// # Errors
/// [`Error::Message`] for a name that is none, [`Error::Parameter`] for a value out of range.
pub fn set(options: &mut Options, name: &str, value: Option<&str>) -> Result<String> {
    let name = name.replace('-', "_");
    let wrong = |found: &str, expected: &str| Error::Parameter {
        name: name.clone(),
        found: found.into(),
        expected: expected.into(),
    };
    if name == "seed" {
        if let Some(value) = value {
            let expected = "a whole number from 0 up";
            options.sampling.seed = value.parse().map_err(|_| wrong(value, expected))?;
        }
        return Ok(format!("seed {}", options.sampling.seed));
    }
    let Some(setting) = settings().find(|setting| setting.key == name) else {
        let meant = Error::did_you_mean(&name, setting_names());
        let meant = if meant.is_empty() { ";".into() } else { meant };
        let name = name.escape_debug();
        return Err(Error::Message(format!("there is no setting '{name}'{meant} /set lists them")));
    };
    if let Some(value) = value {
        setting.apply_to(options, value).map_err(|expected| wrong(value, &expected))?;
    }
    Ok(format!("{name} {}", setting.value_in(options).unwrap_or_default()))
}

/// All settings, one a line.
pub fn shown(options: &mut Options) -> String {
    let names = setting_names();
    let lines = names.map(|name| set(options, name, None).unwrap_or_default());
    let padded = lines.map(|line| match line.split_once(' ') {
        Some((name, value)) => format!("{name:20}  {value}\n"),
        None => line,
    });
    padded.collect()
}

/// The commands, one a line.
pub fn help() -> String {
    let line =
        |known: &Known| format!("{:24}  {}\n", format!("{} {}", known.name, known.argument), known.about);
    COMMANDS.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
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
        for known in &COMMANDS {
            assert!(help().contains(known.about));
            Command::parse(&format!("{} {}", known.name, known.argument)).unwrap();
        }
    }

    #[test]
    fn what_is_no_command_is_named_with_what_was_meant() {
        for (line, expected) in [
            ("/rest", "there is no command '/rest'; did you mean '/reset'? /help lists them"),
            ("/Quit", "there is no command '/Quit'; did you mean '/quit'? /help"),
            (
                "/etc/passwd",
                "there is no command '/etc/passwd'; /help lists them; a message may begin with a space",
            ),
            ("/", "there is no command '/'; /help lists them"),
            ("/save", "/save: found nothing, expected a file"),
            ("/load  ", "/load: found nothing, expected a file"),
            ("/retry now", "/retry: found 'now', expected nothing to follow"),
        ] {
            let error = Command::parse(line).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn settings_are_set_within_their_bounds() {
        let mut options = Options::default();
        for (name, value, expected) in [
            ("temperature", Some("0.5"), "temperature 0.5"),
            ("temperature", None, "temperature 0.5"),
            ("top-k", Some("40"), "top_k 40"),
            ("max_tokens", None, "max_tokens 200"),
            ("max_tokens", Some("7"), "max_tokens 7"),
            ("seed", Some("9"), "seed 9"),
        ] {
            assert_eq!(set(&mut options, name, value).unwrap(), expected);
        }
        let sampling = &options.sampling;
        assert_eq!((sampling.temperature, sampling.top_k, sampling.seed), (0.5, 40, 9));
        assert_eq!(options.max_tokens, Some(7));
        let before = options.clone();
        for (name, value, expected) in [
            (
                "temprature",
                "1",
                "there is no setting 'temprature'; did you mean 'temperature'? /set lists them",
            ),
            ("model", "gpt2", "there is no setting 'model'; /set lists them"),
            ("temperature", "warm", "temperature: found warm, expected a number"),
            ("temperature", "-1", "temperature: found -1, expected a non-negative number"),
            ("top_p", "2", "top_p: found 2, expected a number from 0 to 1"),
            ("top_k", "-1", "top_k: found -1, expected a whole number from 0 up"),
            ("seed", "x", "seed: found x, expected a whole number from 0 up"),
        ] {
            assert_eq!(set(&mut options, name, Some(value)).unwrap_err().to_string(), expected);
        }
        assert_eq!((&options.sampling, options.max_tokens), (&before.sampling, before.max_tokens));
        let shown = shown(&mut options);
        assert_eq!(shown.lines().count(), setting_names().count());
        assert!(
            shown.contains("temperature           0.5\n") && shown.contains("seed                  9\n"),
            "{shown}"
        );
    }
}
