//! The interpretability commands on the command line.

use assert_cmd::Command;
use serde_json::Value;
use std::time::Duration;

fn hornbook(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hornbook"));
    command.args(args).env_remove("HORNBOOK_ISA").timeout(Duration::from_secs(120));
    command
}

/// The standard output and standard error of a run that must succeed.
fn output_of(args: &[&str]) -> (String, String) {
    let output = hornbook(args).output().unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success(), "{args:?}: {stderr}");
    (stdout, stderr)
}

fn stdout_of(args: &[&str]) -> String {
    let (stdout, stderr) = output_of(args);
    assert_eq!(stderr, "", "{args:?}");
    stdout
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&stdout_of(&[args, &["--json"]].concat())).unwrap()
}

/// The error message, one line, of a run that must fail.
fn error_of(args: &[&str]) -> String {
    let output = hornbook(args).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && output.stdout.is_empty() && stderr.lines().count() == 1,
        "{args:?}: {stderr}"
    );
    stderr
}

const KING: [&str; 6] = ["generate", "The king", "--temperature", "0", "--max-tokens", "12"];

#[test]
fn generate_with_ablation_shows_before_and_after() {
    let baseline = stdout_of(&KING);
    let (after, stderr) = output_of(&[&KING[..], &["--ablate", "mlp0"]].concat());
    assert_ne!(after, baseline);
    assert!(stderr.starts_with("interventions: mlp0 zero\n") && stderr.contains("KL divergence"), "{stderr}");
    let before = stderr.split_once("--- before\n").unwrap().1;
    assert_eq!(before, format!("{}\n\n--- after\n", baseline.trim_end()));

    let report = json(&[&KING[..], &["--ablate", "mlp0"]].concat());
    assert_eq!(report["choices"][0]["text"].as_str().unwrap().trim_end(), after.trim_end());
    let intervention = &report["intervention"];
    assert_eq!(intervention["edits"], serde_json::json!(["mlp0 zero"]));
    assert_eq!(intervention["before"][0]["text"].as_str().unwrap().trim_end(), baseline.trim_end());
    assert!(intervention["kl_divergence"].as_f64().unwrap() > 1.0);
    let next = intervention["next_token"].as_array().unwrap();
    assert!(next.len() >= 5 && next.iter().all(|token| token["before"].is_f64() && token["after"].is_f64()));
    assert!(json(&KING)["intervention"].is_null(), "no report without interventions");

    // A scale of 1 changes nothing; a scale of 0 is zero ablation; mean ablation differs from it.
    let text = |args: &[&str]| json(&[&KING[..], args].concat());
    let once = text(&["--scale", "L5H1=1"]);
    assert_eq!(once["intervention"]["kl_divergence"], 0.0);
    let kl = |args: &[&str]| text(args)["intervention"]["kl_divergence"].as_f64().unwrap();
    let zero = kl(&["--ablate", "l2h1,MLP1"]);
    assert_eq!(zero, kl(&["--scale", "L2H1=0,mlp1=-0"]));
    assert_ne!(zero, kl(&["--ablate", "L2H1,mlp1", "--ablate-with", "mean"]));
    // Several completions, each with its own completion before.
    let several =
        json(&["generate", "The king", "-n", "2", "--seed", "4", "--max-tokens", "9", "--ablate", "L0H0"]);
    assert_eq!(several["intervention"]["before"].as_array().unwrap().len(), 2);
    let baseline = json(&["generate", "The king", "-n", "2", "--seed", "4", "--max-tokens", "9"]);
    for i in 0..2 {
        assert_eq!(several["intervention"]["before"][i]["text"], baseline["choices"][i]["text"]);
    }
}

#[test]
fn logprobs_are_those_of_the_ablated_model() {
    let args =
        ["generate", "The king", "--echo", "--logprobs", "0", "--max-tokens", "1", "--temperature", "0"];
    let (baseline, ablated) = (json(&args), json(&[&args[..], &["--ablate", "mlp0"]].concat()));
    let logprob = |report: &Value| report["choices"][0]["logprobs"]["token_logprobs"][1].as_f64().unwrap();
    assert_ne!(logprob(&baseline), logprob(&ablated));
}

#[test]
fn unknown_components_are_one_line_errors() {
    for (args, expected) in [
        (["--ablate", "L6H0"], "hornbook: component: found L6H0, expected a layer from 0 to 5\n"),
        (["--ablate", "L0H4"], "hornbook: component: found L0H4, expected a head from 0 to 3\n"),
        (["--scale", "mlp9=2"], "hornbook: component: found mlp9, expected a layer from 0 to 5\n"),
    ] {
        assert_eq!(error_of(&[&KING[..], &args].concat()), expected);
    }
    for args in [
        &["--ablate", "attn0"][..],
        &["--scale", "L0H0"],
        &["--scale", "L0H0=many"],
        &["--scale", "L0H0=inf"],
        &["--ablate-with", "mean"],
        &["--ablate", "L0H0", "--beams", "2"],
    ] {
        let line = error_of(&[&["generate", "The king"], args].concat());
        assert!(line.contains("--ablate") || line.contains("--scale"), "{line}");
    }
}

#[test]
fn heads_are_sorted_and_written_as_table_json_and_html() {
    let table = stdout_of(&["heads", "--sequences", "2", "--sort", "previous"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 1 + 24);
    let score = |line: &str| line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap();
    assert!(lines[1..].iter().map(|line| score(line)).is_sorted_by(|a, b| a >= b));
    assert!(lines[1].ends_with("previous-token"), "{}", lines[1]);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("heads.html");
    let report = json(&["heads", "--sequences", "2", "--length", "16", "--html", file.to_str().unwrap()]);
    assert_eq!((&report["length"], &report["heads"].as_array().unwrap().len()), (&16.into(), &24));
    assert_eq!(report, json(&["heads", "--sequences", "2", "--length", "16"]), "deterministic");
    let page = std::fs::read_to_string(file).unwrap();
    assert!(
        page.contains("<title>Attention heads of fable</title>")
            && page.contains("L5H3")
            && !page.contains("http")
    );
    let line = error_of(&["heads", "--length", "300"]);
    assert_eq!(line, "hornbook: --length: found 300, expected 2 to 255 for this model\n");
    assert!(
        error_of(&["heads", "--html", "/nowhere/heads.html", "--sequences", "1"]).contains("cannot write")
    );
}

#[test]
fn tokens_show_every_byte_and_merge() {
    let report = json(&["tokens", "The naïve 😀", "--merges"]);
    assert_eq!(report["text"], "The naïve 😀");
    let tokens = report["tokens"].as_array().unwrap();
    let bytes: Vec<u8> = tokens
        .iter()
        .flat_map(|token| serde_json::from_value::<Vec<u8>>(token["bytes"].clone()).unwrap())
        .collect();
    assert_eq!(bytes, "The naïve 😀".as_bytes());
    let partial_characters = tokens.iter().filter(|token| token["text"].is_null());
    assert!(
        partial_characters.clone().count() >= 2
            && partial_characters.clone().all(|token| token["label"].as_str().unwrap().contains("\\x"))
    );
    let ids: Vec<Value> = tokens.iter().map(|token| token["id"].clone()).collect();
    let ends = report["words"].as_array().unwrap().iter().flat_map(|word| {
        let last = word["merges"]
            .as_array()
            .unwrap()
            .last()
            .map_or(&word["initial_tokens"], |merge| &merge["tokens"]);
        last.as_array().unwrap().clone()
    });
    assert_eq!(ends.collect::<Vec<_>>(), ids);

    let text = stdout_of(&["tokens", "The cat", "--merges"]);
    assert!(text.starts_with("The|·cat\n2 tokens, 7 bytes, 7 characters\n"), "{text}");
    assert!(text.contains("T|h|e\n") && text.contains("54 68 65"), "{text}");
    for width in [40, 60, 200] {
        let (long, width) =
            ("It was the best of times, it was the worst of times 😀 ".repeat(4), width.to_string());
        let text = stdout_of(&["tokens", &long, "--merges", "--width", &width]);
        let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= width.parse().unwrap(), "{widest} columns of {width}");
    }
    let ids = ids.iter().map(Value::to_string).collect::<Vec<_>>().join(",");
    assert_eq!(json(&["tokens", "--prompt-ids", &ids])["text"], "The naïve 😀");
    let line = error_of(&["tokens", "--prompt-ids", "4096"]);
    assert_eq!(line, "hornbook: token id 4096 is outside the vocabulary (0 to 4095)\n");
    assert!(error_of(&["tokens", "a", "--width", "9"]).contains("--width"));
}

#[test]
fn explain_shows_every_step_with_documentation() {
    let text = stdout_of(&["explain", "Once upon a time"]);
    for expected in [
        "Layer normalization: gives each token's vector mean 0 and variance 1",
        "y = (x − mean(x)) / √(var(x) + ε) · weight + bias",
        "src/kernels/attention/mod.rs",
        "[4, 256] · [256, 768] + [768] → [4, 768]",
        "blocks.0.hook_resid_post",
        "Block 5, same steps",
        "GFLOPS",
        "src/model/reference.rs",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
    let once = text.matches("Layer normalization: gives").count();
    assert_eq!(once, 1, "a description is shown at its first occurrence");
    let layer = stdout_of(&["explain", "Once upon a time", "--layer", "3"]);
    assert!(layer.contains("Block 3: ") && !layer.contains("Block 0") && !layer.contains("Tokenization"));
    assert!(text.lines().count() > layer.lines().count());

    // Enter continues, q quits, and the end of input does not block.
    let step = |input: &'static str| {
        let output = hornbook(&["explain", "Once", "--step"]).write_stdin(input).output().unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8(output.stderr).unwrap().starts_with("Enter: next, q: quit "));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(step("\n\nq\n").matches("cost ").count() < 3 && step("\n\nq\n").contains("3  "));
    assert!(step("").contains("Softmax and sampling"));

    let report = json(&["explain", "Once upon a time"]);
    let steps = report["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 4 + 6 * 8 + 3);
    let likeliest = steps[steps.len() - 1]["top_tokens"][0].clone();
    let baseline =
        json(&["generate", "Once upon a time", "--logprobs", "1", "--temperature", "0", "--max-tokens", "1"]);
    assert_eq!(likeliest[0], baseline["choices"][0]["token_ids"][0]);
    let logprob = baseline["choices"][0]["logprobs"]["token_logprobs"][0].as_f64().unwrap();
    assert!((likeliest[1].as_f64().unwrap() - logprob.exp()).abs() < 1e-5);
    let line = error_of(&["explain", "Once", "--layer", "6"]);
    assert_eq!(line, "hornbook: --layer: found 6, expected 0 to 5\n");
}

#[test]
fn positions_are_compared_side_by_side() {
    for width in [40, 100] {
        let text = stdout_of(&["positions", "--width", &width.to_string()]);
        assert!(text.contains("learned") && text.contains("sinusoidal") && text.contains('█'));
        let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= width, "{widest}");
    }
    let report = json(&["positions", "--first", "64"]);
    assert_eq!((&report["positions"], &report["kind"]), (&64.into(), &"learned".into()));
    assert_eq!(report["wpe"]["similarity"].as_array().unwrap().len(), 32);
    assert_eq!(report["sinusoidal"]["by_distance"].as_array().unwrap().len(), 6);
    let line = error_of(&["positions", "--first", "513"]);
    assert_eq!(line, "hornbook: --first: found 513, expected 2 to 512\n");
}
