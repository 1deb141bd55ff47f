//! Drafts from another model: a smaller one with a cache of its own, or a copy in a file.

use crate::reference::data;
use crate::self_draft::{check, fable, options};
use crate::server::client::serve_models;
use hornbook::checkpoint::Checkpoint;
use hornbook::generate::ContextPolicy;
use hornbook::kernels::isa::Isa;
use hornbook::kernels::thread_pool::ThreadPool;
use hornbook::model::Precision;
use hornbook::{Hornbook, Options};
use safetensors::SafeTensors;
use safetensors::tensor::{TensorView, serialize_to_file};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::{TempDir, tempdir};

/// fable with fewer blocks and positions: a smaller model with the same vocabulary.
fn small_fable(n_layer: usize, n_positions: usize) -> TempDir {
    let (from, to) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("models/fable"), tempdir().unwrap());
    fs::copy(from.join("tokenizer.json"), to.path().join("tokenizer.json")).unwrap();
    let config = fs::read(from.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    config["n_layer"] = json!(n_layer);
    config["n_positions"] = json!(n_positions);
    config.as_object_mut().unwrap().remove("n_ctx");
    fs::write(to.path().join("config.json"), config.to_string()).unwrap();
    let bytes = fs::read(from.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let kept = tensors.iter().filter_map(|(name, view)| {
        let layer = name.split("h.").nth(1).and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
        let (mut shape, mut data) = (view.shape().to_vec(), view.data());
        if name.ends_with("wpe.weight") {
            data = &data[..data.len() / shape[0] * n_positions];
            shape[0] = n_positions;
        }
        let view = TensorView::new(view.dtype(), shape, data).unwrap();
        layer.is_none_or(|layer| layer < n_layer).then_some((name, view))
    });
    serialize_to_file(kept, None, &to.path().join("model.safetensors")).unwrap();
    to
}

fn drafting(draft: &Path) -> Hornbook {
    fable(Precision::F32).with_draft_model(Checkpoint::from_folder(draft).unwrap()).unwrap()
}

#[test]
fn smaller_model_changes_no_bit() {
    let plain = fable(Precision::F32);
    let short = plain.encode("The king said to the queen").unwrap();
    // More than a pass of a prompt.
    let long: Vec<u32> = short.iter().copied().cycle().take(300).collect();
    let small = small_fable(5, 512);
    let drafted = drafting(small.path());
    assert!(!drafted.draft_model().unwrap().shares_cache());
    for prompt in [&short, &long] {
        for temperature in [0.0, 0.8] {
            let context = format!("{} tokens, temperature {temperature}", prompt.len());
            let accepted = check(&plain, &drafted, prompt, &options(temperature), &context);
            assert!(accepted > 0.1 && accepted < 1.0, "{context}: {accepted} of the tokens were accepted");
        }
    }
}

#[test]
fn smaller_model_drafts_within_its_context() {
    let plain = fable(Precision::F32);
    let prompt = plain.encode("The king said to the queen").unwrap();
    let small = small_fable(5, 24);
    let drafted = drafting(small.path());
    check(&plain, &drafted, &prompt, &options(0.8), "beyond the draft model's context");
    // A context shift replaces the text of the cache.
    let prompt: Vec<u32> = prompt.into_iter().cycle().take(500).collect();
    let small = small_fable(5, 512);
    let drafted = drafting(small.path());
    let options = Options { context: ContextPolicy::Shift, ..options(0.8) };
    check(&plain, &drafted, &prompt, &options, "beyond the model's context");
}

#[test]
fn quantized_file_drafts_as_a_copy_quantized_on_load() {
    let folder = tempdir().unwrap();
    Checkpoint::embedded().unwrap().quantize(Precision::Int4, None, folder.path(), |_| Ok(())).unwrap();
    let prompt = fable(Precision::F32).encode("The king said to the queen").unwrap();
    let plain = fable(Precision::F32);
    let (on_load, from_file) =
        (fable(Precision::F32).with_draft(Precision::Int4).unwrap(), drafting(folder.path()));
    assert!(from_file.draft_model().unwrap().shares_cache());
    let accepted = [&on_load, &from_file].map(|drafted| check(&plain, drafted, &prompt, &options(0.8), ""));
    assert_eq!(accepted[0], accepted[1]);
}

#[test]
fn server_and_command_draft_with_another_model() {
    let small = small_fable(5, 512);
    let body = json!({"prompt": ["Once upon a time", "The fox"], "max_tokens": 60, "seed": 7, "n": 2});
    let answer = |hornbook: Hornbook| {
        let server = serve_models(vec![hornbook], |_| {});
        let choices = server.post("/v1/completions", body.clone()).ok()["choices"].clone();
        (choices, server.metric("hornbook_spec_decode_draft_tokens_total"))
    };
    let ((plain, _), (drafted, some)) = (answer(fable(Precision::F32)), answer(drafting(small.path())));
    assert_eq!(drafted, plain);
    assert!(some > 0.0);
    let generate = |options: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hornbook"));
        command.args(["generate", "Once upon a time", "--seed", "7", "--max-tokens", "60", "-n", "2"]);
        command.args(options).output().unwrap()
    };
    let drafted = generate(&["--draft", small.path().to_str().unwrap()]);
    assert_eq!(String::from_utf8_lossy(&drafted.stderr), "");
    assert_eq!(drafted.stdout, generate(&[]).stdout);
    let missing = generate(&["--draft", "int5"]);
    let error = String::from_utf8_lossy(&missing.stderr);
    assert!(error.contains("int5") && error.trim_end().lines().count() == 1, "{error}");
}

#[test]
fn model_with_another_vocabulary_cannot_draft() {
    let checkpoint = Checkpoint::from_folder(&data("tiny-gelu-new")).unwrap();
    let error = fable(Precision::F32).with_draft_model(checkpoint).map(drop).unwrap_err().to_string();
    assert!(error.contains("expected 4096 as in 'fable'"), "{error}");

    // As many tokens, two of them exchanged.
    let small = small_fable(1, 64);
    let file = small.path().join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let vocab = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    let (a, b) = (vocab["a"].clone(), vocab["b"].clone());
    (vocab["a"], vocab["b"]) = (b, a);
    fs::write(&file, tokenizer.to_string()).unwrap();
    let pool = ThreadPool::new(1, Isa::available()[0]);
    let hornbook = Hornbook::with_precision(Checkpoint::embedded().unwrap(), pool, None).unwrap();
    let checkpoint = Checkpoint::from_folder(small.path()).unwrap();
    let error = hornbook.with_draft_model(checkpoint).map(drop).unwrap_err().to_string();
    assert!(error.contains("is \"b\", expected \"a\" as in 'fable'"), "{error}");
}
