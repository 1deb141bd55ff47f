//! A job's events: a line of JSON each in `events.jsonl` of its folder.

use crate::server::store::unix_time;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

const FILE: &str = "events.jsonl";

/// Something that happened to a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobEvent {
    /// When, in seconds since 1970.
    pub created_at: u64,
    /// How much it matters.
    pub level: Level,
    /// For a person.
    pub message: String,
    /// Whether it is a message or a measurement.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The measurement, or the sample.
    #[serde(default)]
    pub data: Option<Value>,
}

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// All is well.
    Info,
    /// Something is missing.
    Warn,
    /// The job has failed.
    Error,
}

/// The kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A sentence.
    Message,
    /// Losses after a step.
    Metrics,
}

impl JobEvent {
    /// A sentence.
    pub fn message(level: Level, message: impl Into<String>) -> Self {
        Self { created_at: unix_time(), level, message: message.into(), kind: Kind::Message, data: None }
    }

    /// The losses after a step.
    pub fn metrics(message: String, data: Value) -> Self {
        let (level, kind) = (Level::Info, Kind::Metrics);
        Self { created_at: unix_time(), level, message, kind, data: Some(data) }
    }

    /// What the model writes after a step.
    pub fn sample(step: u32, text: String) -> Self {
        let message = format!("Sample after step {step}: {text}");
        let data = Some(json!({"step": step, "sample": text}));
        Self { data, ..Self::message(Level::Info, message) }
    }

    /// The step of a measurement.
    pub fn step(&self) -> Option<u64> {
        self.data.as_ref().and_then(|data| data["step"].as_u64())
    }
}

/// Reads the events of a job, in their order. A line that a kill has cut off is none.
pub fn read(folder: &Path) -> Vec<JobEvent> {
    let bytes = std::fs::read(folder.join(FILE)).unwrap_or_default();
    bytes.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

/// Adds an event.
///
/// # Errors
/// [`Error::Io`] if it cannot be written.
pub fn append(folder: &Path, event: &JobEvent) -> Result<()> {
    let path = folder.join(FILE);
    let line = serde_json::to_string(event).unwrap_or_default(); // cannot fail: no maps with odd keys
    let write = || {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
        let separator = if ends_in_line_break(&mut file)? { "" } else { "\n" };
        file.write_all(format!("{separator}{line}\n").as_bytes())
    };
    write().map_err(|source| Error::Io { path: path.clone(), action: "write", source })
}

/// Returns whether a file is empty or ends with a whole line.
fn ends_in_line_break(file: &mut File) -> std::io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(true);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_back_in_order_without_a_line_that_was_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()), []);
        let events = ["one", "two"].map(|message| JobEvent::message(Level::Info, message));
        append(folder.path(), &events[0]).unwrap();
        let path = folder.path().join(FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}{{\"created_at\": 1")).unwrap();
        append(folder.path(), &events[1]).unwrap();
        assert_eq!(read(folder.path()), events);
    }
}
