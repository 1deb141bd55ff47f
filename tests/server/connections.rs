//! Connections: disconnects, timeouts, CORS, overload and graceful shutdown.

use super::client::{Client, TIMEOUT, fable, open, serve, wait};
use hornbook::server::{BoundServer, ServerOptions};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A request that runs long enough to be interrupted.
fn long_request(stream: bool) -> Value {
    json!({"prompt": "The", "max_tokens": 500, "stream": stream, "logit_bias": {"4095": -100}, "n": 4})
}

#[test]
fn client_disconnect_cancels_its_request() {
    // While running, streamed or not.
    for stream in [true, false] {
        let server = fable();
        let connection = server.start_post("/v1/completions", &long_request(stream));
        server.wait_for("hornbook_sequences_running", |running| running == 4.0);
        drop(connection);
        server.wait_for("hornbook_sequences_running", |running| running == 0.0);
        let generated = server.metric("hornbook_generated_tokens_total");
        assert!(generated < 2000.0, "{generated}");
        let cancelled = "hornbook_requests_total{route=\"POST /completions\",status=\"cancelled\"}";
        assert_eq!(server.metric(cancelled), 1.0);
    }
    // While waiting in the queue, and during prefill of one token at a time.
    for (concurrency, prefill_chunk) in [(1, 64), (2, 1)] {
        let server = serve(&["fable"], |options| {
            options.engine.max_concurrency = concurrency;
            options.engine.prefill_chunk = prefill_chunk;
        });
        let first = server.start_post(
            "/v1/completions",
            &json!({"prompt": "The", "max_tokens": 500, "stream": true, "logit_bias": {"4095": -100}}),
        );
        server.wait_for("hornbook_sequences_running", |running| running == 1.0);
        let second = server.start_post("/v1/completions", &json!({"prompt": vec![7; 500], "max_tokens": 1}));
        let (state, count) = if concurrency == 1 { ("waiting", 1.0) } else { ("running", 2.0) };
        server.wait_for(&format!("hornbook_sequences_{state}"), |n| n == count);
        drop(second);
        server.wait_for(&format!("hornbook_sequences_{state}"), |n| n == count - 1.0);
        assert!(server.metric("hornbook_prompt_tokens_total") < 500.0);
        drop(first);
        server.wait_for("hornbook_sequences_running", |running| running == 0.0);
    }
}

#[test]
fn cors_allows_loopback_and_configured_origins_only() {
    let server = serve(&["fable"], |options| options.cors_origins = vec!["https://example.com".into()]);
    let preflight = |origin: &str| {
        let headers = format!(
            "origin: {origin}\r\naccess-control-request-method: POST\r\n\
             access-control-request-headers: authorization,content-type,x-stainless-lang\r\n"
        );
        server.raw("OPTIONS /v1/chat/completions", &headers, "")
    };
    for origin in ["http://localhost:3000", "http://127.0.0.1:8080", "https://example.com"] {
        let response = preflight(origin);
        assert_eq!((response.status, response.header("access-control-allow-origin")), (200, origin));
        let allowed = response.header("access-control-allow-headers");
        assert!(allowed.contains("authorization") && allowed.contains("x-stainless-lang"), "{allowed}");
        assert!(response.header("access-control-allow-methods").contains("POST"));
        let response = server.raw("POST /v1/completions", &format!("origin: {origin}\r\n"), "{");
        assert_eq!((response.status, response.header("access-control-allow-origin")), (400, origin));
    }
    for origin in ["https://evil.com", "http://localhost.evil.com", "null"] {
        assert!(preflight(origin).headers.get("access-control-allow-origin").is_none(), "{origin}");
    }
}

#[test]
fn incomplete_headers_and_body_time_out() {
    let server = serve(&["fable"], |options| {
        options.http.body_timeout = Duration::from_millis(200);
        options.http.header_timeout = Duration::from_millis(200);
    });
    let mut text = String::new();
    let mut incomplete = server
        .send("POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{\"prompt\"");
    incomplete.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 408") && text.contains("request_timeout"), "{text}");
    for head in ["POST /v1/completions HTTP/1.1\r\nhost:", ""] {
        let start = Instant::now();
        let mut idle = server.send(head);
        idle.read_to_end(&mut vec![]).unwrap();
        assert!(start.elapsed() < TIMEOUT);
    }
    // An idle keep-alive connection is closed too.
    let mut connection = server.send("GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n");
    connection.read_to_end(&mut vec![]).unwrap();
    server.get("/health").ok();
}

#[test]
fn simultaneous_clients_get_200_or_429() {
    let server = serve(&["fable"], |options| {
        options.engine.max_concurrency = 4;
        options.engine.queue = 8;
    });
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let complete = |i: u64| {
            server.post(
                "/v1/completions",
                json!({"prompt": "The", "max_tokens": 8, "seed": i, "stream": i.is_multiple_of(2)}),
            )
        };
        let clients: Vec<_> = (0..64).map(|i| scope.spawn(move || complete(i))).collect();
        clients.into_iter().map(|client| client.join().unwrap().status).collect()
    });
    assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
    assert!(statuses.iter().filter(|status| **status == 200).count() >= 12);
}

#[test]
fn slow_reader_does_not_block_other_requests() {
    let server = fable();
    let body = json!({"prompt": "The", "max_tokens": 500, "stream": true, "n": 8, "logprobs": 5,
        "logit_bias": {"4095": -100}});
    let slow = server.start_post("/v1/completions", &body);
    server.post("/v1/completions", json!({"prompt": "The king", "max_tokens": 20})).ok();
    server.wait_for("hornbook_sequences_running", |running| running == 0.0);
    drop(slow);
}

#[test]
fn client_that_never_reads_is_disconnected() {
    let server = serve(&["fable"], |options| options.http.write_timeout = Duration::from_millis(200));
    // More than the socket buffers hold.
    let mut stalled = server.start_post("/v1/embeddings", &json!({"input": vec!["A"; 2048]}));
    let finished = "hornbook_requests_total{route=\"POST /embeddings\",status=\"200\"}";
    wait("the response", || server.get("/metrics").text.contains(finished));
    std::thread::sleep(Duration::from_secs(1));
    let mut bytes = vec![];
    let _ = stalled.read_to_end(&mut bytes); // end of file or reset
    let head = String::from_utf8_lossy(&bytes[..2000.min(bytes.len())]).to_lowercase();
    let length: usize =
        head.split("content-length: ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
    assert!(bytes.len() < length, "{} of {length}", bytes.len());
}

#[test]
fn requests_before_models_are_loaded_get_503() {
    let options = ServerOptions { address: SocketAddr::from(([127, 0, 0, 1], 0)), ..Default::default() };
    let bound = BoundServer::bind(options).unwrap();
    let server = Client::new(bound.address());
    for response in [
        server.get("/health"),
        server.get("/metrics"),
        server.post("/v1/completions", json!({"prompt": "The"})),
        server.post("/no/such/path", json!({})),
    ] {
        assert_eq!(response.error(), (503, "server_error".into(), None, None));
        assert_eq!((response.header("retry-after"), response.header("retry-after-ms")), ("1", "1000"));
        assert!(response.text.contains("loading its models"), "{}", response.text);
    }
    let mut connection = server.send("GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let mut head = [0; 12];
    connection.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 503");
    let running = bound.serve(vec![open("fable")]).unwrap();
    // On the same connection.
    connection.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut rest = String::new();
    connection.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("HTTP/1.1 200 OK"), "{rest}");
    assert_eq!(server.get("/health").ok(), json!({"status": "ok"}));
    server.post("/v1/completions", json!({"prompt": "The", "max_tokens": 1})).ok();
    drop(running);
}

#[test]
fn shutdown_finishes_streams_and_rejects_new_requests() {
    let server = fable();
    let mut connection = server.send("GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let mut running = server.start_post("/v1/completions", &long_request(true));
    server.wait_for("hornbook_sequences_running", |running| running == 4.0);
    let address = server.address();
    server.shutdown_handle()();
    let (server, client) = (server.server(), Client::new(address));
    let waiter = std::thread::spawn(move || server.wait());
    for response in [
        client.post("/v1/completions", json!({"prompt": "The", "max_tokens": 1})),
        client.post("/v1/embeddings", json!({"input": "The"})),
        client.get("/health"),
        client.get("/v1/models"),
    ] {
        assert_eq!(response.error(), (503, "server_error".into(), None, None));
        assert_eq!((response.header("retry-after"), response.header("connection")), ("5", "close"));
        assert!(response.text.contains("shutting down"), "{}", response.text);
    }
    assert_eq!(
        client.metric("hornbook_sequences_running"),
        4.0,
        "the stream finished too early for this test"
    );
    let mut text = String::new();
    running.read_to_string(&mut text).unwrap();
    assert!(text.contains("data: [DONE]"), "{}", &text[text.len().saturating_sub(200)..]);
    waiter.join().unwrap();
    assert!(std::net::TcpStream::connect(address).is_err());
    let _ = connection.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let mut rest = String::new();
    let _ = connection.read_to_string(&mut rest); // closed by either side
    assert_eq!(rest.matches("HTTP/1.1 200").count(), 1, "{rest}");
}

#[test]
fn requests_beyond_the_grace_period_are_aborted() {
    let server = serve(&["fable"], |options| options.grace_period = Duration::from_millis(50));
    let body = json!({"prompt": vec!["The"; 200], "n": 10, "max_tokens": 500, "stream": true,
        "logit_bias": {"4095": -100}});
    let mut streamed = server.start_post("/v1/completions", &body);
    let mut unstreamed = server.start_post("/v1/completions", &long_request(false));
    server.wait_for("hornbook_sequences_running", |running| running >= 10.0);
    server.shutdown_handle()();
    let start = Instant::now();
    server.server().wait();
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    let (mut events, mut response) = (String::new(), String::new());
    let _ = streamed.read_to_string(&mut events);
    let _ = unstreamed.read_to_string(&mut response);
    assert!(
        events.contains("shutting down") && !events.contains("[DONE]"),
        "{}",
        &events[events.len().saturating_sub(300)..]
    );
    assert!(response.starts_with("HTTP/1.1 503") || response.starts_with("HTTP/1.1 200"), "{response}");
}

/// Valid and invalid field values.
fn field_value() -> impl Strategy<Value = Value> {
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

const PATHS: [&str; 6] = [
    "/v1/completions",
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/tokenize",
    "/detokenize",
];

#[test]
fn random_bodies_get_a_result_or_an_error_object() {
    let server = serve(&["fable"], |options| options.engine.queue = 1000);
    let config = ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() };
    let body = prop::collection::hash_map(prop::sample::select(&FIELDS[..]), field_value(), 0..6);
    let mut status_counts = std::collections::BTreeMap::new();
    let counts = std::cell::RefCell::new(&mut status_counts);
    proptest!(config, |(
        body in body,
        path in prop::sample::select(&PATHS[..]),
        cut in prop::option::weighted(0.1, 0usize..200),
    )| {
        let mut fields: serde_json::Map<String, Value> =
            body.into_iter().map(|(k, v)| (k.to_string(), v)).collect();
        // Short completions, so that the cases take seconds.
        if fields.get("max_tokens").is_none_or(|n| n.as_i64().is_none_or(|n| n > 4)) {
            fields.insert("max_tokens".into(), json!(2));
        }
        if fields.get("max_completion_tokens").is_some_and(|n| n.as_i64().is_some_and(|n| n > 4)) {
            fields.remove("max_completion_tokens");
        }
        if path == "/v1/responses" {
            fields.remove("max_tokens");
            fields.insert("max_output_tokens".into(), json!(2));
        }
        // Required fields are present in most cases.
        for (required_by, field, valid) in [
            ("/v1/chat/completions", "messages", json!([{"role": "user", "content": "A"}])),
            ("/v1/responses", "input", json!([{"role": "user", "content": "A"}])),
            ("/v1/embeddings", "input", json!("A")),
            ("/tokenize", "prompt", json!("A")),
            ("/detokenize", "tokens", json!([1])),
        ] {
            if path == required_by && !fields.len().is_multiple_of(4) {
                fields.insert(field.into(), valid);
            }
        }
        let text = Value::Object(fields).to_string();
        let text = match cut {
            Some(cut) => text.chars().take(cut).collect(),
            None => text,
        };
        let response = server.post_text(path, &text);
        let status = response.status;
        prop_assert!([200, 400, 404].contains(&status), "{status} {text}: {}", response.text);
        if status != 200 {
            response.error();
        }
        *counts.borrow_mut().entry(status).or_insert(0) += 1;
    });
    assert!(status_counts[&200] > 500 && status_counts[&400] > 500, "{status_counts:?}");
    wait("an idle engine", || server.metric("hornbook_sequences_running") == 0.0);
}
