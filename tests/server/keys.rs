//! Keys, limits, and who may come without.

use super::client::{Running, fable, serve};
use hornbook::server::key_file::{add, remove};
use hornbook::server::keys::Key;
use hornbook::server::{Listening, ServerOptions};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A file of keys, its folder, and the key of each entry.
fn keys(entries: &[Key]) -> (tempfile::TempDir, PathBuf, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    let keys = entries.iter().map(|entry| add(&path, entry).unwrap()).collect();
    (folder, path, keys)
}

fn with_keys(path: &Path) -> Running {
    serve(&["fable", "tiny-gelu-new"], |options| options.keys = Some(path.to_path_buf()))
}

fn tiny() -> Value {
    json!({"model": "tiny-gelu-new", "prompt": [1], "max_tokens": 1})
}

#[test]
fn detail_20_a_wrong_key_is_a_401_and_any_will_do_where_none_is_configured() {
    let (_folder, path, keys) = keys(&[Key::named("alice")]);
    let server = with_keys(&path);
    for (path, body) in
        [("/v1/completions", tiny()), ("/tokenize", json!({"prompt": "a"})), ("/v1/nothing", json!({}))]
    {
        let answer = server.post(path, body);
        let (status, kind, _, code) = answer.error();
        assert_eq!(
            (status, kind.as_str(), code.as_deref()),
            (401, "invalid_request_error", Some("invalid_api_key"))
        );
        assert_eq!(answer.header("www-authenticate"), "Bearer");
        answer.header("x-request-id");
    }
    assert_eq!(server.get("/v1/models").status, 401);
    assert_eq!(server.get("/metrics").status, 401);
    server.get("/health").ok();
    server.get("/openapi.json").ok();
    let server = server.with_key("sk-wrong");
    assert_eq!(server.get("/v1/models").error().3.as_deref(), Some("invalid_api_key"));
    let server = server.with_key(&keys[0]);
    let answer = server.post("/v1/completions", tiny());
    answer.ok();
    assert_eq!(answer.header("openai-organization"), "alice");

    let open = fable().with_key("anything");
    open.post("/v1/completions", json!({"prompt": "A", "max_tokens": 1})).ok();
}

#[test]
fn detail_21_a_reached_limit_is_a_429_with_the_time_to_wait() {
    let alice = Key { requests_per_minute: Some(2), ..Key::named("alice") };
    let bob = Key { tokens_per_minute: Some(60), ..Key::named("bob") };
    let (_folder, path, keys) = keys(&[alice, bob]);
    let server = with_keys(&path).with_key(&keys[0]);
    let first = server.post("/v1/completions", tiny());
    first.ok();
    assert_eq!(
        (first.header("x-ratelimit-limit-requests"), first.header("x-ratelimit-remaining-requests")),
        ("2", "1")
    );
    assert!(first.header("x-ratelimit-reset-requests").ends_with('s'));
    assert!(first.headers.get("x-ratelimit-limit-tokens").is_none());
    server.post("/v1/completions", tiny()).ok();
    let third = server.post("/v1/completions", tiny());
    let (status, kind, _, code) = third.error();
    assert_eq!((status, kind.as_str(), code.as_deref()), (429, "requests", Some("rate_limit_exceeded")));
    assert!((1..=30).contains(&third.header("retry-after").parse::<u64>().unwrap()));
    assert!(third.header("retry-after-ms").parse::<u64>().unwrap() <= 30_000);
    assert_eq!(third.header("x-ratelimit-remaining-requests"), "0");
    server.get("/v1/models").ok(); // lists are free

    let server = server.with_key(&keys[1]);
    let body = |max_tokens: u32| json!({"model": "tiny-gelu-new", "prompt": [1, 2], "max_tokens": max_tokens, "logit_bias": {"50": -100}});
    let first = server.post("/v1/completions", body(28));
    first.ok();
    let answer = server.post("/v1/completions", body(40));
    assert_eq!((answer.error().0, answer.error().1.as_str()), (429, "tokens"));
    assert_eq!(answer.header("x-ratelimit-limit-tokens"), "60");
    assert!(answer.headers.get("x-should-retry").is_none());
    // What was put aside and not used is given back: this one ends at once.
    let ends =
        json!({"model": "tiny-gelu-new", "prompt": [1, 2], "max_tokens": 25, "logit_bias": {"50": 100}});
    server.post("/v1/completions", ends.clone()).ok();
    server.post("/v1/completions", ends).ok();
    // More than a minute's worth will never do.
    let never = server.post("/v1/completions", body(59));
    assert_eq!((never.error().0, never.header("x-should-retry")), (429, "false"));
}

#[test]
fn a_key_is_good_for_its_models_alone() {
    let (_folder, path, keys) = keys(&[Key { models: Some(vec!["fable".into()]), ..Key::named("alice") }]);
    let server = with_keys(&path).with_key(&keys[0]);
    server.post("/v1/completions", json!({"model": "fable", "prompt": "A", "max_tokens": 1})).ok();
    assert_eq!(server.post("/v1/completions", tiny()).error().3.as_deref(), Some("model_not_found"));
    assert_eq!(server.get("/v1/models/tiny-gelu-new").error().0, 404);
    assert_eq!(server.get("/v1/models").ok()["data"].as_array().unwrap().len(), 1);
}

#[test]
fn keys_come_and_go_without_a_restart() {
    let (_folder, path, first) = keys(&[Key::named("alice")]);
    let server = with_keys(&path).with_key(&first[0]);
    server.get("/v1/models").ok();
    let second = add(&path, &Key::named("bob")).unwrap();
    let server = server.with_key(&second);
    server.get("/v1/models").ok();
    remove(&path, "bob").unwrap();
    assert_eq!(server.get("/v1/models").status, 401);
}

#[test]
fn others_than_this_machine_need_keys_unless_the_operator_says_otherwise() {
    let everywhere = ServerOptions { address: SocketAddr::from(([0, 0, 0, 0], 0)), ..Default::default() };
    let start = |options: ServerOptions| Listening::start(options).map(drop);
    let error = start(everywhere.clone()).unwrap_err().to_string();
    assert!(
        error.contains("0.0.0.0:0 can be reached from other machines") && error.contains("--keys FILE"),
        "{error}"
    );
    start(ServerOptions { no_auth: true, ..everywhere.clone() }).unwrap();
    let (_folder, path, _) = keys(&[Key::named("alice")]);
    start(ServerOptions { keys: Some(path), ..everywhere.clone() }).unwrap();
    let missing = start(ServerOptions { keys: Some("/no/such/keys.toml".into()), ..everywhere }).unwrap_err();
    assert!(missing.to_string().starts_with("/no/such/keys.toml: cannot read"), "{missing}");
}
