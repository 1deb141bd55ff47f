//! Responses that are the same bytes wherever they are computed.
//!
//! What a response says depends on its request and settings alone. A server gives it random ids and the time
//! of day, though, so that two runs would never write the same file. In a batch's output the ids follow from
//! the request and the settings, too, and the environment variable `SOURCE_DATE_EPOCH` sets the time
//! (<https://reproducible-builds.org/specs/source-date-epoch/>).

use crate::batch::{BatchRequest, BatchResponse, fingerprint};
use crate::{Error, Result};
use regex::{Captures, Regex};
use std::env::VarError;
use std::sync::LazyLock;

/// The environment variable with the time, in seconds since 1970.
const TIME_VARIABLE: &str = "SOURCE_DATE_EPOCH";

/// A random id. Quotes within a text are escaped, so that no text looks like this.
static ID: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#""(id|item_id)":"([a-z]+[-_])[0-9a-f]{32}""#).expect("a valid pattern"));
/// A time at which something was created or finished.
static TIME: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#""(created|created_at|completed_at)":[0-9]+"#).expect("a valid pattern"));

/// The time of all responses; `None` for that of day.
///
/// # Errors
/// [`Error::Message`] if `SOURCE_DATE_EPOCH` is no time.
pub fn time() -> Result<Option<u64>> {
    let found = match std::env::var(TIME_VARIABLE) {
        Err(VarError::NotPresent) => return Ok(None),
        Ok(value) => match value.parse() {
            Ok(seconds) => return Ok(Some(seconds)),
            Err(_) => value,
        },
        Err(VarError::NotUnicode(value)) => value.to_string_lossy().into_owned(),
    };
    Err(Error::Message(format!("{TIME_VARIABLE}: found {found:?}, expected seconds since 1970")))
}

/// The response with ids that follow from its request and the settings, and with this time.
pub fn response(
    settings: &str,
    request: &BatchRequest,
    time: Option<u64>,
    response: &BatchResponse,
) -> BatchResponse {
    let request = fingerprint::of_request(request);
    let digest = |kind: &str| {
        let half = |i: &str| fingerprint::of_parts([settings, &request, kind, i].map(str::as_bytes));
        half("0") + &half("1")
    };
    let id = |found: &Captures| format!(r#""{}":"{}{}""#, &found[1], &found[2], digest(&found[2]));
    let mut body = ID.replace_all(&response.body, id).into_owned();
    if let Some(time) = time {
        let time = |found: &Captures| format!(r#""{}":{time}"#, &found[1]);
        body = TIME.replace_all(&body, time).into_owned();
    }
    BatchResponse { status: response.status, request_id: format!("req_{}", digest("req_")), body }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_times_are_replaced_and_texts_are_not() {
        let request = |id: &str| BatchRequest {
            line: 1,
            custom_id: id.into(),
            endpoint: "/v1/completions",
            body: "{}".into(),
        };
        let random = "0123456789abcdef".repeat(2);
        let text = format!(r#"\"id\":\"cmpl-{random}\",\"created\":5"#);
        let body =
            format!(r#"{{"id":"cmpl-{random}","created":1796000000,"choices":[{{"text":"{text}"}}]}}"#);
        let found = BatchResponse { status: 200, request_id: "req_1".into(), body };
        let a = response("s", &request("a"), Some(7), &found);
        assert_eq!(a.body, response("s", &request("a"), Some(7), &found).body);
        assert!(a.body.contains(r#""created":7,"#) && a.body.contains(&text), "{}", a.body);
        assert!(
            a.body.starts_with(r#"{"id":"cmpl-"#) && !a.body.starts_with(&found.body[..30]),
            "{}",
            a.body
        );
        assert_eq!(a.body.len(), found.body.len() - 9);
        for other in [response("t", &request("a"), None, &found), response("s", &request("b"), None, &found)]
        {
            assert_ne!((&other.request_id, &other.body), (&a.request_id, &a.body));
            assert!(other.body.contains(r#""created":1796000000,"#));
        }
    }
}
