//! Servers that stop or are killed during a job: the next one goes on to the same bytes.

use super::*;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

fn long_job() -> Value {
    json!({"hyperparameters": {"n_epochs": 3, "batch_size": 2}})
}

/// The bytes that a job without interruption gives.
fn expected(examples: &str) -> Vec<u8> {
    let store = tempfile::tempdir().unwrap();
    let server = serve_store(store.path(), |_| {});
    let id = create(&server, long_job(), examples);
    wait_for_status(&server, &id, &["succeeded"]);
    std::fs::read(result(store.path(), &id, ADAPTER)).unwrap()
}

#[test]
fn server_that_stops_goes_on_with_its_job_when_it_starts_again() {
    let examples = examples(60);
    let store = tempfile::tempdir().unwrap();
    let server = serve_store(store.path(), |_| {});
    let id = create(&server, long_job(), &examples);
    let steps =
        |server: &Client| messages(server, &id).iter().filter(|text| text.starts_with("Step ")).count();
    wait("a step", || steps(&server) > 0);
    drop(server);
    // A server of another model leaves it as it is.
    let other = serve(&["tiny-gelu-new"], |options| options.store = Some(store.path().into()));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(job(&other, &id)["status"], "running");
    drop(other);
    let server = serve_store(store.path(), |_| {});
    wait_for_status(&server, &id, &["succeeded"]);
    let told = messages(&server, &id);
    let once: std::collections::BTreeSet<_> = told.iter().collect();
    assert_eq!(once.len(), told.len(), "told twice: {told:?}");
    assert!(std::fs::read(result(store.path(), &id, ADAPTER)).unwrap() == expected(&examples));
}

/// Starts `hornbook serve` with a store.
fn start(store: &Path) -> (Child, Client) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hornbook"));
    command.args(["serve", "--port", "0", "--threads", "1", "--store"]).arg(store);
    let mut server = command.env_remove("HORNBOOK_ISA").stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("http://") {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "the server has ended");
    }
    std::thread::spawn(move || lines.lines().for_each(drop));
    let address = line.split("http://").nth(1).unwrap().split("/v1").next().unwrap();
    (server, Client::new(address.parse().unwrap()))
}

#[test]
fn server_that_is_killed_goes_on_to_the_same_bytes() {
    let examples = examples(60);
    let store = tempfile::tempdir().unwrap();
    let (mut server, client) = start(store.path());
    let id = create(&client, long_job(), &examples);
    // At moments that differ from run to run.
    for pause in [40, 700, 1500] {
        std::thread::sleep(Duration::from_millis(pause));
        server.kill().unwrap();
        server.wait().unwrap();
        server = start(store.path()).0;
    }
    server.kill().unwrap();
    server.wait().unwrap();
    let (mut server, client) = start(store.path());
    wait_for_status(&client, &id, &["succeeded"]);
    assert!(std::fs::read(result(store.path(), &id, ADAPTER)).unwrap() == expected(&examples));
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn full_disk_makes_a_job_wait() {
    let store = tempfile::tempdir().unwrap();
    let server = serve_store(store.path(), |options| options.store_max_bytes = Some(4_000_000));
    let id = create(&server, json!({"hyperparameters": {"n_epochs": 6, "batch_size": 2}}), &examples(40));
    // Leaves no room for the table of losses.
    let mut fillers = vec![];
    for bytes in [1_000_000, 200_000, 40_000, 8_000, 2_000, 500, 100] {
        loop {
            let uploaded = server.upload(&[("purpose", "batch")], "filler", &vec![b'x'; bytes]);
            if uploaded.status != 200 {
                assert_eq!(uploaded.error().0, 507);
                break;
            }
            fillers.push(uploaded.ok()["id"].as_str().unwrap().to_string());
        }
    }
    let is_waiting = |message: &String| message.starts_with("Waiting for room on the disk: ");
    wait("the job to wait", || messages(&server, &id).iter().any(is_waiting));
    assert_eq!(job(&server, &id)["status"], "running");
    fillers.iter().for_each(|file| drop(server.delete(&format!("/v1/files/{file}")).ok()));
    wait_for_status(&server, &id, &["succeeded"]);
    assert_eq!(messages(&server, &id).iter().filter(|message| is_waiting(message)).count(), 1);
}
