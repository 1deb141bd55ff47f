//! The views into a model, as a user types them.

use assert_cmd::Command;
use serde_json::Value;
use std::time::Duration;

fn hornbook(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hornbook"));
    command.args(args).env_remove("HORNBOOK_ISA").timeout(Duration::from_secs(120));
    command
}

/// What a run that must succeed writes to standard output and standard error.
fn both(args: &[&str]) -> (String, String) {
    let output = hornbook(args).output().unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success(), "{args:?}: {stderr}");
    (stdout, stderr)
}

fn written(args: &[&str]) -> String {
    let (stdout, stderr) = both(args);
    assert_eq!(stderr, "", "{args:?}");
    stdout
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&written(&[args, &["--json"]].concat())).unwrap()
}

/// The one line of a run that must fail.
fn refused(args: &[&str]) -> String {
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
fn an_ablated_model_writes_beside_the_model_as_it_is() {
    let plain = written(&KING);
    let (after, said) = both(&[&KING[..], &["--ablate", "mlp0"]].concat());
    assert_ne!(after, plain);
    assert!(said.starts_with("changed: mlp0 zero\n") && said.contains("KL divergence"), "{said}");
    let before = said.split_once("--- before\n").unwrap().1;
    assert_eq!(before, format!("{}\n\n--- after\n", plain.trim_end()));

    let report = json(&[&KING[..], &["--ablate", "mlp0"]].concat());
    assert_eq!(report["choices"][0]["text"].as_str().unwrap().trim_end(), after.trim_end());
    let intervention = &report["intervention"];
    assert_eq!(intervention["changes"], serde_json::json!(["mlp0 zero"]));
    assert_eq!(intervention["before"][0]["text"].as_str().unwrap().trim_end(), plain.trim_end());
    assert!(intervention["kl_divergence"].as_f64().unwrap() > 1.0);
    let next = intervention["next"].as_array().unwrap();
    assert!(next.len() >= 5 && next.iter().all(|token| token["before"].is_f64() && token["after"].is_f64()));
    assert!(json(&KING)["intervention"].is_null(), "nothing is said where nothing is changed");

    // Once as much is as much; the mean is not nothing; a scale of 0 is.
    let text = |args: &[&str]| json(&[&KING[..], args].concat());
    let once = text(&["--scale", "L5H1=1"]);
    assert_eq!(once["intervention"]["kl_divergence"], 0.0);
    let kl = |args: &[&str]| text(args)["intervention"]["kl_divergence"].as_f64().unwrap();
    let zero = kl(&["--ablate", "l2h1,MLP1"]);
    assert_eq!(zero, kl(&["--scale", "L2H1=0,mlp1=-0"]));
    assert_ne!(zero, kl(&["--ablate", "L2H1,mlp1", "--ablate-with", "mean"]));
    // Several completions, each beside its own.
    let several =
        json(&["generate", "The king", "-n", "2", "--seed", "4", "--max-tokens", "9", "--ablate", "L0H0"]);
    assert_eq!(several["intervention"]["before"].as_array().unwrap().len(), 2);
    let plain = json(&["generate", "The king", "-n", "2", "--seed", "4", "--max-tokens", "9"]);
    for i in 0..2 {
        assert_eq!(several["intervention"]["before"][i]["text"], plain["choices"][i]["text"]);
    }
}

#[test]
fn logprobs_of_a_changed_model_are_its_own() {
    let args =
        ["generate", "The king", "--echo", "--logprobs", "0", "--max-tokens", "1", "--temperature", "0"];
    let (plain, changed) = (json(&args), json(&[&args[..], &["--ablate", "mlp0"]].concat()));
    let logprob = |report: &Value| report["choices"][0]["logprobs"]["token_logprobs"][1].as_f64().unwrap();
    assert_ne!(logprob(&plain), logprob(&changed));
}

#[test]
fn parts_that_are_not_there_are_named_in_one_line() {
    for (args, expected) in [
        (["--ablate", "L6H0"], "hornbook: part to change: found L6H0, expected a layer from 0 to 5\n"),
        (["--ablate", "L0H4"], "hornbook: part to change: found L0H4, expected a head from 0 to 3\n"),
        (["--scale", "mlp9=2"], "hornbook: part to change: found mlp9, expected a layer from 0 to 5\n"),
    ] {
        assert_eq!(refused(&[&KING[..], &args].concat()), expected);
    }
    for args in [
        &["--ablate", "attn0"][..],
        &["--scale", "L0H0"],
        &["--scale", "L0H0=many"],
        &["--scale", "L0H0=inf"],
        &["--ablate-with", "mean"],
        &["--ablate", "L0H0", "--beams", "2"],
    ] {
        let line = refused(&[&["generate", "The king"], args].concat());
        assert!(line.contains("--ablate") || line.contains("--scale"), "{line}");
    }
}

#[test]
fn heads_are_sorted_and_drawn() {
    let table = written(&["heads", "--sequences", "2", "--sort", "previous"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 1 + 24);
    let score = |line: &str| line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap();
    assert!(lines[1..].iter().map(|line| score(line)).is_sorted_by(|a, b| a >= b));
    assert!(lines[1].ends_with("previous"), "{}", lines[1]);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("heads.html");
    let report = json(&["heads", "--sequences", "2", "--length", "16", "--html", file.to_str().unwrap()]);
    assert_eq!((&report["length"], &report["heads"].as_array().unwrap().len()), (&16.into(), &24));
    assert_eq!(report, json(&["heads", "--sequences", "2", "--length", "16"]), "the same each time");
    let page = std::fs::read_to_string(file).unwrap();
    assert!(
        page.contains("<title>Heads of fable</title>") && page.contains("L5H3") && !page.contains("http")
    );
    let line = refused(&["heads", "--length", "300"]);
    assert_eq!(line, "hornbook: --length: found 300, expected 2 to 255 for this model\n");
    assert!(
        refused(&["heads", "--html", "/nowhere/heads.html", "--sequences", "1"]).contains("cannot write")
    );
}

#[test]
fn tokens_show_every_byte() {
    let report = json(&["tokens", "The naïve 😀", "--merges"]);
    assert_eq!(report["text"], "The naïve 😀");
    let tokens = report["tokens"].as_array().unwrap();
    let bytes: Vec<u8> = tokens
        .iter()
        .flat_map(|token| serde_json::from_value::<Vec<u8>>(token["bytes"].clone()).unwrap())
        .collect();
    assert_eq!(bytes, "The naïve 😀".as_bytes());
    let halves = tokens.iter().filter(|token| token["text"].is_null());
    assert!(
        halves.clone().count() >= 2
            && halves.clone().all(|half| half["label"].as_str().unwrap().contains("\\x"))
    );
    let ids: Vec<Value> = tokens.iter().map(|token| token["id"].clone()).collect();
    let ends = report["words"].as_array().unwrap().iter().flat_map(|word| {
        let last = word["merges"].as_array().unwrap().last().map_or(&word["start"], |merge| &merge["tokens"]);
        last.as_array().unwrap().clone()
    });
    assert_eq!(ends.collect::<Vec<_>>(), ids);

    let text = written(&["tokens", "The cat", "--merges"]);
    assert!(text.starts_with("The|·cat\n2 tokens, 7 bytes, 7 characters\n"), "{text}");
    assert!(text.contains("T|h|e\n") && text.contains("54 68 65"), "{text}");
    for width in [40, 60, 200] {
        let (long, width) =
            ("It was the best of times, it was the worst of times 😀 ".repeat(4), width.to_string());
        let text = written(&["tokens", &long, "--merges", "--width", &width]);
        let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= width.parse().unwrap(), "{widest} columns of {width}");
    }
    let ids = ids.iter().map(Value::to_string).collect::<Vec<_>>().join(",");
    assert_eq!(json(&["tokens", "--prompt-ids", &ids])["text"], "The naïve 😀");
    let line = refused(&["tokens", "--prompt-ids", "4096"]);
    assert_eq!(line, "hornbook: token id 4096 is outside the vocabulary (0 to 4095)\n");
    assert!(refused(&["tokens", "a", "--width", "9"]).contains("--width"));
}

#[test]
fn a_walk_explains_every_step_in_the_kernels_own_words() {
    let text = written(&["explain", "Once upon a time"]);
    for said in [
        "Layer normalization: give each token's vector mean 0 and variance 1",
        "y = (x − mean(x)) / √(var(x) + ε) · weight + bias",
        "src/kernels/attention/mod.rs",
        "[4, 256] · [256, 768] + [768] → [4, 768]",
        "blocks.0.hook_resid_post",
        "Block 5 does the same",
        "GFLOPS",
    ] {
        assert!(text.contains(said), "{said} is not in\n{text}");
    }
    let once = text.matches("Layer normalization: give").count();
    assert_eq!(once, 1, "an idea is explained where it is first met");
    let layer = written(&["explain", "Once upon a time", "--layer", "3"]);
    assert!(
        layer.contains("Block 3: ")
            && !layer.contains("Block 0")
            && !layer.contains("vocabulary\n\n1  The text")
    );
    assert!(text.lines().count() > layer.lines().count());

    // Enter goes on, q ends, and where nobody answers nothing is waited for.
    let step = |input: &'static str| {
        let output = hornbook(&["explain", "Once", "--step"]).write_stdin(input).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(step("\n\nq\n").matches("cost ").count() < 3 && step("\n\nq\n").contains("3  "));
    assert!(step("").contains("Scores become probabilities"));

    let report = json(&["explain", "Once upon a time"]);
    let steps = report["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 4 + 6 * 8 + 3);
    let most = steps[steps.len() - 1]["best"][0].clone();
    let plain =
        json(&["generate", "Once upon a time", "--logprobs", "1", "--temperature", "0", "--max-tokens", "1"]);
    assert_eq!(most[0], plain["choices"][0]["token_ids"][0]);
    let logprob = plain["choices"][0]["logprobs"]["token_logprobs"][0].as_f64().unwrap();
    assert!((most[1].as_f64().unwrap() - logprob.exp()).abs() < 1e-5);
    let line = refused(&["explain", "Once", "--layer", "6"]);
    assert_eq!(line, "hornbook: --layer: found 6, expected 0 to 5\n");
}

#[test]
fn positions_stand_side_by_side() {
    for width in [40, 100] {
        let text = written(&["positions", "--width", &width.to_string()]);
        assert!(text.contains("learned") && text.contains("sinusoidal") && text.contains('█'));
        let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= width, "{widest}");
    }
    let report = json(&["positions", "--first", "64"]);
    assert_eq!((&report["positions"], &report["kind"]), (&64.into(), &"learned".into()));
    assert_eq!(report["own"]["map"].as_array().unwrap().len(), 32);
    assert_eq!(report["formula"]["by_distance"].as_array().unwrap().len(), 6);
    let line = refused(&["positions", "--first", "513"]);
    assert_eq!(line, "hornbook: --first: found 513, expected 2 to 512\n");
}
