//! `finetune`: a run learns, goes on after `kill -9` to the same bytes, and refuses what it cannot do.

use super::{PROGRAM, command, run, stderr};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

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

/// Copies the built-in model to a folder.
fn copy_fable(to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in Path::new(env!("CARGO_MANIFEST_DIR")).join("models/fable").read_dir().unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
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

/// Killed ten times, a random part of a step after the next line or two of its log, each time with another
/// number of threads.
#[test]
fn killed_run_goes_on_to_the_same_bytes() {
    let folder = folder_with_data();
    let path = folder.path();
    let many_steps = ["--batch", "128", "--epochs", "2"];
    let begin = [&["finetune", "--data", "letters.txt"], &many_steps[..], &["-o"]].concat();
    let start = Instant::now();
    let whole = run(path, &[&begin[..], &["whole", "--threads", "1"]].concat());
    assert!(whole.status.success(), "{}", stderr(&whole));
    let log_len = |name: &str| {
        fs::read_to_string(path.join(name).join("log.jsonl")).map_or(0, |log| log.lines().count())
    };
    let step = start.elapsed() / log_len("whole") as u32;
    let elsewhere = tempfile::tempdir().unwrap();
    let killed = path.join("killed");
    let resume = ["finetune", "--resume", killed.to_str().unwrap()];
    let mut random = 1u64;
    for kill in 0..10 {
        // Knuth's generator.
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let part = (random >> 33) as f64 / (1u64 << 31) as f64;
        let threads = (1 + kill % 3).to_string();
        let rest = ["--save-every", "0", "--threads", &threads];
        let mut command = match kill {
            0 => command(path, &[&begin[..], &["killed"], &rest].concat()),
            _ => command(elsewhere.path(), &[&resume[..], &rest].concat()),
        };
        let wanted = log_len("killed") + 1 + kill % 2;
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        while log_len("killed") < wanted && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(step.mul_f64(part));
        assert!(child.try_wait().unwrap().is_none(), "ended before it was killed for the {kill}th time");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let resumed = run(elsewhere.path(), &[&resume[..], &["--threads", "3"]].concat());
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    let model = |name: &str| fs::read(path.join(name).join("model.safetensors")).unwrap();
    assert!(model("killed") == model("whole"), "other bytes");
}

/// A run with few steps, for what happens around them.
const SHORT: [&str; 8] = ["finetune", "--data", "letters.txt", "--batch", "700", "--epochs", "1", "-o"];

#[test]
fn run_leaves_a_table_a_card_and_weights_in_the_precision_asked_for() {
    let folder = folder_with_data();
    let path = folder.path();
    let output = run(path, &[&SHORT[..], &["small", "--precision", "bf16", "--csv", "run.csv"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let said = stderr(&output);
    for expected in ["MB of memory, of ", " s per step, about ", "1 epoch, ", "tokens/s"] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let bytes = |name: &str| fs::metadata(path.join(name)).unwrap().len();
    let weights = bytes("small/model.safetensors");
    assert!(3 * weights < bytes("small/training.safetensors"), "{weights} bytes");
    let config = fs::read_to_string(path.join("small/config.json")).unwrap();
    assert!(config.contains("bfloat16"), "{config}");
    let table = fs::read_to_string(path.join("run.csv")).unwrap();
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(
        rows[0],
        ["step", "loss", "learning_rate", "gradient_norm", "held_out_loss", "tokens_per_second"]
    );
    assert!(rows[1][0] == "0" && rows[1][4].parse::<f64>().unwrap() > 3.0, "{table}");
    assert!(rows.len() > 3 && rows[2..].iter().all(|row| row.len() == 6 && !row[5].is_empty()), "{table}");
    let card = fs::read_to_string(path.join("small/MODEL_CARD.md")).unwrap();
    assert!(card.contains("base_model: fable") && card.contains("| data | letters.txt: "), "{card}");
    // Stored once more, and by a run that goes on: it is finished, so no step follows.
    let args = ["finetune", "--resume", "small", "--precision", "f32", "--csv", "again.csv"];
    let output = run(path, &args);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(bytes("small/model.safetensors") / weights, 1);
    assert!(bytes("small/model.safetensors") > 19 * weights / 10, "{}", bytes("small/model.safetensors"));
    assert_eq!(fs::read_to_string(path.join("again.csv")).unwrap(), table);
}

#[test]
fn second_run_on_the_same_folder_is_refused() {
    let folder = folder_with_data();
    let path = folder.path();
    let mut first = command(path, &[&RUN[..], &["out"]].concat()).stderr(Stdio::null()).spawn().unwrap();
    while !path.join("out/log.jsonl").exists() && first.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let second = run(path, &["finetune", "--resume", "out"]);
    let third = run(path, &[&RUN[..], &["out", "--force"]].concat());
    let _ = first.kill();
    first.wait().unwrap();
    for output in [second, third] {
        assert_eq!(stderr(&output), "hornbook: out: another run is writing to this folder\n");
    }
}

/// No file may be larger than the model, as if the disk were full: the run ends in one line, and goes on from
/// its last state when there is room again.
#[test]
#[cfg(unix)]
fn full_disk_ends_the_run_with_its_last_state() {
    let folder = folder_with_data();
    let path = folder.path();
    let whole = run(path, &[&SHORT[..], &["whole"]].concat());
    assert!(whole.status.success(), "{}", stderr(&whole));
    let mut first = command(path, &[&SHORT[..], &["out", "--save-every", "0"]].concat());
    let mut first = first.stderr(Stdio::null()).spawn().unwrap();
    let state = path.join("out/training.safetensors");
    while !state.exists() && first.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let _ = first.kill();
    first.wait().unwrap();
    let files = || {
        let names = path.join("out").read_dir().unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| !name.to_string_lossy().starts_with('.')).collect::<BTreeSet<_>>()
    };
    let (before, names) = (fs::read(&state).unwrap(), files());
    let limited =
        format!("trap '' XFSZ; ulimit -f 50000; exec {PROGRAM} finetune --resume out --save-every 0");
    let output = Command::new("sh").args(["-c", &limited]).current_dir(path).output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let expected = "hornbook: out/training.safetensors: cannot write: ";
    assert!(said.lines().last().is_some_and(|line| line.starts_with(expected)), "{said}");
    assert!(fs::read(&state).unwrap() == before, "the state is another");
    assert_eq!(files(), names);
    let resumed = run(path, &["finetune", "--resume", "out"]);
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    let model = |name: &str| fs::read(path.join(name).join("model.safetensors")).unwrap();
    assert!(model("out") == model("whole"), "other bytes");
}

/// A learning rate at which weights become infinite: the run ends in one line, and its folder has the last
/// state before.
#[test]
fn loss_that_is_no_number_ends_the_run_with_its_last_state() {
    let folder = folder_with_data();
    let path = folder.path();
    let args = [&RUN[..], &["out", "--learning-rate", "1e30", "--save-every", "0"]].concat();
    let output = run(path, &args);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let last = said.lines().last().unwrap();
    assert!(
        last.starts_with("hornbook: step 2: found a loss of ") && last.contains("smaller learning rate"),
        "{said}"
    );
    assert!(path.join("out/training.safetensors").exists(), "{said}");
    let again = run(path, &["finetune", "--resume", "out"]);
    assert_eq!(stderr(&again).lines().last(), Some(last));
}

#[test]
fn weights_that_are_no_numbers_are_named_before_anything_is_written() {
    let folder = folder_with_data();
    let model = folder.path().join("model");
    copy_fable(&model);
    let file = model.join("model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let end = bytes.len();
    bytes[end - 2..].fill(0xff); // the last element, NaN in f16
    fs::write(&file, bytes).unwrap();
    let output = run(folder.path(), &[&RUN[..], &["out", "--model", "./model"]].concat());
    let message = stderr(&output);
    assert!(message.contains("found NaN") && message.contains("model.safetensors"), "{message}");
    assert!(message.lines().count() == 1 && !folder.path().join("out").exists(), "{message}");
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
    for (option, value, expected) in [
        ("--learning-rate", "-1", "learning_rate: found -1, expected a positive number"),
        ("--prompt-loss-weight", "nan", "prompt_loss_weight: found NaN"),
    ] {
        let output = run(path, &[&RUN[..], &["out", &format!("{option}={value}")]].concat());
        assert!(stderr(&output).starts_with(&format!("hornbook: {expected}")), "{}", stderr(&output));
        assert!(!path.join("out").exists(), "{option} left a folder behind");
    }
    fs::write(path.join("prompt.jsonl"), "{\"prompt\": \"a b c\", \"completion\": \"\"}").unwrap();
    let args = ["finetune", "--data", "prompt.jsonl", "--valid", "letters.txt", "-o", "out"];
    let output = run(path, &[&args[..], &["--csv", "nowhere/run.csv"]].concat());
    assert!(stderr(&output).starts_with("hornbook: nowhere/run.csv: cannot write"), "{}", stderr(&output));
    assert!(!path.join("out").exists(), "a table that cannot be written left a folder behind");
    let output = run(path, &["finetune", "--resume", "nothing"]);
    assert!(stderr(&output).contains("nothing: found no training.json"), "{}", stderr(&output));
}
