//! Chat templates as untrusted Jinja programs: the environment of transformers, within bounds.
//!
//! A template comes with a model and may be hostile, so that nothing it does is unbounded. Tokens are counted
//! before the parser recurses over them ([`rewrite`]); work and memory are paid from the fuel of minijinja,
//! and where minijinja charges nothing (containers that contain one another many times, methods of strings),
//! [`bounds`] does.

mod bounds;
mod json;
mod rewrite;
#[cfg(test)]
mod tests;

use bounds::{bounded, call_method, charge};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, StringInput, Tuple, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};

const NAME: &str = "chat";

/// Stand around what the model generates, if `__marks_generation` is true in the context. They are no
/// characters, so no text has them.
pub(super) const GENERATION_MARKS: [char; 2] = ['\u{10fffe}', '\u{10ffff}'];

/// Fuel of a rendering: instructions, and 64 bytes of text each. A long conversation in a published template
/// takes a tenth of it; all of it is spent in milliseconds.
const FUEL: u64 = 200_000;

/// The stack on which templates are compiled and rendered. The parser and the macros recurse at most as deep
/// as the bounds allow; builds without optimization need most of it.
const STACK_BYTES: usize = 32 << 20;

/// The deepest recursion of macros and loops.
const MAX_RECURSION: usize = 200;

/// A compiled template.
#[derive(Debug)]
pub(super) struct Jinja {
    environment: Environment<'static>,
}

impl Jinja {
    /// Compiles a template. The error is one line without the file's name.
    pub(super) fn compile(text: &str) -> Result<Self, String> {
        on_large_stack(|| {
            let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
            let text = rewrite::rewrite(text, &syntax)?;
            let mut environment = Environment::new();
            environment.set_syntax(syntax);
            environment.set_fuel(Some(FUEL));
            environment.set_recursion_limit(MAX_RECURSION);
            add_functions(&mut environment);
            environment.add_template_owned(NAME, text)?;
            Ok(Self { environment })
        })
        .map_err(|error| {
            let line = error.line().map_or(String::new(), |line| format!("line {line}: "));
            format!("{line}{}", one_line(&error))
        })
    }

    /// Renders the template. The error is one line.
    pub(super) fn render(&self, context: Value) -> Result<String, String> {
        on_large_stack(|| self.environment.get_template(NAME)?.render(context))
            .map_err(|error| one_line(&error))
    }

    /// Whether the template reads a variable.
    pub(super) fn reads(&self, variable: &str) -> bool {
        let variables =
            on_large_stack(|| Ok(self.environment.get_template(NAME)?.undeclared_variables(false)));
        variables.is_ok_and(|variables| variables.contains(variable))
    }
}

/// Adds what transformers adds to Jinja, and the functions that [`rewrite`] inserts.
fn add_functions(environment: &mut Environment) {
    environment.set_unknown_method_callback(call_method);
    environment.set_formatter(|out, state, value| {
        bounded(state, value)?;
        minijinja::escape_formatter(out, state, value)
    });
    environment.add_filter("tojson", json::tojson);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", |format: String| {
        let now = jiff::Zoned::now();
        jiff::fmt::strtime::format(&format, &now)
            .map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {error}")))
    });
    // Filters and functions whose result contains their arguments, and those that read all of a container.
    environment.add_function("dict", |state: &State, value: Option<Value>, kwargs: Kwargs| {
        checked(state, minijinja::functions::dict(value, kwargs)?)
    });
    environment.add_filter("batch", |state: &State, value: Value, count: usize, fill: Option<Value>| {
        checked(state, minijinja::filters::batch(state, value, count, fill)?)
    });
    environment.add_filter("slice", |state: &State, value: Value, count: usize, fill: Option<Value>| {
        checked(state, minijinja::filters::slice(state, value, count, fill)?)
    });
    environment.add_filter("zip", |state: &State, value: Value, others: Rest<Value>| {
        checked(state, minijinja::filters::zip(state, value, others)?)
    });
    environment.add_filter("string", |state: &State, value: Value| {
        bounded(state, &value)?;
        Ok::<_, Error>(if value.as_str().is_some() { value } else { Value::from(value.to_string()) })
    });
    environment.add_filter("join", join);
    environment.add_function(rewrite::BOUNDED, |state: &State, value: Value| checked(state, value));
    environment.add_filter(rewrite::PRINTF, printf);
    environment.add_filter(rewrite::GENERATION, |state: &State, text: String, is_marked: Value| {
        let [start, end] = GENERATION_MARKS;
        charge(state, text.len())?;
        Ok::<_, Error>(if is_marked.is_true() { format!("{start}{text}{end}") } else { text })
    });
}

fn checked(state: &State, value: Value) -> Result<Value, Error> {
    bounded(state, &value)?;
    Ok(value)
}

fn join(
    state: &mut State,
    value: &Value,
    joiner: Option<StringInput<'_>>,
    attribute: Option<&str>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    bounded(state, value)?;
    minijinja::filters::join(state, value, joiner, attribute, kwargs)
}

/// Python's `format % arguments` for a string on the left.
fn printf(state: &mut State, format: Value, arguments: Value) -> Result<Value, Error> {
    bounded(state, &arguments)?;
    let arguments: Vec<Value> = match arguments.downcast_object_ref::<Tuple>() {
        Some(_) => arguments.try_iter()?.collect(),
        None if arguments.kind() == ValueKind::Map => {
            let pairs = arguments.try_iter()?.filter_map(|key| {
                let value = arguments.get_item(&key).ok()?;
                Some((key.to_string(), value))
            });
            vec![Value::from(pairs.collect::<Kwargs>())]
        }
        None => vec![arguments],
    };
    charge(state, format.as_str().map_or(0, str::len))?;
    state.apply_filter("format", &[&[format], &arguments[..]].concat())
}

/// Runs `work` on a thread of its own with a stack for the deepest template that the bounds allow.
fn on_large_stack<T: Send>(work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    let failed = |problem: String| Error::new(ErrorKind::InvalidOperation, problem);
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("template".into()).stack_size(STACK_BYTES);
        let thread = thread.spawn_scoped(scope, work);
        let thread = thread.map_err(|error| failed(format!("found no thread to render it: {error}")))?;
        thread.join().unwrap_or_else(|_| Err(failed("found an internal error, expected none".into())))
    })
}

fn one_line(error: &Error) -> String {
    let text = match error.kind() {
        ErrorKind::OutOfFuel => {
            "found more work or text than is allowed, expected a template that renders within its bounds"
                .into()
        }
        kind => error.detail().map_or_else(|| kind.to_string(), String::from),
    };
    text.replace(['\n', '\r'], " ")
}
