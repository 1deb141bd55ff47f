//! The command `hornbook batch`.

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
    command.env_remove("HORNBOOK_ISA").env("SOURCE_DATE_EPOCH", "1700000000").stdin(Stdio::null());
    command
}

/// Runs a batch that must succeed; returns its stderr.
fn run(args: &[&str], input: &Path, output: &Path) -> String {
    let Output { status, stdout, stderr } = batch(args, input, output).output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(status.success() && stdout.is_empty(), "{stderr}");
    stderr
}

/// Runs a batch; returns whether it succeeded, and its stderr.
fn run_or_fail(args: &[&str], input: &Path, output: &Path) -> (bool, String) {
    let Output { status, stderr, .. } = batch(args, input, output).output().unwrap();
    (status.success(), String::from_utf8(stderr).unwrap())
}

/// Runs a batch that must fail; returns its one error line, without the note on resuming.
fn run_failing(args: &[&str], input: &Path, output: &Path) -> String {
    let Output { status, stderr, .. } = batch(args, input, output).output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.contains(" requests done, ")).collect();
    assert!(status.code() == Some(1) && lines.len() == 1, "{stderr}");
    lines[0].into()
}

fn request(id: &str, url: &str, body: Value) -> String {
    json!({"custom_id": id, "method": "POST", "url": url, "body": body}).to_string() + "\n"
}

/// Requests for completions of different lengths, each with its own seed.
fn completions(n: usize) -> String {
    let body = |i: usize| {
        let prompt = if i.is_multiple_of(2) { "Once upon a time" } else { "The king" };
        json!({"model": "davinci", "prompt": prompt, "max_tokens": 20 + 7 * (i % 9),
            "seed": i, "n": 1 + i % 3, "logprobs": 2, "logit_bias": {"4095": -100}})
    };
    (0..n).map(|i| request(&format!("request-{i}"), "/v1/completions", body(i))).collect()
}

/// Parses all lines of an output; returns the responses by their ids, which must be unique.
fn responses(output: &str) -> BTreeMap<String, Value> {
    assert!(output.ends_with('\n'));
    let mut all = BTreeMap::new();
    for line in output.lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["custom_id", "error", "id", "response"]); // as serde_json sorts them
        assert!(value["id"].as_str().unwrap().starts_with("batch_req_") && value["error"].is_null());
        assert!(value["response"]["request_id"].as_str().unwrap().starts_with("req_"));
        let id = value["custom_id"].as_str().unwrap().to_string();
        assert!(all.insert(id, value["response"].clone()).is_none(), "duplicate: {line}");
    }
    all
}

/// Returns the parts of all responses that are the same in every run.
fn reproducible_content(output: &str) -> BTreeMap<String, (Value, Value)> {
    let choices_and_usage =
        |response: Value| (response["body"]["choices"].clone(), response["body"]["usage"].clone());
    responses(output).into_iter().map(|(id, response)| (id, choices_and_usage(response))).collect()
}

#[test]
fn responses_equal_the_servers_and_do_not_depend_on_batching() {
    let folder = tempfile::tempdir().unwrap();
    let (input, batched, unbatched) =
        (folder.path().join("in.jsonl"), folder.path().join("batched"), folder.path().join("unbatched"));
    write(&input, completions(24)).unwrap();
    assert_eq!(run(&[], &input, &batched), "");
    run(&["--max-concurrency", "1", "--prefix-cache", "0", "--threads", "1"], &input, &unbatched);
    let drafted = folder.path().join("drafted");
    run(&["--draft", "int4", "--max-concurrency", "2", "--precision", "f32"], &input, &drafted);
    let float = folder.path().join("float");
    run(&["--precision", "f32"], &input, &float);
    let [drafted, float] = [drafted, float].map(|file| reproducible_content(&read_to_string(file).unwrap()));
    assert_eq!(drafted, float);
    let contents = reproducible_content(&read_to_string(&batched).unwrap());
    assert_eq!(
        (contents.len(), &contents),
        (24, &reproducible_content(&read_to_string(&unbatched).unwrap()))
    );
    let choices = contents["request-2"].0.as_array().unwrap();
    assert_eq!((choices.len(), &choices[0]["finish_reason"]), (3, &json!("length")));

    // The same as the server's responses, except ids and times.
    let server = crate::server::client::fable();
    let first: Value = serde_json::from_str(completions(3).lines().nth(2).unwrap()).unwrap();
    let response = server.post("/v1/completions", first["body"].clone()).ok();
    let batch_body = &responses(&read_to_string(&batched).unwrap())["request-2"]["body"];
    for field in ["object", "model", "choices", "usage", "system_fingerprint"] {
        assert_eq!(response[field], batch_body[field], "{field}");
    }
}

#[test]
fn shards_merge_to_the_responses_of_one_run_in_the_order_of_the_requests() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let input = path("in.jsonl");
    write(&input, completions(11)).unwrap();
    run(&[], &input, &path("whole"));
    for shard in 1..=3 {
        let output = path(&format!("out-{shard}"));
        run(&["--shard", &format!("{shard}/3"), "--threads", ["1", "2"][shard % 2]], &input, &output);
    }
    assert_eq!(read_to_string(path("out-3")).unwrap().lines().count(), 3);
    let merge = |outputs: &[&str]| {
        let outputs: Vec<String> = outputs.iter().map(|name| path(name).display().to_string()).collect();
        let mut args = vec!["--merge"];
        args.extend(outputs.iter().map(String::as_str));
        (run_or_fail(&args, &input, &path("merged")), read_to_string(path("merged")))
    };
    let ((true, _), Ok(merged)) = merge(&["out-2", "out-3", "out-1"]) else { panic!() };
    let whole = read_to_string(path("whole")).unwrap();
    assert_eq!(reproducible_content(&merged), reproducible_content(&whole));
    let ids = |text: &str| -> Vec<Value> {
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["custom_id"].clone()).collect()
    };
    assert_eq!(ids(&merged), ids(&completions(11)));
    let mut unset = batch(&[], &input, &path("never"));
    let stderr = unset.env("SOURCE_DATE_EPOCH", "yesterday").output().unwrap().stderr;
    let expected = "hornbook: SOURCE_DATE_EPOCH: found \"yesterday\", expected seconds since 1970\n";
    assert_eq!(String::from_utf8(stderr).unwrap(), expected);
    // A single output is put in order, and a merged one can be merged again.
    let ((true, _), Ok(ordered)) = merge(&["whole"]) else { panic!() };
    assert_eq!(ordered, merged, "the same bytes: of one run, and of three with other threads and neighbors");
    assert!(merged.lines().all(|line| line.contains(r#""created":1700000000,"#)), "{merged}");

    std::fs::remove_file(path("merged")).unwrap();
    run(&["--precision", "int8", "--shard", "3/3"], &input, &path("int8-3"));
    let partial = read_to_string(path("out-2")).unwrap();
    write(path("cut-2"), &partial[..partial.len() - 9]).unwrap();
    for (outputs, expected) in [
        (&["out-1", "out-3"][..], "4 of 11 requests have no response, the first is \"request-1\""),
        (&["out-1", "cut-2", "out-3"], "1 of 11 requests have no response"),
        (&["out-1", "out-2", "out-3", "out-2"], "has a response already, in "),
        (&["out-1", "out-2", "int8-3"], "int8-3: the responses are those of another model, precision"),
        (&["out-1", "none"], "none: cannot open"),
        (&["in.jsonl"], "in.jsonl: line 1 is not a batch response"),
    ] {
        let ((success, stderr), merged) = merge(outputs);
        assert!(!success && stderr.contains(expected) && stderr.lines().count() == 1, "{stderr}");
        assert!(merged.is_err(), "no part of an output is left");
    }
    // Nothing is computed, so that no option about that can be meant.
    for option in ["--model=fable", "--precision=int8", "--threads=1", "--max-concurrency=2", "--draft=int4"]
    {
        let (success, error) = run_or_fail(&["--merge", "a", option], &input, &path("merged"));
        assert!(
            !success && error.contains("'--merge <FILE>...' cannot be used with '--"),
            "{option}: {error}"
        );
    }
    // The output of one shard is not that of another.
    let error = run_failing(&["--shard", "1/3"], &input, &path("out-2"));
    assert!(error.contains("which is not in shard 1/3 of "), "{error}");
    let (success, error) = run_or_fail(&["--shard", "4/3"], &input, &path("out-4"));
    assert!(!success && error.contains("expected I/N with I from 1 to N, e.g. 2/8"), "{error}");
}

#[test]
fn killed_run_resumes_without_lost_or_duplicate_lines() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output, uninterrupted) = (
        folder.path().join("in.jsonl"),
        folder.path().join("out.jsonl"),
        folder.path().join("uninterrupted"),
    );
    write(&input, completions(90)).unwrap();
    let mut kills = 0;
    for min_lines in [3, 20] {
        let mut child =
            batch(&["--max-concurrency", "4"], &input, &output).stderr(Stdio::piped()).spawn().unwrap();
        let start = Instant::now();
        while read_to_string(&output).map_or(0, |text| text.lines().count()) < min_lines {
            assert!(start.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none());
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().unwrap(); // SIGKILL, so that nothing is cleaned up
        child.wait().unwrap();
        let partial = read_to_string(&output).unwrap();
        if partial.lines().count() < 90 {
            kills += 1;
        }
        // Appends half a line, as after a power failure.
        let line = partial.lines().next().unwrap();
        write(&output, format!("{}{}", &partial[..=partial.rfind('\n').unwrap()], &line[..line.len() / 2]))
            .unwrap();
    }
    assert!(kills > 0, "both runs finished before they were killed");
    let done = read_to_string(&output).unwrap().lines().count() - 1;
    let note = run(&[], &input, &output);
    assert!(
        note.starts_with(&format!("hornbook: {done} of 90 requests done, {} remaining", 90 - done)),
        "{note}"
    );
    run(&["--max-concurrency", "2"], &input, &uninterrupted);
    let contents = reproducible_content(&read_to_string(&output).unwrap());
    assert_eq!(
        (contents.len(), contents),
        (90, reproducible_content(&read_to_string(&uninterrupted).unwrap()))
    );

    // With no requests remaining, no model is loaded.
    let before = read_to_string(&output).unwrap();
    let note = run(&["--model", "no-such-model"], &input, &output);
    assert!(note.contains("90 of 90 requests done, 0 remaining"), "{note}");
    assert_eq!(read_to_string(&output).unwrap(), before);
}

#[test]
fn all_endpoints_get_responses_and_errors_are_responses() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.jsonl"), folder.path().join("out.jsonl"));
    let chat = json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4});
    let lines = [
        request("words", "/v1/completions", json!({"prompt": "The", "max_tokens": 3})),
        request("talk", "/v1/chat/completions", chat),
        request("answer", "/v1/responses", json!({"input": "Hi", "max_output_tokens": 4})),
        request("vector", "/v1/embeddings", json!({"input": "The king", "encoding_format": "float"})),
        request("long", "/v1/completions", json!({"prompt": "The", "max_tokens": 512})),
        request("wrong", "/v1/completions", json!({"prompt": "The", "temperature": "hot"})),
        request("many", "/v1/completions", json!({"prompt": vec!["The"; 200], "max_tokens": 1})),
    ];
    write(&input, lines.concat()).unwrap();
    let line = run_failing(&[], &input, &output);
    let name = output.display().to_string();
    assert!(line.starts_with(&format!("hornbook: {name}: 2 of 7 requests failed, the first: \"")), "{line}");
    let contents = responses(&read_to_string(&output).unwrap());
    let status = |id: &str| contents[id]["status_code"].as_u64().unwrap();
    assert_eq!(
        ["words", "talk", "answer", "vector", "long", "wrong", "many"].map(status),
        [200, 200, 200, 200, 400, 400, 200]
    );
    assert_eq!(contents["talk"]["body"]["object"], "chat.completion");
    assert_eq!(contents["answer"]["body"]["object"], "response");
    assert_eq!(contents["vector"]["body"]["data"][0]["embedding"].as_array().unwrap().len(), 256);
    assert_eq!(contents["long"]["body"]["error"]["code"], "context_length_exceeded");
    assert_eq!(contents["wrong"]["body"]["error"]["param"], "temperature");
    assert_eq!(contents["many"]["body"]["choices"].as_array().unwrap().len(), 200);
    // A failed request is not repeated; a request whose line was removed is.
    let text = read_to_string(&output).unwrap();
    assert!(run_failing(&[], &input, &output).contains("2 of 7 requests failed"));
    assert_eq!(read_to_string(&output).unwrap(), text);
    let remaining: String =
        text.lines().filter(|line| !line.contains("\"long\"")).map(|l| l.to_string() + "\n").collect();
    write(&output, &remaining).unwrap();
    run_failing(&[], &input, &output);
    let again = read_to_string(&output).unwrap();
    assert!(again.starts_with(&remaining) && again.lines().count() == 7, "{again}");
}

#[test]
fn invalid_input_fails_before_any_request_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.jsonl"), folder.path().join("out.jsonl"));
    let valid = request("a", "/v1/completions", json!({"prompt": "A", "max_tokens": 1}));
    for (lines, expected) in [
        (format!("{valid}{{\"custom_id\""), "in.jsonl: line 2: not valid JSON (EOF"),
        (format!("{valid}{valid}"), "in.jsonl: line 2: custom_id: found \"a\", already used in line 1"),
        (valid.replace("POST", "GET"), "in.jsonl: line 1: method: found \"GET\", expected \"POST\""),
        (
            valid.replace("/v1/completions", "/v1/images"),
            "in.jsonl: line 1: url: found \"/v1/images\", expected",
        ),
        (String::new(), "in.jsonl: found no requests, expected one per line"),
    ] {
        write(&input, lines).unwrap();
        let line = run_failing(&[], &input, &output);
        assert!(line.contains(expected) && !output.exists(), "{expected}: {line}");
    }
    write(&input, &valid).unwrap();
    assert!(
        run_failing(&["--model", "no-such-model"], &input, &output)
            .contains("model 'no-such-model' not found")
    );
    assert!(run_failing(&[], &folder.path().join("none"), &output).contains("none: cannot read"));
    assert!(run_failing(&[], &input, &folder.path().join("no/out")).contains("out: cannot open"));
    // A file with other content is not modified, nor is the input.
    for text in ["Dear diary,\nnothing happened.\n", "Dear diary", valid.as_str()] {
        write(&output, text).unwrap();
        let line = run_failing(&[], &input, &output);
        assert!(line.contains("not a batch response; choose another --output"), "{line}");
        assert_eq!(read_to_string(&output).unwrap(), text);
    }
    assert!(run_failing(&[], &input, &input).contains("not a batch response"));
    // Two runs cannot write to the same file.
    write(&output, "").unwrap();
    let locked = std::fs::File::open(&output).unwrap();
    locked.lock().unwrap();
    assert!(run_failing(&[], &input, &output).contains("out.jsonl: another run is writing to it"));
}

#[test]
fn pipes_work_as_input_and_output() {
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
    assert_eq!(responses(&String::from_utf8(stdout).unwrap()).len(), 30);
    // A reader may close the pipe early, as `head` does.
    let mut child = piped(Stdio::piped());
    let mut line = String::new();
    let mut reader = BufReader::with_capacity(1, child.stdout.take().unwrap());
    reader.read_line(&mut line).unwrap();
    drop(reader);
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    assert!(status.success() && stderr.is_empty(), "{}", String::from_utf8_lossy(&stderr));
    assert_eq!(responses(&line).len(), 1);
    let empty_input = batch(&[], Path::new("-"), Path::new("-")).output().unwrap();
    assert!(String::from_utf8(empty_input.stderr).unwrap().contains("standard input: found no requests"));
}

#[test]
fn changed_request_or_settings_are_refused_on_resuming() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.jsonl"), folder.path().join("out.jsonl"));
    let body = |max_tokens: u32| json!({"prompt": [1, 2], "max_tokens": max_tokens, "seed": 1});
    let all = |max_tokens: u32| -> String {
        ["a", "b"].map(|id| request(id, "/v1/completions", body(max_tokens))).concat()
    };
    write(&input, all(3)).unwrap();
    run(&[], &input, &output);
    let before = read_to_string(&output).unwrap();
    // Key order and white space do not matter.
    write(&input, all(3).replace(":", " : ")).unwrap();
    assert!(run(&[], &input, &output).contains("2 of 2 requests done"));
    for args in
        [&["--precision", "int8"][..], &["--model", "tests/data/tiny-gelu-new"], &["--kv-precision", "f16"]]
    {
        let error = run_failing(args, &input, &output);
        assert!(error.contains("those of another model, precision or chat template"), "{error}");
    }
    write(&input, all(4)).unwrap();
    let error = run_failing(&[], &input, &output);
    assert!(error.contains("line 1: the request ") && error.contains("choose another --output"), "{error}");
    assert_eq!(read_to_string(&output).unwrap(), before);
}

#[test]
fn nul_bytes_at_the_end_are_removed_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.jsonl"), folder.path().join("out.jsonl"));
    write(&input, completions(3)).unwrap();
    run(&["--max-concurrency", "1"], &input, &output);
    let complete = read_to_string(&output).unwrap();
    let second_line = complete.find('\n').unwrap() + 1;
    write(&output, format!("{}{}", &complete[..second_line + 30], "\0".repeat(5000))).unwrap();
    let note = run(&[], &input, &output);
    assert_eq!(
        note,
        "hornbook: 1 of 3 requests done, 2 remaining; line 2 was incomplete: removed the last 5030 bytes\n"
    );
    let resumed = read_to_string(&output).unwrap();
    assert_eq!(reproducible_content(&resumed), reproducible_content(&complete));
}
