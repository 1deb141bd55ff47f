//! Untrusted JSON objects, built within a limit: a body of a few megabytes could otherwise become hundreds
//! of megabytes in memory.

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

/// Maximum number of values in a body: more than a thousand prompts of a thousand token ids.
const MAX_VALUES: usize = 1 << 20;
/// Values that an object counts for: a map node has room for eleven fields.
const OBJECT_COST: usize = 20;
/// Values that a string counts for, which has an allocation of its own and is copied once.
const STRING_COST: usize = 8;
/// Values that an object's field counts for, besides its own value.
const FIELD_COST: usize = 3;
/// Maximum number of fields of the body's object.
const MAX_FIELDS: usize = 1000;
/// Depth to which a field that no request has is built.
const SHALLOW_DEPTH: usize = 2;
/// Maximum number of items per list or object of such a field.
const SHALLOW_ITEMS: usize = 16;

/// Parses a JSON object. A field that is not `known` is ignored later, and only its outermost values are
/// built.
///
/// # Errors
/// A syntax error, a value that is not an object, or more values than the limit.
pub fn parse_object(bytes: &[u8], known: &HashSet<String>) -> serde_json::Result<Value> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = deserializer.deserialize_map(Body { known })?;
    deserializer.end()?;
    Ok(value)
}

/// Visitor of the body's object.
struct Body<'a> {
    known: &'a HashSet<String>,
}

impl<'de> Visitor<'de> for Body<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let (mut fields, budget) = (Map::new(), Cell::new(MAX_VALUES));
        while let Some(name) = map.next_key::<String>()? {
            let (depth, items) = match self.known.contains(&name) {
                true => (usize::MAX, usize::MAX),
                false => (SHALLOW_DEPTH, SHALLOW_ITEMS),
            };
            let value = map.next_value_seed(BoundedValue { budget: &budget, depth, items })?;
            fields.insert(name, value);
            if fields.len() > MAX_FIELDS {
                return Err(A::Error::custom(format!("found more than {MAX_FIELDS} fields, the maximum")));
            }
        }
        Ok(Value::Object(fields))
    }
}

/// Builder of a value of limited size.
#[derive(Clone, Copy)]
struct BoundedValue<'a> {
    /// Values that may still be built.
    budget: &'a Cell<usize>,
    /// Levels of lists and objects that are built; those below are empty.
    depth: usize,
    /// Maximum number of items per list and object; further ones are skipped.
    items: usize,
}

impl BoundedValue<'_> {
    /// Takes `cost` from the budget.
    fn spend<E: Error>(&self, cost: usize) -> Result<(), E> {
        let left = self.budget.get().checked_sub(cost);
        self.budget.set(left.ok_or_else(|| {
            E::custom(format!(
                "found more than {MAX_VALUES} values, where an object counts for {OBJECT_COST} and a \
                 string for {STRING_COST}"
            ))
        })?);
        Ok(())
    }

    fn scalar<E: Error>(self, value: impl Into<Value>) -> Result<Value, E> {
        self.spend(1)?;
        Ok(value.into())
    }
}

impl<'de> DeserializeSeed<'de> for BoundedValue<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for BoundedValue<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        self.scalar(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        self.scalar(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        self.scalar(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        self.scalar(value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        self.spend(STRING_COST)?;
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.scalar(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        self.spend(1)?;
        let inner = Self { depth: self.depth.saturating_sub(1), ..self };
        let mut items = vec![];
        while self.depth > 0
            && items.len() < self.items
            && let Some(item) = seq.next_element_seed(inner)?
        {
            items.push(item);
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        self.spend(OBJECT_COST)?;
        let inner = Self { depth: self.depth.saturating_sub(1), ..self };
        let mut fields = Map::new();
        while self.depth > 0
            && fields.len() < self.items
            && let Some(name) = map.next_key()?
        {
            self.spend(FIELD_COST)?;
            fields.insert(name, map.next_value_seed(inner)?);
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(text: &str) -> Result<Value, String> {
        let field_names = crate::server::openapi::field_names(&crate::server::routes::description());
        parse_object(text.as_bytes(), &field_names).map_err(|error| error.to_string())
    }

    #[test]
    fn fields_of_requests_are_built_whole() {
        let body = json!({"prompt": [[1, 2], [3]], "messages": [{"role": "user", "content": [{"text": "é"}]}],
            "temperature": 0.5, "seed": -1, "stream": true, "stop": null, "logit_bias": {"1": 2}});
        assert_eq!(parse(&body.to_string()), Ok(body));
    }

    #[test]
    fn unknown_fields_are_built_shallowly() {
        let body = json!({"unknown": {"a": [1, {"b": [2]}], "c": "d"}, "long": vec![0; 1000], "n": 1});
        let built = json!({"unknown": {"a": [1, {}], "c": "d"}, "long": vec![0; 16], "n": 1});
        assert_eq!(parse(&body.to_string()), Ok(built));
        let objects = format!("{{\"unknown\": [{}0]}}", "{\"a\":1},".repeat(800_000));
        assert_eq!(parse(&objects).unwrap()["unknown"].as_array().unwrap().len(), 16);
    }

    #[test]
    fn excessive_values_are_refused() {
        let objects = format!("{{\"messages\": [{}0]}}", "{},".repeat(110_000));
        assert!(parse(&objects).unwrap_err().contains("found more than 1048576 values"));
        let strings = format!("{{\"prompt\": [{}0]}}", "\"a\",".repeat(270_000));
        assert!(parse(&strings).unwrap_err().contains("a string for 8"));
        let fields: String = (0..1001).map(|i| format!("\"{i}\": 0,")).collect();
        assert!(parse(&format!("{{{fields}\"n\": 1}}")).unwrap_err().contains("more than 1000 fields"));
        for text in ["[1]", "1", "\"a\"", "{} {}", "{", "{\"a\": [1,]}", "{\"n\": 1e999}"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
