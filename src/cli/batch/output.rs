//! The answers of a batch, a line each, written whole; and what an earlier run has left of them.

use super::input::Line;
use crate::Error;
use crate::cli::write_error;
use crate::server::headers::random_id;
use crate::server::in_process::Answer;
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write, stdout};
use std::path::{Path, PathBuf};

type Result<T, E = Error> = std::result::Result<T, E>;

/// How every line begins.
const BEGINNING: &str = "{\"id\":\"batch_req_";

/// Where the answers go: a file that can be taken up again, or a stream.
pub enum Output {
    /// A file, locked while it is written.
    File(PathBuf, File),
    /// Standard output, or a pipe or device.
    Stream(Box<dyn Write>),
}

/// A line as it is read again.
#[derive(Deserialize)]
struct Done {
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

/// The requests that are done.
#[derive(Default)]
pub struct Tally {
    done: HashSet<String>,
    refused: usize,
    /// The first that was refused.
    first: Option<String>,
}

impl Output {
    /// Opens the output, and reads what an earlier run over the same input has left in it.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Message`] where the file holds anything else, which is left as it is, or is being written.
    pub fn open(path: &Path, input: &Path, lines: &[Line]) -> Result<(Self, Tally)> {
        if path == Path::new("-") {
            return Ok((Self::Stream(Box::new(stdout())), Tally::default()));
        }
        let failed = |action| move |source| Error::Io { path: path.into(), action, source };
        if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            let stream = OpenOptions::new().write(true).open(path).map_err(failed("open"))?;
            return Ok((Self::Stream(Box::new(stream)), Tally::default()));
        }
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).open(path).map_err(failed("open"))?;
        // Where the system knows no locks, nobody is kept out.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(Error::Message(format!("{}: another run is writing to it", path.display())));
        }
        let mut bytes = vec![];
        file.read_to_end(&mut bytes).map_err(failed("read"))?;
        let (tally, good) = taken_up(&bytes, input, lines)
            .map_err(|problem| Error::Message(format!("{}: {problem}", path.display())))?;
        if good < bytes.len() {
            file.set_len(good as u64).map_err(failed("shorten"))?;
        }
        Ok((Self::File(path.into(), file), tally))
    }

    /// What messages call it.
    pub fn name(&self) -> String {
        match self {
            Self::File(path, _) => path.display().to_string(),
            Self::Stream(_) => "batch".into(),
        }
    }

    /// Writes an answer, all of it at once.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn append(&mut self, custom_id: &str, answer: &Answer) -> Result<()> {
        let Answer { status, request_id, body } = answer;
        // The body goes through as the server wrote it.
        let line = format!(
            "{BEGINNING}{}\",\"custom_id\":{},\"response\":{{\"status_code\":{status},\"request_id\":{},\
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

/// What is done of `lines`, and how many bytes are whole lines.
fn taken_up(bytes: &[u8], input: &Path, lines: &[Line]) -> Result<(Tally, usize), String> {
    let asked: HashSet<&str> = lines.iter().map(|line| line.custom_id.as_str()).collect();
    let good = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let mut tally = Tally::default();
    for (number, text) in (1..).zip(bytes[..good].split_inclusive(|byte| *byte == b'\n')) {
        let done: Done = serde_json::from_slice(text)
            .map_err(|_| format!("line {number} is no answer of a batch; choose another --output"))?;
        if !asked.contains(done.custom_id.as_str()) {
            return Err(format!(
                "line {number}: custom_id: found {:?}, which {} has not; choose another --output",
                done.custom_id,
                input.display()
            ));
        }
        let (status, body) = match done.response {
            Some(response) => (response.status_code, response.body.to_string()),
            None => (0, String::new()),
        };
        tally.count(&done.custom_id, status, &body);
    }
    // Half a line of ours may be cut off, anything else is somebody's.
    let (half, beginning) = (&bytes[good..], BEGINNING.as_bytes());
    let both = half.len().min(beginning.len());
    match half[..both] == beginning[..both] {
        true => Ok((tally, good)),
        false => Err("the last line is no answer of a batch; choose another --output".into()),
    }
}

impl Tally {
    /// Whether the request is done.
    pub fn has(&self, custom_id: &str) -> bool {
        self.done.contains(custom_id)
    }

    /// A request is done.
    pub fn count(&mut self, custom_id: &str, status: u16, body: &str) {
        if self.done.insert(custom_id.into()) && status != 200 {
            self.refused += 1;
            self.first.get_or_insert_with(|| {
                let body: Value = serde_json::from_str(body).unwrap_or_default();
                let why = body["error"]["message"].as_str().unwrap_or("no reason is given");
                format!("{custom_id:?} with status {status}: {}", why.replace('\n', " "))
            });
        }
    }

    /// How many were refused and why the first was; none where none was.
    pub fn refused(&self) -> Option<String> {
        let first = self.first.as_ref()?;
        Some(format!("{} of {} requests were refused, {first}", self.refused, self.done.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(ids: &[&str]) -> Vec<Line> {
        let line =
            |id: &&str| Line { custom_id: id.to_string(), url: "/x".parse().unwrap(), body: String::new() };
        ids.iter().map(line).collect()
    }

    fn done(id: &str, status: u16) -> String {
        format!(
            "{BEGINNING}1\",\"custom_id\":\"{id}\",\"response\":{{\"status_code\":{status},\"request_id\":\"r\",\
             \"body\":{{\"error\":{{\"message\":\"no\"}}}}}},\"error\":null}}\n"
        )
    }

    #[test]
    fn half_a_line_of_ours_is_cut_off_wherever_it_ends() {
        let whole = done("a", 200) + &done("b", 400);
        let last = done("c", 200);
        for cut in 0..last.len() {
            let text = whole.clone() + &last[..cut];
            let (tally, good) = taken_up(text.as_bytes(), Path::new("in"), &lines(&["a", "b", "c"])).unwrap();
            assert_eq!((good, tally.has("a"), tally.has("c")), (whole.len(), true, false), "{cut}");
            assert_eq!(tally.refused().unwrap(), "1 of 2 requests were refused, \"b\" with status 400: no");
        }
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let says =
            |text: &str| taken_up(text.as_bytes(), Path::new("in"), &lines(&["a"])).map(drop).unwrap_err();
        assert_eq!(says("dear diary"), "the last line is no answer of a batch; choose another --output");
        assert_eq!(says("{\"id\": 3"), "the last line is no answer of a batch; choose another --output");
        let request = "{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":{}}\n";
        assert!(says(&(done("a", 200) + request)).starts_with("line 2 is no answer of a batch"));
        assert!(says(&(done("a", 200) + "\n")).starts_with("line 2 is no answer of a batch"));
        assert!(says(&done("b", 200)).starts_with("line 1: custom_id: found \"b\", which in has not"));
    }
}
