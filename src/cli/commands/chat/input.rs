//! Parsing of typed or piped input: messages of one or several lines, and commands.

use crate::{Error, Result, text_file};
use std::io::BufRead;

/// Delimiter of a message of several lines.
const QUOTES: &str = "\"\"\"";
/// The problem of a line in another encoding.
const INVALID_UTF8: &str = "found invalid UTF-8, expected UTF-8 text";

/// A parsed input.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    /// Only white space.
    Empty,
    /// A command, including the slash.
    Command(String),
    /// A message to the model.
    Message(String),
}

/// Whether an input is complete: without an open quote or a final backslash.
pub fn is_complete(text: &str) -> bool {
    match text.trim_start().strip_prefix(QUOTES) {
        Some(quoted) => quoted.trim_end().ends_with(QUOTES),
        None => !continues(text),
    }
}

/// Whether a line ends in a backslash that continues it; a double backslash does not.
fn continues(line: &str) -> bool {
    (line.len() - line.trim_end_matches('\\').len()) % 2 == 1
}

/// Parses an input, complete or not.
pub fn parse(text: &str) -> Input {
    if let Some(quoted) = text.trim_start().strip_prefix(QUOTES) {
        let quoted = quoted.trim_end();
        return message(quoted.strip_suffix(QUOTES).unwrap_or(quoted));
    }
    if text.starts_with('/') {
        return Input::Command(text.trim_end().into());
    }
    let lines = text.split('\n').map(|line| if continues(line) { &line[..line.len() - 1] } else { line });
    message(&lines.collect::<Vec<_>>().join("\n"))
}

fn message(text: &str) -> Input {
    match text.trim() {
        "" => Input::Empty,
        text => Input::Message(text.into()),
    }
}

/// Splits piped text into inputs, each with the number of its first line.
pub fn read_all(reader: impl BufRead) -> impl Iterator<Item = Result<(usize, String)>> {
    let mut lines = reader.split(b'\n').enumerate();
    std::iter::from_fn(move || {
        let mut input: Option<(usize, String)> = None;
        for (i, line) in lines.by_ref() {
            let line = match line.map_err(|source| Error::Io {
                path: "standard input".into(),
                action: "read",
                source,
            }) {
                Ok(line) if i == 0 => text_file::decode(line),
                Ok(line) => String::from_utf8(line).map_err(|_| INVALID_UTF8.into()),
                Err(error) => return Some(Err(error)),
            };
            let line = match line {
                Ok(line) => line,
                Err(problem) => {
                    let message = format!("standard input: line {}: {problem}", i + 1);
                    return Some(Err(Error::Message(message)));
                }
            };
            let line = line.strip_suffix('\r').unwrap_or(&line);
            let text = match &mut input {
                None => &mut input.insert((i + 1, line.into())).1,
                Some((_, text)) => {
                    *text += "\n";
                    *text += line;
                    text
                }
            };
            if is_complete(text) {
                break;
            }
        }
        input.map(Ok)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_is_message_command_or_empty() {
        let message = |text: &str| Input::Message(text.into());
        for (text, expected) in [
            ("", Input::Empty),
            (" \n ", Input::Empty),
            ("\"\"\"\n\"\"\"", Input::Empty),
            ("Hello there ", message("Hello there")),
            ("/save a b.json ", Input::Command("/save a b.json".into())),
            (" /etc/passwd", message("/etc/passwd")),
            ("one\\\ntwo", message("one\ntwo")),
            ("one\\\\\ntwo", message("one\\\\\ntwo")),
            ("\"\"\"one\n/two\\\n\n three\n\"\"\"", message("one\n/two\\\n\n three")),
            ("\"\"\"never closed", message("never closed")),
            ("say \"\"\"", message("say \"\"\"")),
            ("pasted\nlines", message("pasted\nlines")),
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn open_quote_or_trailing_backslash_is_incomplete() {
        for incomplete in ["one\\", "\"\"\"", "\"\"\"one", " \"\"\"one\ntwo\"\"", "one\\\ntwo\\"] {
            assert!(!is_complete(incomplete), "{incomplete:?}");
        }
        for complete in
            ["", "one", "one\\\\", "one\\\ntwo", "\"\"\"one\"\"\"", "\"\"\"one\\\n\"\"\" ", "\"\"\"\"\"\""]
        {
            assert!(is_complete(complete), "{complete:?}");
        }
    }

    #[test]
    fn piped_text_is_split_into_inputs_with_line_numbers() {
        let piped = b"\xef\xbb\xbfone\r\n\n\"\"\"two\r\nlines\"\"\"\nthree\\\nfour\n/quit\nlast\\";
        let inputs: Vec<(usize, String)> = read_all(&piped[..]).map(Result::unwrap).collect();
        let expected = [
            (1, "one"),
            (2, ""),
            (3, "\"\"\"two\nlines\"\"\""),
            (5, "three\\\nfour"),
            (7, "/quit"),
            (8, "last\\"),
        ];
        assert_eq!(inputs, expected.map(|(line, text)| (line, text.to_string())));
        let error = read_all(&b"one\n\xFF\n"[..]).nth(1).unwrap().unwrap_err().to_string();
        assert_eq!(error, "standard input: line 2: found invalid UTF-8, expected UTF-8 text");
    }
}
