//! `train`: a model learns from nothing, goes on after `kill -9` to the same bytes, and refuses what it must.

use super::{command, run, stderr};
use std::fs;
use std::process::Stdio;

/// A folder with two texts.
fn folder_with_data() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, words: [&str; 3]| {
        let text =
            |i: usize| format!("The {} sees the {} on day {}.", words[i % 3], words[i / 3 % 3], i % 10);
        let texts: Vec<String> = (0..120).map(text).collect();
        fs::write(folder.path().join(name), texts.join("<|endoftext|>")).unwrap();
    };
    write("animals.txt", ["cat", "dog", "hen"]);
    write("people.txt", ["king", "maid", "cook"]);
    folder
}

const RUN: [&str; 20] = [
    "train",
    "--shape",
    "2x32",
    "--context",
    "32",
    "--tokenizer",
    "new:300",
    "--data",
    "animals.txt",
    "--data",
    "people.txt",
    "--stage",
    "0.5:1,0",
    "--stage",
    "0.5:1,3",
    "--tokens",
    "8k",
    "--batch",
    "256",
    "-o",
];

#[test]
fn model_learns_from_nothing_in_stages() {
    let folder = folder_with_data();
    let output = run(folder.path(), &[&RUN[..], &["tiny"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let log = fs::read_to_string(folder.path().join("tiny/log.jsonl")).unwrap();
    let losses: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |name: &str, i: usize| {
        let evaluations: Vec<f64> =
            losses.iter().filter_map(|line| line["held_out_losses"][name].as_f64()).collect();
        evaluations[if i == 0 { 0 } else { evaluations.len() - 1 }]
    };
    let first = of("animals.txt", 0);
    // 300 tokens, none more likely than another.
    assert!((first - 300f64.ln()).abs() < 0.1, "{first}");
    assert!(of("animals.txt", 1) < first - 2.0 && of("people.txt", 1) < first - 1.5, "{log}");
    let output = run(folder.path(), &["generate", "--model", "./tiny", "The cat", "--max-tokens", "8"]);
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn killed_run_goes_on_to_the_same_bytes() {
    let folder = folder_with_data();
    let path = folder.path();
    let whole = run(path, &[&RUN[..], &["whole", "--threads", "1", "--average", "0.5"]].concat());
    assert!(whole.status.success(), "{}", stderr(&whole));
    let model = |name: &str| fs::read(path.join(name).join("model.safetensors")).unwrap();
    let args = [&RUN[..], &["killed", "--save-every", "0", "--average", "0.5"]].concat();
    let mut child = command(path, &args).stderr(Stdio::null()).spawn().unwrap();
    // In the steps that are averaged.
    let has_steps =
        |n| fs::read_to_string(path.join("killed/log.jsonl")).is_ok_and(|log| log.lines().count() > n);
    while !has_steps(20) && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let _ = child.kill();
    child.wait().unwrap();
    let resumed = run(path, &["train", "--resume", "killed", "--threads", "3"]);
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    assert!(model("killed") == model("whole"), "other bytes");
}

#[test]
fn what_cannot_be_trained_is_one_line_error_and_leaves_nothing() {
    let folder = folder_with_data();
    let path = folder.path();
    for (args, expected) in [
        (&["--shape", "2x33x2"][..], "33 numbers for 2 heads, expected a multiple"),
        (&["--shape", "6x256", "--context", "999999999"], "of free memory"),
        (&["--shape", "big"], "expected LAYERSxWIDTH"),
        (&["--tokenizer", "new:many"], "expected new:N with a number of tokens"),
        (&["--tokenizer", "new:100"], "expected at least 257"),
        (&["--tokenizer", "nowhere"], "nowhere"),
        (&["--learning-rate", "nan"], "expected a positive number"),
        (&["--stage", "1:1,1"], "expected a number for each of the 1 sources"),
        (&["--stage", "1:x"], "expected SHARE:MIXTURE"),
        (&["--tokens", "0"], "expected a number of tokens"),
        (&["--resume", "out"], "cannot be used with"),
    ] {
        let output = run(path, &[&["train", "--data", "animals.txt", "-o", "out"], args].concat());
        assert!(!output.status.success(), "{args:?}");
        let message = stderr(&output);
        let last = message.lines().last().unwrap_or_default();
        assert!(last.contains(expected) && message.lines().count() <= 2, "{args:?}: {message}");
        assert!(!path.join("out").exists(), "{args:?} left a folder behind");
    }
}
