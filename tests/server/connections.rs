//! Connections that come, go, stall, or ask for more than there is.

use super::client::{Asked, PATIENCE, fable, open, serve, wait};
use hornbook::server::{Listening, ServerOptions};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Long enough to be interrupted.
fn long(stream: bool) -> Value {
    json!({"prompt": "The", "max_tokens": 500, "stream": stream, "logit_bias": {"4095": -100}, "n": 4})
}

#[test]
fn detail_25_a_client_that_goes_away_cancels_its_request_wherever_it_is() {
    // While it is computed, streamed or not.
    for stream in [true, false] {
        let server = fable();
        let connection = server.begin("/v1/completions", &long(stream));
        server.wait_for("hornbook_sequences_running", |running| running == 4.0);
        drop(connection);
        server.wait_for("hornbook_sequences_running", |running| running == 0.0);
        let written = server.metric("hornbook_generated_tokens_total");
        assert!(written < 2000.0, "{written}");
        let cancelled = "hornbook_requests_total{route=\"POST /completions\",status=\"cancelled\"}";
        assert_eq!(server.metric(cancelled), 1.0);
    }
    // While it waits, and while its prompt is read, a token at a time.
    for (concurrency, prefill_chunk) in [(1, 64), (2, 1)] {
        let server = serve(&["fable"], |options| {
            options.engine.max_concurrency = concurrency;
            options.engine.prefill_chunk = prefill_chunk;
        });
        let first = server.begin(
            "/v1/completions",
            &json!({"prompt": "The", "max_tokens": 500, "stream": true, "logit_bias": {"4095": -100}}),
        );
        server.wait_for("hornbook_sequences_running", |running| running == 1.0);
        let second = server.begin("/v1/completions", &json!({"prompt": vec![7; 500], "max_tokens": 1}));
        let (what, count) = if concurrency == 1 { ("waiting", 1.0) } else { ("running", 2.0) };
        server.wait_for(&format!("hornbook_sequences_{what}"), |n| n == count);
        drop(second);
        server.wait_for(&format!("hornbook_sequences_{what}"), |n| n == count - 1.0);
        assert!(server.metric("hornbook_prompt_tokens_total") < 500.0);
        drop(first);
        server.wait_for("hornbook_sequences_running", |running| running == 0.0);
    }
}

#[test]
fn detail_25_pages_of_this_machine_may_ask_and_others_only_when_named() {
    let server = serve(&["fable"], |options| options.cors = vec!["https://example.com".into()]);
    let preflight = |origin: &str| {
        let headers = format!(
            "origin: {origin}\r\naccess-control-request-method: POST\r\n\
             access-control-request-headers: authorization,content-type,x-stainless-lang\r\n"
        );
        server.raw("OPTIONS /v1/chat/completions", &headers, "")
    };
    for origin in ["http://localhost:3000", "http://127.0.0.1:8080", "https://example.com"] {
        let answer = preflight(origin);
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, origin));
        let allowed = answer.header("access-control-allow-headers");
        assert!(allowed.contains("authorization") && allowed.contains("x-stainless-lang"), "{allowed}");
        assert!(answer.header("access-control-allow-methods").contains("POST"));
        let answer = server.raw("POST /v1/completions", &format!("origin: {origin}\r\n"), "{");
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (400, origin));
    }
    for origin in ["https://evil.com", "http://localhost.evil.com", "null"] {
        assert!(preflight(origin).headers.get("access-control-allow-origin").is_none(), "{origin}");
    }
}

#[test]
fn half_a_body_and_half_a_head_are_not_waited_for() {
    let server = serve(&["fable"], |options| {
        options.http.body_time = Duration::from_millis(200);
        options.http.header_time = Duration::from_millis(200);
    });
    let mut text = String::new();
    let mut half =
        server.send("POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{\"prompt\"");
    half.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 408") && text.contains("request_timeout"), "{text}");
    for head in ["POST /v1/completions HTTP/1.1\r\nhost:", ""] {
        let start = Instant::now();
        let mut idle = server.send(head);
        idle.read_to_end(&mut vec![]).unwrap();
        assert!(start.elapsed() < PATIENCE);
    }
    // A connection that has asked once is closed when it idles, too.
    let mut kept = server.send("GET /health HTTP/1.1\r\nhost: x\r\n\r\n");
    kept.read_to_end(&mut vec![]).unwrap();
    server.get("/health").ok();
}

#[test]
fn many_clients_are_all_answered_or_refused() {
    let server = serve(&["fable"], |options| {
        options.engine.max_concurrency = 4;
        options.engine.queue = 8;
    });
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let ask = |i: u64| {
            server.post(
                "/v1/completions",
                json!({"prompt": "The", "max_tokens": 8, "seed": i, "stream": i.is_multiple_of(2)}),
            )
        };
        let clients: Vec<_> = (0..64).map(|i| scope.spawn(move || ask(i))).collect();
        clients.into_iter().map(|client| client.join().unwrap().status).collect()
    });
    assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
    assert!(statuses.iter().filter(|status| **status == 200).count() >= 12);
}

#[test]
fn a_slow_reader_keeps_nobody_waiting() {
    let server = fable();
    let slow = server.begin("/v1/completions", &json!({"prompt": "The", "max_tokens": 500, "stream": true, "n": 8, "logprobs": 5, "logit_bias": {"4095": -100}}));
    server.post("/v1/completions", json!({"prompt": "The king", "max_tokens": 20})).ok();
    server.wait_for("hornbook_sequences_running", |running| running == 0.0);
    drop(slow);
}

#[test]
fn a_client_that_never_reads_is_let_go() {
    let server = serve(&["fable"], |options| options.http.write_time = Duration::from_millis(200));
    // More than the system keeps for it.
    let mut stalled = server.begin("/v1/embeddings", &json!({"input": vec!["A"; 2048]}));
    let done = "hornbook_requests_total{route=\"POST /embeddings\",status=\"200\"}";
    wait("the answer", || server.get("/metrics").text.contains(done));
    std::thread::sleep(Duration::from_secs(1));
    let mut bytes = vec![];
    let _ = stalled.read_to_end(&mut bytes); // short, or reset
    let head = String::from_utf8_lossy(&bytes[..2000.min(bytes.len())]).to_lowercase();
    let length: usize =
        head.split("content-length: ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
    assert!(bytes.len() < length, "{} of {length}", bytes.len());
}

#[test]
fn before_the_models_are_there_everyone_is_told_to_come_back() {
    let options = ServerOptions { address: SocketAddr::from(([127, 0, 0, 1], 0)), ..Default::default() };
    let listening = Listening::start(options).unwrap();
    let server = Asked::at(listening.address());
    for answer in [
        server.get("/health"),
        server.get("/metrics"),
        server.post("/v1/completions", json!({"prompt": "The"})),
        server.post("/no/such/path", json!({})),
    ] {
        assert_eq!(answer.error(), (503, "server_error".into(), None, None));
        assert_eq!((answer.header("retry-after"), answer.header("retry-after-ms")), ("1", "1000"));
        assert!(answer.text.contains("loading its models"), "{}", answer.text);
    }
    let mut kept = server.send("GET /health HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut head = [0; 12];
    kept.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 503");
    let running = listening.serve(vec![open("fable")]).unwrap();
    // On the same connection, too.
    kept.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut rest = String::new();
    kept.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("HTTP/1.1 200 OK"), "{rest}");
    assert_eq!(server.get("/health").ok(), json!({"status": "ok"}));
    server.post("/v1/completions", json!({"prompt": "The", "max_tokens": 1})).ok();
    drop(running);
}

#[test]
fn shutting_down_lets_streams_end_and_refuses_what_is_new() {
    let server = fable();
    let mut kept = server.send("GET /health HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut running = server.begin("/v1/completions", &long(true));
    server.wait_for("hornbook_sequences_running", |running| running == 4.0);
    let address = server.address();
    server.stopper()();
    let (server, asked) = (server.server(), Asked::at(address));
    let ended = std::thread::spawn(move || server.wait());
    for answer in [
        asked.post("/v1/completions", json!({"prompt": "The", "max_tokens": 1})),
        asked.post("/v1/embeddings", json!({"input": "The"})),
        asked.get("/health"),
        asked.get("/v1/models"),
    ] {
        assert_eq!(answer.error(), (503, "server_error".into(), None, None));
        assert_eq!((answer.header("retry-after"), answer.header("connection")), ("5", "close"));
        assert!(answer.text.contains("shutting down"), "{}", answer.text);
    }
    assert_eq!(
        asked.metric("hornbook_sequences_running"),
        4.0,
        "the stream has ended too early for this test"
    );
    let mut text = String::new();
    running.read_to_string(&mut text).unwrap();
    assert!(text.contains("data: [DONE]"), "{}", &text[text.len().saturating_sub(200)..]);
    ended.join().unwrap();
    assert!(std::net::TcpStream::connect(address).is_err());
    let _ = kept.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut rest = String::new();
    let _ = kept.read_to_string(&mut rest); // closed, by one side or the other
    assert_eq!(rest.matches("HTTP/1.1 200").count(), 1, "{rest}");
}

#[test]
fn what_outlasts_the_grace_period_is_told_and_cut() {
    let server = serve(&["fable"], |options| options.grace = Duration::from_millis(50));
    let body = json!({"prompt": vec!["The"; 200], "n": 10, "max_tokens": 500, "stream": true, "logit_bias": {"4095": -100}});
    let mut streamed = server.begin("/v1/completions", &body);
    let mut whole = server.begin("/v1/completions", &long(false));
    server.wait_for("hornbook_sequences_running", |running| running >= 10.0);
    server.stopper()();
    let start = Instant::now();
    server.server().wait();
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    let (mut events, mut answer) = (String::new(), String::new());
    let _ = streamed.read_to_string(&mut events);
    let _ = whole.read_to_string(&mut answer);
    assert!(
        events.contains("shutting down") && !events.contains("[DONE]"),
        "{}",
        &events[events.len().saturating_sub(300)..]
    );
    assert!(answer.starts_with("HTTP/1.1 503") || answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// Values that a field may have, right and wrong.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-3i64..12).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-z0-9]{0,6}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

const FIELDS: [&str; 24] = [
    "model",
    "prompt",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "n",
    "best_of",
    "stream",
    "logprobs",
    "top_logprobs",
    "echo",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "seed",
    "stream_options",
    "messages",
    "input",
    "encoding_format",
    "dimensions",
    "top_k",
    "tokens",
];

const PATHS: [&str; 5] =
    ["/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/tokenize", "/detokenize"];

#[test]
fn ten_thousand_random_bodies_are_answered_or_refused() {
    let server = serve(&["fable"], |options| options.engine.queue = 1000);
    let config = ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() };
    let body = prop::collection::hash_map(prop::sample::select(&FIELDS[..]), value(), 0..6);
    let mut seen = std::collections::BTreeMap::new();
    let seen_by = std::cell::RefCell::new(&mut seen);
    proptest!(config, |(body in body, path in prop::sample::select(&PATHS[..]), cut in prop::option::weighted(0.1, 0usize..200))| {
        let mut fields: serde_json::Map<String, Value> = body.into_iter().map(|(k, v)| (k.to_string(), v)).collect();
        // Small enough that ten thousand of them are a matter of seconds.
        if fields.get("max_tokens").is_none_or(|n| n.as_i64().is_none_or(|n| n > 4)) {
            fields.insert("max_tokens".into(), json!(2));
        }
        if fields.get("max_completion_tokens").is_some_and(|n| n.as_i64().is_some_and(|n| n > 4)) {
            fields.remove("max_completion_tokens");
        }
        // What must be there is, more often than not.
        for (path_of, field, good) in [
            ("/v1/chat/completions", "messages", json!([{"role": "user", "content": "A"}])),
            ("/v1/embeddings", "input", json!("A")),
            ("/tokenize", "prompt", json!("A")),
            ("/detokenize", "tokens", json!([1])),
        ] {
            if path == path_of && !fields.len().is_multiple_of(4) {
                fields.insert(field.into(), good);
            }
        }
        let text = Value::Object(fields).to_string();
        let text = match cut {
            Some(cut) => text.chars().take(cut).collect(),
            None => text,
        };
        let answer = server.post_text(path, &text);
        prop_assert!([200, 400, 404].contains(&answer.status), "{} {text}: {}", answer.status, answer.text);
        if answer.status != 200 {
            answer.error();
        }
        *seen_by.borrow_mut().entry(answer.status).or_insert(0) += 1;
    });
    assert!(seen[&200] > 500 && seen[&400] > 500, "{seen:?}");
    wait("an idle engine", || server.metric("hornbook_sequences_running") == 0.0);
}
