//! Batch output: one line per response, and resuming from the output of an earlier run.
//!
//! A line's `id` is `batch_req_`, the fingerprint of the settings and that of the request. Power loss may
//! leave an incomplete last line, or a tail of NUL bytes where blocks were not written: both are removed on
//! resuming.

use super::fingerprint;
use super::input::BatchRequest;
use crate::Error;
use crate::cli::output::stdout::write_error;
use crate::server::in_process::InProcessResponse;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write, stdout};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

type Result<T, E = Error> = std::result::Result<T, E>;

/// Prefix of every output line.
const LINE_PREFIX: &str = "{\"id\":\"batch_req_";

/// Interval at which the file is synchronized with the disk, after which power loss cannot damage it.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// Destination of the responses: a file, which can be resumed, or a stream.
pub enum Output {
    /// A file, locked during the run, and the time it was last synchronized.
    File(PathBuf, File, Instant),
    /// Standard output, a pipe or a device.
    Stream(Box<dyn Write>),
}

/// An output line, as read when resuming.
#[derive(Deserialize)]
struct OutputLine {
    id: String,
    custom_id: String,
    response: Option<Response>,
}

#[derive(Deserialize)]
struct Response {
    status_code: u16,
    body: Value,
}

/// The finished requests, and how many failed.
#[derive(Debug, Default)]
pub struct Progress {
    done: HashSet<String>,
    /// The settings' fingerprint in the first line of an earlier run.
    settings: Option<String>,
    /// Length of the complete lines in bytes.
    valid_len: usize,
    /// The damaged end of the file, which is removed.
    pub damage: Option<Damage>,
    failed: usize,
    /// Description of the first failed request.
    first_failure: Option<String>,
}

/// An incomplete or overwritten end of an output file.
#[derive(Debug, PartialEq)]
pub struct Damage {
    line: usize,
    bytes: usize,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "line {} was incomplete: removed the last {} bytes", self.line, self.bytes)
    }
}

impl Output {
    /// Opens the output and reads the responses of an earlier run over the same input. The file is not
    /// modified before [`Output::start`].
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Message`] if the file has other content or responses to other requests, or
    /// another run is writing to it.
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
        let progress = resume(&bytes, input, requests)
            .map_err(|problem| Error::Message(format!("{}: {problem}", path.display())))?;
        Ok((Self::File(path.into(), file, Instant::now()), progress))
    }

    /// Prepares the output for responses under these settings: removes a damaged end.
    ///
    /// # Errors
    /// [`Error::Message`] if the earlier responses were made under others, [`Error::Io`].
    pub fn start(&mut self, progress: &Progress, settings: &str) -> Result<()> {
        if progress.settings.as_ref().is_some_and(|earlier| earlier != settings) {
            return Err(Error::Message(format!(
                "{}: the responses are those of another model, precision or chat template; repeat its \
                 options, or choose another --output",
                self.name()
            )));
        }
        let Self::File(path, file, _) = self else { return Ok(()) };
        let path = &*path;
        let io_error = |action| move |source| Error::Io { path: path.clone(), action, source };
        if progress.damage.is_some() {
            file.set_len(progress.valid_len as u64).map_err(io_error("truncate"))?;
        }
        file.sync_all().map_err(io_error("synchronize"))?;
        // The folder's entry for a new file; not every system can synchronize a folder.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let _ = File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all());
        Ok(())
    }

    /// Synchronizes a file with the disk.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn sync(&mut self) -> Result<()> {
        let Self::File(path, file, synced) = self else { return Ok(()) };
        *synced = Instant::now();
        let io_error = |source| Error::Io { path: path.clone(), action: "synchronize", source };
        file.sync_data().map_err(io_error)
    }

    /// Returns the name of the output in messages.
    pub fn name(&self) -> String {
        match self {
            Self::File(path, ..) => path.display().to_string(),
            Self::Stream(_) => "batch".into(),
        }
    }

    /// Writes a response to a request as one line.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn append(
        &mut self,
        settings: &str,
        request: &BatchRequest,
        response: &InProcessResponse,
    ) -> Result<()> {
        let InProcessResponse { status, request_id, body } = response;
        // The body is copied verbatim, which preserves its number formatting.
        let line = format!(
            "{LINE_PREFIX}{settings}{}\",\"custom_id\":{},\"response\":{{\"status_code\":{status},\
             \"request_id\":{},\"body\":{body}}},\"error\":null}}\n",
            fingerprint::of_request(request),
            Value::from(request.custom_id.as_str()),
            Value::from(request_id.as_str()),
        );
        match self {
            Self::File(path, file, synced) => {
                let io_error = |source| Error::Io { path: path.clone(), action: "write", source };
                file.write_all(line.as_bytes()).map_err(io_error)?;
                if synced.elapsed() >= SYNC_INTERVAL {
                    self.sync()?;
                }
                Ok(())
            }
            Self::Stream(stream) => {
                stream.write_all(line.as_bytes()).and_then(|()| stream.flush()).map_err(write_error)
            }
        }
    }
}

/// Returns the progress of an earlier run.
fn resume(bytes: &[u8], input: &Path, requests: &[BatchRequest]) -> Result<Progress, String> {
    let by_id: HashMap<&str, &BatchRequest> =
        requests.iter().map(|request| (request.custom_id.as_str(), request)).collect();
    // A response contains no NUL byte: from the first one on, the file was not written.
    let written = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let valid_len = bytes[..written].iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let mut progress = Progress { valid_len, ..Progress::default() };
    let mut n_lines = 0;
    for (number, text) in (1..).zip(bytes[..valid_len].split_inclusive(|byte| *byte == b'\n')) {
        let line: OutputLine = serde_json::from_slice(text)
            .map_err(|_| format!("line {number} is not a batch response; choose another --output"))?;
        n_lines = number;
        let Some(request) = by_id.get(line.custom_id.as_str()) else {
            return Err(format!(
                "line {number}: custom_id: found {:?}, which is not in {}; choose another --output",
                line.custom_id,
                input.display()
            ));
        };
        let fingerprints = line.id.strip_prefix("batch_req_").unwrap_or_default();
        let (settings, of_request) = fingerprints.split_at_checked(16).unwrap_or_default();
        if of_request != fingerprint::of_request(request) {
            return Err(format!(
                "line {number}: the request {:?} in {} is not the one this responds to; choose another \
                 --output",
                line.custom_id,
                input.display()
            ));
        }
        if *progress.settings.get_or_insert(settings.into()) != settings {
            return Err(format!(
                "line {number}: the response is that of another model, precision or chat template than those \
                 before it; choose another --output"
            ));
        }
        let (status, body) = match line.response {
            Some(response) => (response.status_code, response.body.to_string()),
            None => (0, String::new()),
        };
        progress.record(&line.custom_id, status, &body);
    }
    // The rest may be removed only if it is the beginning of a response, or nothing else was written.
    let (last_line, prefix) = (&bytes[valid_len..written], LINE_PREFIX.as_bytes());
    let len = last_line.len().min(prefix.len());
    let only_nul = bytes[written..].iter().all(|byte| *byte == 0);
    if last_line[..len] != prefix[..len] || (written == 0 && !only_nul) {
        return Err("the last line is not a batch response; choose another --output".into());
    }
    if valid_len < bytes.len() {
        progress.damage = Some(Damage { line: n_lines + 1, bytes: bytes.len() - valid_len });
    }
    Ok(progress)
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
        let fingerprint = fingerprint::of_request(&requests(&[id])[0]);
        format!(
            "{LINE_PREFIX}0123456789abcdef{fingerprint}\",\"custom_id\":\"{id}\",\"response\":{{\
             \"status_code\":{status},\"request_id\":\"r\",\
             \"body\":{{\"error\":{{\"message\":\"no\"}}}}}},\"error\":null}}\n"
        )
    }

    #[test]
    fn incomplete_last_line_is_truncated() {
        let complete = output_line("a", 200) + &output_line("b", 400);
        let last = output_line("c", 200);
        for cut in 0..last.len() {
            let text = complete.clone() + &last[..cut];
            let progress = resume(text.as_bytes(), Path::new("in"), &requests(&["a", "b", "c"])).unwrap();
            assert_eq!(
                (progress.valid_len, progress.is_done("a"), progress.is_done("c")),
                (complete.len(), true, false),
                "{cut}"
            );
            let damage = (cut > 0).then_some(Damage { line: 3, bytes: cut });
            assert_eq!(progress.damage, damage);
            assert_eq!(
                progress.failure_summary().unwrap(),
                "1 of 2 requests failed, the first: \"b\" with status 400: no"
            );
        }
    }

    #[test]
    fn tail_of_nul_bytes_is_removed() {
        let lines = [output_line("a", 200), output_line("b", 200), output_line("c", 200)].concat();
        let ids = ["a", "b", "c"];
        let second_end = lines.match_indices('\n').nth(1).unwrap().0 + 1;
        for start in [0, second_end, second_end + 7, second_end + 60] {
            // NUL bytes to the end, and a block of them before a part that was written.
            for written_again in ["", &lines[second_end + 80..]] {
                let text = [&lines[..start], &"\0".repeat(4096), written_again].concat();
                let result = resume(text.as_bytes(), Path::new("in"), &requests(&ids));
                if start == 0 && !written_again.is_empty() {
                    assert!(result.unwrap_err().contains("not a batch response"));
                    continue;
                }
                let (progress, valid_len) = (result.unwrap(), if start == 0 { 0 } else { second_end });
                assert_eq!((progress.valid_len, progress.is_done("c")), (valid_len, false));
                let message = progress.damage.unwrap().to_string();
                let expected = format!("removed the last {} bytes", text.len() - valid_len);
                assert!(message.ends_with(&expected), "{message}");
            }
        }
    }

    #[test]
    fn response_to_a_changed_request_is_rejected() {
        let text = output_line("a", 200) + &output_line("b", 200);
        let mut changed = requests(&["a", "b"]);
        changed[1].body = "{}".into();
        let error = resume(text.as_bytes(), Path::new("in"), &changed).unwrap_err();
        assert!(error.starts_with("line 2: the request \"b\" in in is not the one"), "{error}");
        let other_settings = text.replacen("0123456789abcdef", "fedcba9876543210", 1);
        let error = resume(other_settings.as_bytes(), Path::new("in"), &requests(&["a", "b"])).unwrap_err();
        assert!(error.starts_with("line 2: the response is that of another model"), "{error}");
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
