//! Batch output: one line per response, and resuming from the output of an earlier run.

use super::input::BatchRequest;
use crate::Error;
use crate::cli::write_error;
use crate::server::in_process::InProcessResponse;
use crate::server::middleware::random_id;
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write, stdout};
use std::path::{Path, PathBuf};

type Result<T, E = Error> = std::result::Result<T, E>;

/// Prefix of every output line.
const LINE_PREFIX: &str = "{\"id\":\"batch_req_";

/// Destination of the responses: a file, which can be resumed, or a stream.
pub enum Output {
    /// A file, locked during the run.
    File(PathBuf, File),
    /// Standard output, a pipe or a device.
    Stream(Box<dyn Write>),
}

/// An output line, as read when resuming.
#[derive(Deserialize)]
struct OutputLine {
    #[serde(rename = "id")]
    _id: String,
    custom_id: String,
    response: Option<Response>,
}

#[derive(Deserialize)]
struct Response {
    status_code: u16,
    body: Value,
}

/// The finished requests, and how many failed.
#[derive(Default)]
pub struct Progress {
    done: HashSet<String>,
    failed: usize,
    /// Description of the first failed request.
    first_failure: Option<String>,
}

impl Output {
    /// Opens the output and reads the responses of an earlier run over the same input.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Message`] if the file has other content, which is not modified, or another run
    /// is writing to it.
    pub fn open(path: &Path, input: &Path, requests: &[BatchRequest]) -> Result<(Self, Progress)> {
        if path == Path::new("-") {
            return Ok((Self::Stream(Box::new(stdout())), Progress::default()));
        }
        let io_error = |action| move |source| Error::Io { path: path.into(), action, source };
        if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            let stream = OpenOptions::new().write(true).open(path).map_err(io_error("open"))?;
            return Ok((Self::Stream(Box::new(stream)), Progress::default()));
        }
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).open(path).map_err(io_error("open"))?;
        // Other errors are ignored: some file systems do not support locks.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(Error::Message(format!("{}: another run is writing to it", path.display())));
        }
        let mut bytes = vec![];
        file.read_to_end(&mut bytes).map_err(io_error("read"))?;
        let (progress, valid_len) = resume(&bytes, input, requests)
            .map_err(|problem| Error::Message(format!("{}: {problem}", path.display())))?;
        if valid_len < bytes.len() {
            file.set_len(valid_len as u64).map_err(io_error("truncate"))?;
        }
        Ok((Self::File(path.into(), file), progress))
    }

    /// Returns the name of the output in messages.
    pub fn name(&self) -> String {
        match self {
            Self::File(path, _) => path.display().to_string(),
            Self::Stream(_) => "batch".into(),
        }
    }

    /// Writes a response as one line.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn append(&mut self, custom_id: &str, response: &InProcessResponse) -> Result<()> {
        let InProcessResponse { status, request_id, body } = response;
        // The body is copied verbatim, which preserves its number formatting.
        let line = format!(
            "{LINE_PREFIX}{}\",\"custom_id\":{},\"response\":{{\"status_code\":{status},\"request_id\":{},\
             \"body\":{body}}},\"error\":null}}\n",
            random_id(),
            Value::from(custom_id),
            Value::from(request_id.as_str()),
        );
        match self {
            Self::File(path, file) => file.write_all(line.as_bytes()).map_err(|source| Error::Io {
                path: path.clone(),
                action: "write",
                source,
            }),
            Self::Stream(stream) => {
                stream.write_all(line.as_bytes()).and_then(|()| stream.flush()).map_err(write_error)
            }
        }
    }
}

/// Returns the progress of an earlier run, and the length of its complete lines in bytes.
fn resume(bytes: &[u8], input: &Path, requests: &[BatchRequest]) -> Result<(Progress, usize), String> {
    let known_ids: HashSet<&str> = requests.iter().map(|request| request.custom_id.as_str()).collect();
    let valid_len = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let mut progress = Progress::default();
    for (number, text) in (1..).zip(bytes[..valid_len].split_inclusive(|byte| *byte == b'\n')) {
        let line: OutputLine = serde_json::from_slice(text)
            .map_err(|_| format!("line {number} is not a batch response; choose another --output"))?;
        if !known_ids.contains(line.custom_id.as_str()) {
            return Err(format!(
                "line {number}: custom_id: found {:?}, which is not in {}; choose another --output",
                line.custom_id,
                input.display()
            ));
        }
        let (status, body) = match line.response {
            Some(response) => (response.status_code, response.body.to_string()),
            None => (0, String::new()),
        };
        progress.record(&line.custom_id, status, &body);
    }
    // An incomplete last line may be truncated only if it is a response.
    let (last_line, prefix) = (&bytes[valid_len..], LINE_PREFIX.as_bytes());
    let len = last_line.len().min(prefix.len());
    match last_line[..len] == prefix[..len] {
        true => Ok((progress, valid_len)),
        false => Err("the last line is not a batch response; choose another --output".into()),
    }
}

impl Progress {
    /// Returns whether the request is done.
    pub fn is_done(&self, custom_id: &str) -> bool {
        self.done.contains(custom_id)
    }

    /// Records a finished request.
    pub fn record(&mut self, custom_id: &str, status: u16, body: &str) {
        if self.done.insert(custom_id.into()) && status != 200 {
            self.failed += 1;
            self.first_failure.get_or_insert_with(|| {
                let body: Value = serde_json::from_str(body).unwrap_or_default();
                let reason = body["error"]["message"].as_str().unwrap_or("no error message");
                format!("{custom_id:?} with status {status}: {}", reason.replace('\n', " "))
            });
        }
    }

    /// Returns the number of failed requests and the reason of the first, or `None` if none failed.
    pub fn failure_summary(&self) -> Option<String> {
        let first = self.first_failure.as_ref()?;
        Some(format!("{} of {} requests failed, the first: {first}", self.failed, self.done.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(ids: &[&str]) -> Vec<BatchRequest> {
        let request = |id: &&str| BatchRequest {
            custom_id: id.to_string(),
            url: "/x".parse().unwrap(),
            body: String::new(),
        };
        ids.iter().map(request).collect()
    }

    fn output_line(id: &str, status: u16) -> String {
        format!(
            "{LINE_PREFIX}1\",\"custom_id\":\"{id}\",\"response\":{{\"status_code\":{status},\
             \"request_id\":\"r\",\"body\":{{\"error\":{{\"message\":\"no\"}}}}}},\"error\":null}}\n"
        )
    }

    #[test]
    fn incomplete_last_line_is_truncated() {
        let complete = output_line("a", 200) + &output_line("b", 400);
        let last = output_line("c", 200);
        for cut in 0..last.len() {
            let text = complete.clone() + &last[..cut];
            let (progress, valid_len) =
                resume(text.as_bytes(), Path::new("in"), &requests(&["a", "b", "c"])).unwrap();
            assert_eq!(
                (valid_len, progress.is_done("a"), progress.is_done("c")),
                (complete.len(), true, false),
                "{cut}"
            );
            assert_eq!(
                progress.failure_summary().unwrap(),
                "1 of 2 requests failed, the first: \"b\" with status 400: no"
            );
        }
    }

    #[test]
    fn output_with_other_content_is_rejected() {
        let error =
            |text: &str| resume(text.as_bytes(), Path::new("in"), &requests(&["a"])).map(drop).unwrap_err();
        assert_eq!(error("dear diary"), "the last line is not a batch response; choose another --output");
        assert_eq!(error("{\"id\": 3"), "the last line is not a batch response; choose another --output");
        let request = "{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":{}}\n";
        assert!(error(&(output_line("a", 200) + request)).starts_with("line 2 is not a batch response"));
        assert!(error(&(output_line("a", 200) + "\n")).starts_with("line 2 is not a batch response"));
        assert!(
            error(&output_line("b", 200)).starts_with("line 1: custom_id: found \"b\", which is not in in")
        );
    }
}
