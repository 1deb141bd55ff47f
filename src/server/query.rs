//! The query of a request: `?limit=20&after=…`.

use super::error::ApiError;
use super::ranges::out_of_range;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::RangeInclusive;

/// Extractor of the query's parameters. Those that a route does not have are ignored, and of one that is
/// given twice the last counts.
#[derive(Clone, Debug, Default)]
pub struct Query(BTreeMap<String, String>);

impl Query {
    /// Parameters of a query as it is written in a URL.
    pub fn parse(query: &str) -> Self {
        Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// Returns a parameter's value.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Returns an integer's value; `None` if it is absent.
    ///
    /// # Errors
    /// 400 if it is no integer in this range.
    pub fn integer(&self, name: &str, range: RangeInclusive<usize>) -> Result<Option<usize>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let value = text.parse().ok().filter(|value| range.contains(value));
        let expected = || format!("an integer from {} to {}", range.start(), range.end());
        value.map(Some).ok_or_else(|| out_of_range(name, format!("{text:?}"), expected()))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::parse(parts.uri.query().unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_checked() {
        let query = Query::parse("limit=20&after=file-1%2F&purpose=fine-tune&order=a+b&x&limit=7");
        assert_eq!((query.text("after"), query.text("order")), (Some("file-1/"), Some("a b")));
        assert_eq!(query.integer("limit", 1..=10).unwrap(), Some(7));
        assert_eq!(query.integer("none", 1..=10).unwrap(), None);
        for (text, found) in
            [("limit=0", "0"), ("limit=11", "11"), ("limit=-1", "-1"), ("limit=a", "a"), ("limit", "")]
        {
            let message = Query::parse(text).integer("limit", 1..=10).unwrap_err().json();
            let expected = format!("limit: found \\\"{found}\\\", expected an integer from 1 to 10");
            assert!(message.contains(&expected), "{message}");
        }
    }
}
