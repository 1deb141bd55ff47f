//! The fields of a `config.json`, read one by one.

use serde_json::{Map, Value};
use std::path::Path;

use crate::error::{Error, Result};

/// The fields of one file: missing ones get a default, invalid ones an error.
pub(super) struct Fields<'a> {
    pub(super) file: &'a Path,
    pub(super) map: &'a Map<String, Value>,
}

impl Fields<'_> {
    pub(super) fn invalid(&self, field: &str, found: String, expected: impl Into<String>) -> Error {
        Error::Config { file: self.file.to_path_buf(), field: field.into(), found, expected: expected.into() }
    }

    /// An integer from 1 to `max` under the first of its names that is present; 0 if none is.
    pub(super) fn size(&self, names: &[&str], max: usize) -> Result<usize> {
        let Some((field, value)) = names.iter().find_map(|name| Some((name, self.map.get(*name)?))) else {
            return Ok(0);
        };
        (value.as_u64())
            .and_then(|size| usize::try_from(size).ok())
            .filter(|size| (1..=max).contains(size))
            .ok_or_else(|| {
                let expected = format!("an integer from 1 to {max}");
                self.invalid(field, excerpt(value), expected)
            })
    }

    pub(super) fn bool(&self, field: &str, default: bool) -> Result<bool> {
        let Some(value) = self.map.get(field) else {
            return Ok(default);
        };
        (value.as_bool()).ok_or_else(|| self.invalid(field, excerpt(value), "true or false"))
    }

    /// A normal (not subnormal) f32 above 0 and at most 1.
    pub(super) fn epsilon(&self, field: &str, default: f32) -> Result<f32> {
        let Some(value) = self.map.get(field) else {
            return Ok(default);
        };
        (value.as_f64())
            .map(|epsilon| epsilon as f32)
            .filter(|epsilon| epsilon.is_normal() && (0.0..=1.0).contains(epsilon))
            .ok_or_else(|| self.invalid(field, excerpt(value), "a number above 0 and at most 1"))
    }

    pub(super) fn choice<T>(
        &self,
        field: &str,
        default: T,
        parse: impl Fn(&str) -> Option<T>,
        accepted: &str,
    ) -> Result<T> {
        let Some(value) = self.map.get(field) else {
            return Ok(default);
        };
        (value.as_str()).and_then(parse).ok_or_else(|| self.invalid(field, excerpt(value), accepted))
    }

    pub(super) fn token_id(&self, field: &str, value: &Value) -> Result<u32> {
        (value.as_u64()).and_then(|id| u32::try_from(id).ok()).ok_or_else(|| {
            let expected = format!("a token id (0 to {}), a list of them, or null", u32::MAX);
            self.invalid(field, excerpt(value), expected)
        })
    }
}

/// A value as JSON on one line, truncated to 60 characters.
pub(super) fn excerpt(value: &Value) -> String {
    const MAX_CHARS: usize = 60;
    let json = value.to_string();
    match json.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}...", &json[..end]),
        None => json,
    }
}
