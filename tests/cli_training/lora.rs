//! `finetune --lora` and `--last-layers`: they train what they say, go on to the same bytes, and are used.

use super::{command, run, stderr};
use hornbook::checkpoint::Checkpoint;
use std::fs;
use std::path::Path;
use std::process::Stdio;

fn run_to_end(folder: &Path, args: &[&str]) -> String {
    let output = run(folder, args);
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output)
}

fn folder_with_data() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let letter =
        |i: usize| format!("Dear {}, the garden is green and the dog sleeps.", ["Anna", "Tom"][i % 2]);
    let letters: Vec<String> = (0..80).map(letter).collect();
    fs::write(folder.path().join("letters.txt"), letters.join("<|endoftext|>")).unwrap();
    folder
}

const RUN: [&str; 8] = ["finetune", "--data", "letters.txt", "--batch", "256", "--epochs", "2", "-o"];

#[test]
fn adapter_learns_and_is_used() {
    let folder = folder_with_data();
    let path = folder.path();
    let lora = ["--lora", "4", "--lora-targets", "all-linear"];
    let shown = run_to_end(path, &[&RUN[..], &["adapter"], &lora].concat());
    assert!(shown.contains("million trained") && shown.contains("--adapter adapter"), "{shown}");
    assert!(!path.join("adapter/model.safetensors").exists());
    let log = fs::read_to_string(path.join("adapter/log.jsonl")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let losses: Vec<f64> = lines.filter_map(|line| line["held_out_loss"].as_f64()).collect();
    assert!(losses[losses.len() - 1] < losses[0] - 1.0, "{losses:?}");
    let args = ["generate", "--adapter", "adapter", "Dear Anna,", "--temperature", "0", "--max-tokens", "8"];
    assert!(run_to_end(path, &args).contains("the garden is"));

    // Stopped and resumed with other numbers of threads: the same bytes.
    let args = [&RUN[..], &["stopped", "--threads", "3"], &lora].concat();
    let args = [&args[..], &["--save-every", "0"]].concat();
    let mut child = command(path, &args).stderr(Stdio::null()).spawn().unwrap();
    let steps = || fs::read_to_string(path.join("stopped/log.jsonl")).map_or(0, |log| log.lines().count());
    while steps() < 4 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let _ = child.kill();
    child.wait().unwrap();
    run_to_end(path, &["finetune", "--resume", "stopped", "--threads", "1"]);
    let bytes = |name: &str| fs::read(path.join(name).join("adapter_model.safetensors")).unwrap();
    assert!(bytes("stopped") == bytes("adapter"), "other bytes");
}

#[test]
fn last_layers_alone_change() {
    let folder = folder_with_data();
    run_to_end(folder.path(), &[&RUN[..], &["tuned", "--last-layers", "2"]].concat());
    let tuned = Checkpoint::from_folder(&folder.path().join("tuned")).unwrap();
    let fable = Checkpoint::open("fable").unwrap();
    let is_same = |layer: usize| {
        let [a, b] = [&tuned, &fable].map(|model| &model.weights.h[layer].mlp.c_fc.weight);
        (0..a.shape()[0]).all(|row| {
            let mut rows = [vec![0.0; a.shape()[1]], vec![0.0; a.shape()[1]]];
            for (row_of, tensor) in rows.iter_mut().zip([a, b]) {
                hornbook::kernels::embedding::copy_row(tensor.elements(), row, row_of);
            }
            rows[0] == rows[1]
        })
    };
    assert_eq!((0..6).map(is_same).collect::<Vec<_>>(), [true, true, true, true, false, false]);
}

#[test]
fn what_cannot_be_trained_is_one_line_error_and_leaves_nothing() {
    let folder = folder_with_data();
    for (args, expected) in [
        (&["--lora", "0"][..], "expected a rank"),
        (
            &["--lora", "4", "--lora-targets", "wte"],
            "--lora-targets: found wte, expected all-linear, or some",
        ),
        (&["--lora", "4", "--lora-targets", "c_attn,c_porj"], "--lora-targets: found c_porj"),
        (&["--lora", "4", "--last-layers", "1"], "cannot be used with"),
        (&["--lora-targets", "c_fc"], "--lora"),
        (&["--last-layers", "7"], "expected a number of blocks from 1 to 6"),
    ] {
        let output = run(folder.path(), &[&RUN[..], &["out"], args].concat());
        let message = stderr(&output);
        assert!(!output.status.success() && message.contains(expected), "{args:?}: {message}");
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(!folder.path().join("out").exists(), "{args:?} left a folder behind");
    }
}
