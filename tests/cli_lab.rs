//! `hornbook bench attention`, `hornbook bench roofline` and `--attention` as a user types them.

use assert_cmd::Command;
use hornbook::kernels::attention::{Flash, KERNELS, KvPrecision};
use serde_json::Value;
use std::collections::HashSet;

fn hornbook(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("hornbook").unwrap();
    command.args(arguments);
    command
}

fn output(arguments: &[&str]) -> String {
    let output = hornbook(arguments).assert().success().get_output().clone();
    String::from_utf8(output.stdout).unwrap()
}

/// The one line of a command that fails.
fn refused(mut command: Command) -> String {
    let output = command.assert().failure().get_output().clone();
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!(line.trim_end().lines().count(), 1, "{line}");
    line
}

#[test]
fn the_lab_measures_every_kernel_on_every_shape() {
    let small = ["bench", "attention", "--seq", "16,70", "--heads", "2", "--head-dim", "24", "--repeat", "2"];
    let more = ["--threads", "1,2", "--kv-precision", "f32,int8", "--batch", "1,3", "--json"];
    let report: Value = serde_json::from_str(&output(&[&small[..], &more].concat())).unwrap();
    let limits = report["machine"]["limits"].as_array().unwrap();
    assert_eq!(limits.len(), 2);
    assert!(limits.iter().all(|limit| limit["bandwidth_gb_s"].as_f64().unwrap() > 0.1));
    let results = report["results"].as_array().unwrap();
    assert_eq!(results.len(), KERNELS.len() * 2 * 2 * 2 * 2 * 2);
    let key = |row: &Value| {
        ["kernel", "phase", "seq", "batch", "threads", "kv_precision"].map(|name| row[name].to_string())
    };
    assert_eq!(results.iter().map(key).collect::<HashSet<_>>().len(), results.len());
    for row in results {
        for name in
            ["seconds", "gflops", "of_peak", "gb_s", "of_bandwidth", "absolute_error", "relative_error"]
        {
            assert!(row[name].as_f64().unwrap() > 0.0, "{name} of {row}");
        }
        let most = if row["kv_precision"] == "int8" { 3e-2 } else { 1e-5 };
        assert!(row["absolute_error"].as_f64().unwrap() < most, "{row}");
        assert!(row["scratch_bytes"].is_u64() && row["growth"].is_number());
    }
}

#[test]
fn the_lab_writes_a_table_values_and_a_chart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lab.svg");
    let common =
        ["bench", "attention", "--kernels", "flash,blocks", "--seq", "8,32", "--heads", "1", "--repeat", "1"];
    let csv = output(&[&common[..], &["--csv", "--svg", file.to_str().unwrap()]].concat());
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 1 + 2 * 2 * 2);
    assert!(
        lines[0].starts_with("kernel,phase,seq,") && lines[1].starts_with("flash,prefill,8,1,1,64,f32,"),
        "{csv}"
    );
    let commas = lines[0].matches(',').count();
    assert!(lines.iter().all(|line| line.matches(',').count() == commas), "{csv}");
    let svg = std::fs::read_to_string(&file).unwrap();
    assert_eq!(svg.matches("<circle").count(), 2 * 2 * 2);
    for word in
        ["prefill, 1 × 64", "decode, 1 × 64", ">flash</text>", ">blocks</text>", "prefers-color-scheme"]
    {
        assert!(svg.contains(word), "{word} is not in {svg}");
    }
    let table = output(&common);
    assert!(table.contains("abs. error") && table.lines().filter(|line| line.contains("flash")).count() == 4);
}

#[test]
fn the_lab_refuses_what_it_cannot_measure() {
    let line = refused(hornbook(&["bench", "attention", "--kernels", "flush"]));
    assert!(line.contains("flush") && line.contains("two-pass, streaming, flash"), "{line}");
    let line = refused(hornbook(&["bench", "attention", "--seq", "9999999999"]));
    assert!(line.contains("--seq") && line.contains("8 GiB"), "{line}");
    let mut without = hornbook(&["bench", "attention", "--against", "torch", "--seq", "8"]);
    without.env("HORNBOOK_PYTHON", "/nowhere/python");
    let line = refused(without);
    assert!(line.contains("no PyTorch") && line.contains("/nowhere/python"), "{line}");
}

#[test]
fn a_step_is_taken_apart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("roofline.svg");
    let common = ["bench", "roofline", "--prompt", "100", "--depth", "60", "--repeat", "3"];
    let report = output(&[&common[..], &["--json", "--svg", file.to_str().unwrap()]].concat());
    let report: Value = serde_json::from_str(&report).unwrap();
    let steps = report["steps"].as_array().unwrap();
    assert_eq!((&steps[0]["phase"], &steps[1]["phase"]), (&"prefill".into(), &"decode".into()));
    for step in steps {
        let accounted_for = step["accounted_for"].as_f64().unwrap();
        let operations = step["operations"].as_array().unwrap();
        let seconds: f64 = operations.iter().map(|operation| operation["seconds"].as_f64().unwrap()).sum();
        let together = seconds / step["seconds"].as_f64().unwrap();
        assert!((accounted_for / together - 1.0).abs() < 0.01, "{step}");
        assert_eq!(operations.len(), 12);
        let shares: f64 = operations.iter().map(|operation| operation["share"].as_f64().unwrap()).sum();
        assert!((shares - accounted_for).abs() < 0.01, "{shares}, {accounted_for}");
    }
    let svg = std::fs::read_to_string(&file).unwrap();
    assert!(
        svg.contains("mlp.c_fc") && svg.contains("prefill of 100 tokens") && svg.contains("decode after 60")
    );
    let table = output(&common);
    assert!(table.contains("attn.c_attn") && table.contains("that the step takes"), "{table}");
    let line = refused(hornbook(&["bench", "roofline", "--depth", "5000"]));
    assert!(line.contains("--depth") && line.contains("512"), "{line}");
}

#[test]
fn every_kernel_writes() {
    let text = |more: &[&str]| {
        output(
            &[&["generate", "Once upon a time", "--temperature", "0", "--max-tokens", "40"], more].concat(),
        )
    };
    let expected = text(&[]);
    for kernel in KERNELS {
        let found = text(&["--attention", kernel.name()]);
        assert_eq!(found, expected, "{}", kernel.name()); // rounding is far from turning the choice
        assert!(found.len() > 60);
    }
    for precision in KvPrecision::ALL {
        assert!(text(&["--kv-precision", precision.name(), "--attention", "two-pass"]).len() > 60);
    }
    let line = refused(hornbook(&["generate", "x", "--attention", "paged"]));
    assert!(line.contains("paged") && line.contains("split-kv"), "{line}");
    assert_eq!(
        hornbook::Hornbook::open("fable").unwrap().model().attention().name(),
        format!("{Flash:?}").to_lowercase()
    );
}
