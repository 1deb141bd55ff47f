//! `hornbook batch`, as a user types it.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{read_to_string, write};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn batch(args: &[&str], input: &Path, output: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hornbook"));
    command.arg("batch").arg(input).arg("-o").arg(output).args(args);
    command.env_remove("HORNBOOK_ISA").stdin(Stdio::null());
    command
}

/// A run that must do all it was asked.
fn run(args: &[&str], input: &Path, output: &Path) -> String {
    let Output { status, stdout, stderr } = batch(args, input, output).output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(status.success() && stdout.is_empty(), "{stderr}");
    stderr
}

/// The one line of a run that must fail, after the one that says how far an earlier run has come.
fn fails(args: &[&str], input: &Path, output: &Path) -> String {
    let Output { status, stderr, .. } = batch(args, input, output).output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.contains(" requests are done, ")).collect();
    assert!(status.code() == Some(1) && lines.len() == 1, "{stderr}");
    lines[0].into()
}

fn request(id: &str, url: &str, body: Value) -> String {
    json!({"custom_id": id, "method": "POST", "url": url, "body": body}).to_string() + "\n"
}

/// Completions of different lengths, each with its own seed.
fn completions(n: usize) -> String {
    let body = |i: usize| {
        let prompt = if i.is_multiple_of(2) { "Once upon a time" } else { "The king" };
        json!({"model": "davinci", "prompt": prompt, "max_tokens": 20 + 7 * (i % 9),
            "seed": i, "n": 1 + i % 3, "logprobs": 2, "logit_bias": {"4095": -100}})
    };
    (0..n).map(|i| request(&format!("request-{i}"), "/v1/completions", body(i))).collect()
}

/// The lines of an output, each a whole answer, by their ids, none of which may come twice.
fn answers(output: &str) -> BTreeMap<String, Value> {
    assert!(output.ends_with('\n'));
    let mut all = BTreeMap::new();
    for line in output.lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["custom_id", "error", "id", "response"]); // as serde_json sorts them
        assert!(value["id"].as_str().unwrap().starts_with("batch_req_") && value["error"].is_null());
        assert!(value["response"]["request_id"].as_str().unwrap().starts_with("req_"));
        let id = value["custom_id"].as_str().unwrap().to_string();
        assert!(all.insert(id, value["response"].clone()).is_none(), "twice: {line}");
    }
    all
}

/// What does not change from one run to the next.
fn content(output: &str) -> BTreeMap<String, (Value, Value)> {
    let of = |response: Value| (response["body"]["choices"].clone(), response["body"]["usage"].clone());
    answers(output).into_iter().map(|(id, response)| (id, of(response))).collect()
}

#[test]
fn answers_are_the_servers_and_do_not_depend_on_what_is_computed_together() {
    let folder = tempfile::tempdir().unwrap();
    let (input, together, alone) =
        (folder.path().join("in.jsonl"), folder.path().join("together"), folder.path().join("alone"));
    write(&input, completions(24)).unwrap();
    assert_eq!(run(&[], &input, &together), "");
    run(&["--max-concurrency", "1", "--prefix-cache", "0", "--threads", "1"], &input, &alone);
    let found = content(&read_to_string(&together).unwrap());
    assert_eq!((found.len(), &found), (24, &content(&read_to_string(&alone).unwrap())));
    let choices = found["request-2"].0.as_array().unwrap();
    assert_eq!((choices.len(), &choices[0]["finish_reason"]), (3, &json!("length")));

    // The same as the server's, word for word but for ids and times.
    let server = crate::server::client::fable();
    let first: Value = serde_json::from_str(completions(3).lines().nth(2).unwrap()).unwrap();
    let answer = server.post("/v1/completions", first["body"].clone()).ok();
    let here = &answers(&read_to_string(&together).unwrap())["request-2"]["body"];
    for field in ["object", "model", "choices", "usage", "system_fingerprint"] {
        assert_eq!(answer[field], here[field], "{field}");
    }
}

#[test]
fn a_killed_run_goes_on_without_a_line_lost_or_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output, whole) =
        (folder.path().join("in.jsonl"), folder.path().join("out.jsonl"), folder.path().join("whole"));
    write(&input, completions(90)).unwrap();
    let mut kills = 0;
    for least in [3, 20] {
        let mut child =
            batch(&["--max-concurrency", "4"], &input, &output).stderr(Stdio::piped()).spawn().unwrap();
        let start = Instant::now();
        while read_to_string(&output).map_or(0, |text| text.lines().count()) < least {
            assert!(start.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none());
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().unwrap(); // SIGKILL: nothing can be put in order
        child.wait().unwrap();
        let left = read_to_string(&output).unwrap();
        if left.lines().count() < 90 {
            kills += 1;
        }
        // As when the power had gone in the middle of a line, wherever the kill fell.
        let half = left.lines().next().unwrap();
        write(&output, format!("{}{}", &left[..=left.rfind('\n').unwrap()], &half[..half.len() / 2]))
            .unwrap();
    }
    assert!(kills > 0, "both runs had ended before they were killed");
    let done = read_to_string(&output).unwrap().lines().count() - 1;
    let said = run(&[], &input, &output);
    assert!(
        said.starts_with(&format!("hornbook: {done} of 90 requests are done, {} are left", 90 - done)),
        "{said}"
    );
    run(&["--max-concurrency", "2"], &input, &whole);
    let found = content(&read_to_string(&output).unwrap());
    assert_eq!((found.len(), found), (90, content(&read_to_string(&whole).unwrap())));

    // With nothing left, nothing is done and nothing loaded.
    let before = read_to_string(&output).unwrap();
    let said = run(&["--model", "no-such-model"], &input, &output);
    assert!(said.contains("90 of 90 requests are done, 0 are left"), "{said}");
    assert_eq!(read_to_string(&output).unwrap(), before);
}

#[test]
fn all_three_kinds_are_answered_and_a_refusal_is_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.jsonl"), folder.path().join("out.jsonl"));
    let chat = json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4});
    let lines = [
        request("words", "/v1/completions", json!({"prompt": "The", "max_tokens": 3})),
        request("talk", "/v1/chat/completions", chat),
        request("vector", "/v1/embeddings", json!({"input": "The king", "encoding_format": "float"})),
        request("long", "/v1/completions", json!({"prompt": "The", "max_tokens": 512})),
        request("wrong", "/v1/completions", json!({"prompt": "The", "temperature": "hot"})),
        request("many", "/v1/completions", json!({"prompt": vec!["The"; 200], "max_tokens": 1})),
    ];
    write(&input, lines.concat()).unwrap();
    let line = fails(&[], &input, &output);
    let name = output.display().to_string();
    assert!(line.starts_with(&format!("hornbook: {name}: 2 of 6 requests were refused, \"")), "{line}");
    let found = answers(&read_to_string(&output).unwrap());
    let status = |id: &str| found[id]["status_code"].as_u64().unwrap();
    assert_eq!(
        ["words", "talk", "vector", "long", "wrong", "many"].map(status),
        [200, 200, 200, 400, 400, 200]
    );
    assert_eq!(found["talk"]["body"]["object"], "chat.completion");
    assert_eq!(found["vector"]["body"]["data"][0]["embedding"].as_array().unwrap().len(), 256);
    assert_eq!(found["long"]["body"]["error"]["code"], "context_length_exceeded");
    assert_eq!(found["wrong"]["body"]["error"]["param"], "temperature");
    assert_eq!(found["many"]["body"]["choices"].as_array().unwrap().len(), 200);
    // A refusal is no less final; a line that is taken out is asked again.
    let text = read_to_string(&output).unwrap();
    assert!(fails(&[], &input, &output).contains("2 of 6 requests were refused"));
    assert_eq!(read_to_string(&output).unwrap(), text);
    let kept: String =
        text.lines().filter(|line| !line.contains("\"long\"")).map(|l| l.to_string() + "\n").collect();
    write(&output, &kept).unwrap();
    fails(&[], &input, &output);
    let again = read_to_string(&output).unwrap();
    assert!(again.starts_with(&kept) && again.lines().count() == 6, "{again}");
}

#[test]
fn what_is_wrong_is_said_before_anything_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.jsonl"), folder.path().join("out.jsonl"));
    let good = request("a", "/v1/completions", json!({"prompt": "A", "max_tokens": 1}));
    for (lines, part) in [
        (format!("{good}{{\"custom_id\""), "in.jsonl: line 2: found no JSON (EOF"),
        (format!("{good}{good}"), "in.jsonl: line 2: custom_id: found \"a\", which line 1 has"),
        (good.replace("POST", "GET"), "in.jsonl: line 1: method: found \"GET\", expected \"POST\""),
        (
            good.replace("/v1/completions", "/v1/images"),
            "in.jsonl: line 1: url: found \"/v1/images\", expected",
        ),
        (String::new(), "in.jsonl: found no request, expected one a line"),
    ] {
        write(&input, lines).unwrap();
        let line = fails(&[], &input, &output);
        assert!(line.contains(part) && !output.exists(), "{part}: {line}");
    }
    write(&input, &good).unwrap();
    assert!(
        fails(&["--model", "no-such-model"], &input, &output).contains("model 'no-such-model' not found")
    );
    assert!(fails(&[], &folder.path().join("none"), &output).contains("none: cannot read"));
    assert!(fails(&[], &input, &folder.path().join("no/out")).contains("out: cannot open"));
    // What is somebody else's is not touched, the input least of all.
    for text in ["Dear diary,\nnothing happened.\n", "Dear diary", good.as_str()] {
        write(&output, text).unwrap();
        let line = fails(&[], &input, &output);
        assert!(line.contains("no answer of a batch; choose another --output"), "{line}");
        assert_eq!(read_to_string(&output).unwrap(), text);
    }
    assert!(fails(&[], &input, &input).contains("no answer of a batch"));
    // Two runs do not write to one file.
    write(&output, "").unwrap();
    let held = std::fs::File::open(&output).unwrap();
    held.lock().unwrap();
    assert!(fails(&[], &input, &output).contains("out.jsonl: another run is writing to it"));
}

#[test]
fn it_reads_from_and_writes_to_pipes() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.jsonl");
    write(&input, completions(30)).unwrap();
    let piped = |output: Stdio| {
        let mut child = batch(&[], Path::new("-"), Path::new("-"))
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(completions(30).as_bytes()).unwrap();
        child
    };
    let Output { status, stdout, stderr } = piped(Stdio::piped()).wait_with_output().unwrap();
    assert!(status.success() && stderr.is_empty(), "{}", String::from_utf8_lossy(&stderr));
    assert_eq!(answers(&String::from_utf8(stdout).unwrap()).len(), 30);
    // Whoever has seen enough may go, as `head` does.
    let mut child = piped(Stdio::piped());
    let mut line = String::new();
    let mut reader = BufReader::with_capacity(1, child.stdout.take().unwrap());
    reader.read_line(&mut line).unwrap();
    drop(reader);
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    assert!(status.success() && stderr.is_empty(), "{}", String::from_utf8_lossy(&stderr));
    assert_eq!(answers(&line).len(), 1);
    let wrong = batch(&[], Path::new("-"), Path::new("-")).output().unwrap();
    assert!(String::from_utf8(wrong.stderr).unwrap().contains("standard input: found no request"));
}
