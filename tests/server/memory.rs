//! Memory: requests that would need much of it are refused by their size.

use super::client::{fable, serve, wait};
use serde_json::json;

#[test]
fn text_that_cannot_fit_is_refused_by_length() {
    let server = fable();
    let text = "word ".repeat(1_600_000);
    for (path, param, body) in [
        ("/v1/completions", "prompt", json!({"prompt": text, "max_tokens": 1})),
        ("/v1/completions", "prompt", json!({"prompt": ["A", text], "max_tokens": 1})),
        ("/v1/embeddings", "input", json!({"input": text})),
        ("/v1/chat/completions", "messages", json!({"messages": [{"role": "user", "content": text}]})),
    ] {
        let response = server.post(path, body);
        let (status, _, found, code) = response.error();
        assert_eq!(
            (status, found.as_deref(), code.as_deref()),
            (400, Some(param), Some("context_length_exceeded"))
        );
        // The text has 1,600,000 tokens; its length tells less.
        assert!(!response.text.contains("1600000 tokens"), "{}", response.text);
    }
    let (status, _, param, _) = server.post("/tokenize", json!({"prompt": text})).error();
    assert_eq!((status, param.as_deref()), (400, Some("prompt")));
    let fits = server.post("/tokenize", json!({"prompt": "word ".repeat(2000)})).ok();
    assert!(fits["count"].as_u64().unwrap() >= 2000);
}

#[test]
fn ignored_fields_of_any_size_are_ignored_and_used_ones_are_limited() {
    let server = fable();
    let objects = format!("[{}0]", r#"{"a":1},"#.repeat(800_000));
    let body = |field: &str| format!(r#"{{"prompt": "A", "max_tokens": 1, "{field}": {objects}}}"#);
    server.post_text("/v1/completions", &body("ignored")).ok();
    let refused = server.post_text("/v1/completions", &body("messages"));
    assert_eq!(refused.error().0, 400);
}

#[test]
fn what_each_completion_has_a_copy_of_is_limited() {
    let server = fable();
    let ids = vec![7; 1000];
    let bias = (0..1000).map(|i| (format!("{i}"), json!(1))).collect::<serde_json::Map<_, _>>();
    for (param, mut body) in [
        ("stop_token_ids", json!({"stop_token_ids": ids})),
        ("allowed_token_ids", json!({"allowed_token_ids": ids})),
        ("logit_bias", json!({"logit_bias": bias})),
        ("stop", json!({"stop": "x".repeat(5000)})),
    ] {
        body["max_tokens"] = json!(0);
        body["prompt"] = json!(vec!["A"; 2048]);
        let response = server.post("/v1/completions", body.clone());
        assert_eq!((response.error().0, response.error().2.as_deref()), (400, Some(param)));
        if param != "stop" {
            body["prompt"] = json!("A");
            server.post("/v1/completions", body).ok();
        }
    }
}

#[test]
fn refused_prompt_counts_against_tokens_per_minute() {
    use hornbook::server::keys;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    let hash = keys::hash("secret");
    let limit = 100_000;
    let entry = format!("[[key]]\nname = \"a\"\nsha256 = \"{hash}\"\ntokens_per_minute = {limit}\n");
    std::fs::write(&file, entry).unwrap();
    let server = serve(&["fable"], |options| options.key_file = Some(file)).with_key("secret");
    let response = server.post("/v1/completions", json!({"prompt": vec![5; 90_000], "max_tokens": 1}));
    assert_eq!(response.error().3.as_deref(), Some("context_length_exceeded"));
    let remaining: u64 = response.header("x-ratelimit-remaining-tokens").parse().unwrap();
    assert!(remaining < 15_000, "{remaining}");
    let next = server.post("/v1/embeddings", json!({"input": vec![vec![5; 500]; 100]}));
    assert_eq!(next.error().0, 429);
}

#[test]
fn request_waiting_to_be_tokenized_is_cancelled_with_its_connection() {
    let server = fable();
    let body = json!({"prompt": "word ".repeat(200_000)});
    // One text of this size is tokenized at a time.
    let clients: Vec<_> = (0..50).map(|_| server.start_post("/tokenize", &body)).collect();
    drop(clients);
    let count = |status: &str| {
        let label = format!("hornbook_requests_total{{route=\"POST /tokenize\",status=\"{status}\"}} ");
        let page = server.get("/metrics").text;
        let value = page.lines().find_map(|line| line.strip_prefix(&label));
        value.map_or(0, |value| value.parse::<u32>().unwrap())
    };
    wait("the end of all requests", || count("200") + count("cancelled") == 50);
    assert!(count("cancelled") > 0);
}
