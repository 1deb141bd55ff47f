//! The store of a server that is killed, or that uploads more than its memory.

use crate::server::client::{Client, TIMEOUT, wait};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::read_dir;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server in a process of its own, which is killed at the end.
struct Process {
    child: Child,
    client: Client,
}

impl Process {
    fn start(store: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hornbook"));
        command.args(["serve", "--port", "0", "--max-concurrency", "4", "--store"]).arg(store);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(|line| line.unwrap());
        let greeting = lines.find(|line| line.contains("http://")).expect("no greeting");
        let address = greeting.split("http://").nth(1).unwrap().split('/').next().unwrap();
        std::thread::spawn(move || lines.for_each(drop)); // the log
        Self { child, client: Client::new(address.parse().unwrap()) }
    }

    /// Kills it as `kill -9` does.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn completions(n: usize) -> String {
    let line = |i| {
        json!({"custom_id": format!("r{i}"), "method": "POST", "url": "/v1/completions",
            "body": {"prompt": "The king", "max_tokens": 10 + i % 30, "seed": i}})
    };
    (0..n).map(|i| line(i).to_string() + "\n").collect()
}

/// The choices of each line of a file, whose custom ids are unique.
fn choices(client: &Client, file: &Value) -> BTreeMap<String, Value> {
    let text = client.get(&format!("/v1/files/{}/content", file.as_str().unwrap())).text;
    let line = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        (line["custom_id"].as_str().unwrap().to_string(), line["response"]["body"]["choices"].take())
    };
    let lines: BTreeMap<String, Value> = text.lines().map(line).collect();
    assert_eq!(lines.len(), text.lines().count(), "a request has two answers");
    lines
}

#[test]
fn batch_survives_kills_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let server = Process::start(&store);
    let input = completions(300);
    let file = server.client.upload(&[("purpose", "batch")], "in.jsonl", input.as_bytes()).ok();
    let body =
        json!({"input_file_id": file["id"], "endpoint": "/v1/completions", "completion_window": "24h"});
    let batch = server.client.post("/v1/batches", body).ok();
    let path = format!("/v1/batches/{}", batch["id"].as_str().unwrap());
    let (mut server, mut kills) = (server, 0);
    let done = loop {
        // A different moment each time: before the first answer, among them, and in between.
        let delay = Duration::from_millis(30 + 67 * kills % 400);
        let start = Instant::now();
        while start.elapsed() < delay {
            std::thread::sleep(Duration::from_millis(5));
        }
        let now = server.client.get(&path).ok();
        if now["status"] == "completed" {
            break now;
        }
        if kills < 12 {
            server.kill();
            kills += 1;
            server = Process::start(&store);
        } else {
            wait("the end of the batch", || server.client.get(&path).ok()["status"] == "completed");
        }
    };
    assert!(kills >= 5, "only {kills} kills");
    assert_eq!(done["request_counts"], json!({"total": 300, "completed": 300, "failed": 0}));
    let results = server.client.get("/v1/files?purpose=batch_output").ok();
    assert_eq!(results["data"].as_array().unwrap().len(), 1, "{results}");
    let answered = choices(&server.client, &done["output_file_id"]);
    assert_eq!(answered.len(), 300);
    for i in [0, 7, 150, 299] {
        let body = json!({"prompt": "The king", "max_tokens": 10 + i % 30, "seed": i});
        let live = server.client.post("/v1/completions", body).ok();
        assert_eq!(answered[&format!("r{i}")], live["choices"], "{i}");
    }
}

#[test]
fn upload_that_a_kill_cuts_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let files = store.join("files");
    let server = Process::start(&store);
    let kept = server.client.upload(&[("purpose", "batch")], "a", b"a").ok();
    let head = "POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9000000\r\n\
                content-type: multipart/form-data; boundary=XX\r\n\r\n--XX\r\n\
                Content-Disposition: form-data; name=\"file\"\r\n\r\n";
    let _cut = server.client.send(&(head.to_string() + &"x".repeat(500_000)));
    wait("the upload's begin", || read_dir(&files).unwrap().count() == 2);
    server.kill();
    assert_eq!(read_dir(&files).unwrap().count(), 2);
    let server = Process::start(&store);
    let names: Vec<_> = read_dir(&files).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [kept["id"].as_str().unwrap()]);
    assert_eq!(server.client.get("/v1/files").ok()["data"], json!([kept]));
}

/// The peak of a process' resident memory in bytes.
#[cfg(target_os = "linux")]
fn peak_memory(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() << 10
}

#[test]
#[cfg(target_os = "linux")]
fn upload_takes_little_memory() {
    use std::io::{Read, Write};
    const MIB: usize = 200;
    let folder = tempfile::tempdir().unwrap();
    let server = Process::start(&folder.path().join("store"));
    let before = peak_memory(&server);
    let mut stream = server.client.send(
        "POST /v1/files HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\
         content-type: multipart/form-data; boundary=XX\r\n\r\n",
    );
    let mut send = |bytes: &[u8]| {
        write!(stream, "{:x}\r\n", bytes.len()).unwrap();
        stream.write_all(bytes).and_then(|()| stream.write_all(b"\r\n")).unwrap();
    };
    send(b"--XX\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nfine-tune\r\n--XX\r\n");
    send(b"Content-Disposition: form-data; name=\"file\"\r\n\r\n");
    let line = "{\"prompt\": \"A fox\", \"completion\": \" ran.\"}\n";
    let piece = line.repeat((1 << 20) / line.len());
    (0..MIB).for_each(|_| send(piece.as_bytes()));
    send(b"\r\n--XX--\r\n");
    stream.write_all(b"0\r\n\r\n").unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.contains(&format!("\"bytes\":{}", MIB * piece.len())), "{response}");
    let grown = peak_memory(&server) - before;
    assert!(grown < 32 << 20, "{} MiB more", grown >> 20);
}
