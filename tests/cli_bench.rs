//! Command-line tests of `hornbook bench` and `hornbook perplexity`.

use assert_cmd::Command;
use serde_json::Value;
use std::path::Path;

fn hornbook(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("hornbook").unwrap();
    command.args(arguments);
    command
}

/// Returns the standard output of a successful command.
fn stdout(arguments: &[&str]) -> String {
    let output = hornbook(arguments).assert().success().get_output().clone();
    String::from_utf8(output.stdout).unwrap()
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&stdout(arguments)).unwrap()
}

/// Returns the one-line error of a failing command.
fn error_line(arguments: &[&str]) -> String {
    let output = hornbook(arguments).assert().failure().get_output().clone();
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!(line.trim_end().lines().count(), 1, "{line}");
    line
}

fn data_file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path);
    path.to_str().unwrap().to_string()
}

/// A bench of every phase that takes little time.
const QUICK_BENCH: [&str; 11] =
    ["bench", "--prompt", "24", "--depth", "3,20", "--batch", "3", "--repeat", "2", "--threads", "1,2"];

#[test]
fn bench_json_reports_every_phase_and_thread_count() {
    let report = json(&[&QUICK_BENCH[..], &["--json"]].concat());
    let machine = &report["machine"];
    assert!(machine["bandwidth_gb_per_s"].as_f64().unwrap() > 0.1);
    assert!(machine["peak_gflops"].as_f64().unwrap() > 0.1);
    assert_eq!(machine["limits"].as_array().unwrap().len(), 2);
    assert_eq!(report["model"]["parameters"], 5_918_720);
    let results = report["results"].as_array().unwrap();
    assert_eq!(results.len(), 2 * 4);
    for (result, threads) in results.iter().zip([1, 1, 1, 1, 2, 2, 2, 2]) {
        assert_eq!((&result["threads"], &result["precision"]), (&threads.into(), &"f16".into()));
        assert!(result["tokens_per_second"].as_f64().unwrap() > 0.0 && result["iqr"].is_number());
        let (bandwidth, peak) = (&result["fraction_of_bandwidth"], &result["fraction_of_peak"]);
        match result["phase"].as_str().unwrap() {
            "prefill" => assert!(result["prompt"] == 24 && peak.is_number() && bandwidth.is_null()),
            "decode" => assert!(result["depth"].is_number() && bandwidth.is_number() && peak.is_null()),
            "batch" => assert!(result["sequences"] == 3 && bandwidth.is_number() && peak.is_number()),
            other => panic!("unknown phase {other}"),
        }
    }
}

#[test]
fn bench_prints_table_or_csv() {
    let csv = stdout(&[&QUICK_BENCH[..], &["--csv"]].concat());
    let lines: Vec<_> = csv.lines().collect();
    assert_eq!(lines.len(), 1 + 8);
    assert!(lines[1].starts_with("f16,f32,1,prefill,24,,,"), "{csv}");
    assert!(lines.iter().all(|line| line.matches(',').count() == 12), "{csv}");
    let table = stdout(&QUICK_BENCH);
    assert_eq!(table.lines().filter(|line| line.starts_with("f16 ")).count(), 8, "{table}");
}

#[test]
fn bench_draft_measures_the_same_tokens_with_and_without_drafts() {
    let quick = ["bench", "draft", "--draft", "int8", "--max-tokens", "20", "--repeat", "2"];
    let report = json(&[&quick[..], &["--json"]].concat());
    let results = report["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    for (result, temperature) in results.iter().zip([0.0, 0.8]) {
        assert_eq!((&result["temperature"], &result["draft"]), (&temperature.into(), &"int8".into()));
        assert_eq!(result["tokens"], 2 * 19);
        let speeds = ["tokens_per_second_without", "tokens_per_second_with", "speedup"];
        assert!(speeds.iter().all(|name| result[name].as_f64().unwrap() > 0.0), "{result}");
        let per_pass = result["tokens_per_pass"].as_f64().unwrap();
        assert!((1.0..=20.0).contains(&per_pass), "{result}");
        assert!(result["draft_model_bytes"].as_u64().unwrap() > 5_000_000, "{result}");
    }
    let csv = stdout(&[&quick[..], &["--csv"]].concat());
    assert!(csv.lines().count() == 3 && csv.lines().all(|line| line.matches(',').count() == 11), "{csv}");
    let table = stdout(&quick);
    assert_eq!(table.lines().filter(|line| line.starts_with("f16 ")).count(), 2, "{table}");
    let line = error_line(&["bench", "draft", "--precision", "int8"]);
    assert!(line.contains("draft: found int4 for a model in int8"), "{line}");
}

#[test]
fn bench_lengths_beyond_context_are_clipped_with_note() {
    let tiny = data_file("tiny-gelu-new");
    let command =
        ["bench", "-m", &tiny, "--prompt", "9,9000", "--depth", "0,9000", "--batch", "1", "--repeat", "1"];
    let assert = hornbook(&[&command[..], &["--csv"]].concat()).assert().success();
    let output = assert.get_output();
    let notes = String::from_utf8_lossy(&output.stderr);
    assert_eq!(notes.lines().count(), 2, "{notes}");
    assert!(notes.contains("--prompt 9000") && notes.contains("--depth 9000"), "{notes}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 1 + 4);
}

#[test]
fn bench_converts_model_to_requested_precisions() {
    let report = json(&[
        "bench",
        "--precision",
        "bf16,int8",
        "--prompt",
        "8",
        "--depth",
        "0",
        "--repeat",
        "1",
        "--json",
    ]);
    for precision in ["bf16", "int8"] {
        let results = report["results"].as_array().unwrap();
        assert!(results.iter().any(|result| result["precision"] == precision), "{precision}");
    }
    let error = hornbook(&["bench", "--precision", "int3"]).assert().failure().get_output().clone();
    let message = String::from_utf8(error.stderr).unwrap();
    assert!(message.contains("[possible values: f32, f16, bf16, bf16-dot, int8, int4]"), "{message}");
}

#[test]
fn perplexity_matches_pytorch() {
    let expected = std::fs::read_to_string(data_file("fable/expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&expected).unwrap();
    let expected = &expected["text"];
    let loss = expected["mean_nll"].as_f64().unwrap();
    let tokens = expected["input_ids"].as_array().unwrap().len();
    let text = std::fs::read_to_string(data_file("fable/text.txt")).unwrap();

    // The reference covers the first context only; truncate the text to the same tokens.
    let hornbook = hornbook::Hornbook::open("fable").unwrap();
    let ids = hornbook.encode(&text).unwrap();
    let truncated = hornbook.tokenizer().unwrap().decode(&ids[..tokens]);
    let first_token = hornbook.tokenizer().unwrap().decode(&ids[..1]);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("truncated.txt");
    std::fs::write(&file, &truncated).unwrap();

    let report = json(&["perplexity", file.to_str().unwrap(), "--json"]);
    let value = |field: &str| report[field].as_f64().unwrap();
    assert!((value("nats_per_token") - loss).abs() < 1e-5, "{report}");
    assert!((value("perplexity") / loss.exp() - 1.0).abs() < 1e-5);
    assert_eq!(report["tokens"], tokens - 1);
    let bytes = truncated.len() - first_token.len();
    assert_eq!(report["bytes"], bytes);
    let bits_per_byte = loss * (tokens - 1) as f64 / std::f64::consts::LN_2 / bytes as f64;
    assert!((value("bits_per_byte") - bits_per_byte).abs() < 1e-5);
}

#[test]
fn perplexity_against_same_model_has_zero_divergence() {
    let report = json(&[
        "perplexity",
        &data_file("fable/text.txt"),
        "--stride",
        "200",
        "--against",
        "fable",
        "--json",
    ]);
    assert!(report["against"]["kl_divergence"].as_f64().unwrap().abs() < 1e-9, "{report}");
    assert_eq!(report["against"]["top1_agreement"], 1.0);
    assert_eq!(report["stride"], 200);
}

#[test]
fn perplexity_counts_no_bytes_for_end_of_text_token() {
    let report = |extra: &[&str]| {
        let mut command = hornbook(&[&["perplexity", "-", "--json"], extra].concat());
        let output =
            command.write_stdin("Once upon<|endoftext|> a time").assert().success().get_output().clone();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let (plain, special) = (report(&[]), report(&["--special"]));
    assert_eq!(plain["bytes"].as_u64().unwrap() - special["bytes"].as_u64().unwrap(), 13);
    assert!(plain["tokens"].as_u64() > special["tokens"].as_u64());
}

#[test]
fn perplexity_invalid_input_is_one_line_error() {
    let text = data_file("fable/text.txt");
    assert!(error_line(&["perplexity", "no/such.txt"]).contains("no/such.txt: cannot read"));
    assert!(error_line(&["perplexity", &text, "--context", "600"]).contains("from 1 to 512"));
    assert!(
        error_line(&["perplexity", &text, "--context", "8", "--stride", "9"]).contains("--stride: found 9")
    );
    let binary = data_file("tiny-gelu-new/model.safetensors");
    assert!(error_line(&["perplexity", &binary]).contains("invalid UTF-8"));
    let line = error_line(&["perplexity", &text, "--against", &data_file("tiny-gelu-new")]);
    assert!(line.contains("expected 4096"), "{line}");
    hornbook(&["perplexity", "-"]).write_stdin("").assert().failure();
}
