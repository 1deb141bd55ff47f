//! Batch output: a file, which a later run resumes, or a stream.

use crate::Error;
use crate::batch::{
    BatchRequest, BatchResponse, OutputLine, Progress, ResponseFile, fingerprint, response_line,
};
use crate::cli::output::stdout::write_error;
use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{Write, stdout};
use std::path::Path;

type Result<T, E = Error> = std::result::Result<T, E>;

/// Destination of the responses.
pub enum Output {
    /// A file, which can be resumed.
    File(ResponseFile),
    /// Standard output, a pipe or a device.
    Stream(Box<dyn Write>),
}

impl Output {
    /// Opens the output and reads the responses of an earlier run over the same input, as messages name it.
    /// The file is not modified before [`Output::start`].
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Message`] if the file has other content or responses to other requests, or
    /// another run is writing to it.
    pub fn open(path: &Path, input: &str, requests: &[BatchRequest]) -> Result<(Self, Progress)> {
        if path == Path::new("-") {
            return Ok((Self::Stream(Box::new(stdout())), Progress::default()));
        }
        if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            let stream = OpenOptions::new().write(true).open(path);
            let stream = stream.map_err(|source| Error::Io { path: path.into(), action: "open", source })?;
            return Ok((Self::Stream(Box::new(stream)), Progress::default()));
        }
        let by_id: HashMap<&str, &BatchRequest> =
            requests.iter().map(|request| (request.custom_id.as_str(), request)).collect();
        let (file, progress) = ResponseFile::open(path, |line, _| check(line, input, &by_id))?;
        Ok((Self::File(file), progress))
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
        match self {
            Self::File(file) => file.start(progress),
            Self::Stream(_) => Ok(()),
        }
    }

    /// Synchronizes a file with the disk.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn sync(&mut self) -> Result<()> {
        match self {
            Self::File(file) => file.sync(),
            Self::Stream(_) => Ok(()),
        }
    }

    /// Returns the name of the output in messages.
    pub fn name(&self) -> String {
        match self {
            Self::File(file) => file.path().display().to_string(),
            Self::Stream(_) => "batch".into(),
        }
    }

    /// Writes a response to a request as one line.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn append(&mut self, settings: &str, request: &BatchRequest, response: &BatchResponse) -> Result<()> {
        let line = response_line(settings, request, response);
        match self {
            Self::File(file) => file.append(&line),
            Self::Stream(stream) => {
                stream.write_all(line.as_bytes()).and_then(|()| stream.flush()).map_err(write_error)
            }
        }
    }
}

/// Checks that a line responds to a request of the input, or of its shard.
pub fn check(line: &OutputLine, input: &str, requests: &HashMap<&str, &BatchRequest>) -> Result<(), String> {
    let id = &line.custom_id;
    match requests.get(id.as_str()) {
        None => Err(format!("custom_id: found {id:?}, which is not in {input}; choose another --output")),
        Some(request) if line.fingerprints().1 != fingerprint::of_request(request) => Err(format!(
            "the request {id:?} in {input} is not the one this responds to; choose another --output"
        )),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn response_to_another_request_is_rejected() {
        let request = |id: &str| BatchRequest {
            line: 1,
            custom_id: id.into(),
            endpoint: "/completions",
            body: "{}".into(),
        };
        let response = BatchResponse { status: 200, request_id: "r".into(), body: "{}".into() };
        let file = tempfile::NamedTempFile::new().unwrap();
        let settings = "0123456789abcdef";
        let lines = ["a", "b"].map(|id| response_line(settings, &request(id), &response)).concat();
        std::fs::write(file.path(), lines).unwrap();
        let (_, progress) = Output::open(file.path(), "in", &[request("a"), request("b")]).unwrap();
        assert_eq!(progress.counts(), (2, 0));
        let error = |requests: &[BatchRequest]| {
            let error = Output::open(file.path(), "in", requests).err().unwrap().to_string();
            error.strip_prefix(&format!("{}: ", file.path().display())).unwrap().to_string()
        };
        let mut changed = request("b");
        changed.body = "{\"n\":2}".into();
        assert!(
            error(&[request("a"), changed]).starts_with("line 2: the request \"b\" in in is not the one")
        );
        assert!(error(&[request("b")]).starts_with("line 1: custom_id: found \"a\", which is not in in"));
    }
}
