//! `hornbook.toml`: every line is a setting, or it is said which is not.

use super::known::{KNOWN, Setting};
use super::wrong_line;
use crate::{Error, Result};
use std::path::Path;
use toml_edit::{Document, Item, TableLike, Value};

/// A setting that a file makes.
#[derive(Debug)]
pub struct Entry {
    pub setting: &'static Setting,
    pub value: String,
    pub line: usize,
}

/// The settings of a file.
///
/// # Errors
/// As [`Settings::load`](super::Settings::load).
pub fn read(path: &Path) -> Result<Vec<Entry>> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Io {
        path: path.into(),
        action: "read",
        source,
    })?;
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<Vec<Entry>> {
    let line_of =
        |at: usize| 1 + text.as_bytes()[..at.min(text.len())].iter().filter(|c| **c == b'\n').count();
    let document = Document::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(span.start));
        wrong_line(path, line, &error.message().replace('\n', " "))
    })?;
    let mut entries = vec![];
    table(document.as_table(), None, &mut |table_name, key, at, item| {
        let line = line_of(at);
        let wrong = |problem: String| Err(wrong_line(path, line, &problem));
        let full = table_name.map_or_else(|| key.to_string(), |table| format!("{table}.{key}"));
        let Some(setting) = Setting::find(table_name, key) else {
            return wrong(format!("there is no setting '{}'{}", full.escape_debug(), meant(key, &full)));
        };
        let value = match item.as_value() {
            Some(Value::String(text)) if !setting.is_number() => text.value().clone(),
            Some(Value::Integer(number)) if setting.is_number() => number.value().to_string(),
            Some(Value::Float(number)) if setting.is_number() => number.value().to_string(),
            _ => {
                let found = item.to_string();
                let expected = if setting.is_number() { "a number" } else { "a text in quotes" };
                return wrong(format!("{full}: found {}, expected {expected}", in_one_line(&found)));
            }
        };
        if let Err(expected) = setting.check(&value) {
            return wrong(format!("{full}: found {}, expected {expected}", value.escape_debug()));
        }
        entries.push(Entry { setting, value, line });
        Ok(())
    })?;
    Ok(entries)
}

/// A value as it stands in the file, its lines joined.
fn in_one_line(value: &str) -> String {
    value.trim().lines().collect::<Vec<_>>().join("\\n")
}

type Visit<'a> = dyn FnMut(Option<&str>, &str, usize, &Item) -> Result<()> + 'a;

/// Every key of the file, the table it is in, and where.
fn table(items: &dyn TableLike, name: Option<&str>, visit: &mut Visit) -> Result<()> {
    for (key, item) in items.iter() {
        let at = items
            .key(key)
            .and_then(toml_edit::Key::span)
            .or_else(|| item.span())
            .map_or(0, |span| span.start);
        let is_table = KNOWN.iter().any(|setting| setting.table == Some(key));
        match item.as_table_like().filter(|_| name.is_none() && is_table) {
            Some(inner) => table(inner, Some(key), visit)?,
            None => visit(name, key, at, item)?,
        }
    }
    Ok(())
}

/// What a wrong name was meant to be: a setting that is in another table, or one that is spelt almost so.
fn meant(key: &str, full: &str) -> String {
    match KNOWN.iter().find(|setting| setting.key == key) {
        Some(Setting { table: Some(table), .. }) => format!("; '{key}' belongs under [{table}]"),
        Some(_) => format!("; '{key}' belongs above the first table"),
        None => {
            let names: Vec<String> = KNOWN.iter().map(Setting::name).collect();
            let keys = KNOWN.iter().map(|setting| setting.key);
            Error::did_you_mean(full, names.iter().map(String::as_str).chain(keys))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_with_its_lines() {
        let text =
            "# mine\nmodel = \"gpt2\"\nthreads = 3\n\n[sampling]\ntemperature = 0.5 # cool\ntop_k = 40\n";
        let entries = parse(Path::new("f"), text).unwrap();
        let all: Vec<_> = entries.iter().map(|e| (e.setting.key, e.value.as_str(), e.line)).collect();
        assert_eq!(
            all,
            [("model", "gpt2", 2), ("threads", "3", 3), ("temperature", "0.5", 6), ("top_k", "40", 7)]
        );
        let inline = parse(Path::new("f"), "\r\nsampling = { top_p = 1 }\r\n").unwrap();
        assert_eq!((inline[0].value.as_str(), inline[0].line), ("1", 2));
        assert!(parse(Path::new("f"), "").unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, expected) in [
            ("\nmodle = \"x\"", "f:2: there is no setting 'modle'; did you mean 'model'?"),
            (
                "temperature = 1",
                "f:1: there is no setting 'temperature'; 'temperature' belongs under [sampling]",
            ),
            (
                "[sampling]\nmodel = \"x\"",
                "f:2: there is no setting 'sampling.model'; 'model' belongs above the first",
            ),
            (
                "[sampling]\ntemprature = 1",
                "f:2: there is no setting 'sampling.temprature'; did you mean 'sampling.temp",
            ),
            ("[server]\nport = 1", "f:1: there is no setting 'server'"),
            ("threads = \"two\"", "f:1: threads: found \"two\", expected a number"),
            ("threads = 2.5", "f:1: threads: found 2.5, expected a whole number from 1 to 1024"),
            ("model = 7", "f:1: model: found 7, expected a text in quotes"),
            ("model = [\"a\",\n\"b\"]", "f:1: model: found [\"a\", \"b\"], expected a text in quotes"),
            ("threads = \"\"\"a\nb\"\"\"", "f:1: threads: found \""),
            ("\n\n[sampling]\ntop_p = 2", "f:4: sampling.top_p: found 2, expected a number from 0 to 1"),
            ("sampling = 3", "f:1: there is no setting 'sampling'"),
            ("model = ", "f:1: "),
            ("model = \"a\"\nmodel = \"b\"", "f:2: "),
        ] {
            let line = parse(Path::new("f"), text).unwrap_err().to_string();
            assert!(line.starts_with(expected) && !line.contains('\n'), "{line}: expected {expected}");
        }
    }
}
