//! Batches over HTTP: their way from the input file to the results.

use super::client::{TestServer, serve, wait};
use hornbook::server::ServerOptions;
use hornbook::server::key_file::add;
use hornbook::server::keys::Key;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{read_to_string, write};
use std::path::Path;

fn serve_store(store: &Path, configure: impl FnOnce(&mut ServerOptions)) -> TestServer {
    serve(&["fable"], |options| {
        options.store = Some(store.into());
        configure(options);
    })
}

fn line(id: &str, url: &str, body: Value) -> String {
    json!({"custom_id": id, "method": "POST", "url": url, "body": body}).to_string() + "\n"
}

/// Requests for completions, each with its own seed.
fn completions(n: usize, max_tokens: usize) -> String {
    let body = |i| json!({"prompt": "The king", "max_tokens": max_tokens, "seed": i});
    (0..n).map(|i| line(&format!("r{i}"), "/v1/completions", body(i))).collect()
}

fn upload(server: &TestServer, input: &str) -> String {
    let file = server.upload(&[("purpose", "batch")], "in.jsonl", input.as_bytes()).ok();
    file["id"].as_str().unwrap().into()
}

fn create(server: &TestServer, file: &str) -> Value {
    let body = json!({"input_file_id": file, "endpoint": "/v1/completions", "completion_window": "24h",
        "metadata": {"for": "a test"}});
    server.post("/v1/batches", body).ok()
}

fn get(server: &TestServer, batch: &Value) -> Value {
    server.get(&format!("/v1/batches/{}", batch["id"].as_str().unwrap())).ok()
}

fn wait_for_status(server: &TestServer, batch: &Value, status: &str) -> Value {
    wait(status, || get(server, batch)["status"] == status);
    get(server, batch)
}

/// The lines of a result file by their custom ids, which are unique.
fn lines(server: &TestServer, file: &Value) -> BTreeMap<String, Value> {
    let text = server.get(&format!("/v1/files/{}/content", file.as_str().unwrap())).text;
    let lines: BTreeMap<String, Value> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|line| (line["custom_id"].as_str().unwrap().to_string(), line))
        .collect();
    assert_eq!(lines.len(), text.lines().count());
    lines
}

#[test]
fn batch_is_answered_as_live_requests_are() {
    let store = tempfile::tempdir().unwrap();
    let server = serve_store(store.path(), |_| {});
    let wrong = line("wrong", "/v1/completions", json!({"prompt": "A", "temperature": 9}));
    let input = completions(5, 12) + &wrong;
    let file = upload(&server, &input);
    let created = create(&server, &file);
    assert_eq!(
        (&created["object"], &created["endpoint"], &created["input_file_id"], &created["metadata"]["for"]),
        (&json!("batch"), &json!("/v1/completions"), &json!(file), &json!("a test"))
    );
    let seconds = created["expires_at"].as_u64().unwrap() - created["created_at"].as_u64().unwrap();
    assert!((24 * 3600..24 * 3600 + 60).contains(&seconds));
    let done = wait_for_status(&server, &created, "completed");
    assert_eq!(done["request_counts"], json!({"total": 6, "completed": 5, "failed": 1}));
    for time in ["in_progress_at", "finalizing_at", "completed_at"] {
        assert!(done[time].is_u64(), "{done}");
    }
    assert_eq!((&done["errors"], &done["cancelled_at"]), (&Value::Null, &Value::Null));
    let output = lines(&server, &done["output_file_id"]);
    assert_eq!(output.len(), 5);
    let live =
        server.post("/v1/completions", json!({"prompt": "The king", "max_tokens": 12, "seed": 3})).ok();
    let response = &output["r3"]["response"];
    assert_eq!((&response["status_code"], &response["body"]["choices"]), (&json!(200), &live["choices"]));
    let errors = lines(&server, &done["error_file_id"]);
    assert_eq!(errors["wrong"]["response"]["body"]["error"]["param"], "temperature");
    let results = server.get("/v1/files?purpose=batch_output").ok();
    assert_eq!(results["data"].as_array().unwrap().len(), 2);
    let name = format!("{}_output.jsonl", done["id"].as_str().unwrap());
    assert!(results.to_string().contains(&name), "{results}");

    let list = server.get("/v1/batches").ok();
    assert_eq!((&list["data"][0], &list["has_more"]), (&done, &json!(false)));
    let cancel = server.post(&format!("/v1/batches/{}/cancel", done["id"].as_str().unwrap()), json!({}));
    assert!(cancel.error().0 == 400 && cancel.text.contains("with status 'completed'"), "{}", cancel.text);
    assert_eq!(server.metric("hornbook_batches{status=\"completed\"}"), 1.0);
    let folder = store.path().join("batches").join(done["id"].as_str().unwrap());
    assert_eq!(folder.read_dir().unwrap().count(), 1);
    drop(server);
    let server = serve_store(store.path(), |_| {});
    assert_eq!(get(&server, &done), done);
}

#[test]
fn input_that_is_not_valid_fails_with_its_lines() {
    let store = tempfile::tempdir().unwrap();
    let server = serve_store(store.path(), |_| {});
    let chat = line("c", "/v1/chat/completions", json!({}));
    for (input, code, number) in [
        (completions(1, 1) + "nonsense\n", "invalid_json_line", json!(2)),
        (completions(1, 1) + &completions(1, 1), "invalid_request", json!(2)),
        (completions(2, 1) + &chat, "mismatched_url", json!(3)),
        ("\n\n".into(), "empty_file", Value::Null),
        ("\n".repeat(3) + &completions(50_001, 1), "too_many_requests", Value::Null),
    ] {
        let batch = create(&server, &upload(&server, &input));
        let failed = wait_for_status(&server, &batch, "failed");
        assert_eq!(failed["errors"]["object"], "list");
        let problem = &failed["errors"]["data"][0];
        assert_eq!((&problem["code"], &problem["line"]), (&json!(code), &number), "{problem}");
        assert!(failed["failed_at"].is_u64() && failed["output_file_id"].is_null());
    }
}

#[test]
fn creation_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let (store, keys) = (folder.path().join("store"), folder.path().join("keys.toml"));
    let [alice, bob] = ["alice", "bob"].map(|name| add(&keys, &Key::named(name)).unwrap());
    let server = serve_store(&store, |options| options.key_file = Some(keys)).with_key(&alice);
    let file = upload(&server, &completions(1, 1));
    let vision = server.upload(&[("purpose", "vision")], "a", b"a").ok()["id"].clone();
    let valid = json!({"input_file_id": file, "endpoint": "/v1/completions", "completion_window": "24h"});
    let many: BTreeMap<String, &str> = (0..17).map(|i| (i.to_string(), "x")).collect();
    for (param, value) in [
        ("input_file_id", Value::Null),
        ("input_file_id", json!("file-none")),
        ("input_file_id", vision),
        ("endpoint", json!("/v1/models")),
        ("completion_window", json!("1h")),
        ("metadata", json!(many)),
        ("metadata.a", json!({"a": 1})),
        ("output_expires_after.seconds", json!({"anchor": "created_at", "seconds": 1})),
    ] {
        let mut body = valid.clone();
        body[param.split('.').next().unwrap()] = value;
        let (status, _, found, _) = server.post("/v1/batches", body).error();
        assert_eq!((status, found.as_deref()), (400, Some(param)));
    }
    let batch = server.post("/v1/batches", valid.clone()).ok();
    wait_for_status(&server, &batch, "completed");
    let path = format!("/v1/batches/{}", batch["id"].as_str().unwrap());
    let server = server.with_key(&bob);
    assert_eq!(server.get(&path).error().0, 404);
    assert_eq!(server.post(&format!("{path}/cancel"), json!({})).error().0, 404);
    assert_eq!(server.get("/v1/batches").ok()["data"], json!([]));
    assert_eq!(server.post("/v1/batches", valid).error().2.as_deref(), Some("input_file_id"));
}

#[test]
fn batch_is_computed_with_the_models_and_tokens_of_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let (store, keys) = (folder.path().join("store"), folder.path().join("keys.toml"));
    let limited = Key { models: Some(vec!["tiny-gelu-new".into()]), ..Key::named("limited") };
    let key = add(&keys, &limited).unwrap();
    let server = serve(&["fable", "tiny-gelu-new"], |options| {
        (options.store, options.key_file) = (Some(store), Some(keys));
    });
    let server = server.with_key(&key);
    let request = |model: &str| line(model, "/v1/completions", json!({"model": model, "prompt": [1]}));
    let batch = create(&server, &upload(&server, &(request("fable") + &request("tiny-gelu-new"))));
    let done = wait_for_status(&server, &batch, "completed");
    assert_eq!(lines(&server, &done["output_file_id"]).keys().collect::<Vec<_>>(), ["tiny-gelu-new"]);
    let errors = lines(&server, &done["error_file_id"]);
    assert_eq!(errors["fable"]["response"]["body"]["error"]["code"], "model_not_found");
}

#[test]
fn cancelled_batch_keeps_its_answers_and_names_the_rest() {
    let store = tempfile::tempdir().unwrap();
    let server = serve_store(store.path(), |options| options.engine.max_concurrency = 2);
    let batch = create(&server, &upload(&server, &completions(400, 40)));
    wait("the first answers", || get(&server, &batch)["request_counts"]["completed"].as_u64() > Some(3));
    let path = format!("/v1/batches/{}/cancel", batch["id"].as_str().unwrap());
    let cancelled = server.post(&path, json!({})).ok();
    assert!(cancelled["status"] == "cancelling" && cancelled["cancelling_at"].is_u64(), "{cancelled}");
    let done = wait_for_status(&server, &batch, "cancelled");
    let (output, errors) = (lines(&server, &done["output_file_id"]), lines(&server, &done["error_file_id"]));
    assert_eq!(output.len() + errors.len(), 400);
    assert_eq!(done["request_counts"]["completed"], output.len());
    let refused = errors.values().next().unwrap();
    assert_eq!((&refused["response"], &refused["error"]["code"]), (&Value::Null, &json!("batch_cancelled")));
    assert_eq!(server.post(&path, json!({})).ok()["status"], "cancelled");
}

#[test]
fn restart_goes_on_and_an_expired_batch_ends() {
    let store = tempfile::tempdir().unwrap();
    let configure = |options: &mut ServerOptions| options.engine.max_concurrency = 2;
    let server = serve_store(store.path(), configure);
    let file = upload(&server, &completions(200, 30));
    let batches = [create(&server, &file), create(&server, &file)];
    let some_answered = |batch: &Value| get(&server, batch)["request_counts"]["completed"].as_u64() > Some(3);
    wait("the first answers", || batches.iter().all(some_answered));
    drop(server);
    // The second one's time is over.
    let object = store.path().join("batches").join(batches[1]["id"].as_str().unwrap()).join("object.json");
    let mut json: Value = serde_json::from_str(&read_to_string(&object).unwrap()).unwrap();
    assert_eq!(json["value"]["status"], "in_progress");
    json["value"]["times"]["expires_at"] = json!(1);
    write(&object, json.to_string()).unwrap();
    let server = serve_store(store.path(), configure);
    let expired = wait_for_status(&server, &batches[1], "expired");
    let (output, errors) =
        (lines(&server, &expired["output_file_id"]), lines(&server, &expired["error_file_id"]));
    assert!(output.len() > 3 && output.len() + errors.len() == 200);
    assert_eq!(errors.values().next().unwrap()["error"]["code"], "batch_expired");
    let done = wait_for_status(&server, &batches[0], "completed");
    let complete = lines(&server, &done["output_file_id"]);
    assert_eq!(complete.len(), 200);
    for (id, line) in output {
        let choices = |line: &Value| line["response"]["body"]["choices"].clone();
        assert_eq!(choices(&line), choices(&complete[&id]));
    }
}

#[test]
fn deleted_input_fails_the_batch() {
    let store = tempfile::tempdir().unwrap();
    let server = serve_store(store.path(), |_| {});
    let file = upload(&server, &completions(400, 40));
    let batch = create(&server, &file);
    wait("the first answers", || get(&server, &batch)["request_counts"]["completed"].as_u64() > Some(1));
    drop(server);
    std::fs::remove_dir_all(store.path().join("files").join(&file)).unwrap();
    let server = serve_store(store.path(), |_| {});
    let failed = wait_for_status(&server, &batch, "failed");
    assert_eq!(failed["errors"]["data"][0]["code"], "input_file_deleted");
}
