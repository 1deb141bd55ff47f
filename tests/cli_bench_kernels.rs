//! Command-line tests of `hornbook bench attention`, `bench roofline`, `bench train` and `--attention`.

use assert_cmd::Command;
use hornbook::kernels::attention::{Flash, KERNELS, KvPrecision};
use serde_json::Value;
use std::collections::HashSet;

fn hornbook(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("hornbook").unwrap();
    command.args(arguments);
    command
}

fn stdout(arguments: &[&str]) -> String {
    let output = hornbook(arguments).assert().success().get_output().clone();
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the one-line error of a failing command.
fn error_line(mut command: Command) -> String {
    let output = command.assert().failure().get_output().clone();
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!(line.trim_end().lines().count(), 1, "{line}");
    line
}

#[test]
fn bench_attention_json_reports_every_kernel_and_shape() {
    let small = ["bench", "attention", "--seq", "16,70", "--heads", "2", "--head-dim", "24", "--repeat", "2"];
    let more = ["--threads", "1,2", "--kv-precision", "f32,int8", "--batch", "1,3", "--json"];
    let report: Value = serde_json::from_str(&stdout(&[&small[..], &more].concat())).unwrap();
    let limits = report["machine"]["limits"].as_array().unwrap();
    assert_eq!(limits.len(), 2);
    assert!(limits.iter().all(|limit| limit["bandwidth_gb_per_s"].as_f64().unwrap() > 0.1));
    let results = report["results"].as_array().unwrap();
    assert_eq!(results.len(), KERNELS.len() * 3 * 2 * 2 * 2 * 2);
    let key = |row: &Value| {
        ["kernel", "phase", "seq", "batch", "threads", "kv_precision"].map(|name| row[name].to_string())
    };
    assert_eq!(results.iter().map(key).collect::<HashSet<_>>().len(), results.len());
    for row in results {
        let samples = row["samples_seconds"].as_array().unwrap();
        let sample_seconds = samples.iter().map(|x| x.as_f64().unwrap());
        assert!(samples.len() == 2 && sample_seconds.fold(f64::MAX, f64::min) == row["min_seconds"], "{row}");
        for name in [
            "median_seconds",
            "p95_seconds",
            "queries",
            "achieved_gflops",
            "fraction_of_peak",
            "achieved_gb_per_s",
            "fraction_of_bandwidth",
            "max_absolute_error",
            "max_relative_error",
        ] {
            assert!(row[name].as_f64().unwrap() > 0.0, "{name} of {row}");
        }
        let tolerance = if row["kv_precision"] == "int8" { 3e-2 } else { 1e-5 };
        assert!(row["max_absolute_error"].as_f64().unwrap() < tolerance, "{row}");
        assert!(
            row["disturbed"].is_boolean()
                && row["workspace_bytes"].is_u64()
                && row["scaling_exponent"].is_number()
        );
    }
}

#[test]
fn bench_attention_writes_table_csv_and_svg() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("attention.svg");
    let common =
        ["bench", "attention", "--kernels", "flash,blocks", "--seq", "8,32", "--heads", "1", "--repeat", "1"];
    let csv = stdout(&[&common[..], &["--csv", "--svg", file.to_str().unwrap()]].concat());
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 1 + 2 * 3 * 2);
    assert!(
        lines[0].starts_with("kernel,phase,seq,") && lines[1].starts_with("flash,prefill,8,8,1,1,64,f32,"),
        "{csv}"
    );
    let commas = lines[0].matches(',').count();
    assert!(lines.iter().all(|line| line.matches(',').count() == commas), "{csv}");
    let svg = std::fs::read_to_string(&file).unwrap();
    assert_eq!(svg.matches("<circle").count(), 2 * 3 * 2);
    for word in
        ["prefill, 1 × 64", "decode, 1 × 64", ">flash</text>", ">blocks</text>", "prefers-color-scheme"]
    {
        assert!(svg.contains(word), "{word} is not in {svg}");
    }
    let table = stdout(&common);
    assert!(
        table.contains("max abs error") && table.lines().filter(|line| line.contains("flash")).count() == 6
    );
}

#[test]
fn bench_attention_invalid_input_is_one_line_error() {
    let line = error_line(hornbook(&["bench", "attention", "--kernels", "flush"]));
    let names: Vec<&str> = hornbook::kernels::attention::KERNELS.iter().map(|kernel| kernel.name()).collect();
    assert!(line.contains("flush") && line.contains(&names.join(", ")), "{line}");
    let line = error_line(hornbook(&["bench", "attention", "--seq", "9999999999"]));
    assert!(line.contains("--seq") && line.contains("8 GiB"), "{line}");
    let mut without_python = hornbook(&["bench", "attention", "--against", "torch", "--seq", "8"]);
    without_python.env("HORNBOOK_PYTHON", "/nowhere/python");
    let line = error_line(without_python);
    assert!(line.contains("PyTorch not found") && line.contains("/nowhere/python"), "{line}");
}

#[test]
fn bench_roofline_times_sum_to_the_step() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("roofline.svg");
    let common = ["bench", "roofline", "--prompt", "100", "--depth", "60", "--repeat", "3"];
    let report = stdout(&[&common[..], &["--json", "--svg", file.to_str().unwrap()]].concat());
    let report: Value = serde_json::from_str(&report).unwrap();
    let steps = report["steps"].as_array().unwrap();
    assert_eq!((&steps[0]["phase"], &steps[1]["phase"]), (&"prefill".into(), &"decode".into()));
    for step in steps {
        let accounted_for = step["fraction_accounted_for"].as_f64().unwrap();
        let operations = step["operations"].as_array().unwrap();
        let seconds: f64 = operations.iter().map(|operation| operation["seconds"].as_f64().unwrap()).sum();
        let sum = seconds / step["seconds"].as_f64().unwrap();
        assert!((accounted_for / sum - 1.0).abs() < 0.01, "{step}");
        assert_eq!(operations.len(), 12);
        let fractions: f64 =
            operations.iter().map(|operation| operation["fraction_of_step"].as_f64().unwrap()).sum();
        assert!((fractions - accounted_for).abs() < 0.01, "{fractions}, {accounted_for}");
    }
    let svg = std::fs::read_to_string(&file).unwrap();
    assert!(
        svg.contains("mlp.c_fc")
            && svg.matches("FLOP per byte").count() == 2
            && svg.matches("<circle").count() >= 2 * 8
            && svg.contains("prefill of 100 tokens")
            && svg.contains("decode after 60")
    );
    let table = stdout(&common);
    assert!(table.contains("attn.c_attn") && table.contains("of the unprofiled step"), "{table}");
    let line = error_line(hornbook(&["bench", "roofline", "--depth", "5000"]));
    assert!(line.contains("--depth") && line.contains("512"), "{line}");
}

#[test]
fn bench_train_parts_add_up_in_table_json_and_csv() {
    let common = ["bench", "train", "--batch", "2", "--context", "24", "--repeat", "2", "--threads", "1,2"];
    let report: Value = serde_json::from_str(&stdout(&[&common[..], &["--json"]].concat())).unwrap();
    assert_eq!(report["model"]["name"], "fable");
    let results = report["results"].as_array().unwrap();
    assert_eq!((&results[0]["threads"], &results[1]["threads"]), (&1.into(), &2.into()));
    for result in results {
        for name in [
            "tokens_per_second",
            "median_seconds",
            "gflops",
            "peak_gflops",
            "fraction_of_peak",
            "memory_bytes",
        ] {
            assert!(result[name].as_f64().unwrap() > 0.0, "{name} of {result}");
        }
        let rate = 48.0 / result["median_seconds"].as_f64().unwrap();
        assert!((result["tokens_per_second"].as_f64().unwrap() / rate - 1.0).abs() < 0.01, "{result}");
        let parts = result["parts"].as_array().unwrap();
        let sum: f64 = parts.iter().map(|part| part["fraction_of_step"].as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 0.01 && result["samples_seconds"].as_array().unwrap().len() == 2);
    }
    let csv = stdout(&[&common[..], &["--csv"]].concat());
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 1 + 2 * (1 + results[0]["parts"].as_array().unwrap().len()));
    assert!(
        lines[0].starts_with("threads,sequences,context,part,") && lines[1].starts_with("1,2,24,step,1,")
    );
    let table = stdout(&common);
    for word in ["2 sequences of 24 tokens, 1 thread:", "of memory", "lm_head + loss", "adamw"] {
        assert!(table.contains(word), "{word} is not in {table}");
    }
    let line = error_line(hornbook(&["bench", "train", "--context", "5000"]));
    assert!(line.contains("--context") && line.contains("512"), "{line}");
}

#[test]
fn every_attention_kernel_generates_identical_text() {
    let text = |more: &[&str]| {
        stdout(
            &[&["generate", "Once upon a time", "--temperature", "0", "--max-tokens", "40"], more].concat(),
        )
    };
    let expected = text(&[]);
    for kernel in KERNELS {
        let generated = text(&["--attention", kernel.name()]);
        // No two candidates are within rounding of each other.
        assert_eq!(generated, expected, "{}", kernel.name());
        assert!(generated.len() > 60);
    }
    for precision in KvPrecision::ALL {
        assert!(text(&["--kv-precision", precision.name(), "--attention", "two-pass"]).len() > 60);
    }
    let line = error_line(hornbook(&["generate", "x", "--attention", "paged"]));
    assert!(line.contains("paged") && line.contains("split-kv"), "{line}");
    assert_eq!(
        hornbook::Hornbook::open("fable").unwrap().model().attention().name(),
        format!("{Flash:?}").to_lowercase()
    );
}
