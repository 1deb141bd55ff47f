//! Bounds on values and methods that the fuel of minijinja does not cover.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

/// The deepest nesting of lists and maps.
const MAX_DEPTH: usize = 64;

/// The most items of a list or map, those of its items included as often as they occur.
const MAX_ITEMS: usize = 20_000;

/// The widest field of `str.format`, in decimal digits.
const MAX_WIDTH_DIGITS: usize = 4;

fn invalid(problem: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem.into())
}

/// Charges fuel for reading or writing `bytes` bytes.
pub(super) fn charge(state: &State, bytes: usize) -> Result<(), Error> {
    state.consume_fuel(bytes as u64 / 64)
}

/// Charges fuel for reading all of a list or map, and fails for one that is too large or too deep. A list
/// that contains another twice, which contains another twice, has 2ⁿ items to print or compare.
///
/// # Errors
/// [`ErrorKind::InvalidOperation`] past the bounds, and [`ErrorKind::OutOfFuel`].
pub(super) fn bounded(state: &State, value: &Value) -> Result<(), Error> {
    let mut items = 0;
    visit(state, value, 0, &mut items)?;
    state.consume_fuel(items as u64 / 2)
}

fn visit(state: &State, value: &Value, depth: usize, items: &mut usize) -> Result<(), Error> {
    if let Some(text) = value.as_str() {
        return if depth == 0 { Ok(()) } else { charge(state, text.len()) };
    }
    let is_map = value.kind() == ValueKind::Map;
    if !is_map && !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Ok(());
    }
    // A namespace could contain itself.
    if value.as_object().is_some_and(|object| object.type_name().ends_with("Namespace")) {
        return Err(invalid("found a namespace inside a value or printed, expected its attributes"));
    }
    if depth == MAX_DEPTH {
        return Err(invalid(format!("found a list or map nested deeper than {MAX_DEPTH} levels")));
    }
    for item in value.try_iter()? {
        *items += 1;
        if *items > MAX_ITEMS {
            return Err(invalid(format!("found a list or map of more than {MAX_ITEMS} items in all")));
        }
        visit(state, &item, depth + 1, items)?;
        if is_map {
            visit(state, &value.get_item(&item)?, depth + 1, items)?;
        }
    }
    Ok(())
}

/// Calls a Python method, and charges fuel for what it reads and writes.
pub(super) fn call_method(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    charge(state, value.as_str().map_or(0, str::len))?;
    for arg in args {
        bounded(state, arg)?;
    }
    match (value.as_str(), method, args) {
        (Some(text), "format", _) => {
            let digits = |run: &str| run.len() > MAX_WIDTH_DIGITS;
            if text.split(|c: char| !c.is_ascii_digit()).any(digits) {
                return Err(invalid("found a field of more than 9999 characters, expected less"));
            }
        }
        (Some(text), "removeprefix", [prefix]) => {
            let rest = prefix.as_str().and_then(|prefix| text.strip_prefix(prefix));
            return Ok(Value::from(rest.unwrap_or(text)));
        }
        (Some(text), "removesuffix", [suffix]) => {
            let rest = suffix.as_str().and_then(|suffix| text.strip_suffix(suffix));
            return Ok(Value::from(rest.unwrap_or(text)));
        }
        (None, "count", _) => bounded(state, value)?,
        _ => (),
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
}
