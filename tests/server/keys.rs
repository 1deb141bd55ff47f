//! API keys and rate limits.

use super::client::{TestServer, fable, serve};
use hornbook::server::key_file::{add, remove};
use hornbook::server::keys::Key;
use hornbook::server::{BoundServer, ServerOptions};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Creates a key file; returns its directory, its path, and the key of each entry.
pub(super) fn create_keys(entries: &[Key]) -> (tempfile::TempDir, PathBuf, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    let keys = entries.iter().map(|entry| add(&path, entry).unwrap()).collect();
    (folder, path, keys)
}

fn serve_with_keys(path: &Path) -> TestServer {
    serve(&["fable", "tiny-gelu-new"], |options| options.key_file = Some(path.to_path_buf()))
}

fn tiny_request() -> Value {
    json!({"model": "tiny-gelu-new", "prompt": [1], "max_tokens": 1})
}

#[test]
fn wrong_key_is_401_and_any_key_works_without_key_file() {
    let (_folder, path, keys) = create_keys(&[Key::named("alice")]);
    let server = serve_with_keys(&path);
    for (path, body) in [
        ("/v1/completions", tiny_request()),
        ("/tokenize", json!({"prompt": "a"})),
        ("/v1/nothing", json!({})),
    ] {
        let response = server.post(path, body);
        let (status, kind, _, code) = response.error();
        assert_eq!(
            (status, kind.as_str(), code.as_deref()),
            (401, "invalid_request_error", Some("invalid_api_key"))
        );
        assert_eq!(response.header("www-authenticate"), "Bearer");
        response.header("x-request-id");
    }
    assert_eq!(server.get("/v1/models").status, 401);
    assert_eq!(server.get("/metrics").status, 401);
    server.get("/health").ok();
    server.get("/openapi.json").ok();
    let server = server.with_key("sk-wrong");
    assert_eq!(server.get("/v1/models").error().3.as_deref(), Some("invalid_api_key"));
    let server = server.with_key(&keys[0]);
    let response = server.post("/v1/completions", tiny_request());
    response.ok();
    assert_eq!(response.header("openai-organization"), "alice");

    let unauthenticated = fable().with_key("anything");
    unauthenticated.post("/v1/completions", json!({"prompt": "A", "max_tokens": 1})).ok();
}

#[test]
fn reached_rate_limit_is_429_with_retry_delay() {
    let alice = Key { requests_per_minute: Some(2), ..Key::named("alice") };
    let bob = Key { tokens_per_minute: Some(60), ..Key::named("bob") };
    let (_folder, path, keys) = create_keys(&[alice, bob]);
    let server = serve_with_keys(&path).with_key(&keys[0]);
    let first = server.post("/v1/completions", tiny_request());
    first.ok();
    assert_eq!(
        (first.header("x-ratelimit-limit-requests"), first.header("x-ratelimit-remaining-requests")),
        ("2", "1")
    );
    assert!(first.header("x-ratelimit-reset-requests").ends_with('s'));
    assert_eq!(first.header("ratelimit-policy"), r#""requests";q=2;w=60;burst=2;comment="token bucket""#);
    assert!(first.headers.get("x-ratelimit-limit-tokens").is_none());
    server.post("/v1/completions", tiny_request()).ok();
    let third = server.post("/v1/completions", tiny_request());
    let (status, kind, _, code) = third.error();
    assert_eq!((status, kind.as_str(), code.as_deref()), (429, "requests", Some("rate_limit_exceeded")));
    assert!((1..=30).contains(&third.header("retry-after").parse::<u64>().unwrap()));
    assert!(third.header("retry-after-ms").parse::<u64>().unwrap() <= 30_000);
    assert_eq!(third.header("x-ratelimit-remaining-requests"), "0");
    server.get("/v1/models").ok(); // GET requests are free

    let server = server.with_key(&keys[1]);
    let body = |max_tokens: u32| {
        json!({"model": "tiny-gelu-new", "prompt": [1, 2], "max_tokens": max_tokens,
            "logit_bias": {"50": -100}})
    };
    let first = server.post("/v1/completions", body(28));
    first.ok();
    let response = server.post("/v1/completions", body(40));
    assert_eq!((response.error().0, response.error().1.as_str()), (429, "tokens"));
    assert_eq!(response.header("x-ratelimit-limit-tokens"), "60");
    assert!(response.headers.get("x-should-retry").is_none());
    // Unused reserved tokens are refunded: this request ends at once.
    let ends_immediately =
        json!({"model": "tiny-gelu-new", "prompt": [1, 2], "max_tokens": 25, "logit_bias": {"50": 100}});
    server.post("/v1/completions", ends_immediately.clone()).ok();
    server.post("/v1/completions", ends_immediately).ok();
    // A request above the limit per minute can never succeed.
    let too_large = server.post("/v1/completions", body(59));
    assert_eq!((too_large.error().0, too_large.header("x-should-retry")), (429, "false"));
}

#[test]
fn key_may_use_its_models_only() {
    let (_folder, path, keys) =
        create_keys(&[Key { models: Some(vec!["fable".into()]), ..Key::named("alice") }]);
    let server = serve_with_keys(&path).with_key(&keys[0]);
    server.post("/v1/completions", json!({"model": "fable", "prompt": "A", "max_tokens": 1})).ok();
    assert_eq!(server.post("/v1/completions", tiny_request()).error().3.as_deref(), Some("model_not_found"));
    assert_eq!(server.get("/v1/models/tiny-gelu-new").error().0, 404);
    assert_eq!(server.get("/v1/models").ok()["data"].as_array().unwrap().len(), 1);
}

#[test]
fn added_and_removed_keys_take_effect_without_restart() {
    let (_folder, path, first) = create_keys(&[Key::named("alice")]);
    let server = serve_with_keys(&path).with_key(&first[0]);
    server.get("/v1/models").ok();
    let second = add(&path, &Key::named("bob")).unwrap();
    let server = server.with_key(&second);
    server.get("/v1/models").ok();
    remove(&path, "bob").unwrap();
    assert_eq!(server.get("/v1/models").status, 401);
}

#[test]
fn non_loopback_address_requires_keys_or_no_auth() {
    let all_interfaces = ServerOptions { address: SocketAddr::from(([0, 0, 0, 0], 0)), ..Default::default() };
    let start = |options: ServerOptions| BoundServer::bind(options).map(drop);
    let error = start(all_interfaces.clone()).unwrap_err().to_string();
    assert!(
        error.contains("0.0.0.0:0 can be reached from other machines") && error.contains("--keys FILE"),
        "{error}"
    );
    start(ServerOptions { no_auth: true, ..all_interfaces.clone() }).unwrap();
    let (_folder, path, _) = create_keys(&[Key::named("alice")]);
    start(ServerOptions { key_file: Some(path), ..all_interfaces.clone() }).unwrap();
    let missing =
        start(ServerOptions { key_file: Some("/no/such/keys.toml".into()), ..all_interfaces }).unwrap_err();
    assert!(missing.to_string().starts_with("/no/such/keys.toml: cannot read"), "{missing}");
}

#[test]
fn limited_key_reaches_no_other_model_by_any_name() {
    let limited = |models: &[&str]| Key {
        models: Some(models.iter().map(|name| name.to_string()).collect()),
        ..Key::named(models[0])
    };
    let (_folder, path, keys) =
        create_keys(&[limited(&["gpt2"]), limited(&["alias"]), limited(&["tiny-gelu-new"])]);
    let start = |models: &[&str]| {
        serve(models, |options| {
            options.key_file = Some(path.clone());
            options.aliases = vec![("alias".into(), "fable".into())];
        })
    };
    // The only model answers to any name, but not to a key that is limited to a model that is not served.
    let mut server = start(&["fable"]).with_key(&keys[0]);
    for model in [json!("gpt2"), json!("fable"), json!("alias"), json!("other"), Value::Null] {
        let body = json!({"model": model, "prompt": "A", "max_tokens": 1});
        assert_eq!(server.post("/v1/completions", body).error().3.as_deref(), Some("model_not_found"));
        let body = json!({"model": model, "prompt": "A"});
        assert_eq!(server.post("/tokenize", body).error().0, 404);
    }
    for path in ["/v1/engines/gpt2/completions", "/engines/fable/embeddings"] {
        let body = json!({"prompt": "A", "input": "A", "max_tokens": 1});
        assert!([400, 404].contains(&server.post(path, body).error().0), "{path}");
    }
    assert_eq!(server.get("/v1/models").ok()["data"], json!([]));
    assert_eq!(server.get("/v1/models/gpt2").error().0, 404);
    // A key that is limited to an alias may use its model.
    server = server.with_key(&keys[1]);
    for model in ["alias", "fable"] {
        server.post("/v1/completions", json!({"model": model, "prompt": "A", "max_tokens": 1})).ok();
        server.get(&format!("/v1/models/{model}")).ok();
    }
    let server = start(&["fable", "tiny-gelu-new"]).with_key(&keys[2]);
    for model in ["fable", "alias", "other"] {
        let body = json!({"model": model, "prompt": [1], "max_tokens": 1});
        assert_eq!(server.post("/v1/completions", body).error().0, 404, "{model}");
    }
    server.post("/v1/completions", tiny_request()).ok();
}
