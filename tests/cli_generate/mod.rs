//! `hornbook generate` from the command line.

mod errors;
mod generated_text;
mod output;
mod prompts;
#[cfg(unix)]
mod signals;

use assert_cmd::Command;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

const BINARY: &str = env!("CARGO_BIN_EXE_hornbook");
const PROMPT: &str = "Once upon a time";

/// `hornbook` with arguments, isolated from the environment's settings.
fn hornbook(args: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command
        .args(args)
        .env_remove("HORNBOOK_ISA")
        .env("HORNBOOK_CONFIG", "")
        .timeout(Duration::from_secs(120));
    command
}

pub fn generate(args: &[&str]) -> Command {
    let mut command = hornbook(&["generate"]);
    command.args(args);
    command
}

/// Standard output of a run that must succeed with nothing on standard error.
pub fn stdout_of(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(status.success() && stderr.is_empty(), "{command:?}: {status}, {stderr}");
    String::from_utf8(stdout).unwrap()
}

pub fn json(args: &[&str]) -> Value {
    let mut command = generate(args);
    serde_json::from_str(&stdout_of(command.arg("--json"))).unwrap()
}

/// Standard error of a run that must fail without a panic and without output.
pub fn stderr_of_failure(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(!status.success(), "{command:?} succeeds");
    assert!(status.code().is_some(), "{command:?}: {status}");
    assert!(stdout.is_empty(), "{command:?} writes {}", String::from_utf8_lossy(&stdout));
    assert!(!stderr.contains("panicked"), "{command:?}: {stderr}");
    stderr
}

fn data(folder: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(folder);
    path.to_str().unwrap().to_string()
}

pub fn comma_separated(ids: &[u32]) -> String {
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

pub fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// A temporary folder with one file.
fn with_file(name: &str, content: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(name);
    std::fs::write(&file, content).unwrap();
    (folder, file)
}

/// A tiny checkpoint, its reference prompt and its greedy continuation.
pub fn tiny() -> (String, Vec<u32>, Vec<u32>) {
    let folder = data("tiny-gelu-new");
    let expected = std::fs::read(Path::new(&folder).join("expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    (folder, ids(&expected["input_ids"]), ids(&expected["greedy"]))
}
