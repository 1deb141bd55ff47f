//! `hornbook inspect` on the command line.

use assert_cmd::Command;
use console::{measure_text_width, strip_ansi_codes};
use hornbook::Hornbook;
use hornbook::lens::Inspection;
use hornbook::lens::inspection::InspectionOptions;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

const CAT: &str = "The cat sat on the mat because it";
/// Text that could break a page or a terminal: markup, control characters, escapes, wide characters,
/// right-to-left.
const HOSTILE: &str = "</script><!-- {{data}} &amp;\u{7}\u{1b}[31m \t\n日本 🙂 \u{202E}abc";

fn inspect(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hornbook"));
    command.arg("inspect").args(args).timeout(Duration::from_secs(120));
    ["HORNBOOK_ISA", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"].iter().for_each(|name| {
        command.env_remove(name);
    });
    command
}

/// The standard output of a run that must succeed with an empty standard error.
fn stdout_of(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && stderr.is_empty(), "{command:?}: {}, {stderr}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&stdout_of(inspect(args).arg("--json"))).unwrap()
}

/// Returns the HTML report.
fn report(args: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.html");
    let output = inspect(args).arg("--html").arg(&file).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && output.stdout.is_empty(), "{stderr}");
    assert!(stderr.contains("report.html") && stderr.lines().count() == 1, "{stderr}");
    let names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["report.html"], "no temporary file is left behind");
    std::fs::read_to_string(file).unwrap()
}

/// The JSON data in a report.
fn data(html: &str) -> Value {
    let (_, rest) = html.split_once("id=\"data\">").unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

fn inspection(options: InspectionOptions) -> (Hornbook, Inspection) {
    let hornbook = Hornbook::open("fable").unwrap();
    let ids = hornbook.encode(CAT).unwrap();
    let inspection = Inspection::run(&hornbook, &ids, options, &mut (), |_| {}).unwrap();
    (hornbook, inspection)
}

#[test]
fn all_sections_fit_any_width() {
    let long = "The old king looked at the three daughters of the miller. ".repeat(9);
    for (text, width) in [
        (CAT, 40),
        (CAT, 57),
        (CAT, 80),
        (CAT, 250),
        (HOSTILE, 40),
        ("I", 40),
        (&long[..], 40),
        (&long[..], 120),
    ] {
        let output = stdout_of(&mut inspect(&[text, "--width", &width.to_string()]));
        for section in
            ["fable: 6 layers", "Tokens", "Attention", "Logit lens", "Next token", "Logit attribution of "]
        {
            assert!(output.contains(section), "{section:?} at {width}: {output}");
        }
        for line in output.lines() {
            assert!(measure_text_width(line) <= width, "wider than {width}: {line:?}");
            assert!(line.chars().all(|c| !c.is_control()), "{line:?}");
        }
    }
}

#[test]
fn terminal_output_shows_library_values() {
    let (_, inspection) = inspection(InspectionOptions { top: 10, ..InspectionOptions::default() });
    let output = stdout_of(&mut inspect(&[CAT, "--width", "100"]));
    let (layer, head) = (inspection.head.layer, inspection.head.head);
    assert!(output.contains(&format!("L{layer}H{head}, the most salient head of all")), "{output}");
    // The last token's row of the map: a block and the percentage for each.
    let pattern = inspection.activations.pattern(layer, head);
    let row = output.lines().find(|line| line.ends_with(" ·it") && line.contains(['░', '▒', '▓'])).unwrap();
    for weight in pattern.row(inspection.activations.len() - 1) {
        let percent = format!("{:.0}", 100.0 * weight);
        assert!(row.contains(if percent == "0" { "·" } else { &percent }), "{weight} in {row:?}");
    }
    assert!(
        !row.contains("·2") && !row.contains("·3"),
        "a dot before a digit looks like a decimal point: {row:?}"
    );
    let top = inspection.predictions.last().unwrap().top[0];
    assert!(output.contains(&format!("{:.2} %", 100.0 * top.1.exp())), "{output}");
    let other = stdout_of(&mut inspect(&[CAT, "--layer", "2", "--head", "1"]));
    assert!(other.contains("L2H1, as requested"), "{other}");
    let in_layer = stdout_of(&mut inspect(&[CAT, "--layer", "2", "--width", "250"]));
    assert!(
        in_layer.contains("L2H") && in_layer.contains("the most salient head of its layer"),
        "{in_layer}"
    );
}

#[test]
fn colors_follow_terminal_and_environment() {
    let uncolored = stdout_of(&mut inspect(&[CAT]));
    assert!(!uncolored.contains('\x1b'), "no colors in a pipe");
    let colored = stdout_of(inspect(&[CAT]).env("CLICOLOR_FORCE", "1"));
    assert!(colored.contains("\x1b["), "{colored:?}");
    assert_eq!(stdout_of(inspect(&[CAT]).env("CLICOLOR_FORCE", "1").env("NO_COLOR", "1")), uncolored);
    for line in strip_ansi_codes(&colored).lines() {
        assert!(measure_text_width(line) <= 100, "{line:?}");
    }
}

#[test]
fn json_has_library_values() {
    let target = Hornbook::open("fable").unwrap().encode(" had").unwrap()[0];
    let options = InspectionOptions {
        layer: Some(3),
        head: Some(1),
        target: Some(target),
        top: 10,
        ..InspectionOptions::default()
    };
    let (_, inspection) = inspection(options);
    let found = json(&[CAT, "--layer", "3", "--head", "1", "--target", " had"]);
    let same = |found: &Value, expected: &[f32], name: &str| {
        let found: Vec<f32> = serde_json::from_value(found.clone()).unwrap();
        assert_eq!(found, expected, "{name}");
    };
    let n = inspection.activations.len();
    assert_eq!(found["tokens"].as_array().unwrap().len(), n);
    assert_eq!(
        (found["tokens"][1]["text"].as_str(), &found["tokens"][1]["bytes"]),
        (Some(" cat"), &json!(b" cat"))
    );
    for t in 0..n {
        same(
            &found["attention"]["pattern"][t],
            &inspection.activations.pattern(3, 1).row(t).to_vec(),
            "pattern",
        );
        same(
            &found["direct_logit_attribution"][t]["contributions"],
            &inspection.logit_attributions[t].contributions,
            "contributions",
        );
        same(
            &found["direct_logit_attribution"][t]["centered"],
            &inspection.logit_attributions[t].centered,
            "centered",
        );
        assert_eq!(
            found["predictions"][t]["entropy"].as_f64().unwrap() as f32,
            inspection.predictions[t].entropy
        );
        assert_eq!(found["predictions"][t], found["logit_lens"][6][t]);
    }
    for depth in 0..=6 {
        same(&found["residual_norms"][depth], &inspection.residual_norms.row(depth).to_vec(), "norms");
        let top = &found["logit_lens"][depth][2]["top_logprobs"][0];
        assert_eq!(top["id"].as_u64(), Some(inspection.logit_lens[depth][2].top[0].0.into()));
        assert_eq!(top["logprob"].as_f64().unwrap() as f32, inspection.logit_lens[depth][2].top[0].1);
    }
    assert_eq!(found["direct_logit_attribution"][n - 1]["target"]["text"], " had");
    assert_eq!(found["components"][2], "L0H0");
    let by_id = json(&[CAT, "--layer", "3", "--head", "1", "--target-id", &target.to_string()]);
    assert_eq!(by_id, found);
}

#[test]
fn prompt_from_argument_file_or_stdin() {
    let from_argument = stdout_of(&mut inspect(&[CAT]));
    let (_folder, file) = with_file(format!("{CAT}\n").as_bytes());
    assert_eq!(stdout_of(inspect(&["--prompt-file"]).arg(file)), from_argument);
    assert_eq!(stdout_of(inspect(&[]).write_stdin(CAT)), from_argument);
    let ids = Hornbook::open("fable").unwrap().encode(CAT).unwrap();
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    assert_eq!(stdout_of(&mut inspect(&["--prompt-ids", &ids.join(",")])), from_argument);
    assert!(
        stdout_of(inspect(&[]).write_stdin("")).contains("<|endoftext|>"),
        "an empty text is the BOS token"
    );
    // Without a tokenizer, labels are ids.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny-relu-untied");
    let output = stdout_of(inspect(&["--prompt-ids", "5,6,7,8,9", "--width", "60", "--model"]).arg(folder));
    assert!(output.contains("#5") && output.contains("#9"), "{output}");
}

#[test]
fn contributions_sum_to_logit_in_every_precision() {
    for precision in ["f32", "bf16", "int8", "int4"] {
        let found = json(&[CAT, "--precision", precision]);
        let last = found["direct_logit_attribution"].as_array().unwrap().last().unwrap();
        let sum: f64 = last["contributions"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).sum();
        let logit = last["logit"].as_f64().unwrap();
        assert!((sum - logit).abs() < 0.05 * logit.abs().max(5.0), "{precision}: {sum} for {logit}");
    }
}

#[test]
fn report_is_self_contained_and_escaped() {
    for text in [CAT, HOSTILE, "a"] {
        let html = report(&[text]);
        let visible = html.split("<script type=\"application/json\"").next().unwrap();
        let code = html.rsplit("<script>").next().unwrap();
        for section in [visible, code] {
            for load in ["://", "@import", "url(", "src=", "import(", "fetch(", "XMLHttpRequest", "innerHTML"]
            {
                assert!(!section.contains(load), "{load} in a report");
            }
        }
        assert!(html.contains("default-src 'none'"), "the content security policy forbids loading");
        assert_eq!(html.matches("</script").count(), 2, "only the two of the page");
        assert_eq!(html.matches("<!--").count(), 0);
        assert!(html.chars().all(|c| c == '\n' || !c.is_control()));
        let data = data(&html);
        let n = data["tokens"].as_array().unwrap().len();
        let ids = Hornbook::open("fable").unwrap().encode(text).unwrap();
        assert_eq!(data["tokens"], json!(ids));
        assert!(ids.iter().all(|id| data["labels"][id.to_string()].is_string()));
        // One byte per weight for every head.
        use base64::Engine as _;
        let packed = base64::engine::general_purpose::STANDARD.decode(data["attention"].as_str().unwrap());
        let packed = packed.unwrap();
        assert_eq!(packed.len(), 6 * 4 * n * (n + 1) / 2);
        assert!(
            (0..24).all(|head| packed[head * n * (n + 1) / 2] == 255),
            "the first token attends to itself"
        );
    }
    let title = report(&[HOSTILE]);
    assert!(title.contains("<title>&lt;/script&gt;&lt;!-- {{data}} &amp;amp;"), "escaped");
}

#[test]
fn report_has_library_values() {
    let (_, inspection) = inspection(InspectionOptions { top: 10, ..InspectionOptions::default() });
    let data = data(&report(&[CAT]));
    use base64::Engine as _;
    let packed =
        base64::engine::general_purpose::STANDARD.decode(data["attention"].as_str().unwrap()).unwrap();
    let n = inspection.activations.len();
    let mut bytes = packed.iter();
    for layer in 0..6 {
        for head in 0..4 {
            for (i, j) in (0..n).flat_map(|i| (0..=i).map(move |j| (i, j))) {
                let weight = (f32::from(*bytes.next().unwrap()) / 255.0).powi(2);
                let expected = inspection.activations.pattern(layer, head)[[i, j]];
                assert!((weight - expected).abs() < 0.004, "L{layer}H{head} {i} {j}: {weight}, {expected}");
            }
        }
    }
    assert_eq!(data["centered"].as_array().unwrap().len(), n);
    let contribution = data["centered"][n - 1][5].as_f64().unwrap() as f32;
    assert!((contribution - inspection.logit_attributions[n - 1].centered[5]).abs() < 1e-3);
    assert_eq!(
        (&data["layer"], &data["head"]),
        (&json!(inspection.head.layer), &json!(inspection.head.head))
    );
}

#[test]
fn report_of_144_heads_and_64_tokens_is_below_2_mb() {
    let folder = model_of_144_heads();
    let model = folder.path().to_str().unwrap().to_string();
    let ids: Vec<String> = (0..64).map(|i| (i * 61 % 4096).to_string()).collect();
    let html = report(&["--model", &model, "--prompt-ids", &ids.join(",")]);
    let data = data(&html);
    assert_eq!((&data["layers"], &data["heads"]), (&json!(12), &json!(12)));
    assert!(html.len() < 2_000_000, "{} bytes", html.len());
    assert!(html.len() > 144 * 64 * 65 / 2, "{} bytes do not hold every head", html.len());
}

#[test]
fn intervention_is_shown_with_its_effect() {
    let baseline = json(&[CAT]);
    let ablated = json(&[CAT, "--ablate", "mlp0", "--scale", "L5H1=2"]);
    assert!(baseline["intervention"].is_null());
    let intervention = &ablated["intervention"];
    assert_eq!(intervention["edits"], json!(["mlp0 zero", "L5H1 × 2"]));
    assert!(intervention["kl_divergence"].as_f64().unwrap() > 1.0, "fable depends on its first MLP");
    let top =
        |output: &Value| output["predictions"].as_array().unwrap().last().unwrap()["top_logprobs"][0].clone();
    let shift =
        |id: &Value| intervention["next_token"].as_array().unwrap().iter().find(|s| s["id"] == *id).cloned();
    for (output, when) in [(&baseline, "before"), (&ablated, "after")] {
        let top = top(output);
        let shift = shift(&top["id"]).unwrap();
        let p = top["logprob"].as_f64().unwrap().exp();
        assert!((shift[when].as_f64().unwrap() - p).abs() < 1e-6, "{when}");
    }
    // The contributions are those of the ablated model, and still sum to the logit.
    let last = ablated["direct_logit_attribution"].as_array().unwrap().last().unwrap();
    let at = |name: &str| {
        ablated["components"].as_array().unwrap().iter().position(|component| component == name).unwrap()
    };
    assert_eq!(last["contributions"][at("mlp0")].as_f64(), Some(0.0));
    let sum: f64 = last["contributions"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).sum();
    assert!((sum - last["logit"].as_f64().unwrap()).abs() < 1e-3, "{last}");
    let output = stdout_of(&mut inspect(&[CAT, "--ablate", "mlp0", "--width", "40"]));
    assert!(output.contains("Effect of the intervention") && output.contains("mlp0 zero"), "{output}");
    assert!(output.lines().all(|line| measure_text_width(line) <= 40), "{output}");
    let kl = |line: &str| line.strip_prefix("KL divergence ")?.strip_suffix(" nats")?.parse::<f64>().ok();
    let kl = output.lines().find_map(kl).unwrap();

    let page = data(&report(&[CAT, "--ablate", "mlp0"]));
    assert_eq!(page["intervention"]["edits"], json!(["mlp0 zero"]));
    assert!((page["intervention"]["kl_divergence"].as_f64().unwrap() - kl).abs() < 1e-4, "{kl}");
    let alone = &json(&[CAT, "--ablate", "mlp0"])["intervention"]["next_token"];
    let next = page["intervention"]["next_token"].as_array().unwrap();
    assert!(next.len() >= 5 && next.len() == alone.as_array().unwrap().len());
    for (shift, alone) in next.iter().zip(alone.as_array().unwrap()) {
        assert_eq!(shift[0], alone["id"]);
        assert!((shift[1].as_f64().unwrap() - alone["before"].as_f64().unwrap()).abs() < 1e-6);
        assert!((shift[2].as_f64().unwrap() - alone["after"].as_f64().unwrap()).abs() < 1e-6);
        assert!(page["labels"][shift[0].to_string()].is_string());
    }
    assert!(data(&report(&[CAT]))["intervention"].is_null());
}

#[test]
fn inspect_and_generate_report_the_same_effect() {
    let args = [CAT, "--ablate", "L5H2,mlp3", "--ablate-with", "mean", "--scale", "L0H1=-0.5", "--json"];
    let inspected = json(&args[..args.len() - 1])["intervention"].take();
    let mut generate = Command::new(env!("CARGO_BIN_EXE_hornbook"));
    let stdout = stdout_of(generate.arg("generate").args(args).args(["--max-tokens", "1"]));
    let mut generated = serde_json::from_str::<Value>(&stdout).unwrap()["intervention"].take();
    assert!(
        generated.as_object_mut().unwrap().remove("before").is_some(),
        "only generate reports the texts before"
    );
    assert_eq!(inspected, generated);
    assert_eq!(inspected["edits"], json!(["L5H2 mean", "mlp3 mean", "L0H1 × -0.5"]));
    assert!(inspected["next_token"][0]["token"].is_string());
}

#[test]
fn invalid_inspect_arguments_are_one_line_errors() {
    let many = vec!["7"; 513].join(",");
    let cases: [(&[&str], &str); 18] = [
        (&[CAT, "--layer", "6"], "--layer: found 6, expected 0 to 5"),
        (&[CAT, "--layer", "0", "--head", "4"], "--head: found 4, expected 0 to 3"),
        (&[CAT, "--head", "1"], "--layer"),
        (&[CAT, "--layer", "-1"], "-1"),
        (&[CAT, "--ablate", "L9H0"], "component: found L9H0, expected a layer from 0 to 5"),
        (
            &[CAT, "--ablate", "L5"],
            "unknown component 'L5', expected an attention head such as L5H1 or an MLP such as mlp3",
        ),
        (&[CAT, "--scale", "L5H1=big"], "'big' is not a finite number"),
        (&[CAT, "--ablate-with", "mean"], "--ablate"),
        (&[CAT, "--width", "39"], "--width: found 39, expected 40 to 10000"),
        (&[CAT, "--target", " the cat"], "--target: found \" the cat\", which is 2 tokens (·the ·cat)"),
        (&[CAT, "--target", ""], "which is 0 tokens"),
        (&[CAT, "--target-id", "4096"], "token id 4096 is outside the vocabulary (0 to 4095)"),
        (&[CAT, "--target", "a", "--target-id", "3"], "--target"),
        (&["--prompt-ids", "5000"], "token id 5000 is outside the vocabulary"),
        (&["--prompt-ids", &many], "the prompt is 513 tokens long, but the model's context is 512 tokens"),
        (&[CAT, "--model", "no/such/model"], "no/such/model"),
        (&[CAT, "--html", "/no/such/folder/report.html"], "/no/such/folder/report.html: cannot write"),
        (&[CAT, "--html", "/"], "not a regular file"),
    ];
    for (args, expected) in cases {
        let output = inspect(args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{args:?}");
        assert!(
            stderr.starts_with("hornbook: ") && stderr.contains(expected),
            "{args:?}: {expected:?} is not in {stderr}"
        );
        assert_eq!(stderr.trim_end().lines().count(), 1, "{stderr}");
    }
}

fn with_file(content: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prompt.txt");
    std::fs::write(&file, content).unwrap();
    (folder, file)
}

/// A narrow model with 12 layers of 12 heads and fable's tokenizer.
fn model_of_144_heads() -> TempDir {
    const N_EMBD: usize = 24;
    let mut shapes =
        vec![("wte.weight".to_string(), vec![4096, N_EMBD]), ("wpe.weight".into(), vec![64, N_EMBD])];
    let norm =
        |name: String| [(format!("{name}.weight"), vec![N_EMBD]), (format!("{name}.bias"), vec![N_EMBD])];
    let linear = |name: String, n: usize, m: usize| {
        [(format!("{name}.weight"), vec![n, m]), (format!("{name}.bias"), vec![m])]
    };
    for layer in 0..12 {
        shapes.extend(norm(format!("h.{layer}.ln_1")));
        shapes.extend(linear(format!("h.{layer}.attn.c_attn"), N_EMBD, 3 * N_EMBD));
        shapes.extend(linear(format!("h.{layer}.attn.c_proj"), N_EMBD, N_EMBD));
        shapes.extend(norm(format!("h.{layer}.ln_2")));
        shapes.extend(linear(format!("h.{layer}.mlp.c_fc"), N_EMBD, 4 * N_EMBD));
        shapes.extend(linear(format!("h.{layer}.mlp.c_proj"), 4 * N_EMBD, N_EMBD));
    }
    shapes.extend(norm("ln_f".into()));
    let mut state = 1u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / f32::from(u16::MAX) / 256.0 - 0.5
    };
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let bytes = (0..shape.iter().product()).flat_map(|_| random().to_le_bytes()).collect();
            (name, shape, bytes)
        })
        .collect();
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| std::fs::write(folder.path().join(name), content).unwrap();
    write("model.safetensors", &safetensors::serialize(views, None).unwrap());
    let config = json!({
        "model_type": "gpt2", "n_embd": N_EMBD, "n_layer": 12, "n_head": 12, "n_positions": 64,
        "vocab_size": 4096,
    });
    write("config.json", config.to_string().as_bytes());
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/fable/tokenizer.json");
    write("tokenizer.json", &std::fs::read(tokenizer).unwrap());
    folder
}
