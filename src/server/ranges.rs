//! Checks that the fields of a request are in their ranges.

use super::error::ApiError;
use std::ops::RangeInclusive;

/// Checks that an integer field is in a range; `None` if the field is absent.
///
/// # Errors
/// 400 if it is out of range.
pub fn integer_in_range(
    name: &str,
    value: Option<i64>,
    range: RangeInclusive<usize>,
) -> Result<Option<usize>, ApiError> {
    let Some(value) = value else { return Ok(None) };
    let inside = usize::try_from(value).ok().filter(|value| range.contains(value));
    match inside {
        Some(value) => Ok(Some(value)),
        None if *range.end() == usize::MAX => {
            Err(out_of_range(name, value, format!("an integer of at least {}", range.start())))
        }
        None => {
            Err(out_of_range(name, value, format!("an integer from {} to {}", range.start(), range.end())))
        }
    }
}

/// Returns the error for a value out of its range.
pub fn out_of_range(name: &str, found: impl std::fmt::Display, expected: impl std::fmt::Display) -> ApiError {
    ApiError::invalid_param(name, format!("found {found}, expected {expected}"))
}

/// Returns the token ids of a field.
///
/// # Errors
/// 400 for one outside the vocabulary.
pub fn token_ids(name: &str, ids: Option<&[u32]>, vocab_size: usize) -> Result<Vec<u32>, ApiError> {
    let ids = ids.unwrap_or_default();
    match ids.iter().find(|&&id| id as usize >= vocab_size) {
        Some(id) => Err(out_of_range(name, id, format!("a token id from 0 to {}", vocab_size - 1))),
        None => Ok(ids.to_vec()),
    }
}
