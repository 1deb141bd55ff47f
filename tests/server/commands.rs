//! The commands `hornbook serve` and `hornbook keys`.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

pub(super) fn hornbook(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hornbook"));
    command.args(args).env_remove("HORNBOOK_ISA").stdin(Stdio::null());
    command
}

/// Returns the one-line error of a command that must fail.
fn error_line(args: &[&str]) -> String {
    let Output { status, stdout, stderr } = hornbook(args).output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(
        !status.success() && stdout.is_empty() && stderr.trim_end().lines().count() == 1,
        "{args:?}: {stderr}"
    );
    stderr
}

/// Starts a server and returns it with the address it prints.
fn serve(args: &[&str]) -> (Child, String, BufReader<ChildStderr>) {
    start_server(hornbook(&["serve", "--port", "0", "--threads", "1"]).args(args))
}

/// [`serve`] by this command.
pub(super) fn start_server(command: &mut Command) -> (Child, String, BufReader<ChildStderr>) {
    let mut server = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap());
    let (mut greeting, mut curl) = (String::new(), String::new());
    while !greeting.contains("hornbook: ") {
        greeting.clear(); // a warning
        assert!(lines.read_line(&mut greeting).unwrap() > 0, "the server has ended");
    }
    lines.read_line(&mut curl).unwrap();
    let address = greeting
        .split("http://")
        .nth(1)
        .unwrap_or_else(|| panic!("{greeting}"))
        .split("/v1")
        .next()
        .unwrap()
        .to_string();
    assert!(curl.contains(&format!("curl http://{address}/v1/completions")), "{curl}");
    (server, address, lines)
}

#[test]
fn serve_prints_its_address_and_stops_on_ctrl_c() {
    let aliases = [
        "--alias",
        "text-davinci-002=fable",
        "--precision",
        "int8",
        "--kv-precision",
        "f16",
        "--prefix-cache",
        "1MiB",
    ];
    let (mut server, address, mut lines) = serve(&aliases);
    let body = serde_json::json!({"model": "text-davinci-002", "prompt": "A secret", "max_tokens": 2});
    let mut response = ureq::post(format!("http://{address}/v1/completions")).send_json(body).unwrap();
    let response: serde_json::Value = response.body_mut().read_json().unwrap();
    assert_eq!(response["model"], "text-davinci-002");
    let mut logged = String::new();
    lines.read_line(&mut logged).unwrap();
    for part in [
        "POST /completions",
        "id=",
        "req_",
        "model=",
        "text-davinci-002",
        "prompt_tokens",
        "completion_tokens",
        "first_token_ms",
        "finish",
    ] {
        assert!(logged.contains(part), "{part}: {logged}");
    }
    assert!(!logged.contains("secret"), "{logged}");
    interrupt(&server);
    assert!(server.wait().unwrap().success());
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert!(rest.starts_with("hornbook: shutting down"), "{rest}");

    let (server, address, mut lines) = serve(&["--log-prompts"]);
    let body = serde_json::json!({"prompt": "A secret", "max_tokens": 2});
    ureq::post(format!("http://{address}/v1/completions")).send_json(body).unwrap();
    let mut logged = String::new();
    lines.read_line(&mut logged).unwrap();
    assert!(logged.contains("A secret"), "{logged}");
    kill(server);
}

#[cfg(unix)]
fn interrupt(server: &Child) {
    assert!(Command::new("kill").args(["-INT", &server.id().to_string()]).status().unwrap().success());
}

fn kill(mut server: Child) {
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn server_without_log_reader_answers_every_request() {
    // A reader that went away, and one that stopped reading: the pipe is full after a few hundred lines.
    let (closed, closed_address, lines) = serve(&[]);
    drop(lines);
    let (stalled, stalled_address, _stalled_lines) = serve(&[]);
    for (server, address, requests) in [(closed, closed_address, 3), (stalled, stalled_address, 2500)] {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().timeout_global(Some(super::client::TIMEOUT)).build().into();
        for _ in 0..requests {
            let response = agent.get(format!("http://{address}/health")).call().unwrap();
            assert_eq!(response.status(), 200);
        }
        kill(server);
    }
}

#[cfg(unix)]
#[test]
fn sigterm_finishes_streams_and_rejects_new_requests() {
    let (mut server, address, mut lines) = serve(&["--grace", "60"]);
    let body = serde_json::json!({"prompt": "The", "max_tokens": 500, "n": 8, "stream": true,
        "logit_bias": {"4095": -100}});
    let mut running = ureq::post(format!("http://{address}/v1/completions")).send_json(body).unwrap();
    assert!(Command::new("kill").args(["-TERM", &server.id().to_string()]).status().unwrap().success());
    let mut notice = String::new();
    lines.read_line(&mut notice).unwrap();
    assert!(notice.starts_with("hornbook: shutting down"), "{notice}");
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let request = serde_json::json!({"prompt": "A", "max_tokens": 1});
    let rejected = agent.post(format!("http://{address}/v1/completions")).send_json(request).unwrap();
    assert_eq!((rejected.status().as_u16(), rejected.headers()["retry-after"].to_str().unwrap()), (503, "5"));
    assert!(server.try_wait().unwrap().is_none(), "the stream finished too early for this test");
    let text = running.body_mut().read_to_string().unwrap();
    assert!(text.trim_end().ends_with("data: [DONE]"), "{}", &text[text.len().saturating_sub(200)..]);
    assert!(server.wait().unwrap().success());
}

#[test]
fn invalid_option_is_one_line_error() {
    let occupied = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = occupied.local_addr().unwrap().port().to_string();
    let line = error_line(&["serve", "--port", &port]);
    assert!(line.contains(&format!("127.0.0.1:{port} is already in use")), "{line}");
    for (args, part) in [
        (&["serve", "--host", "0.0.0.0"][..], "no API key would be required"),
        (&["serve", "--alias", "x=gpt9"], "alias: found x=gpt9, expected one of the models served: fable"),
        (&["serve", "--alias", "x"], "expected NAME=MODEL"),
        (&["serve", "--model", "no-such-model"], "model 'no-such-model' not found"),
        (&["serve", "--model", "fable", "--model", "fable"], "two models are named 'fable'"),
        (&["serve", "--host", "no host"], "--host: found no host"),
        (&["serve", "--keys", "/no/such.toml"], "/no/such.toml: cannot read"),
        (&["serve", "--chat-template", "/no/such.jinja"], "/no/such.jinja: cannot read"),
        (&["serve", "--max-concurrency", "0"], "expected an integer from 1 to 65536"),
        (&["serve", "--prefix-cache", "lots"], "expected a size such as 256MiB"),
        (&["serve", "--keys", "k", "--no-auth"], "cannot be used with"),
        (&["serve", "--train-share", "0.2"], "--store <DIR>"),
        (&["keys", "list", "--keys", "/no/such.toml"], "/no/such.toml: cannot read"),
        (
            &["keys", "add", "a", "--rpm", "0", "--keys", "/tmp/none.toml"],
            "expected an integer of at least 1",
        ),
    ] {
        let line = error_line(args);
        assert!(line.contains(part), "{part}: {line}");
    }
}

#[test]
fn added_key_is_printed_and_authenticates_until_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    let file = path.to_str().unwrap();
    let run = |args: &[&str]| {
        let output = hornbook(args).args(["--keys", file]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let key = run(&["keys", "add", "alice", "--rpm", "100", "--tpm", "5000", "--model", "fable"]);
    run(&["keys", "add", "bob", "--rpm", "1000", "--max-jobs", "3"]);
    let listed = run(&["keys", "list"]);
    assert_eq!(listed.lines().count(), 2);
    assert!(
        listed.contains("100 requests per minute  5000 tokens per minute  models: fable")
            && listed.contains("1000 requests per minute  3 fine-tuning jobs")
            && !listed.contains(key.trim()),
        "{listed}"
    );

    let (server, address, _lines) = serve(&["--keys", file]);
    let list_models = |key: &str| {
        ureq::get(format!("http://{address}/v1/models"))
            .header("authorization", format!("Bearer {}", key.trim()))
            .call()
    };
    list_models(&key).unwrap();
    assert!(matches!(list_models("wrong"), Err(ureq::Error::StatusCode(401))));
    run(&["keys", "remove", "alice"]);
    assert!(matches!(list_models(&key), Err(ureq::Error::StatusCode(401))));
    kill(server);
}
