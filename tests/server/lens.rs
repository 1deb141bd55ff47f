//! `/lens`, and the page that uses it.

use super::client::{TestServer, fable, serve};
use hornbook::server::key_file::add;
use hornbook::server::keys::Key;
use serde_json::{Value, json};

fn look(server: &TestServer, body: Value) -> Value {
    server.post("/lens", body).ok()
}

#[test]
fn page_is_served_with_a_strict_policy_and_without_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys.toml");
    add(&keys, &Key::named("alice")).unwrap();
    let server = serve(&["fable"], |options| options.key_file = Some(keys));
    let page = server.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").starts_with("default-src 'self';"));
    for path in page.text.split('"').filter(|path| path.starts_with("/page/")) {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    assert_eq!(server.get("/page/no.js").error().0, 404);
    assert_eq!(server.post("/lens", json!({"prompt": "a"})).error().0, 401);
}

#[test]
fn analysis_belongs_to_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    let [alice, bob] = ["alice", "bob"].map(|name| add(&file, &Key::named(name)).unwrap());
    let server = serve(&["fable"], |options| options.key_file = Some(file.clone())).with_key(&alice);
    let found = look(&server, json!({"prompt": "Once upon a time"}));
    let id = found["id"].as_str().unwrap();
    let (token, path) = (format!("/lens/{id}/tokens/3"), format!("/lens/{id}/attention/5/3"));
    assert_eq!(server.get(&token).status, 200);
    assert_eq!(server.get("/lens/lens-0/attention/0/0").error().0, 404);
    assert_eq!(server.get(&path.replace("/5/3", "/5/4")).error().0, 404);
    assert_eq!(server.get(&path.replace("/5/3", "/6/0")).error().0, 404);
    let server = server.with_key(&bob);
    assert_eq!((server.get(&token).error().0, server.get(&path).error().0), (404, 404));
}

#[test]
fn analysis_refuses_what_it_cannot_show() {
    let server = fable();
    let id = look(&server, json!({"prompt": "A", "ablate": ["mlp0"]}))["id"].as_str().unwrap().to_string();
    for (path, param) in [
        ("tokens/1", "token"),
        ("sites/blocks.9.hook_z", "site"),
        ("sites/hook_embed?token=1", "token"),
        ("tokens/0?target=4096", "target"),
        ("tokens/0?target=x", "target"),
    ] {
        let response = server.get(&format!("/lens/{id}/{path}"));
        let error = response.error();
        assert_eq!((error.0, error.2.as_deref()), (400, Some(param)), "{path}");
        assert_eq!(response.text.matches(&format!("{param}: ")).count(), 1, "{}", response.text);
    }
    for (body, param) in [
        (json!({}), "prompt"),
        (json!({"prompt": "a", "tokens": [1]}), "prompt"),
        (json!({"tokens": [4096]}), "prompt"),
        (json!({"tokens": vec![1; 513]}), "prompt"),
        (json!({"prompt": "a", "ablate": ["L9H0"]}), "ablate"),
        (json!({"prompt": "a", "ablate": ["mlp0", "L0H9"]}), "ablate"),
        (json!({"prompt": "a", "ablate": ["head 3"]}), "ablate"),
        (json!({"prompt": "a", "ablate": ["mlp0"], "ablate_with": "ones"}), "ablate_with"),
    ] {
        let response = server.post("/lens", body.clone());
        let error = response.error();
        assert_eq!((error.0, error.2.as_deref()), (400, Some(param)), "{body}");
        assert!(!response.text.contains(&format!("{param}: {param}:")), "{}", response.text);
        assert!(!response.text.contains("component: "), "{}", response.text);
    }
}

#[test]
fn old_analyses_make_way_for_new_ones() {
    let server = fable();
    let ids: Vec<_> = (0..18).map(|i| look(&server, json!({"tokens": [i, 5]}))["id"].clone()).collect();
    let status = |id: &Value| server.get(&format!("/lens/{}/tokens/0", id.as_str().unwrap())).status;
    assert_eq!((status(&ids[0]), status(&ids[1]), status(&ids[2])), (404, 404, 200));
    assert_eq!(status(&ids[17]), 200);
    assert!(look(&server, json!({"tokens": [1, 2], "predictions_only": true}))["id"].is_null());
}

#[test]
fn ablation_by_the_mean_is_another_than_by_zero() {
    let server = fable();
    let kl = |with: Value| {
        let body = json!({"prompt": "The king had a", "ablate": ["L5H1", "mlp2"], "ablate_with": with});
        look(&server, body)["intervention"]["kl_divergence"].as_f64().unwrap()
    };
    assert!(kl(Value::Null) > 0.0);
    assert_eq!(kl(Value::Null), kl(json!("zero")));
    assert_ne!(kl(json!("zero")), kl(json!("mean")));
}
