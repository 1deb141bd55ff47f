//! Parsing and validation of `hornbook.toml`.

use super::line_error;
use super::schema::{SETTINGS, Setting};
use crate::{Error, Result, text_file};
use std::path::Path;
use toml_edit::{Document, Item, TableLike, Value};

/// A setting in a file.
#[derive(Debug)]
pub struct Entry {
    pub setting: &'static Setting,
    pub value: String,
    /// Line number, from 1.
    pub line: usize,
}

/// Reads the settings of a file.
///
/// # Errors
/// As [`Settings::load`](super::Settings::load).
pub fn read(path: &Path) -> Result<Vec<Entry>> {
    parse(path, &text_file::read_file(path)?)
}

fn parse(path: &Path, text: &str) -> Result<Vec<Entry>> {
    let line_of =
        |offset: usize| 1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|c| **c == b'\n').count();
    let document = Document::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(span.start));
        line_error(path, line, &error.message().replace('\n', " "))
    })?;
    let mut entries = vec![];
    visit_keys(document.as_table(), None, &mut |table_name, key, offset, item| {
        let line = line_of(offset);
        let invalid = |problem: String| Err(line_error(path, line, &problem));
        let full_name = table_name.map_or_else(|| key.to_string(), |table| format!("{table}.{key}"));
        let Some(setting) = Setting::find(table_name, key) else {
            let suggestion = suggestion(key, &full_name);
            return invalid(format!("unknown setting '{}'{suggestion}", full_name.escape_debug()));
        };
        let value = match item.as_value() {
            Some(Value::String(text)) if !setting.is_number() => text.value().clone(),
            Some(Value::Integer(number)) if setting.is_number() => number.value().to_string(),
            Some(Value::Float(number)) if setting.is_number() => number.value().to_string(),
            _ => {
                let found = item.to_string();
                let expected = if setting.is_number() { "a number" } else { "a string in quotes" };
                return invalid(format!("{full_name}: found {}, expected {expected}", in_one_line(&found)));
            }
        };
        if let Err(expected) = setting.check(&value) {
            let found = if setting.is_number() { value } else { format!("{value:?}") };
            return invalid(format!("{full_name}: found {found}, expected {expected}"));
        }
        entries.push(Entry { setting, value, line });
        Ok(())
    })?;
    Ok(entries)
}

/// Joins the lines of a value.
fn in_one_line(value: &str) -> String {
    value.trim().lines().collect::<Vec<_>>().join("\\n")
}

/// Called with the table, the key, its byte offset and the item.
type Visitor<'a> = dyn FnMut(Option<&str>, &str, usize, &Item) -> Result<()> + 'a;

/// Visits every key of a table and of the tables of settings in it.
fn visit_keys(items: &dyn TableLike, table_name: Option<&str>, visit: &mut Visitor) -> Result<()> {
    for (key, item) in items.iter() {
        let offset = items
            .key(key)
            .and_then(toml_edit::Key::span)
            .or_else(|| item.span())
            .map_or(0, |span| span.start);
        let is_table = SETTINGS.iter().any(|setting| setting.table == Some(key));
        match item.as_table_like().filter(|_| table_name.is_none() && is_table) {
            Some(inner) => visit_keys(inner, Some(key), visit)?,
            None => visit(table_name, key, offset, item)?,
        }
    }
    Ok(())
}

/// A hint for an unknown name: a setting of another table, or one with a similar name.
fn suggestion(key: &str, full_name: &str) -> String {
    if SETTINGS.iter().any(|setting| setting.table == Some(key)) {
        return format!(", expected a table: [{key}]");
    }
    match SETTINGS.iter().find(|setting| setting.key == key) {
        Some(Setting { table: Some(table), .. }) => format!("; '{key}' belongs under [{table}]"),
        Some(_) => format!("; '{key}' belongs above the first table"),
        None => {
            let names: Vec<String> = SETTINGS.iter().map(Setting::name).collect();
            let keys = SETTINGS.iter().map(|setting| setting.key);
            Error::did_you_mean(full_name, names.iter().map(String::as_str).chain(keys))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_file_is_parsed_with_line_numbers() {
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
    fn invalid_settings_file_is_one_line_error() {
        for (text, expected) in [
            ("\nmodle = \"x\"", "f:2: unknown setting 'modle'; did you mean 'model'?"),
            ("temperature = 1", "f:1: unknown setting 'temperature'; 'temperature' belongs under [sampling]"),
            (
                "[sampling]\nmodel = \"x\"",
                "f:2: unknown setting 'sampling.model'; 'model' belongs above the first",
            ),
            (
                "[sampling]\ntemprature = 1",
                "f:2: unknown setting 'sampling.temprature'; did you mean 'sampling.temp",
            ),
            ("[server]\nport = 1", "f:1: unknown setting 'server'"),
            ("[[sampling]]\ntop_k = 1", "f:1: unknown setting 'sampling', expected a table: [sampling]"),
            ("context = \"Shift\"", "f:1: context: found \"Shift\", expected stop or shift"),
            ("threads = \"two\"", "f:1: threads: found \"two\", expected a number"),
            ("threads = 2.5", "f:1: threads: found 2.5, expected an integer from 1 to 1024"),
            ("model = 7", "f:1: model: found 7, expected a string in quotes"),
            ("model = [\"a\",\n\"b\"]", "f:1: model: found [\"a\", \"b\"], expected a string in quotes"),
            ("threads = \"\"\"a\nb\"\"\"", "f:1: threads: found \""),
            ("\n\n[sampling]\ntop_p = 2", "f:4: sampling.top_p: found 2, expected a number from 0 to 1"),
            ("sampling = 3", "f:1: unknown setting 'sampling'"),
            ("model = ", "f:1: "),
            ("model = \"a\"\nmodel = \"b\"", "f:2: "),
        ] {
            let line = parse(Path::new("f"), text).unwrap_err().to_string();
            assert!(line.starts_with(expected) && !line.contains('\n'), "{line}: expected {expected}");
        }
    }
}
