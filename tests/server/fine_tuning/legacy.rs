//! `/v1/fine-tunes`, the older view of the same jobs.

use super::*;
use crate::server::client::data;

#[test]
fn older_clients_follow_a_job_to_its_end() {
    let store = tempfile::tempdir().unwrap();
    let server = serve_store(store.path(), |_| {});
    // The client looks for an uploaded file by the path of the local one first.
    assert_eq!(server.get("/v1/files/.%2Fletters.jsonl").error().0, 404);
    let file = upload(&server, &examples(40));
    let fields = json!({"training_file": file, "model": "curie", "n_epochs": 2, "batch_size": 4,
        "learning_rate_multiplier": null, "prompt_loss_weight": 0.1, "suffix": "letters"});
    let created = server.post("/v1/fine-tunes", fields).ok();
    let id = created["id"].as_str().unwrap();
    assert!(id.starts_with("ft-") && created["object"] == "fine-tune", "{created}");
    assert_eq!(created["training_files"][0]["id"], file);
    assert_eq!((&created["status"], &created["fine_tuned_model"]), (&json!("pending"), &Value::Null));

    let stream = server.get(&format!("/v1/fine-tunes/{id}/events?stream=true"));
    assert_eq!(stream.header("content-type"), "text/event-stream");
    let mut events = data(&stream.text);
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    let events: Vec<Value> = events.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    assert!(events.iter().all(|event| event["created_at"].is_u64() && event["level"] == "info"));
    let messages: Vec<_> = events.iter().map(|event| event["message"].as_str().unwrap()).collect();
    assert_eq!(messages[0], format!("Created fine-tune: {id}"));
    assert_eq!(messages[messages.len() - 1], "Fine-tune succeeded");
    assert!(!messages.iter().any(|message| message.starts_with("Step ")), "{messages:?}");

    let done = server.get(&format!("/v1/fine-tunes/{id}")).ok();
    assert_eq!((&done["status"], &done["hyperparams"]["n_epochs"]), (&json!("succeeded"), &json!(2)));
    assert!((done["hyperparams"]["prompt_loss_weight"].as_f64().unwrap() - 0.1).abs() < 1e-6);
    assert_eq!(done["events"].as_array().unwrap().len(), events.len());
    assert_eq!(done["result_files"][0]["purpose"], "fine-tune-results");
    let listed = server.get("/v1/fine-tunes").ok();
    assert_eq!(listed["data"][0]["id"], id);

    // The same job in today's API.
    let new = job(&server, &id.replace("ft-", "ftjob-"));
    assert_eq!((&new["status"], &new["training_file"]), (&json!("succeeded"), &json!(file)));
    assert_eq!(new["fine_tuned_model"], done["fine_tuned_model"]);

    assert_eq!(server.delete(&format!("/v1/fine-tunes/{id}")).ok()["deleted"], true);
    assert_eq!(server.get(&format!("/v1/fine-tunes/{id}")).error().0, 404);
    let name = done["fine_tuned_model"].as_str().unwrap();
    assert_eq!(server.get(&format!("/v1/models/{name}")).error().0, 404);
}

#[test]
fn fields_of_classification_are_refused_by_name() {
    let store = tempfile::tempdir().unwrap();
    let server = serve_store(store.path(), |_| {});
    let file = upload(&server, &examples(3));
    for (field, value) in [
        ("compute_classification_metrics", json!(true)),
        ("prompt_loss_weight", json!(2)),
        ("n_epochs", json!("x")),
    ] {
        let response = server.post("/v1/fine-tunes", json!({"training_file": file, field: value}));
        assert_eq!((response.error().0, response.error().2.as_deref()), (400, Some(field)));
    }
}
