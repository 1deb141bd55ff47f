//! The filter `tojson` as transformers has it: Python's `json.dumps` without escapes for HTML.

use super::bounds::{bounded, charge};
use minijinja::value::{Kwargs, Rest, Value, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Error, ErrorKind, State};
use std::fmt::Write as _;

/// The widest indentation.
const MAX_INDENT: usize = 64;

fn invalid(problem: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem)
}

/// Serializes a value. `args` are those of transformers: `ensure_ascii`, `indent`, `separators`, `sort_keys`.
pub(super) fn tojson(state: &State, value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    type Args = (Option<bool>, Option<Value>, Option<Value>, Option<bool>, Kwargs);
    let args = args.into_values();
    let (ensure_ascii, indent, separators, sort_keys, kwargs): Args = from_args(&args)?;
    bounded(state, value)?;
    let (indent, separators) = (indent.or(kwargs.get("indent")?), separators.or(kwargs.get("separators")?));
    let indent: Option<usize> = indent.filter(|indent| !indent.is_none()).map(usize::try_from).transpose()?;
    if indent.is_some_and(|indent| indent > MAX_INDENT) {
        return Err(invalid(format!("tojson: found an indent above {MAX_INDENT}")));
    }
    let (item_separator, key_separator) = match separators.filter(|separators| !separators.is_none()) {
        Some(pair) => (pair.get_item_by_index(0)?.to_string(), pair.get_item_by_index(1)?.to_string()),
        None => (if indent.is_some() { "," } else { ", " }.to_string(), ": ".to_string()),
    };
    let mut writer = Writer {
        state,
        out: String::new(),
        ensure_ascii: ensure_ascii.or(kwargs.get("ensure_ascii")?).unwrap_or(false),
        sort_keys: sort_keys.or(kwargs.get("sort_keys")?).unwrap_or(false),
        indent,
        item_separator,
        key_separator,
    };
    kwargs.assert_all_used()?;
    writer.value(value, 0)?;
    Ok(Value::from(writer.out))
}

struct Writer<'s, 't, 'e> {
    state: &'s State<'t, 'e>,
    out: String,
    ensure_ascii: bool,
    sort_keys: bool,
    indent: Option<usize>,
    item_separator: String,
    key_separator: String,
}

impl Writer<'_, '_, '_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.out.push_str(&value.to_string()),
            ValueKind::String => return self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.container(['[', ']'], items.len(), depth, |writer, i| {
                    writer.value(&items[i], depth + 1)
                })?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                self.container(['{', '}'], keys.len(), depth, |writer, i| {
                    match keys[i].kind() {
                        ValueKind::None | ValueKind::Bool | ValueKind::Number => {
                            writer.out.push('"');
                            writer.value(&keys[i], depth)?;
                            writer.out.push('"');
                        }
                        _ => writer.string(&keys[i].to_string())?,
                    }
                    writer.out.push_str(&writer.key_separator.clone());
                    writer.value(&value.get_item(&keys[i])?, depth + 1)
                })?;
            }
            kind => return Err(invalid(format!("tojson: found a value of type {kind}, which JSON lacks"))),
        }
        Ok(())
    }

    fn container(
        &mut self,
        [open, close]: [char; 2],
        len: usize,
        depth: usize,
        mut item: impl FnMut(&mut Self, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push(open);
        for i in 0..len {
            if i > 0 {
                charge(self.state, 64 + self.item_separator.len() + self.key_separator.len())?;
                self.out.push_str(&self.item_separator.clone());
            }
            self.new_line(depth + 1)?;
            item(self, i)?;
        }
        if len > 0 {
            self.new_line(depth)?;
        }
        self.out.push(close);
        Ok(())
    }

    fn new_line(&mut self, depth: usize) -> Result<(), Error> {
        let Some(indent) = self.indent else { return Ok(()) };
        charge(self.state, indent * depth)?;
        self.out.push('\n');
        self.out.extend(std::iter::repeat_n(' ', indent * depth));
        Ok(())
    }

    fn string(&mut self, text: &str) -> Result<(), Error> {
        charge(self.state, 2 * text.len())?;
        // serde_json escapes as Python does with ensure_ascii=False.
        let quoted = serde_json::to_string(text).map_err(|error| invalid(error.to_string()))?;
        for c in quoted.chars() {
            match self.ensure_ascii && !c.is_ascii() {
                true => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                    let _ = write!(self.out, "\\u{unit:04x}");
                }),
                false => self.out.push(c),
            }
        }
        Ok(())
    }
}
