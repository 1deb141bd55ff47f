//! PyTorch's attention on the same shapes: a Python process that is asked one shape at a time.

use crate::bench::{AttentionShape, Summary};
use crate::{Error, Result};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Part of the program, so that it is there wherever the program is.
const SCRIPT: &str = include_str!("../../../../scripts/attention_torch.py");
const PYTHON: &str = "HORNBOOK_PYTHON";

/// The process.
pub struct Torch {
    child: Child,
    /// Shapes, one a line of JSON.
    asked: ChildStdin,
    /// Answers, likewise.
    answers: BufReader<ChildStdout>,
    /// What torch calls itself.
    pub version: String,
}

impl Torch {
    /// Starts Python and waits until it has loaded torch.
    pub fn start() -> Result<Self> {
        let python = std::env::var_os(PYTHON).filter(|path| !path.is_empty()).unwrap_or("python3".into());
        let shown = python.to_string_lossy().into_owned();
        let mut child = Command::new(&python)
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| missing(&format!("'{shown}' cannot be started ({error})")))?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (asked, answers) = pipes.ok_or_else(|| missing("its pipes are closed"))?;
        let mut torch = Self { child, asked, answers: BufReader::new(answers), version: String::new() };
        let hello = torch.answer().map_err(|_| missing(&format!("'{shown}' cannot import it")))?;
        torch.version = hello["torch"].as_str().unwrap_or("?").to_string();
        Ok(torch)
    }

    /// Measures a shape as [`AttentionLab::measure`](crate::bench::AttentionLab::measure) does: seconds of a call.
    pub fn measure(&mut self, shape: AttentionShape, threads: usize, repeat: usize) -> Result<Summary> {
        let AttentionShape { phase, seq, batch, heads, head_dim, .. } = shape;
        let asked = json!({
            "phase": phase.name(), "seq": seq, "batch": batch, "heads": heads, "head_dim": head_dim,
            "layers": shape.layers(), "threads": threads, "repeat": repeat,
        });
        writeln!(self.asked, "{asked}").map_err(|error| Error::Message(format!("torch is gone: {error}")))?;
        let answer = self.answer()?;
        let seconds = answer["seconds"].as_array().map(Vec::as_slice).unwrap_or_default();
        let seconds: Vec<f64> = seconds.iter().filter_map(Value::as_f64).collect();
        if seconds.is_empty() {
            let (phase, error) = (phase.name(), &answer["error"]);
            return Err(Error::Message(format!("torch could not measure {phase} of {seq} tokens: {error}")));
        }
        Ok(Summary::of(&seconds))
    }

    fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line);
        let broken = |why: String| Error::Message(format!("torch gave no answer: {why}"));
        read.map_err(|error| broken(error.to_string()))?;
        serde_json::from_str(&line).map_err(|error| broken(error.to_string()))
    }
}

impl Drop for Torch {
    fn drop(&mut self) {
        // It has nothing to save.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn missing(why: &str) -> Error {
    Error::Message(format!(
        "--against torch: there is no PyTorch here: {why}; {PYTHON} names another Python, e.g. .venv/bin/python"
    ))
}
