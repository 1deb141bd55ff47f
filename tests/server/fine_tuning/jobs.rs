//! `/v1/fine_tuning/jobs`.

use super::*;
use crate::server::client::open;
use hornbook::Options;
use hornbook::checkpoint::adapter::Adapter;
use hornbook::sampling::SamplingParams;
use hornbook::server::key_file::add;
use hornbook::server::keys::Key;

/// What fable writes with an adapter.
fn completion(adapter: &Path, prompt: &str, max_tokens: usize) -> String {
    let hornbook = open("fable");
    let adapter = Adapter::open(adapter, hornbook.config()).unwrap();
    let hornbook = hornbook.with_adapter(&adapter).unwrap();
    let sampling = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
    let options = Options { sampling, max_tokens: Some(max_tokens), ..Options::default() };
    let prompt = hornbook.encode(prompt).unwrap();
    hornbook.generate(&prompt, &options).unwrap().map(|token| token.unwrap().text).collect()
}

#[test]
fn job_trains_the_model_of_the_command_line_and_serves_it() {
    let store = tempfile::tempdir().unwrap();
    let server = serve_store(store.path(), |_| {});
    let examples = examples(60);
    let fields = json!({"suffix": "letters", "seed": 7,
        "hyperparameters": {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 4},
        "metadata": {"for": "a test"}});
    let id = create(&server, fields, &examples);
    let done = wait_for_status(&server, &id, &["succeeded"]);
    let name = done["fine_tuned_model"].as_str().unwrap().to_string();
    assert!(name.starts_with("ft:fable::letters:") && name.len() == "ft:fable::letters:".len() + 6, "{name}");
    assert!(done["finished_at"].is_u64() && done["trained_tokens"].as_u64().unwrap() > 1000, "{done}");
    for (field, expected) in [
        ("object", json!("fine_tuning.job")),
        ("model", json!("fable")),
        ("error", Value::Null),
        ("seed", json!(7)),
        ("validation_file", Value::Null),
        ("metadata", json!({"for": "a test"})),
        ("hyperparameters", json!({"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 4.0})),
    ] {
        assert_eq!(done[field], expected, "{field}");
    }

    let file = std::fs::read(result(store.path(), &id, ADAPTER)).unwrap();
    assert!(file == trained_by_command(&server, &id, &examples, ADAPTER), "other bytes than finetune's");
    let body = json!({"model": name, "prompt": "To Tom:", "max_tokens": 9, "temperature": 0});
    let text = server.post("/v1/completions", body).ok()["choices"][0]["text"].clone();
    assert_eq!(text, completion(&result(store.path(), &id, ""), "To Tom:", 9));
    let model = server.get(&format!("/v1/models/{name}")).ok();
    assert_eq!((&model["parent"], &model["root"]), (&json!("fable"), &json!("fable")));
    assert_eq!(server.get(&format!("/v1/engines/{name}")).ok()["id"], name);

    let messages = messages(&server, &id);
    for expected in [
        format!("Created fine-tune: {id}"),
        "Fine-tune enqueued. Queue number: 0".into(),
        "Fine-tune started".into(),
        "Completed epoch 1/2".into(),
        "Completed epoch 2/2".into(),
        format!("Uploaded model: {name}"),
        "Fine-tune succeeded".into(),
    ] {
        assert!(messages.contains(&expected), "{expected}: {messages:?}");
    }
    let events = server.get(&format!("/v1/fine_tuning/jobs/{id}/events?limit=100")).ok();
    let mut events = events["data"].as_array().unwrap().iter();
    let sample = events.find(|event| event["data"]["sample"].is_string()).unwrap();
    assert!(sample["type"] == "message" && sample["data"]["step"].is_u64(), "{sample}");
    let results = server.get(&format!("/v1/files/{}/content", done["result_files"][0].as_str().unwrap()));
    let mut rows = results.text.lines();
    assert_eq!(rows.next(), Some("step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"));
    let cells = |row: &str| row.split(',').map(|cell| cell.parse().unwrap()).collect::<Vec<f64>>();
    let rows: Vec<Vec<f64>> = rows.map(cells).collect();
    let (first, last) = (&rows[0], &rows[rows.len() - 1]);
    assert!(rows.iter().all(|row| row.len() == 5), "{}", results.text);
    assert!(last[1] < first[1] && last[2] > first[2] && last[3] > 0.0 && last[4] > 0.5, "{}", results.text);

    let checkpoints = server.get(&format!("/v1/fine_tuning/jobs/{id}/checkpoints")).ok();
    let checkpoint = checkpoints["data"].as_array().unwrap().last().unwrap();
    assert_eq!(checkpoint["fine_tuned_model_checkpoint"], name);
    assert!(checkpoint["metrics"]["valid_loss"].is_f64(), "{checkpoint}");
    assert_eq!(server.metric("hornbook_fine_tuning_jobs{status=\"succeeded\"}"), 1.0);

    // It is served again by the next server, until it is deleted.
    drop(server);
    let server = serve_store(store.path(), |_| {});
    let body = json!({"model": name, "prompt": "To Tom:", "max_tokens": 9, "temperature": 0});
    assert_eq!(server.post("/v1/completions", body.clone()).ok()["choices"][0]["text"], text);
    let deleted = server.delete(&format!("/v1/models/{name}")).ok();
    assert_eq!(deleted, json!({"id": name, "object": "model", "deleted": true}));
    assert_eq!(server.delete(&format!("/v1/models/{name}")).error().0, 404);
    assert_eq!(server.post("/v1/completions", body).error().0, 404);
    assert!(!result(store.path(), &id, ADAPTER).exists());
}

#[test]
fn full_fine_tuning_trains_the_model_of_the_command_line() {
    let store = tempfile::tempdir().unwrap();
    let server = serve_store(store.path(), |_| {});
    let examples = examples(12);
    let method = json!({"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1,
        "batch_size": 6, "learning_rate_multiplier": 10}}});
    let id = create(&server, json!({"method": method, "metadata": {"hornbook": "full"}}), &examples);
    let done = wait_for_status(&server, &id, &["succeeded"]);
    let file = std::fs::read(result(store.path(), &id, "model.safetensors")).unwrap();
    let expected = trained_by_command(&server, &id, &examples, "model.safetensors");
    assert!(file == expected, "other bytes than finetune's");
    let body = json!({"model": done["fine_tuned_model"], "prompt": "A", "max_tokens": 2});
    server.post("/v1/completions", body).ok();
}

#[test]
fn jobs_wait_pause_resume_and_are_cancelled() {
    let store = tempfile::tempdir().unwrap();
    let server = serve_store(store.path(), |options| options.max_jobs_per_key = 2);
    let long = json!({"hyperparameters": {"n_epochs": 50, "batch_size": 1}});
    let first = create(&server, long.clone(), &examples(60));
    wait_for_status(&server, &first, &["running"]);
    let second = create(&server, json!({"hyperparameters": {"n_epochs": 1}}), &examples(10));
    assert_eq!(job(&server, &second)["status"], "queued");
    assert!(messages(&server, &second).contains(&"Fine-tune enqueued. Queue number: 1".into()));
    let file = upload(&server, &examples(10));
    let refused = server.post("/v1/fine_tuning/jobs", json!({"training_file": file}));
    assert_eq!((refused.error().0, refused.text.contains("at most 2")), (429, true), "{}", refused.text);

    let act = |id: &str, action: &str| server.post(&format!("/v1/fine_tuning/jobs/{id}/{action}"), json!({}));
    assert_eq!(act(&first, "resume").error().0, 400);
    assert_eq!(act(&first, "pause").ok()["status"], "paused");
    wait_for_status(&server, &second, &["succeeded"]); // as soon as there is no other
    assert_eq!(act(&first, "resume").ok()["status"], "queued");
    wait_for_status(&server, &first, &["running"]);
    let cancelled = act(&first, "cancel").ok();
    assert_eq!((&cancelled["status"], &cancelled["fine_tuned_model"]), (&json!("cancelled"), &Value::Null));
    assert_eq!(act(&first, "cancel").error().0, 400);
    assert_eq!(act(&second, "pause").error().0, 400);
    assert_eq!(act("ftjob-none", "cancel").error().0, 404);
    wait("the run to be removed", || !result(store.path(), &first, "").exists());

    let list = server.get("/v1/fine_tuning/jobs?limit=1").ok();
    assert_eq!((&list["data"][0]["id"], &list["has_more"]), (&json!(second), &json!(true)));
    let list = server.get(&format!("/v1/fine_tuning/jobs?limit=1&after={second}")).ok();
    assert_eq!((&list["data"][0]["id"], &list["has_more"]), (&json!(first), &json!(false)));
    let events = format!("/v1/fine_tuning/jobs/{second}/events");
    let page = server.get(&format!("{events}?limit=2")).ok();
    let newest: Vec<_> = page["data"].as_array().unwrap().iter().map(|event| &event["message"]).collect();
    assert_eq!(newest[0], "Fine-tune succeeded");
    let after = page["data"][1]["id"].as_str().unwrap();
    let rest = server.get(&format!("{events}?limit=100&after={after}")).ok();
    let all = server.get(&format!("{events}?limit=100")).ok();
    assert_eq!(rest["data"].as_array().unwrap()[..], all["data"].as_array().unwrap()[2..]);
}

#[test]
fn what_cannot_be_trained_is_refused_by_name() {
    let store = tempfile::tempdir().unwrap();
    let server = serve_store(store.path(), |_| {});
    let file = upload(&server, &examples(3));
    let batch = server.upload(&[("purpose", "batch")], "b.jsonl", b"x").ok();
    for (fields, param) in [
        (json!({}), "training_file"),
        (json!({"training_file": "file-none"}), "training_file"),
        (json!({"training_file": batch["id"]}), "training_file"),
        (json!({"training_file": file, "validation_file": "file-none"}), "validation_file"),
        (json!({"training_file": file, "suffix": "a:b"}), "suffix"),
        (json!({"training_file": file, "seed": -1}), "seed"),
        (json!({"training_file": file, "method": {"type": "dpo"}}), "method.type"),
        (json!({"training_file": file, "integrations": [{"type": "wandb"}]}), "integrations"),
        (json!({"training_file": file, "hyperparameters": {"n_epochs": 0}}), "hyperparameters.n_epochs"),
        (
            json!({"training_file": file, "method": {"type": "supervised",
                "supervised": {"hyperparameters": {"batch_size": "big"}}}}),
            "method.supervised.hyperparameters.batch_size",
        ),
        (json!({"training_file": file, "metadata": {"hornbook": "half"}}), "metadata.hornbook"),
    ] {
        let response = server.post("/v1/fine_tuning/jobs", fields);
        let (status, _, found, _) = response.error();
        assert_eq!((status, found.as_deref()), (400, Some(param)), "{}", response.text);
    }
    let without_store = serve(&["fable"], |_| {});
    for path in ["/v1/fine_tuning/jobs", "/v1/fine-tunes"] {
        let response = without_store.post(path, json!({}));
        assert_eq!((response.error().0, response.text.contains("--store")), (404, true));
    }
}

#[test]
fn job_with_data_that_cannot_be_read_fails_and_says_why() {
    let store = tempfile::tempdir().unwrap();
    let server = serve_store(store.path(), |_| {});
    let id = create(&server, json!({}), "{\"prompt\": \"\", \"completion\": \"\"}\n");
    let failed = wait_for_status(&server, &id, &["failed"]);
    let error = &failed["error"];
    assert_eq!((&error["code"], &error["param"]), (&json!("invalid_training_file"), &json!("training_file")));
    assert_eq!(error["message"], "found no text, expected at least one document");
    assert_eq!(server.get(&format!("/v1/fine-tunes/{id}")).ok()["status"], "failed");
}

#[test]
fn jobs_and_models_are_their_keys_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    let limited = Key { models: Some(vec!["fable".into()]), max_jobs: Some(1), ..Key::named("alice") };
    let [alice, bob] = [limited, Key::named("bob")].map(|key| add(&path, &key).unwrap());
    let store = folder.path().join("store");
    let server = serve_store(&store, |options| options.key_file = Some(path)).with_key(&alice);
    let long = json!({"hyperparameters": {"n_epochs": 50, "batch_size": 1}});
    let id = create(&server, long, &examples(60));
    let file = upload(&server, &examples(10));
    let refused = server.post("/v1/fine_tuning/jobs", json!({"training_file": file}));
    assert_eq!((refused.error().0, refused.text.contains("at most 1;")), (429, true), "{}", refused.text);
    server.post(&format!("/v1/fine_tuning/jobs/{id}/cancel"), json!({})).ok();
    let id = create(&server, json!({"hyperparameters": {"n_epochs": 1}}), &examples(10));
    let name = wait_for_status(&server, &id, &["succeeded"])["fine_tuned_model"].clone();
    let name = name.as_str().unwrap();
    assert!(name.starts_with("ft:fable:alice::"), "{name}");
    let body = json!({"model": name, "prompt": "A", "max_tokens": 1});
    server.post("/v1/completions", body.clone()).ok();
    assert_eq!(server.get(&format!("/v1/models/{name}")).ok()["owned_by"], "alice");

    let server = server.with_key(&bob);
    assert_eq!(server.post("/v1/completions", body).error().0, 404);
    for path in [format!("/v1/fine_tuning/jobs/{id}"), format!("/v1/models/{name}")] {
        assert_eq!(server.get(&path).error().0, 404, "{path}");
    }
    assert_eq!(server.delete(&format!("/v1/models/{name}")).error().0, 404);
    for path in ["/v1/fine_tuning/jobs", "/v1/fine-tunes"] {
        assert_eq!(server.get(path).ok()["data"], json!([]));
    }
    assert!(!server.get("/v1/models").text.contains("ft:"));
}
