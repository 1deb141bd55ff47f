//! `hornbook inspect`, as a user types it.

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
/// What a page or a terminal could trip over: markup, a bell, an escape, wide and half characters, right to left.
const HOSTILE: &str = "</script><!-- {{data}} &amp;\u{7}\u{1b}[31m \t\n日本 🙂 \u{202E}abc";

fn inspect(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hornbook"));
    command.arg("inspect").args(args).timeout(Duration::from_secs(120));
    ["HORNBOOK_ISA", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"].iter().for_each(|name| {
        command.env_remove(name);
    });
    command
}

/// What a run that must succeed writes to standard output; it says nothing besides.
fn written(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.is_empty(), "{command:?}: {}, {said}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&written(inspect(args).arg("--json"))).unwrap()
}

/// A report, and what was said of it.
fn report(args: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.html");
    let output = inspect(args).arg("--html").arg(&file).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && output.stdout.is_empty(), "{said}");
    assert!(said.contains("report.html") && said.lines().count() == 1, "{said}");
    let names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["report.html"], "nothing else is left behind");
    std::fs::read_to_string(file).unwrap()
}

/// The numbers in a report.
fn data(html: &str) -> Value {
    let (_, rest) = html.split_once("id=\"data\">").unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

fn seen(settings: InspectionOptions) -> (Hornbook, Inspection) {
    let hornbook = Hornbook::open("fable").unwrap();
    let ids = hornbook.encode(CAT).unwrap();
    let seen = Inspection::run(&hornbook, &ids, settings, &mut (), |_| {}).unwrap();
    (hornbook, seen)
}

#[test]
fn a_terminal_of_any_width_shows_all_sections() {
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
        let shown = written(&mut inspect(&[text, "--width", &width.to_string()]));
        for section in
            ["fable: 6 layers", "Tokens", "Attention", "Logit lens", "Next token", "What speaks for "]
        {
            assert!(shown.contains(section), "{section:?} at {width}: {shown}");
        }
        for line in shown.lines() {
            assert!(measure_text_width(line) <= width, "wider than {width}: {line:?}");
            assert!(line.chars().all(|c| !c.is_control()), "{line:?}");
        }
    }
}

#[test]
fn what_is_drawn_is_what_was_computed() {
    let (_, seen) = seen(InspectionOptions { best: 10, ..InspectionOptions::default() });
    let shown = written(&mut inspect(&[CAT, "--width", "100"]));
    let (layer, head) = (seen.shown.layer, seen.shown.head);
    assert!(shown.contains(&format!("L{layer}H{head}: a token gives")), "{shown}");
    // The last token's row of the map: a block and the percentage for each.
    let pattern = seen.capture.pattern(layer, head);
    let row = shown.lines().find(|line| line.ends_with(" ·it") && line.contains(['░', '▒', '▓'])).unwrap();
    for share in pattern.row(seen.capture.len() - 1) {
        assert!(row.contains(&format!("{:.0}", 100.0 * share)), "{share} in {row:?}");
    }
    assert!(!row.contains("·2") && !row.contains("·3"), "a dot would be read with the digit: {row:?}");
    let best = seen.readings.last().unwrap().best[0];
    assert!(shown.contains(&format!("{:.2} %", 100.0 * best.1.exp())), "{shown}");
    let other = written(&mut inspect(&[CAT, "--layer", "2", "--head", "1"]));
    assert!(other.contains("L2H1 as asked for"), "{other}");
    let of_layer = written(&mut inspect(&[CAT, "--layer", "2", "--width", "250"]));
    assert!(
        of_layer.contains("L2H") && of_layer.contains("more than in any other head of its layer"),
        "{of_layer}"
    );
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let plain = written(&mut inspect(&[CAT]));
    assert!(!plain.contains('\x1b'), "not into a pipe");
    let coloured = written(inspect(&[CAT]).env("CLICOLOR_FORCE", "1"));
    assert!(coloured.contains("\x1b["), "{coloured:?}");
    assert_eq!(written(inspect(&[CAT]).env("CLICOLOR_FORCE", "1").env("NO_COLOR", "1")), plain);
    for line in strip_ansi_codes(&coloured).lines() {
        assert!(measure_text_width(line) <= 100, "{line:?}");
    }
}

#[test]
fn json_has_the_librarys_numbers() {
    let target = Hornbook::open("fable").unwrap().encode(" had").unwrap()[0];
    let settings = InspectionOptions {
        layer: Some(3),
        head: Some(1),
        target: Some(target),
        best: 10,
        ..InspectionOptions::default()
    };
    let (_, seen) = seen(settings);
    let found = json(&[CAT, "--layer", "3", "--head", "1", "--target", " had"]);
    let same = |found: &Value, expected: &[f32], what: &str| {
        let found: Vec<f32> = serde_json::from_value(found.clone()).unwrap();
        assert_eq!(found, expected, "{what}");
    };
    let n = seen.capture.len();
    assert_eq!(found["tokens"].as_array().unwrap().len(), n);
    assert_eq!(
        (found["tokens"][1]["text"].as_str(), &found["tokens"][1]["bytes"]),
        (Some(" cat"), &json!(b" cat"))
    );
    for t in 0..n {
        same(&found["attention"]["pattern"][t], &seen.capture.pattern(3, 1).row(t).to_vec(), "pattern");
        same(&found["contributions"][t]["direct"], &seen.contributions[t].direct, "direct");
        same(&found["contributions"][t]["relative"], &seen.contributions[t].relative, "relative");
        assert_eq!(found["answers"][t]["entropy"].as_f64().unwrap() as f32, seen.readings[t].entropy);
        assert_eq!(found["answers"][t], found["logit_lens"][6][t]);
    }
    for depth in 0..=6 {
        same(&found["residual_norms"][depth], &seen.norms.row(depth).to_vec(), "norms");
        let best = &found["logit_lens"][depth][2]["best"][0];
        assert_eq!(best["id"].as_u64(), Some(seen.lens[depth][2].best[0].0.into()));
        assert_eq!(best["logprob"].as_f64().unwrap() as f32, seen.lens[depth][2].best[0].1);
    }
    assert_eq!(found["contributions"][n - 1]["target"]["text"], " had");
    assert_eq!(found["parts"][2], "L0H0");
    let by_id = json(&[CAT, "--layer", "3", "--head", "1", "--target-id", &target.to_string()]);
    assert_eq!(by_id, found);
}

#[test]
fn a_prompt_comes_from_the_argument_a_file_or_standard_input() {
    let by_argument = written(&mut inspect(&[CAT]));
    let (_folder, file) = with_file(format!("{CAT}\n").as_bytes());
    assert_eq!(written(inspect(&["--prompt-file"]).arg(file)), by_argument);
    assert_eq!(written(inspect(&[]).write_stdin(CAT)), by_argument);
    let ids = Hornbook::open("fable").unwrap().encode(CAT).unwrap();
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    assert_eq!(written(&mut inspect(&["--prompt-ids", &ids.join(",")])), by_argument);
    assert!(written(inspect(&[]).write_stdin("")).contains("<|endoftext|>"), "nothing is a text's beginning");
    // A model without a tokenizer has ids for names.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny-relu-untied");
    let shown = written(inspect(&["--prompt-ids", "5,6,7,8,9", "--width", "60", "--model"]).arg(folder));
    assert!(shown.contains("#5") && shown.contains("#9"), "{shown}");
}

#[test]
fn every_precision_can_be_looked_into() {
    for precision in ["f32", "bf16", "int8", "int4"] {
        let found = json(&[CAT, "--precision", precision]);
        let last = found["contributions"].as_array().unwrap().last().unwrap();
        let sum: f64 = last["direct"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).sum();
        let logit = last["logit"].as_f64().unwrap();
        assert!((sum - logit).abs() < 0.05 * logit.abs().max(5.0), "{precision}: {sum} for {logit}");
    }
}

#[test]
fn a_report_asks_nothing_of_a_network_and_no_text_breaks_it() {
    for text in [CAT, HOSTILE, "a"] {
        let html = report(&[text]);
        let visible = html.split("<script type=\"application/json\"").next().unwrap();
        let code = html.rsplit("<script>").next().unwrap();
        for part in [visible, code] {
            for load in ["://", "@import", "url(", "src=", "import(", "fetch(", "XMLHttpRequest", "innerHTML"]
            {
                assert!(!part.contains(load), "{load} in a report");
            }
        }
        assert!(html.contains("default-src 'none'"), "and its policy forbids it");
        assert_eq!(html.matches("</script").count(), 2, "only the page's own two");
        assert_eq!(html.matches("<!--").count(), 0);
        assert!(html.chars().all(|c| c == '\n' || !c.is_control()));
        let data = data(&html);
        let n = data["tokens"].as_array().unwrap().len();
        let ids = Hornbook::open("fable").unwrap().encode(text).unwrap();
        assert_eq!(data["tokens"], json!(ids));
        assert!(ids.iter().all(|id| data["labels"][id.to_string()].is_string()));
        // Every head's triangle, a byte a share.
        use base64::Engine as _;
        let packed = base64::engine::general_purpose::STANDARD.decode(data["attention"].as_str().unwrap());
        let packed = packed.unwrap();
        assert_eq!(packed.len(), 6 * 4 * n * (n + 1) / 2);
        assert!((0..24).all(|head| packed[head * n * (n + 1) / 2] == 255), "the first attends to itself");
    }
    let title = report(&[HOSTILE]);
    assert!(title.contains("<title>&lt;/script&gt;&lt;!-- {{data}} &amp;amp;"), "as text");
}

#[test]
fn a_report_holds_the_attention_that_was_computed() {
    let (_, seen) = seen(InspectionOptions { best: 10, ..InspectionOptions::default() });
    let data = data(&report(&[CAT]));
    use base64::Engine as _;
    let packed =
        base64::engine::general_purpose::STANDARD.decode(data["attention"].as_str().unwrap()).unwrap();
    let n = seen.capture.len();
    let mut bytes = packed.iter();
    for layer in 0..6 {
        for head in 0..4 {
            for (i, j) in (0..n).flat_map(|i| (0..=i).map(move |j| (i, j))) {
                let share = (f32::from(*bytes.next().unwrap()) / 255.0).powi(2);
                let expected = seen.capture.pattern(layer, head)[[i, j]];
                assert!((share - expected).abs() < 0.004, "L{layer}H{head} {i} {j}: {share}, {expected}");
            }
        }
    }
    assert_eq!(data["relative"].as_array().unwrap().len(), n);
    let part = data["relative"][n - 1][5].as_f64().unwrap() as f32;
    assert!((part - seen.contributions[n - 1].relative[5]).abs() < 1e-3);
    assert_eq!((&data["layer"], &data["head"]), (&json!(seen.shown.layer), &json!(seen.shown.head)));
}

#[test]
fn a_report_of_twelve_by_twelve_heads_and_64_tokens_is_below_2_mb() {
    let folder = twelve_by_twelve();
    let model = folder.path().to_str().unwrap().to_string();
    let ids: Vec<String> = (0..64).map(|i| (i * 61 % 4096).to_string()).collect();
    let html = report(&["--model", &model, "--prompt-ids", &ids.join(",")]);
    let data = data(&html);
    assert_eq!((&data["layers"], &data["heads"]), (&json!(12), &json!(12)));
    assert!(html.len() < 2_000_000, "{} bytes", html.len());
    assert!(html.len() > 144 * 64 * 65 / 2, "{} bytes do not hold every head", html.len());
}

#[test]
fn a_model_without_a_part_is_shown_beside_itself() {
    let plain = json(&[CAT]);
    let without = json(&[CAT, "--ablate", "mlp0", "--scale", "L5H1=2"]);
    assert!(plain["intervention"].is_null());
    let intervention = &without["intervention"];
    assert_eq!(intervention["changes"], json!(["mlp0 zero", "L5H1 × 2"]));
    assert!(intervention["kl_divergence"].as_f64().unwrap() > 1.0, "fable cannot read without its first MLP");
    let best = |answers: &Value| answers["answers"].as_array().unwrap().last().unwrap()["best"][0].clone();
    let shift =
        |id: &Value| intervention["next"].as_array().unwrap().iter().find(|s| s["id"] == *id).cloned();
    for (answers, when) in [(&plain, "before"), (&without, "after")] {
        let best = best(answers);
        let shift = shift(&best["id"]).unwrap();
        let p = best["logprob"].as_f64().unwrap().exp();
        assert!((shift[when].as_f64().unwrap() - p).abs() < 1e-6, "{when}");
    }
    // The parts are those of the changed model, and still add up.
    let last = without["contributions"].as_array().unwrap().last().unwrap();
    let at = |name: &str| without["parts"].as_array().unwrap().iter().position(|part| part == name).unwrap();
    assert_eq!(last["direct"][at("mlp0")].as_f64(), Some(0.0));
    let sum: f64 = last["direct"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).sum();
    assert!((sum - last["logit"].as_f64().unwrap()).abs() < 1e-3, "{last}");
    let shown = written(&mut inspect(&[CAT, "--ablate", "mlp0", "--width", "40"]));
    assert!(shown.contains("Before and after") && shown.contains("mlp0 zero"), "{shown}");
    assert!(shown.lines().all(|line| measure_text_width(line) <= 40), "{shown}");
    let kl = |line: &str| line.strip_prefix("KL divergence ")?.strip_suffix(" nats")?.parse::<f64>().ok();
    let kl = shown.lines().find_map(kl).unwrap();

    let page = data(&report(&[CAT, "--ablate", "mlp0"]));
    assert_eq!(page["changed"]["changes"], json!(["mlp0 zero"]));
    assert!((page["changed"]["kl"].as_f64().unwrap() - kl).abs() < 1e-4, "{kl}");
    let alone = &json(&[CAT, "--ablate", "mlp0"])["intervention"]["next"];
    let next = page["changed"]["next"].as_array().unwrap();
    assert!(next.len() >= 5 && next.len() == alone.as_array().unwrap().len());
    for (shift, alone) in next.iter().zip(alone.as_array().unwrap()) {
        assert_eq!(shift[0], alone["id"]);
        assert!((shift[1].as_f64().unwrap() - alone["before"].as_f64().unwrap()).abs() < 1e-6);
        assert!((shift[2].as_f64().unwrap() - alone["after"].as_f64().unwrap()).abs() < 1e-6);
        assert!(page["labels"][shift[0].to_string()].is_string());
    }
    assert!(data(&report(&[CAT]))["changed"].is_null());
}

#[test]
fn inspect_and_generate_say_the_same_of_a_change() {
    let change = [CAT, "--ablate", "L5H2,mlp3", "--ablate-with", "mean", "--scale", "L0H1=-0.5", "--json"];
    let inspected = json(&change[..change.len() - 1])["intervention"].take();
    let mut generate = Command::new(env!("CARGO_BIN_EXE_hornbook"));
    let said = written(generate.arg("generate").args(change).args(["--max-tokens", "1"]));
    let mut generated = serde_json::from_str::<Value>(&said).unwrap()["intervention"].take();
    assert!(generated.as_object_mut().unwrap().remove("before").is_some(), "the text is generate's own");
    assert_eq!(inspected, generated);
    assert_eq!(inspected["changes"], json!(["L5H2 mean", "mlp3 mean", "L0H1 × -0.5"]));
    assert!(inspected["next"][0]["token"].is_string());
}

#[test]
fn what_cannot_be_done_is_said_in_one_line() {
    let many = vec!["7"; 513].join(",");
    let cases: [(&[&str], &str); 18] = [
        (&[CAT, "--layer", "6"], "--layer: found 6, expected a number from 0 to 5"),
        (&[CAT, "--layer", "0", "--head", "4"], "--head: found 4, expected a number from 0 to 3"),
        (&[CAT, "--head", "1"], "--layer"),
        (&[CAT, "--layer", "-1"], "-1"),
        (&[CAT, "--ablate", "L9H0"], "part to change: found L9H0, expected a layer from 0 to 5"),
        (&[CAT, "--ablate", "L5"], "'L5' is no part, expected a head such as L5H1 or an MLP such as mlp3"),
        (&[CAT, "--scale", "L5H1=big"], "'big' is no finite number"),
        (&[CAT, "--ablate-with", "mean"], "--ablate"),
        (&[CAT, "--width", "39"], "--width: found 39, expected at least 40"),
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
    for (args, part) in cases {
        let output = inspect(args).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{args:?}");
        assert!(said.starts_with("hornbook: ") && said.contains(part), "{args:?}: {part:?} is not in {said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    }
}

fn with_file(content: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prompt.txt");
    std::fs::write(&file, content).unwrap();
    (folder, file)
}

/// A model of GPT-2's depth and heads, as narrow as it can be, with fable's tokens.
fn twelve_by_twelve() -> TempDir {
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
    let mut number = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / f32::from(u16::MAX) / 256.0 - 0.5
    };
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let bytes = (0..shape.iter().product()).flat_map(|_| number().to_le_bytes()).collect();
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
        "model_type": "gpt2", "n_embd": N_EMBD, "n_layer": 12, "n_head": 12, "n_positions": 64, "vocab_size": 4096,
    });
    write("config.json", config.to_string().as_bytes());
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/fable/tokenizer.json");
    write("tokenizer.json", &std::fs::read(tokenizer).unwrap());
    folder
}
