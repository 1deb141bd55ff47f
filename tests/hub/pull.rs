//! What a download leaves, and who is asked for it.

use super::fake::{COMMIT, Fake, NAME, texts};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

#[test]
fn a_model_is_pulled_once_and_then_is_there_by_name() {
    let hub = Fake::of("tiny-gelu-new");
    let (stdout, stderr) = hub.pulled();
    let folder = hub.repository().join("snapshots").join(COMMIT);
    assert_eq!(stdout.trim_end(), folder.to_str().unwrap());
    assert!(
        stderr.contains("downloaded")
            && stderr.ends_with("hornbook generate --model someone/tiny --prompt-ids 15,3,7 --output ids\n"),
        "{stderr}"
    );

    // The layout of huggingface_hub: blobs by ETag, links to them by name, a ref that names the commit.
    let names = |folder: &str| -> Vec<String> {
        let entries = fs::read_dir(hub.repository().join(folder)).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names("refs"), ["main"]);
    assert_eq!(fs::read_to_string(hub.repository().join("refs/main")).unwrap(), COMMIT);
    assert_eq!(names(&format!("snapshots/{COMMIT}")), ["README.md", "config.json", "model.safetensors"]);
    for name in ["README.md", "config.json", "model.safetensors"] {
        assert_eq!(fs::read(folder.join(name)).unwrap(), hub.file(name));
        let link = fs::read_link(folder.join(name)).unwrap();
        assert!(link.starts_with("../../blobs"), "{}", link.display());
    }
    let seen = hub.seen();
    assert!(seen.iter().any(|seen| seen.host.starts_with("localhost")), "a redirect was followed");
    assert!(!seen.iter().any(|seen| seen.path.ends_with(".bin")), "{seen:?}");

    // A second time everything is compared and nothing fetched.
    let (again, stderr) = hub.pulled();
    assert!(again == stdout && stderr.contains("already in the cache"), "{stderr}");
    assert_eq!(hub.seen().len(), 1);

    let story = |model: &str| {
        let args = ["generate", "-m", model, "--prompt-ids", "5,6", "--output", "ids", "--seed", "1"];
        let output = hub.hornbook(&args).output().unwrap();
        assert!(output.status.success(), "{}", texts(&output).1);
        output.stdout
    };
    assert_eq!(story(NAME), story(folder.to_str().unwrap()));

    let output = hub.hornbook(&["models", "--json"]).output().unwrap();
    let models: Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<&str> = models.as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["fable", NAME]);
    let (table, _) = texts(&hub.hornbook(&["models"]).output().unwrap());
    assert!(table.lines().count() == 3 && table.contains(folder.to_str().unwrap()), "{table}");
    let (card, _) = texts(&hub.hornbook(&["show", NAME, "--card"]).output().unwrap());
    assert_eq!(card, "# A tiny model\n");
}

#[test]
fn shards_are_found_in_their_index_and_a_revision_gets_a_name_of_its_own() {
    let hub = Fake::of("tiny-gelu-new-sharded");
    let output = hub.hornbook(&["pull", NAME, "--revision", "refs/pr/3"]).output().unwrap();
    let (stdout, stderr) = texts(&output);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains(&format!("--model {}", stdout.trim_end())), "{stderr}");
    for name in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
        assert!(hub.repository().join("snapshots").join(COMMIT).join(name).exists());
    }
    assert_eq!(fs::read_to_string(hub.repository().join("refs/refs/pr/3")).unwrap(), COMMIT);
    assert!(!hub.repository().join("refs/main").exists());
    assert!(hub.seen()[0].path.ends_with("/revision/refs%2Fpr%2F3"));
}

#[test]
fn a_token_is_shown_where_it_is_needed() {
    let hub = Fake::of("tiny-gelu-new");
    let with_token = || {
        let output = hub.hornbook(&["pull", NAME]).env("HF_TOKEN", "hf_secret").output().unwrap();
        assert!(output.status.success(), "{}", texts(&output).1);
        hub.seen()
    };
    for seen in with_token() {
        let of_listing = seen.path.starts_with("/api/");
        assert_eq!(seen.token.as_deref(), of_listing.then_some("Bearer hf_secret"), "{seen:?}");
    }
    fs::remove_dir_all(hub.repository()).unwrap();
    hub.behave(|hub| _ = hub.listing.insert("gated", "auto".into()));
    let seen = with_token();
    assert!(
        seen.iter().filter(|seen| seen.path.contains("/resolve/")).all(|seen| seen.token.is_some()),
        "{seen:?}"
    );

    // A token may also lie in a file, where other programs put it.
    hub.pulled();
    assert!(hub.seen().iter().all(|seen| seen.token.is_none()));
    fs::write(hub.cache().parent().unwrap().join("token"), "hf_filed\n").unwrap();
    hub.pulled();
    assert_eq!(hub.seen()[0].token.as_deref(), Some("Bearer hf_filed"));
}

#[test]
fn offline_nobody_is_asked() {
    let hub = Fake::of("tiny-gelu-new");
    let offline = |args: &[&str]| {
        let mut command = hub.hornbook(args);
        command.env("HF_HUB_OFFLINE", "1");
        command
    };
    let line = super::fake::refused(&mut offline(&["pull", NAME]));
    assert!(line.contains("HF_HUB_OFFLINE is set"), "{line}");
    hub.pulled();
    hub.seen();
    let output = offline(&["pull", NAME]).output().unwrap();
    assert!(output.status.success() && texts(&output).1.contains("is in the cache; HF_HUB_OFFLINE is set"));
    assert!(hub.seen().is_empty());
}

#[test]
fn a_proxy_is_used() {
    let hub = Fake::of("tiny-gelu-new");
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = proxy.local_addr().unwrap();
    let target = hub.port();
    thread::spawn(move || {
        for client in proxy.incoming() {
            thread::spawn(move || forward(client.unwrap(), target));
        }
    });
    let mut command = hub.hornbook(&["pull", NAME]);
    // A name that nobody but the proxy knows.
    command.env("HF_ENDPOINT", "http://hub.invalid").env("HTTP_PROXY", format!("http://{address}"));
    command.env("ALL_PROXY", format!("http://{address}"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", texts(&output).1);
    assert!(hub.seen()[0].host.starts_with("hub.invalid"));
}

/// Connects a client that asks for any host with the hub.
fn forward(mut client: TcpStream, target: u16) {
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"CONNECT "), "{}", String::from_utf8_lossy(&head));
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    let hub = TcpStream::connect(("127.0.0.1", target)).unwrap();
    let (mut from_client, mut to_hub) = (client.try_clone().unwrap(), hub.try_clone().unwrap());
    thread::spawn(move || _ = std::io::copy(&mut from_client, &mut to_hub));
    let (mut from_hub, mut to_client) = (hub, client);
    let _ = std::io::copy(&mut from_hub, &mut to_client);
}
