//! `finetune`: a run learns, goes on after `kill -9` to the same bytes, and refuses what it cannot do.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

const PROGRAM: &str = env!("CARGO_BIN_EXE_hornbook");

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(args).current_dir(folder).env_remove("HORNBOOK_ISA");
    command
}

fn run(folder: &Path, args: &[&str]) -> Output {
    command(folder, args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A folder with a text in a style of its own.
fn folder_with_data() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let letter = |i: usize| {
        let (name, day) = (["Anna", "Peter", "Mary", "John"][i % 4], i % 28 + 1);
        format!(
            "Dear {name},\n\nI write to you on day {day} of the month. The garden is green and the \
             dog sleeps.\n\nYours, Tom\n"
        )
    };
    let letters: Vec<String> = (0..60).map(letter).collect();
    fs::write(folder.path().join("letters.txt"), letters.join("<|endoftext|>")).unwrap();
    folder
}

const RUN: [&str; 8] = ["finetune", "--data", "letters.txt", "--batch", "256", "--epochs", "2", "-o"];

/// The losses of what is held out, by step.
fn held_out_losses(folder: &Path) -> Vec<f64> {
    let log = fs::read_to_string(folder.join("log.jsonl")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter_map(|line| line["held_out_loss"].as_f64()).collect()
}

#[test]
fn tuned_model_writes_in_the_style_of_its_data() {
    let folder = folder_with_data();
    let output = run(folder.path(), &[&RUN[..], &["tuned"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("held out"), "{}", stderr(&output));
    let losses = held_out_losses(&folder.path().join("tuned"));
    assert!(losses.len() > 2 && losses[losses.len() - 1] < losses[0] - 1.0, "{losses:?}");
    let args = ["generate", "--model", "tuned", "Dear Anna,", "--temperature", "0", "--max-tokens", "12"];
    let output = run(folder.path(), &args);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("I write to you"), "{text} {}", stderr(&output));
    let config = fs::read_to_string(folder.path().join("tuned/config.json")).unwrap();
    assert!(config.contains("float32"), "{config}");
}

/// Killed at moments spread over the run, and with other numbers of threads.
#[test]
fn killed_run_goes_on_to_the_same_bytes() {
    let folder = folder_with_data();
    let path = folder.path();
    let start = Instant::now();
    let whole = run(path, &[&RUN[..], &["whole", "--threads", "1"]].concat());
    assert!(whole.status.success(), "{}", stderr(&whole));
    let duration = start.elapsed();
    let expected = fs::read(path.join("whole/model.safetensors")).unwrap();
    for part in [1, 2] {
        let name = format!("killed-{part}");
        let args = [&RUN[..], &[&name, "--threads", "2", "--save-every", "0"]].concat();
        let mut child = command(path, &args).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(duration * part / 3);
        let _ = child.kill();
        child.wait().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let killed = path.join(&name);
        let resumed =
            run(elsewhere.path(), &["finetune", "--resume", killed.to_str().unwrap(), "--threads", "3"]);
        assert!(resumed.status.success(), "{}", stderr(&resumed));
        let found = fs::read(killed.join("model.safetensors")).unwrap();
        assert!(found == expected, "{name}: other bytes");
    }
}

#[test]
fn what_cannot_be_trained_on_is_one_line_error() {
    let folder = folder_with_data();
    let path = folder.path();
    fs::write(path.join("bad.jsonl"), "{\"text\": \"a\"}\n\n{\"prompt\": 5}\n").unwrap();
    fs::write(path.join("empty.txt"), " \n").unwrap();
    fs::create_dir(path.join("nothing")).unwrap();
    for (data, expected) in [
        ("bad.jsonl", "bad.jsonl: line 3: prompt: found integer `5`, expected a string"),
        ("empty.txt", "empty.txt: found no text, expected at least one document"),
        ("nothing", "nothing: found no .txt or .jsonl files, expected at least one"),
        ("missing.txt", "missing.txt: cannot read"),
    ] {
        let output = run(path, &["finetune", "--data", data, "-o", "out"]);
        assert_eq!(output.status.code(), Some(1));
        let message = stderr(&output);
        assert!(
            message.starts_with(&format!("hornbook: {expected}")) && message.lines().count() == 1,
            "{message}"
        );
        assert!(!path.join("out").exists(), "{data} left a folder behind");
    }
    let output = run(path, &["finetune", "--resume", "nothing"]);
    assert!(stderr(&output).contains("nothing: found no training.json"), "{}", stderr(&output));
}
