//! How an adapter's configuration names layers: by the end of their name, or by a regular expression.

use fancy_regex::Regex;
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;

/// Modules: a list of names, or an expression.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Modules {
    /// Every module whose name ends with one of these, from a dot on.
    Names(Vec<String>),
    /// Every module whose whole name matches the regular expression; `all-linear` stands for all linear
    /// layers of the blocks.
    Expression(String),
}

impl Modules {
    /// The modules that peft changes in a GPT-2 if none are named.
    pub fn gpt2_default() -> Self {
        Self::Names(vec!["c_attn".into()])
    }

    /// Whether a linear layer is among them.
    pub(super) fn matches(&self, name: &str) -> bool {
        match self {
            Self::Names(names) => names.iter().any(|end| is_end_of(end, name)),
            Self::Expression(all) if all.eq_ignore_ascii_case("all-linear") => true,
            Self::Expression(expression) => is_match(&format!("^(?:{expression})$"), name),
        }
    }

    /// The expression with its problem, if it is invalid.
    pub(super) fn problem(&self) -> Option<String> {
        match self {
            Self::Names(_) => None,
            Self::Expression(expression) => problem(expression),
        }
    }
}

/// Whether a name is `end`, or ends with it from a dot on.
pub(super) fn is_end_of(end: &str, name: &str) -> bool {
    name.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Values by the end of a module's name, which is a regular expression. The first that matches counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Patterns<T>(pub Vec<(String, T)>);

impl<T> Patterns<T> {
    /// The value for a module.
    pub(super) fn get(&self, name: &str) -> Option<&T> {
        let is_match = |(end, _): &&(String, T)| is_match(&format!(r"^(?:.*\.)?(?:{end})$"), name);
        self.0.iter().find(is_match).map(|(_, value)| value)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|(_, value)| value)
    }

    /// The first invalid expression, with its problem.
    pub(super) fn problem(&self) -> Option<String> {
        self.0.iter().find_map(|(end, _)| problem(end))
    }
}

impl<T> Default for Patterns<T> {
    fn default() -> Self {
        Self(vec![])
    }
}

/// An expression that takes too long to match does not match.
fn is_match(expression: &str, name: &str) -> bool {
    Regex::new(expression).is_ok_and(|regex| regex.is_match(name).unwrap_or(false))
}

fn problem(expression: &str) -> Option<String> {
    let error = Regex::new(&format!("^(?:{expression})$")).err()?;
    Some(format!("{expression}: {error}").replace(char::is_control, " "))
}

/// As an object, in the order of the patterns.
impl<T: Serialize> Serialize for Patterns<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.0.iter().try_for_each(|(end, value)| map.serialize_entry(end, value))?;
        map.end()
    }
}

/// From an object, whose order is kept, or null.
impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patterns<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for InOrder<T> {
            type Value = Patterns<T>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object or null")
            }

            fn visit_unit<E>(self) -> Result<Patterns<T>, E> {
                Ok(Patterns::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Patterns<T>, A::Error> {
                let mut patterns = vec![];
                while let Some(entry) = map.next_entry()? {
                    patterns.push(entry);
                }
                Ok(Patterns(patterns))
            }
        }

        deserializer.deserialize_any(InOrder(PhantomData))
    }
}
