//! PyTorch's attention on the same shapes: a Python process that measures one shape per request.

use crate::bench::{AttentionShape, Summary};
use crate::{Error, Result};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Embedded, so that the binary needs no other file.
const SCRIPT: &str = include_str!("../../../../../scripts/attention_torch.py");
const PYTHON: &str = "HORNBOOK_PYTHON";

/// The Python process.
pub struct Torch {
    child: Child,
    /// Requests: a shape per line of JSON.
    requests: ChildStdin,
    /// Responses, likewise.
    responses: BufReader<ChildStdout>,
    /// torch's version.
    pub version: String,
}

impl Torch {
    /// Starts Python and waits until it has loaded torch.
    pub fn start() -> Result<Self> {
        let python = std::env::var_os(PYTHON).filter(|path| !path.is_empty()).unwrap_or("python3".into());
        let program = python.to_string_lossy().into_owned();
        let mut child = Command::new(&python)
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| torch_not_found(&format!("cannot start '{program}' ({error})")))?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (requests, responses) = pipes.ok_or_else(|| torch_not_found("the pipes to Python are closed"))?;
        let mut torch =
            Self { child, requests, responses: BufReader::new(responses), version: String::new() };
        let handshake =
            torch.response().map_err(|_| torch_not_found(&format!("'{program}' cannot import torch")))?;
        torch.version = handshake["torch"].as_str().unwrap_or("?").to_string();
        Ok(torch)
    }

    /// Measures a shape as [`AttentionBenchmark::measure`](crate::bench::AttentionBenchmark::measure) does:
    /// seconds per call.
    pub fn measure(&mut self, shape: AttentionShape, threads: usize, repeat: usize) -> Result<Summary> {
        let AttentionShape { phase, seq, batch, heads, head_dim, .. } = shape;
        let request = json!({
            "queries": shape.queries(), "seq": seq, "batch": batch, "heads": heads, "head_dim": head_dim,
            "layers": shape.layers(), "threads": threads, "repeat": repeat,
        });
        writeln!(self.requests, "{request}")
            .map_err(|error| Error::Message(format!("the torch process has exited: {error}")))?;
        let response = self.response()?;
        let seconds = response["seconds"].as_array().map(Vec::as_slice).unwrap_or_default();
        let seconds: Vec<f64> = seconds.iter().filter_map(Value::as_f64).collect();
        if seconds.is_empty() {
            let (phase, error) = (phase.name(), &response["error"]);
            return Err(Error::Message(format!("torch failed to measure {phase} of {seq} tokens: {error}")));
        }
        Ok(Summary::new(&seconds))
    }

    fn response(&mut self) -> Result<Value> {
        let mut line = String::new();
        let read = self.responses.read_line(&mut line);
        let broken = |why: String| Error::Message(format!("no response from torch: {why}"));
        read.map_err(|error| broken(error.to_string()))?;
        serde_json::from_str(&line).map_err(|error| broken(error.to_string()))
    }
}

impl Drop for Torch {
    fn drop(&mut self) {
        // The process has no state to save.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn torch_not_found(why: &str) -> Error {
    Error::Message(format!(
        "--against torch: PyTorch not found: {why}; set {PYTHON} to another Python, e.g. .venv/bin/python"
    ))
}
