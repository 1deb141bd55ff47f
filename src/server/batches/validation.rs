//! The check of an input file: every line, before the first is answered.

use super::object::{BatchProblem, StoredBatch};
use crate::Error;
use crate::batch::{InvalidLine, Requests};
use std::path::Path;

type Result<T, E = Error> = std::result::Result<T, E>;

/// Maximum number of requests in a batch.
pub const MAX_REQUESTS: usize = 50_000;
/// Maximum number of problems that are listed.
const MAX_PROBLEMS: usize = 100;

/// Checks all lines of a batch's input, and returns their number, or what is wrong with them.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read.
pub fn check(
    batch: &StoredBatch,
    input: &Path,
    max_line_bytes: u64,
) -> Result<Result<usize, Vec<BatchProblem>>> {
    let (mut total, mut problems) = (0, vec![]);
    for request in Requests::open(input, max_line_bytes)? {
        total += 1;
        match request? {
            Err(InvalidLine { line, param, problem }) => {
                problems.push(BatchProblem {
                    code: if param.is_some() { "invalid_request" } else { "invalid_json_line" }.into(),
                    message: param.map_or(problem.clone(), |param| format!("{param}: {problem}")),
                    param: param.map(String::from),
                    line: Some(line),
                });
            }
            Ok(request) if batch.endpoint.strip_prefix("/v1") != Some(request.endpoint) => {
                problems.push(BatchProblem {
                    code: "mismatched_url".into(),
                    message: format!(
                        "url: found /v1{}, expected {}, the batch's endpoint",
                        request.endpoint, batch.endpoint
                    ),
                    param: Some("url".into()),
                    line: Some(request.line),
                });
            }
            Ok(_) => {}
        }
        if total > MAX_REQUESTS {
            let message = format!("found more than {MAX_REQUESTS} requests, the maximum");
            problems = vec![problem("too_many_requests", message)];
        }
        if total > MAX_REQUESTS || problems.len() == MAX_PROBLEMS {
            break;
        }
    }
    if total == 0 {
        problems.push(problem("empty_file", "found no requests, expected one per line".into()));
    }
    Ok(if problems.is_empty() { Ok(total) } else { Err(problems) })
}

/// A problem of the file as a whole.
pub fn problem(code: &str, message: String) -> BatchProblem {
    BatchProblem { code: code.into(), message, param: Some("input_file_id".into()), line: None }
}
