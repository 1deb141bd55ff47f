//! Request fields: nulls, unknown and unsupported fields, limits.

use super::client::fable;
use serde_json::{Value, json};

#[test]
fn null_fields_are_accepted() {
    let server = fable();
    let nulls = json!({"model": null, "prompt": null, "suffix": null, "max_tokens": null, "temperature": null,
        "top_p": null, "n": null, "stream": null, "stream_options": null, "logprobs": null, "echo": null,
        "stop": null, "presence_penalty": null, "frequency_penalty": null, "best_of": null,
        "logit_bias": null, "user": null, "seed": null});
    let response = server.post("/v1/completions", nulls).ok();
    assert_eq!(response["usage"]["prompt_tokens"], 1);
    server
        .post("/v1/completions", json!({"prompt": "A", "logit_bias": {}, "stop": [], "max_tokens": 1}))
        .ok();
    let nulls = json!({"messages": [{"role": "user", "content": "Hi", "name": null}], "max_tokens": 1,
        "max_completion_tokens": null, "top_logprobs": null, "logprobs": null, "tools": null,
        "tool_choice": null, "functions": null, "function_call": null, "response_format": null, "audio": null,
        "modalities": null, "n": null, "stop": null, "stream": null});
    server.post("/v1/chat/completions", nulls).ok();
    let nulls =
        json!({"input": "A", "encoding_format": null, "dimensions": null, "user": null, "model": null});
    server.post("/v1/embeddings", nulls).ok();
}

#[test]
fn unknown_fields_are_ignored_and_unsupported_ones_rejected() {
    let server = fable();
    let extra = json!({"prompt": "A", "max_tokens": 1, "made_up": {"x": [1]}, "user": "me", "suffix": "",
        "metadata": {}});
    server.post("/v1/completions", extra).ok();
    let assert_rejected = |path: &str, mut body: Value, field: &str, value: Value| {
        body[field] = value;
        let (status, _, param, _) = server.post(path, body).error();
        assert_eq!((status, param.as_deref()), (400, Some(field)), "{field}");
    };
    for (field, value) in [
        ("suffix", json!("The end.")),
        ("response_format", json!({"type": "json_object"})),
        ("tools", json!([{"type": "function"}])),
        ("logit_bias", json!({"5": 101})),
        ("logit_bias", json!({"99999": 1})),
        ("n", json!(129)),
        ("guided_json", json!({"type": "object"})),
    ] {
        assert_rejected("/v1/completions", json!({"prompt": "A"}), field, value);
    }
    for (field, value) in [
        ("tools", json!([{"type": "function", "function": {"name": "f"}}])),
        ("functions", json!([{"name": "f"}])),
        ("tool_choice", json!("required")),
        ("function_call", json!({"name": "f"})),
        ("response_format", json!({"type": "json_schema"})),
        ("audio", json!({"voice": "x"})),
        ("modalities", json!(["text", "audio"])),
        ("top_logprobs", json!(3)),
    ] {
        assert_rejected(
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": "A"}]}),
            field,
            value,
        );
    }
    let supported = json!({"messages": [{"role": "user", "content": "A"}], "max_tokens": 1,
        "modalities": ["text"], "response_format": {"type": "text"}, "tool_choice": "none",
        "tools": [], "parallel_tool_calls": true});
    server.post("/v1/chat/completions", supported).ok();
    assert_rejected("/v1/embeddings", json!({"input": "A"}), "dimensions", json!(8));
    assert_rejected("/v1/embeddings", json!({"input": "A"}), "encoding_format", json!("hex"));
    let image = json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"},
        {"type": "image_url"}]}]});
    assert_eq!(
        server.post("/v1/chat/completions", image).error().2.as_deref(),
        Some("messages[0].content[1].type")
    );
}

#[test]
fn max_tokens_defaults_to_16_and_may_be_0() {
    let server = fable();
    let usage = |body: Value| server.post("/v1/completions", body).ok()["usage"]["completion_tokens"].clone();
    let no_end = json!({"4095": -100});
    assert_eq!(usage(json!({"prompt": "The", "logit_bias": no_end})), 16);
    assert_eq!(usage(json!({"prompt": "The", "logit_bias": no_end, "max_tokens": 3})), 3);
    let response = server
        .post("/v1/completions", json!({"prompt": "The king", "max_tokens": 0, "echo": true, "n": 2}))
        .ok();
    assert_eq!(response["choices"][0]["text"], "The king");
    assert_eq!(
        (&response["choices"][1]["text"], &response["choices"][1]["finish_reason"]),
        (&json!("The king"), &json!("length"))
    );
    assert_eq!(response["usage"], json!({"prompt_tokens": 2, "completion_tokens": 0, "total_tokens": 2}));
    assert_eq!(
        server.post("/v1/completions", json!({"prompt": "The", "max_tokens": 0})).ok()["choices"][0]["text"],
        ""
    );
    // A chat completion runs to its end-of-text token or the end of the context.
    let chat = json!({"messages": [{"role": "user", "content": "Tell me a story."}], "temperature": 0,
        "logit_bias": no_end});
    let response = server.post("/v1/chat/completions", chat).ok();
    let total = response["usage"]["total_tokens"].as_u64().unwrap();
    assert!(response["choices"][0]["finish_reason"] == "stop" || total == 512, "{response}");
}

#[test]
fn max_completion_tokens_overrides_max_tokens() {
    let server = fable();
    let messages = json!([{"role": "user", "content": "Once"}]);
    for body in [
        json!({"messages": messages, "max_completion_tokens": 2}),
        json!({"messages": messages, "max_completion_tokens": 2, "max_tokens": 9}),
    ] {
        let response = server.post("/v1/chat/completions", body).ok();
        assert!(response["usage"]["completion_tokens"].as_u64().unwrap() <= 2);
    }
    let response =
        server.post("/v1/chat/completions", json!({"messages": messages, "max_completion_tokens": -2}));
    assert_eq!(response.error().2.as_deref(), Some("max_completion_tokens"));
}
