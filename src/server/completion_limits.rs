//! How much a completion request generates: the fields of completions and chat completions.

use super::error::ApiError;
use super::ranges::integer_in_range;
use serde::Deserialize;
use utoipa::ToSchema;

/// Maximum number of choices per prompt.
const MAX_N: usize = 128;

/// The fields. All may be absent or null, which is the same.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct CompletionLimits {
    /// Maximum number of tokens to generate.
    max_tokens: Option<i64>,
    /// The newer name of `max_tokens`; takes precedence over it.
    max_completion_tokens: Option<i64>,
    /// Number of choices per prompt, 1 to 128. Default 1.
    n: Option<i64>,
}

/// The maximum number of tokens that a request gives, and the name of the field that gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxTokens {
    /// The number; none for the API's or the model's default.
    pub requested: Option<usize>,
    /// The name of the field.
    pub field: &'static str,
}

impl MaxTokens {
    /// Validates the value of a field.
    ///
    /// # Errors
    /// 400 for a negative number.
    pub fn new(field: &'static str, value: Option<i64>) -> Result<Self, ApiError> {
        Ok(Self { requested: integer_in_range(field, value, 0..=usize::MAX)?, field })
    }
}

impl CompletionLimits {
    /// Returns the maximum number of tokens.
    ///
    /// # Errors
    /// 400 for a negative number.
    pub fn max_tokens(&self) -> Result<MaxTokens, ApiError> {
        let max_tokens = MaxTokens::new("max_tokens", self.max_tokens)?;
        let newer = MaxTokens::new("max_completion_tokens", self.max_completion_tokens)?;
        Ok(if newer.requested.is_some() { newer } else { max_tokens })
    }

    /// Returns the number of choices per prompt.
    ///
    /// # Errors
    /// 400 if it is out of range.
    pub fn n(&self) -> Result<usize, ApiError> {
        Ok(integer_in_range("n", self.n, 1..=MAX_N)?.unwrap_or(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn newer_name_takes_precedence_and_both_are_checked() {
        let limits = |body| serde_json::from_value::<CompletionLimits>(body).unwrap();
        let error = |body| limits(body).max_tokens().and_then(|_| limits(json!({})).n()).unwrap_err().json();
        let both = limits(json!({"max_tokens": 3, "max_completion_tokens": 5, "n": null}));
        let expected = MaxTokens { requested: Some(5), field: "max_completion_tokens" };
        assert_eq!((both.max_tokens().unwrap(), both.n().unwrap()), (expected, 1));
        let expected = MaxTokens { requested: None, field: "max_tokens" };
        assert_eq!(limits(json!({})).max_tokens().unwrap(), expected);
        assert!(error(json!({"max_tokens": -1})).contains("max_tokens: found -1, expected an integer of at"));
        assert!(
            error(json!({"max_tokens": -1, "max_completion_tokens": 5})).contains("max_tokens: found -1")
        );
        for n in [0, 129] {
            let error = limits(json!({"n": n})).n().unwrap_err().json();
            assert!(error.contains(&format!("n: found {n}, expected an integer from 1 to 128")), "{error}");
        }
    }
}
