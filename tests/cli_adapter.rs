//! `--adapter` and `hornbook merge`, as a user types them.

use hornbook::checkpoint::Checkpoint;
use hornbook::checkpoint::adapter::{Adapter, AdapterConfig};
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn hornbook(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hornbook"));
    command.args(args).current_dir(folder).env("HORNBOOK_CONFIG", "").env_remove("HORNBOOK_ISA");
    command.stdin(Stdio::null()).output().unwrap()
}

fn stdout(folder: &Path, args: &[&str]) -> String {
    let Output { status, stdout, stderr } = hornbook(folder, args);
    assert!(status.success(), "{args:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// A folder with `my-adapter`, for fable.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (config, fable) = (AdapterConfig::default(), Checkpoint::embedded().unwrap());
    let mut adapter = Adapter::new("my-adapter", config, &fable.config).unwrap();
    for change in &mut adapter.low_rank {
        let values = change.a.iter_mut().chain(&mut change.b).enumerate();
        values.for_each(|(k, x)| *x = ((k * k % 977) as f32).sin() * 0.3);
    }
    adapter.write(&folder.path().join("my-adapter")).unwrap();
    fs::write(folder.path().join("story.txt"), "Once upon a time there was a king.\n").unwrap();
    folder
}

#[test]
fn adapter_changes_what_every_command_computes_and_merged_model_has_it() {
    let folder = folder();
    let run = |args: &[&str]| stdout(folder.path(), args);
    run(&["merge", "fable", "my-adapter", "-o", "merged", "--precision", "f32"]);
    for args in [
        &["generate", "Dear Anna,", "--temperature", "0", "--max-tokens", "12"][..],
        &["generate", "Dear Anna,", "--beams", "2", "--max-tokens", "8"],
        &["generate", "Dear Anna,", "-n", "3", "--seed", "4", "--max-tokens", "8"],
        &["chat", "--temperature", "0", "--max-tokens", "8"],
        &["inspect", "Once upon a"],
        &["explain", "Once upon"],
    ] {
        let with = |more: &[&str]| run(&[args, more].concat());
        let (plain, adapted) = (with(&[]), with(&["--adapter", "my-adapter"]));
        assert!(plain != adapted || args[0] == "chat", "{args:?}: {plain}");
        if args[0] == "generate" {
            assert_eq!(with(&["--model", "./merged"]), adapted, "{args:?}");
        }
    }
    let perplexity = |more: &[&str]| {
        let json = run(&[&["perplexity", "story.txt", "--json"], more].concat());
        serde_json::from_str::<serde_json::Value>(&json).unwrap()
    };
    let adapted = perplexity(&["--adapter", "my-adapter", "--against", "./merged"]);
    assert!(adapted["against"]["kl_divergence"].as_f64().unwrap().abs() < 1e-6, "{adapted}");
    assert_ne!(perplexity(&[])["perplexity"], adapted["perplexity"]);
    let quantized = ["--adapter", "my-adapter", "--precision", "int8", "--against", "f32"];
    let quantized = perplexity(&quantized);
    assert!(quantized["against"]["kl_divergence"].as_f64().unwrap() < 0.05, "{quantized}");
}

#[test]
fn what_cannot_be_merged_or_adapted_is_one_line_error() {
    let folder = folder();
    stdout(folder.path(), &["quantize", "fable", "-p", "int8", "-o", "fable-int8"]);
    stdout(folder.path(), &["generate", "A", "--model", "./fable-int8", "--adapter", "my-adapter"]);
    fs::create_dir(folder.path().join("dora")).unwrap();
    let config = r#"{"peft_type": "LORA", "use_dora": true}"#;
    fs::write(folder.path().join("dora/adapter_config.json"), config).unwrap();
    let request =
        r#"{"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": {"prompt": "A"}}"#;
    fs::write(folder.path().join("batch.jsonl"), request).unwrap();
    for (args, expected) in [
        (&["merge", "fable", "my-adapter", "-o", "my-adapter/adapter_config.json"][..], "is not a folder"),
        (&["merge", "fable", "none", "-o", "out"], "none: found nothing, expected the folder of an adapter"),
        (
            &["merge", "./fable-int8", "my-adapter", "-o", "out"],
            "is quantized to int8: merge the adapter into",
        ),
        (&["merge", "fable", "my-adapter", "-o", "fable-int8"], "use --force to replace it"),
        (&["merge", "fable", "my-adapter", "-o", "out", "--precision", "int8"], "expected f32, f16 or bf16"),
        (&["generate", "A", "--adapter", "story.txt"], "story.txt: found a file, expected the folder"),
        (
            &["generate", "A", "--adapter", "fable-int8"],
            "fable-int8: found a model, expected the folder of an",
        ),
        (&["generate", "A", "--adapter", "dora"], "use_dora: found true, expected false, since DoRA is not"),
        (&["serve", "--adapter", "my-adapter"], "expected NAME=DIR"),
        (&["batch", "batch.jsonl", "--adapter", "a=none"], "none/adapter_config.json: cannot read"),
    ] {
        let Output { status, stdout, stderr } = hornbook(folder.path(), args);
        let stderr = String::from_utf8(stderr).unwrap();
        assert!(!status.success() && stdout.is_empty(), "{args:?}: {stderr}");
        assert!(
            stderr.starts_with("hornbook: ") && stderr.trim_end().lines().count() == 1,
            "{args:?}: {stderr}"
        );
        assert!(stderr.contains(expected), "{args:?}: {stderr}");
    }
    assert!(!folder.path().join("out").exists(), "nothing is written");
}
