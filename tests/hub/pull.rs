//! The cache after a download, and the requests it makes.

use super::fake_hub::{COMMIT, FakeHub, NAME, output_text};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

#[test]
fn pulled_model_is_cached_and_usable_by_name() {
    let hub = FakeHub::with_model("tiny-gelu-new");
    let (stdout, stderr) = hub.pull();
    let folder = hub.repository().join("snapshots").join(COMMIT);
    assert_eq!(stdout.trim_end(), folder.to_str().unwrap());
    assert!(
        stderr.contains("downloaded")
            && stderr.ends_with("hornbook generate --model someone/tiny --prompt-ids 15,3,7 --output ids\n"),
        "{stderr}"
    );

    // The cache layout of huggingface_hub: blobs by ETag, links to them by file name, a ref with the commit.
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
    let requests = hub.take_requests();
    assert!(requests.iter().any(|request| request.host.starts_with("localhost")), "a redirect was followed");
    assert!(!requests.iter().any(|request| request.path.ends_with(".bin")), "{requests:?}");

    // A second pull verifies the files and downloads nothing.
    let (again, stderr) = hub.pull();
    assert!(again == stdout && stderr.contains("already in the cache"), "{stderr}");
    assert_eq!(hub.take_requests().len(), 1);

    let generate = |model: &str| {
        let args = ["generate", "-m", model, "--prompt-ids", "5,6", "--output", "ids", "--seed", "1"];
        let output = hub.hornbook(&args).output().unwrap();
        assert!(output.status.success(), "{}", output_text(&output).1);
        output.stdout
    };
    assert_eq!(generate(NAME), generate(folder.to_str().unwrap()));

    let output = hub.hornbook(&["models", "--json"]).output().unwrap();
    let models: Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<&str> = models.as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["fable", NAME]);
    let (table, _) = output_text(&hub.hornbook(&["models"]).output().unwrap());
    assert!(table.lines().count() == 3 && table.contains(folder.to_str().unwrap()), "{table}");
    let (card, _) = output_text(&hub.hornbook(&["show", NAME, "--card"]).output().unwrap());
    assert_eq!(card, "# A tiny model\n");
}

#[test]
fn shards_are_downloaded_and_revision_gets_its_own_ref() {
    let hub = FakeHub::with_model("tiny-gelu-new-sharded");
    let output = hub.hornbook(&["pull", NAME, "--revision", "refs/pr/3"]).output().unwrap();
    let (stdout, stderr) = output_text(&output);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains(&format!("--model {}", stdout.trim_end())), "{stderr}");
    for name in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
        assert!(hub.repository().join("snapshots").join(COMMIT).join(name).exists());
    }
    assert_eq!(fs::read_to_string(hub.repository().join("refs/refs/pr/3")).unwrap(), COMMIT);
    assert!(!hub.repository().join("refs/main").exists());
    assert!(hub.take_requests()[0].path.ends_with("/revision/refs%2Fpr%2F3"));
}

#[test]
fn token_is_sent_only_where_required() {
    let hub = FakeHub::with_model("tiny-gelu-new");
    let with_token = || {
        let output = hub.hornbook(&["pull", NAME]).env("HF_TOKEN", "hf_secret").output().unwrap();
        assert!(output.status.success(), "{}", output_text(&output).1);
        hub.take_requests()
    };
    for request in with_token() {
        let is_model_info = request.path.starts_with("/api/");
        assert_eq!(request.token.as_deref(), is_model_info.then_some("Bearer hf_secret"), "{request:?}");
    }
    fs::remove_dir_all(hub.repository()).unwrap();
    hub.set_behavior(|hub| _ = hub.model_info.insert("gated", "auto".into()));
    let requests = with_token();
    assert!(
        requests
            .iter()
            .filter(|request| request.path.contains("/resolve/"))
            .all(|request| request.token.is_some()),
        "{requests:?}"
    );

    // The token may also be stored in a file, as huggingface_hub does.
    hub.pull();
    assert!(hub.take_requests().iter().all(|request| request.token.is_none()));
    fs::write(hub.cache().parent().unwrap().join("token"), "hf_filed\n").unwrap();
    hub.pull();
    assert_eq!(hub.take_requests()[0].token.as_deref(), Some("Bearer hf_filed"));
}

#[test]
fn offline_pull_sends_no_requests() {
    let hub = FakeHub::with_model("tiny-gelu-new");
    let offline = |args: &[&str]| {
        let mut command = hub.hornbook(args);
        command.env("HF_HUB_OFFLINE", "1");
        command
    };
    let line = super::fake_hub::error_line(&mut offline(&["pull", NAME]));
    assert!(line.contains("HF_HUB_OFFLINE is set") && line.contains("--model FOLDER"), "{line}");
    hub.pull();
    hub.take_requests();
    let output = offline(&["pull", NAME]).output().unwrap();
    assert!(
        output.status.success() && output_text(&output).1.contains("is in the cache; HF_HUB_OFFLINE is set")
    );
    assert!(hub.take_requests().is_empty());
}

#[test]
fn proxy_is_used() {
    let hub = FakeHub::with_model("tiny-gelu-new");
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = proxy.local_addr().unwrap();
    let target = hub.port();
    thread::spawn(move || {
        for client in proxy.incoming() {
            thread::spawn(move || forward(client.unwrap(), target));
        }
    });
    let mut command = hub.hornbook(&["pull", NAME]);
    // Only the proxy resolves this host.
    command.env("HF_ENDPOINT", "http://hub.invalid").env("HTTP_PROXY", format!("http://{address}"));
    command.env("ALL_PROXY", format!("http://{address}"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", output_text(&output).1);
    assert!(hub.take_requests()[0].host.starts_with("hub.invalid"));
}

/// Tunnels a client's CONNECT request for any host to the hub.
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
