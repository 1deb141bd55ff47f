//! What was typed or piped: a message, of one line or several, or a command.

use crate::{Error, Result};
use std::io::BufRead;

/// Around a message of several lines.
const QUOTES: &str = "\"\"\"";

/// What a text asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    /// Nothing at all.
    Nothing,
    /// A command, with its slash.
    Command(String),
    /// Something to be said.
    Message(String),
}

/// Whether a text is whole: quotes that were opened are closed, and no backslash wants another line.
pub fn is_complete(text: &str) -> bool {
    match text.trim_start().strip_prefix(QUOTES) {
        Some(quoted) => quoted.trim_end().ends_with(QUOTES),
        None => !goes_on(text),
    }
}

/// Whether a line has the next one joined to it: two backslashes are just that.
fn goes_on(line: &str) -> bool {
    (line.len() - line.trim_end_matches('\\').len()) % 2 == 1
}

/// Reads a text, complete or as far as it came.
pub fn read(text: &str) -> Input {
    if let Some(quoted) = text.trim_start().strip_prefix(QUOTES) {
        let quoted = quoted.trim_end();
        return message(quoted.strip_suffix(QUOTES).unwrap_or(quoted));
    }
    if text.starts_with('/') {
        return Input::Command(text.trim_end().into());
    }
    let lines = text.split('\n').map(|line| if goes_on(line) { &line[..line.len() - 1] } else { line });
    message(&lines.collect::<Vec<_>>().join("\n"))
}

fn message(text: &str) -> Input {
    match text.trim() {
        "" => Input::Nothing,
        text => Input::Message(text.into()),
    }
}

/// The texts that come through a pipe, each with the number of its first line.
pub fn lines(from: impl BufRead) -> impl Iterator<Item = Result<(usize, String)>> {
    let mut lines = from.split(b'\n').enumerate();
    std::iter::from_fn(move || {
        let mut whole: Option<(usize, String)> = None;
        for (i, line) in lines.by_ref() {
            let line = match line.map_err(|source| Error::Io {
                path: "standard input".into(),
                action: "read",
                source,
            }) {
                Ok(line) => String::from_utf8(line),
                Err(error) => return Some(Err(error)),
            };
            let Ok(line) = line else {
                let problem = "found a byte that is not UTF-8, expected text";
                return Some(Err(Error::Message(format!("standard input: line {}: {problem}", i + 1))));
            };
            let line = line.strip_suffix('\r').unwrap_or(&line);
            let text = match &mut whole {
                None => &mut whole.insert((i + 1, line.into())).1,
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
        whole.map(Ok)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_a_message_a_command_or_nothing() {
        let message = |text: &str| Input::Message(text.into());
        for (text, expected) in [
            ("", Input::Nothing),
            (" \n ", Input::Nothing),
            ("\"\"\"\n\"\"\"", Input::Nothing),
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
            assert_eq!(read(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_open_waits_for_more() {
        for open in ["one\\", "\"\"\"", "\"\"\"one", " \"\"\"one\ntwo\"\"", "one\\\ntwo\\"] {
            assert!(!is_complete(open), "{open:?}");
        }
        for whole in
            ["", "one", "one\\\\", "one\\\ntwo", "\"\"\"one\"\"\"", "\"\"\"one\\\n\"\"\" ", "\"\"\"\"\"\""]
        {
            assert!(is_complete(whole), "{whole:?}");
        }
    }

    #[test]
    fn a_pipe_is_cut_into_texts() {
        let piped = b"one\r\n\n\"\"\"two\r\nlines\"\"\"\nthree\\\nfour\n/quit\nlast\\";
        let texts: Vec<(usize, String)> = lines(&piped[..]).map(Result::unwrap).collect();
        let expected = [
            (1, "one"),
            (2, ""),
            (3, "\"\"\"two\nlines\"\"\""),
            (5, "three\\\nfour"),
            (7, "/quit"),
            (8, "last\\"),
        ];
        assert_eq!(texts, expected.map(|(line, text)| (line, text.to_string())));
        let error = lines(&b"one\n\xFF\n"[..]).nth(1).unwrap().unwrap_err().to_string();
        assert_eq!(error, "standard input: line 2: found a byte that is not UTF-8, expected text");
    }
}
