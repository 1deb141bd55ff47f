//! What is done of a batch: the responses in its output, as an earlier run left them.
//!
//! A line's `id` is `batch_req_`, the fingerprint of the settings and that of the request. Power loss may
//! leave an incomplete last line, or a tail of NUL bytes where blocks were not written: both are removed on
//! resuming.

use super::fingerprint;
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashSet;
use std::fmt;
use std::io::{self, BufRead};
use std::ops::Range;

/// Prefix of every output line.
pub(super) const LINE_PREFIX: &str = "{\"id\":\"batch_req_";

/// An output line.
#[derive(Debug, Deserialize)]
pub struct OutputLine {
    id: String,
    /// The request's id.
    pub custom_id: String,
    response: Option<Response>,
}

#[derive(Debug, Deserialize)]
struct Response {
    status_code: u16,
    body: Value,
}

impl OutputLine {
    /// Parses a line; `None` if it is no response.
    pub fn parse(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    /// Returns the fingerprints of the settings and of the request.
    pub fn fingerprints(&self) -> (&str, &str) {
        let fingerprints = self.id.strip_prefix("batch_req_").unwrap_or_default();
        fingerprints.split_at_checked(fingerprint::LEN).unwrap_or_default()
    }

    /// Returns the HTTP status; 0 if there is no response.
    pub fn status(&self) -> u16 {
        self.response.as_ref().map_or(0, |response| response.status_code)
    }
}

/// The finished requests, and how many failed.
#[derive(Debug, Default)]
pub struct Progress {
    done: HashSet<String>,
    /// The settings' fingerprint in the first line of an earlier run.
    pub settings: Option<String>,
    /// Length of the complete lines in bytes.
    pub(super) valid_len: u64,
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
    bytes: u64,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "line {} was incomplete: removed the last {} bytes", self.line, self.bytes)
    }
}

impl Progress {
    /// Reads an output, one line at a time. `check` sees each with its bytes in the file, and says what is
    /// wrong with it. An inner error is the problem of a file with other content.
    ///
    /// # Errors
    /// Those of reading.
    pub fn read(
        mut from: impl BufRead,
        mut check: impl FnMut(&OutputLine, Range<u64>) -> Result<(), String>,
    ) -> io::Result<Result<Self, String>> {
        let (mut progress, mut text, mut number) = (Self::default(), vec![], 1);
        loop {
            text.clear();
            from.read_until(b'\n', &mut text)?;
            // A response contains no NUL byte: from the first one on, the file was not written.
            if !text.ends_with(b"\n") || text.contains(&0) {
                break;
            }
            let Some(line) = OutputLine::parse(&text) else {
                return Ok(Err(format!("line {number} is not a batch response; choose another --output")));
            };
            let settings = line.fingerprints().0;
            let end = progress.valid_len + text.len() as u64;
            if let Err(problem) = check(&line, progress.valid_len..end) {
                return Ok(Err(format!("line {number}: {problem}")));
            }
            if *progress.settings.get_or_insert(settings.into()) != settings {
                return Ok(Err(format!(
                    "line {number}: the response is that of another model, precision or chat template than \
                     those before it; choose another --output"
                )));
            }
            let body = line.response.as_ref().map_or_else(String::new, |response| response.body.to_string());
            progress.record(&line.custom_id, line.status(), &body);
            progress.valid_len = end;
            number += 1;
        }
        // The rest may be removed only if it is the beginning of a response, or nothing else was written.
        let written = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
        let (last_line, prefix) = (&text[..written], LINE_PREFIX.as_bytes());
        let len = last_line.len().min(prefix.len());
        let begins_a_line = last_line[..len] == prefix[..len];
        let mut only_nul = text[written..].iter().all(|byte| *byte == 0);
        let mut bytes = text.len() as u64;
        loop {
            let more = from.fill_buf()?;
            if more.is_empty() {
                break;
            }
            only_nul &= more.iter().all(|byte| *byte == 0);
            let len = more.len();
            bytes += len as u64;
            from.consume(len);
        }
        let nothing_written = progress.valid_len == 0 && written == 0;
        if !begins_a_line || (nothing_written && !only_nul) {
            return Ok(Err("the last line is not a batch response; choose another --output".into()));
        }
        if bytes > 0 {
            progress.damage = Some(Damage { line: number, bytes });
        }
        Ok(Ok(progress))
    }

    /// Adds the responses of another output.
    ///
    /// # Errors
    /// What is wrong if they were made under other settings.
    pub fn add(&mut self, other: Self) -> Result<(), String> {
        match (&self.settings, &other.settings) {
            (Some(settings), Some(others)) if settings != others => {
                return Err("the responses are those of another model, precision or chat template".into());
            }
            _ => self.settings = self.settings.take().or(other.settings),
        }
        self.done.extend(other.done);
        self.failed += other.failed;
        self.first_failure = self.first_failure.take().or(other.first_failure);
        Ok(())
    }

    /// Returns whether the request is done.
    pub fn is_done(&self, custom_id: &str) -> bool {
        self.done.contains(custom_id)
    }

    /// Returns the number of requests that are done, and how many of them failed.
    pub fn counts(&self) -> (usize, usize) {
        (self.done.len(), self.failed)
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

    fn read(text: &str) -> Result<Progress, String> {
        Progress::read(io::BufReader::with_capacity(50, text.as_bytes()), |_, _| Ok(())).unwrap()
    }

    fn output_line(id: &str, status: u16) -> String {
        format!(
            "{LINE_PREFIX}0123456789abcdef{id}\",\"custom_id\":\"{id}\",\"response\":{{\
             \"status_code\":{status},\"request_id\":\"r\",\
             \"body\":{{\"error\":{{\"message\":\"no\"}}}}}},\"error\":null}}\n"
        )
    }

    #[test]
    fn incomplete_last_line_is_damage() {
        let complete = output_line("a", 200) + &output_line("b", 400);
        let last = output_line("c", 200);
        for cut in 0..last.len() {
            let progress = read(&(complete.clone() + &last[..cut])).unwrap();
            assert_eq!(
                (progress.valid_len, progress.is_done("a"), progress.is_done("c")),
                (complete.len() as u64, true, false),
                "{cut}"
            );
            let damage = (cut > 0).then_some(Damage { line: 3, bytes: cut as u64 });
            assert_eq!(progress.damage, damage);
            assert_eq!(progress.counts(), (2, 1));
            assert_eq!(
                progress.failure_summary().unwrap(),
                "1 of 2 requests failed, the first: \"b\" with status 400: no"
            );
        }
    }

    #[test]
    fn tail_of_nul_bytes_is_damage() {
        let lines = [output_line("a", 200), output_line("b", 200), output_line("c", 200)].concat();
        let second_end = lines.match_indices('\n').nth(1).unwrap().0 + 1;
        for start in [0, second_end, second_end + 7, second_end + 60] {
            // NUL bytes to the end, and a block of them before a part that was written.
            for written_again in ["", &lines[second_end + 80..]] {
                let text = [&lines[..start], &"\0".repeat(4096), written_again].concat();
                let result = read(&text);
                if start == 0 && !written_again.is_empty() {
                    assert!(result.unwrap_err().contains("not a batch response"));
                    continue;
                }
                let (progress, valid_len) = (result.unwrap(), if start == 0 { 0 } else { second_end });
                assert_eq!((progress.valid_len, progress.is_done("c")), (valid_len as u64, false));
                let message = progress.damage.unwrap().to_string();
                let expected = format!("removed the last {} bytes", text.len() - valid_len);
                assert!(message.ends_with(&expected), "{message}");
            }
        }
    }

    #[test]
    fn output_with_other_content_is_rejected() {
        let error = |text: &str| read(text).map(drop).unwrap_err();
        assert_eq!(error("dear diary"), "the last line is not a batch response; choose another --output");
        assert_eq!(error("{\"id\": 3"), "the last line is not a batch response; choose another --output");
        let request = "{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":{}}\n";
        assert!(error(&(output_line("a", 200) + request)).starts_with("line 2 is not a batch response"));
        assert!(error(&(output_line("a", 200) + "\n")).starts_with("line 2 is not a batch response"));
        let other = output_line("b", 200).replacen("0123456789abcdef", "fedcba9876543210", 1);
        assert!(error(&(output_line("a", 200) + &other)).starts_with("line 2: the response is that of"));
        let refused = Progress::read(output_line("a", 200).as_bytes(), |line, _| Err(line.custom_id.clone()));
        assert_eq!(refused.unwrap().map(drop).unwrap_err(), "line 1: a");
    }
}
