//! Fine-tuning jobs: what both APIs show of them, their results, and servers that are killed meanwhile.

mod jobs;
mod legacy;
mod restarts;

use super::client::{Client, TestServer, serve, wait};
use hornbook::server::ServerOptions;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A server that fine-tunes fable.
fn serve_store(store: &Path, configure: impl FnOnce(&mut ServerOptions)) -> TestServer {
    serve(&["fable"], |options| {
        options.store = Some(store.into());
        configure(options);
    })
}

/// Examples that a model learns within a few steps.
fn examples(n: usize) -> String {
    let example = |i: usize| {
        let name = ["Anna", "Tom", "Mary"][i % 3];
        json!({"prompt": format!("To {name}:"), "completion": " the garden is green and the dog sleeps."})
    };
    (0..n).map(|i| format!("{}\n", example(i))).collect()
}

/// Uploads examples, and returns the file's id.
fn upload(client: &Client, examples: &str) -> String {
    let file = client.upload(&[("purpose", "fine-tune")], "letters.jsonl", examples.as_bytes()).ok();
    file["id"].as_str().unwrap().to_string()
}

/// Creates a job with these fields, and returns its id.
fn create(client: &Client, mut fields: Value, examples: &str) -> String {
    fields["training_file"] = upload(client, examples).into();
    fields["model"] = "fable".into();
    let job = client.post("/v1/fine_tuning/jobs", fields).ok();
    job["id"].as_str().unwrap().to_string()
}

fn job(client: &Client, id: &str) -> Value {
    client.get(&format!("/v1/fine_tuning/jobs/{id}")).ok()
}

/// Waits until a job has one of some statuses, and returns it.
fn wait_for_status(client: &Client, id: &str, statuses: &[&str]) -> Value {
    wait(&format!("{id} to be {statuses:?}"), || {
        let job = job(client, id);
        assert!(job["status"] != "failed" || statuses.contains(&"failed"), "{job}");
        statuses.contains(&job["status"].as_str().unwrap())
    });
    job(client, id)
}

/// The messages of a job's events, the oldest first.
fn messages(client: &Client, id: &str) -> Vec<String> {
    let events = client.get(&format!("/v1/fine_tuning/jobs/{id}/events?limit=100")).ok();
    let messages = events["data"].as_array().unwrap().iter().rev();
    messages.map(|event| event["message"].as_str().unwrap().to_string()).collect()
}

/// The file of a job's result.
fn result(store: &Path, id: &str, file: &str) -> PathBuf {
    store.join("fine_tuning_jobs").join(id).join("run").join(file)
}

/// The bytes that `hornbook finetune` writes with the command that a job has told, and the same examples.
fn trained_by_command(client: &Client, id: &str, examples: &str, file: &str) -> Vec<u8> {
    let told = messages(client, id).into_iter().find_map(|message| {
        message.split_once("comes from hornbook ").map(|(_, arguments)| arguments.to_string())
    });
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("examples.jsonl"), examples).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hornbook"));
    command.args(told.unwrap().split(' ')).args(["--data", "examples.jsonl", "-o", "out"]);
    let output = command.current_dir(folder.path()).env_remove("HORNBOOK_ISA").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(folder.path().join("out").join(file)).unwrap()
}

const ADAPTER: &str = "adapter_model.safetensors";
