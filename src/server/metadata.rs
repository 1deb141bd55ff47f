//! `metadata`: a client's own notes on an object.

use super::error::ApiError;
use std::collections::BTreeMap;

/// Notes by name.
pub type Metadata = BTreeMap<String, String>;

/// Maximum number of notes, and of characters in the name and the value of one.
const MAX: (usize, usize, usize) = (16, 64, 512);

/// Checks the number and length of notes.
///
/// # Errors
/// 400 if there are too many, or one is too long.
pub fn check(metadata: Option<&Metadata>) -> Result<(), ApiError> {
    let (max, max_name, max_value) = MAX;
    let metadata = metadata.into_iter().flatten();
    let too_long = |(name, value): (&String, &String)| {
        name.chars().count() > max_name || value.chars().count() > max_value
    };
    match metadata.clone().count() > max || metadata.clone().any(too_long) {
        true => {
            let expected = format!(
                "expected at most {max} pairs, of names of at most {max_name} characters and values of at \
                 most {max_value}"
            );
            Err(ApiError::invalid_param("metadata", expected))
        }
        false => Ok(()),
    }
}
