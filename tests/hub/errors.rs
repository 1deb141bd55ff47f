//! What cannot be had or cannot run, each in one line that says what to do.

use super::fake::{Behaviour, Fake, NAME, refused};
use serde_json::json;
use std::collections::BTreeMap;

#[test]
fn what_the_hub_refuses_is_said_with_what_to_do() {
    let hub = Fake::of("tiny-gelu-new");
    let at =
        |path, status| move |hub: &mut Behaviour| (hub.statuses, hub.forever) = (vec![(path, status)], true);
    let main = "/revision/main";
    let cases = [
        (main, 401, "the hub has no public 'someone/tiny' (401); set HF_TOKEN to access a private one"),
        (main, 403, "access to 'someone/tiny' is denied (403): request access at http://127.0.0.1:"),
        (main, 404, "the hub has no 'someone/tiny' (404)"),
        (main, 429, "rate-limiting requests (429): try again in a few minutes, or set HF_TOKEN"),
        (main, 503, "the hub has a server error (503): try again later"),
        (main, 418, "refused 'someone/tiny' with status 418"),
        ("config.json", 403, "access to 'someone/tiny' is denied (403)"),
        ("model.safetensors", 404, "model.safetensors is listed but missing (404)"),
    ];
    for (path, status, expected) in cases {
        hub.behave(at(path, status));
        let line = hub.refused(&["pull", NAME]);
        assert!(line.contains(expected), "{status}: {line}");
    }
    hub.behave(at(main, 401));
    let line = refused(hub.hornbook(&["pull", NAME]).env("HF_TOKEN", "hf_old"));
    assert!(line.contains("the hub rejected the token (401)") && line.contains("/settings/tokens"), "{line}");
    hub.behave(|_| ());
    let line = hub.refused(&["pull", "distillgpt2"]);
    assert!(line.contains("no 'distillgpt2' (404); did you mean 'distilgpt2'?"), "{line}");
    let line = hub.refused(&["pull", NAME, "--revision", "v9/"]);
    assert!(line.contains("--revision: found 'v9/', expected a branch, a tag or a commit"), "{line}");
}

#[test]
fn a_hub_that_is_busy_for_a_moment_is_asked_again() {
    let hub = Fake::of("tiny-gelu-new");
    hub.behave(|hub| hub.statuses = vec![("model.safetensors", 429), ("model.safetensors", 503)]);
    hub.pulled();
    hub.behave(|hub| (hub.statuses, hub.forever) = (vec![("model.safetensors", 429)], true));
    std::fs::remove_dir_all(hub.repository()).unwrap();
    let line = hub.refused(&["pull", NAME]);
    assert!(line.contains("(429)"), "{line}");
}

#[test]
fn what_cannot_run_is_refused_before_it_is_downloaded() {
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
        let hub = Fake::with(files(names));
        let line = hub.refused(&["pull", NAME]);
        assert!(line.contains("'someone/tiny' is not supported") && line.contains(expected), "{line}");
        assert_eq!(hub.seen().len(), 1, "only the listing was asked for");
    }

    let hub = Fake::of("tiny-gelu-new");
    for other in ["llama", "bert"] {
        hub.behave(|hub| _ = hub.listing.insert("config", json!({"model_type": other})));
        let line = hub.refused(&["pull", NAME]);
        assert!(line.contains(&format!("found a model of type '{other}', expected 'gpt2'")), "{line}");
        assert_eq!(hub.seen().len(), 1);
    }
    // Where the hub says nothing of it, the configuration does, before the weights come.
    let mut llama = files(&["model.safetensors"]);
    llama.insert("config.json".into(), br#"{"model_type": "llama"}"#.to_vec());
    let hub = Fake::with(llama);
    hub.behave(|hub| _ = hub.listing.insert("config", json!(null)));
    let line = hub.refused(&["pull", NAME]);
    assert!(line.contains("config.json: model_type: found \"llama\", expected \"gpt2\""), "{line}");
    assert!(!hub.seen().iter().any(|seen| seen.path.starts_with("/cdn/")));
    let output = hub.hornbook(&["models"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && stderr.contains("not supported") && stderr.contains(NAME), "{stderr}");
}

#[test]
fn an_answer_that_is_no_hubs_is_not_believed() {
    let hub = Fake::of("tiny-gelu-new");
    hub.behave(|hub| _ = hub.listing.insert("sha", json!("../../../etc")));
    assert!(hub.refused(&["pull", NAME]).contains("unexpected response from http://127.0.0.1"));
    hub.behave(|hub| _ = hub.listing.insert("sha", json!("f".repeat(40))));
    let line = hub.refused(&["pull", NAME]);
    assert!(line.contains("config.json: commit \"0123"), "{line}");
    hub.behave(|hub| _ = hub.listing.insert("siblings", json!("none")));
    assert!(hub.refused(&["pull", NAME]).contains("unexpected response from http://127.0.0.1"));

    // A file that an index names must be one of the repository's.
    let mut files = BTreeMap::new();
    files.insert("config.json".to_string(), hub.file("config.json").to_vec());
    let index = json!({"weight_map": {"wte.weight": "../../etc/passwd"}}).to_string();
    files.insert("model.safetensors.index.json".to_string(), index.into_bytes());
    let lying = Fake::with(files.clone());
    let line = lying.refused(&["pull", NAME]);
    assert!(line.contains("found the shard \"../../etc/passwd\""), "{line}");
    let index = json!({"weight_map": {"wte.weight": "model-1.safetensors"}}).to_string();
    files.insert("model.safetensors.index.json".to_string(), index.into_bytes());
    let line = Fake::with(files).refused(&["pull", NAME]);
    assert!(line.contains("model-1.safetensors: found no such file"), "{line}");
}

#[test]
fn what_is_no_name_or_no_hub_is_said_at_once() {
    let hub = Fake::of("tiny-gelu-new");
    for name in ["", "a/b/c", "../x", "two words", "/etc"] {
        let line = hub.refused(&["pull", name]);
        assert!(line.contains("expected owner/name"), "{name}: {line}");
    }
    assert!(hub.seen().is_empty());
    let mut command = hub.hornbook(&["pull", "gpt2"]);
    let line = refused(command.env("HF_ENDPOINT", "http://127.0.0.1:1"));
    assert!(line.contains("cannot reach http://127.0.0.1:1"), "{line}");
    let line = refused(command.env("HF_ENDPOINT", "huggingface.co"));
    assert!(line.contains("HF_ENDPOINT: found huggingface.co, expected an address"), "{line}");
    let mut command = hub.hornbook(&["pull", "gpt2"]);
    let line = refused(command.env("HF_HUB_DOWNLOAD_TIMEOUT", "soon"));
    assert!(line.contains("HF_HUB_DOWNLOAD_TIMEOUT: found soon, expected a number of seconds"), "{line}");
    let output = hub.hornbook(&["pull", "fable"]).output().unwrap();
    assert!(output.status.success());
}
