//! Rejections: statuses, headers and OpenAI's error object.

use super::client::{fable, serve};
use crate::finite_numbers::changed;
use serde_json::json;

fn invalid_request(param: Option<&str>, code: Option<&str>) -> (u16, String, Option<String>, Option<String>) {
    (400, "invalid_request_error".into(), param.map(String::from), code.map(String::from))
}

#[test]
fn context_overflow_is_400_before_the_stream_starts() {
    let server = fable();
    for stream in [false, true] {
        let response = server
            .post("/v1/completions", json!({"prompt": vec![5; 500], "max_tokens": 13, "stream": stream}));
        assert_eq!(response.error(), invalid_request(Some("prompt"), Some("context_length_exceeded")));
        let message = response.json()["error"]["message"].as_str().unwrap().to_string();
        let expected = "This model's maximum context length is 512 tokens, however you requested 513 tokens \
                        (500 in your prompt; 13 for the completion).";
        assert!(message.starts_with(expected), "{message}");
        let long = json!({"messages": [{"role": "user", "content": "word ".repeat(600)}], "stream": stream});
        assert_eq!(
            server.post("/v1/chat/completions", long).error(),
            invalid_request(Some("messages"), Some("context_length_exceeded"))
        );
        let greedy = json!({"prompt": "A", "max_tokens": i64::MAX, "stream": stream, "n": 128});
        assert_eq!(
            server.post("/v1/completions", greedy).error().3.as_deref(),
            Some("context_length_exceeded")
        );
    }
    // One token fewer fits. A single overlong prompt among several is rejected.
    server.post("/v1/completions", json!({"prompt": vec![5; 500], "max_tokens": 12})).ok();
    let one_of_two = server.post("/v1/completions", json!({"prompt": [[5], vec![5; 512]], "max_tokens": 1}));
    assert_eq!(one_of_two.error().3.as_deref(), Some("context_length_exceeded"));
}

#[test]
fn every_response_has_the_common_headers() {
    let server = fable();
    let responses = [
        server.get("/health"),
        server.get("/nothing"),
        server.post("/v1/models", json!({})),
        server.post_text("/v1/completions", "{"),
        server.post("/v1/completions", json!({"prompt": "A", "max_tokens": 1})),
        server.post("/v1/completions", json!({"prompt": "A", "max_tokens": 1, "stream": true})),
    ];
    let mut ids = vec![];
    for response in &responses {
        assert_eq!(response.header("x-request-id"), response.header("request-id"));
        ids.push(response.header("x-request-id"));
        assert_eq!(
            (response.header("openai-version"), response.header("openai-organization")),
            ("2020-10-01", "hornbook")
        );
        response.header("openai-processing-ms").parse::<u64>().unwrap();
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), responses.len(), "request ids are unique");
}

#[test]
fn every_error_is_a_json_error_object() {
    let server = serve(&["fable"], |options| options.http.max_body_bytes = 1000);
    let unknown = server.get("/v1/nothing").error();
    assert_eq!((unknown.0, unknown.3.as_deref()), (404, Some("unknown_url")));
    assert_eq!(server.post("/v1/files", json!({})).error().0, 404);
    let method = server.get("/v1/completions");
    assert_eq!(method.error().0, 405);
    assert_eq!(method.header("allow"), "POST");
    assert_eq!(server.raw("DELETE /v1/models", "", "").error().0, 405);
    for body in [
        "",
        "{",
        "[]",
        "\"x\"",
        "{\"prompt\": \"A\"} x",
        "\u{7f}",
        "{\"prompt\": \"\\ud800\"}",
        "{\"temperature\": 1e999}",
    ] {
        assert_eq!(server.post_text("/v1/completions", body).error(), invalid_request(None, None), "{body}");
    }
    assert_eq!(
        server.post("/v1/completions", json!({"max_tokens": "many"})).error(),
        invalid_request(Some("max_tokens"), None)
    );
    assert_eq!(
        server.post("/v1/completions", json!({"temperature": [1]})).error(),
        invalid_request(Some("temperature"), None)
    );
    assert_eq!(
        server.post("/v1/completions", json!({"logprobs": true})).error(),
        invalid_request(Some("logprobs"), None)
    );
    assert_eq!(
        server.post("/v1/completions", json!({"logprobs": 6})).error(),
        invalid_request(Some("logprobs"), None)
    );
    assert_eq!(
        server.post("/v1/chat/completions", json!({})).error(),
        invalid_request(Some("messages"), None)
    );
    let without_role = json!({"messages": [{"content": "x"}]});
    assert_eq!(
        server.post("/v1/chat/completions", without_role).error(),
        invalid_request(Some("messages[0]"), None)
    );
    // curl sends its own Content-Type, or none.
    let body = r#"{"prompt": "A", "max_tokens": 1}"#;
    for headers in ["", "content-type: application/x-www-form-urlencoded\r\n", "content-type: text/plain\r\n"]
    {
        server.raw("POST /v1/completions", headers, body).ok();
    }
    // Too large, with and without Content-Length.
    let large = format!("{{\"prompt\": \"{}\"}}", "a".repeat(1000));
    assert_eq!(server.post_text("/v1/completions", &large).error().0, 413);
    let chunked = format!("{:x}\r\n{large}\r\n0\r\n\r\n", large.len());
    let stream = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         transfer-encoding: chunked\r\n\r\n";
    let mut connection = server.send(&format!("{stream}{chunked}"));
    let mut text = String::new();
    std::io::Read::read_to_string(&mut connection, &mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 413") && text.contains("request_too_large"), "{text}");
}

#[test]
fn error_constructors_have_their_statuses_and_never_409() {
    use hornbook::engine::SubmitError;
    use hornbook::server::error::ApiError;
    let rejected = |error| ApiError::from_submit_error(error, "prompt");
    let errors = [
        (ApiError::invalid("x"), 400),
        (ApiError::invalid_param("n", "x"), 400),
        (ApiError::unsupported_param("n", None), 400),
        (ApiError::context_length_exceeded("prompt", 1, 1, 1), 400),
        (ApiError::unauthorized("x"), 401),
        (ApiError::not_found("GET", "/"), 404),
        (ApiError::model_not_found("x"), 404),
        (ApiError::method_not_allowed("GET", "/"), 405),
        (ApiError::timeout(), 408),
        (ApiError::body_too_large(1), 413),
        (ApiError::exceeds_rate_limit("x".into()), 429),
        (ApiError::internal("x"), 500),
        (rejected(SubmitError::QueueFull), 429),
        (rejected(SubmitError::Closed), 503),
        (rejected(SubmitError::Invalid(hornbook::Error::Message("x".into()))), 400),
    ];
    for (error, status) in errors {
        assert_eq!(error.status(), status, "{error:?}");
    }
}

#[test]
fn full_queue_is_429_with_retry_delay() {
    let server = serve(&["fable"], |options| {
        options.engine.max_concurrency = 1;
        options.engine.queue = 0;
    });
    let busy = server.start_post(
        "/v1/completions",
        &json!({"prompt": "The", "max_tokens": 500, "stream": true, "logit_bias": {"4095": -100}}),
    );
    server.wait_for("hornbook_sequences_running", |running| running == 1.0);
    for stream in [false, true] {
        let response =
            server.post("/v1/completions", json!({"prompt": "The", "max_tokens": 1, "stream": stream}));
        let (status, kind, _, code) = response.error();
        assert_eq!((status, kind.as_str(), code.as_deref()), (429, "requests", Some("rate_limit_exceeded")));
        let delay = |name: &str| response.header(name).parse::<u64>().unwrap();
        let (seconds, milliseconds) = (delay("retry-after"), delay("retry-after-ms"));
        assert!((1..=60_000).contains(&milliseconds), "{milliseconds}");
        assert!((1..=60).contains(&seconds) && seconds * 1000 >= milliseconds, "{seconds} {milliseconds}");
    }
    drop(busy);
    server.wait_for("hornbook_sequences_running", |running| running == 0.0);
    server.post("/v1/completions", json!({"prompt": "The", "max_tokens": 1})).ok();
    // A request with more prompts than the queue has room for is still accepted.
    let many =
        server.post("/v1/completions", json!({"prompt": ["A", "B", "C", "D", "E"], "max_tokens": 2, "n": 3}));
    assert_eq!(many.ok()["choices"].as_array().unwrap().len(), 15);
}

#[test]
fn failed_computation_is_500_without_paths() {
    let folder = changed("tiny-gelu-new", &[("transformer.h.0.mlp.c_fc.weight", 9, f32::NAN)]);
    let path = folder.path().to_str().unwrap();
    let server = serve(&[path], |_| {});
    let embedding = server.post("/v1/embeddings", json!({"input": [1, 2]}));
    let body = json!({"prompt": [1, 2], "max_tokens": 2});
    for response in [embedding, server.post("/v1/completions", body.clone())] {
        assert_eq!(response.error().0, 500);
        let message = response.json()["error"]["message"].as_str().unwrap().to_string();
        let expected = "tensor transformer.h.0.mlp.c_fc.weight: found NaN at [0, 9], expected finite numbers";
        assert_eq!(message, expected);
    }
    let mut streamed = body;
    streamed["stream"] = json!(true);
    let events = server.post("/v1/completions", streamed).text;
    assert!(events.contains("found NaN") && !events.contains(path), "{events}");
}
