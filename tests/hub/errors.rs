//! Errors of `hornbook pull`, each one line that says what to do next.

use super::fake_hub::{Behavior, FakeHub, NAME, error_line};
use serde_json::json;
use std::collections::BTreeMap;

#[test]
fn http_error_statuses_are_one_line_errors_with_advice() {
    let hub = FakeHub::with_model("tiny-gelu-new");
    let at = |path, status| {
        move |hub: &mut Behavior| (hub.statuses, hub.repeat_statuses) = (vec![(path, status)], true)
    };
    let main = "/revision/main";
    let cases = [
        (main, 401, "the hub has no public 'someone/tiny' (401); set HF_TOKEN to access a private one"),
        (main, 403, "access to 'someone/tiny' is denied (403): request access at http://127.0.0.1:"),
        (main, 404, "the hub has no 'someone/tiny' (404)"),
        (main, 429, "rate-limiting requests (429): try again in a few minutes, or set HF_TOKEN"),
        (main, 503, "the hub has a server error (503): try again later"),
        (main, 418, "the hub refused 'someone/tiny' with status 418"),
        ("config.json", 403, "access to 'someone/tiny' is denied (403)"),
        ("model.safetensors", 404, "model.safetensors is listed but missing (404)"),
    ];
    for (path, status, expected) in cases {
        hub.set_behavior(at(path, status));
        let line = hub.error_line(&["pull", NAME]);
        assert!(line.contains(expected), "{status}: {line}");
    }
    hub.set_behavior(at(main, 401));
    let line = error_line(hub.hornbook(&["pull", NAME]).env("HF_TOKEN", "hf_old"));
    assert!(line.contains("the hub rejected the token (401)") && line.contains("/settings/tokens"), "{line}");
    hub.set_behavior(|_| ());
    let line = hub.error_line(&["pull", "distillgpt2"]);
    assert!(line.contains("no 'distillgpt2' (404); did you mean 'distilgpt2'?"), "{line}");
    let line = hub.error_line(&["pull", NAME, "--revision", "v9/"]);
    assert!(line.contains("--revision: found 'v9/', expected a branch, a tag or a commit"), "{line}");
}

#[test]
fn transient_errors_are_retried() {
    let hub = FakeHub::with_model("tiny-gelu-new");
    hub.set_behavior(|hub| hub.statuses = vec![("model.safetensors", 429), ("model.safetensors", 503)]);
    hub.pull();
    hub.set_behavior(|hub| (hub.statuses, hub.repeat_statuses) = (vec![("model.safetensors", 429)], true));
    std::fs::remove_dir_all(hub.repository()).unwrap();
    let line = hub.error_line(&["pull", NAME]);
    assert!(line.contains("(429)"), "{line}");
}

#[test]
fn unsupported_models_are_rejected_before_download() {
    let files = |names: &[&str]| -> BTreeMap<String, Vec<u8>> {
        names.iter().map(|name| (name.to_string(), b"{}".to_vec())).collect()
    };
    let cases = [
        (&["config.json", "pytorch_model.bin"][..], "found pytorch_model.bin, expected model.safetensors"),
        (&["config.json", "tf_model.h5"], "found tf_model.h5, expected model.safetensors"),
        (&["config.json"], "found neither model.safetensors nor model.safetensors.index.json"),
        (&["model.safetensors"], "found no config.json"),
        (&[], "found no config.json"),
    ];
    for (names, expected) in cases {
        let hub = FakeHub::with_files(files(names));
        let line = hub.error_line(&["pull", NAME]);
        assert!(line.contains("'someone/tiny' is not supported") && line.contains(expected), "{line}");
        assert_eq!(hub.take_requests().len(), 1, "only the model info is requested");
    }

    let hub = FakeHub::with_model("tiny-gelu-new");
    for other in ["llama", "bert"] {
        hub.set_behavior(|hub| _ = hub.model_info.insert("config", json!({"model_type": other})));
        let line = hub.error_line(&["pull", NAME]);
        assert!(line.contains(&format!("found a model of type '{other}', expected 'gpt2'")), "{line}");
        assert_eq!(hub.take_requests().len(), 1);
    }
    // Without the hub's excerpt, config.json itself is checked before the weights are downloaded.
    let mut llama = files(&["model.safetensors"]);
    llama.insert("config.json".into(), br#"{"model_type": "llama"}"#.to_vec());
    let hub = FakeHub::with_files(llama);
    hub.set_behavior(|hub| _ = hub.model_info.insert("config", json!(null)));
    let line = hub.error_line(&["pull", NAME]);
    assert!(line.contains("config.json: model_type: found \"llama\", expected \"gpt2\""), "{line}");
    assert!(!hub.take_requests().iter().any(|request| request.path.starts_with("/cdn/")));
    let output = hub.hornbook(&["models"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && stderr.contains("not supported") && stderr.contains(NAME), "{stderr}");
}

#[test]
fn malformed_responses_are_rejected() {
    let hub = FakeHub::with_model("tiny-gelu-new");
    hub.set_behavior(|hub| _ = hub.model_info.insert("sha", json!("../../../etc")));
    assert!(hub.error_line(&["pull", NAME]).contains("unexpected response from http://127.0.0.1"));
    hub.set_behavior(|hub| _ = hub.model_info.insert("sha", json!("f".repeat(40))));
    let line = hub.error_line(&["pull", NAME]);
    assert!(line.contains("config.json: commit \"0123"), "{line}");
    hub.set_behavior(|hub| _ = hub.model_info.insert("siblings", json!("none")));
    assert!(hub.error_line(&["pull", NAME]).contains("unexpected response from http://127.0.0.1"));

    // Shards listed in an index must be files of the repository.
    let mut files = BTreeMap::new();
    files.insert("config.json".to_string(), hub.file("config.json").to_vec());
    let index = json!({"weight_map": {"wte.weight": "../../etc/passwd"}}).to_string();
    files.insert("model.safetensors.index.json".to_string(), index.into_bytes());
    let lying = FakeHub::with_files(files.clone());
    let line = lying.error_line(&["pull", NAME]);
    assert!(line.contains("found shard \"../../etc/passwd\""), "{line}");
    let index = json!({"weight_map": {"wte.weight": "model-1.safetensors"}}).to_string();
    files.insert("model.safetensors.index.json".to_string(), index.into_bytes());
    let line = FakeHub::with_files(files).error_line(&["pull", NAME]);
    assert!(line.contains("model-1.safetensors: found no such file"), "{line}");
}

#[test]
fn invalid_names_and_settings_are_rejected() {
    let hub = FakeHub::with_model("tiny-gelu-new");
    for name in ["", "a/b/c", "../x", "two words", "/etc"] {
        let line = hub.error_line(&["pull", name]);
        assert!(line.contains("expected owner/name"), "{name}: {line}");
    }
    assert!(hub.take_requests().is_empty());
    let mut command = hub.hornbook(&["pull", "gpt2"]);
    let line = error_line(command.env("HF_ENDPOINT", "http://127.0.0.1:1"));
    assert!(line.contains("cannot reach http://127.0.0.1:1"), "{line}");
    let line = error_line(command.env("HF_ENDPOINT", "huggingface.co"));
    assert!(line.contains("HF_ENDPOINT: found huggingface.co, expected an address"), "{line}");
    let mut command = hub.hornbook(&["pull", "gpt2"]);
    let line = error_line(command.env("HF_HUB_DOWNLOAD_TIMEOUT", "soon"));
    assert!(line.contains("HF_HUB_DOWNLOAD_TIMEOUT: found soon, expected a number of seconds"), "{line}");
    let output = hub.hornbook(&["pull", "fable"]).output().unwrap();
    assert!(output.status.success());
}
