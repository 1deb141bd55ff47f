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

/// Names of parameters that OpenAI's API or another server has, with a value that would change the response.
fn unsupported() -> Vec<(&'static str, Value)> {
    vec![
        ("suffix", json!("The end.")),
        ("response_format", json!({"type": "json_object"})),
        ("tools", json!([{"type": "function", "function": {"name": "f"}}])),
        ("tool_choice", json!("required")),
        ("structured_outputs", json!({"choice": ["a", "b"]})),
        ("guided_choice", json!(["a", "b"])),
        ("use_beam_search", json!(true)),
        ("length_penalty", json!(0.5)),
        ("include_stop_str_in_output", json!(true)),
        ("skip_special_tokens", json!(false)),
        ("prompt_logprobs", json!(0)),
        ("truncate_prompt_tokens", json!(3)),
        ("priority", json!(1)),
        ("cache_salt", json!("x")),
        ("n_predict", json!(3)),
        ("mirostat", json!(2)),
        ("repeat_penalty", json!(1.1)),
        ("dry_multiplier", json!(0.8)),
        ("xtc_probability", json!(0.5)),
        ("grammar", json!("root ::= \"a\"")),
        ("samplers", json!(["top_k"])),
        ("id_slot", json!(3)),
        ("max_new_tokens", json!(3)),
        ("do_sample", json!(false)),
        ("watermark", json!(true)),
        ("parameters", json!({"max_new_tokens": 3})),
    ]
}

#[test]
fn parameters_of_other_servers_are_refused_by_name_on_every_route() {
    let server = fable();
    let routes = [
        ("/v1/completions", json!({"prompt": "A", "max_tokens": 1})),
        ("/engines/fable/completions", json!({"prompt": "A", "max_tokens": 1})),
        ("/v1/chat/completions", json!({"messages": [{"role": "user", "content": "A"}], "max_tokens": 1})),
        ("/v1/embeddings", json!({"input": "A"})),
        ("/tokenize", json!({"prompt": "A"})),
        ("/detokenize", json!({"tokens": [1]})),
    ];
    for (path, body) in &routes {
        for (name, value) in unsupported() {
            let mut body = body.clone();
            body[name] = value;
            let response = server.post(path, body);
            let (status, _, param, code) = response.error();
            let found = (status, param.as_deref(), code.as_deref());
            assert_eq!(found, (400, Some(name), Some("unsupported_parameter")), "{path}");
        }
        let mut neutral = body.clone();
        for (name, value) in [("mirostat", json!(0)), ("repeat_penalty", json!(1)), ("suffix", json!(""))] {
            neutral[name] = value;
        }
        server.post(path, neutral).ok();
    }
    // Fields of another route.
    let (completions, chat) = (&routes[0], &routes[2]);
    for ((path, body), name, value) in [
        (completions, "messages", json!([{"role": "user", "content": "A"}])),
        (completions, "top_logprobs", json!(3)),
        (chat, "echo", json!(true)),
        (chat, "best_of", json!(2)),
        (chat, "return_token_ids", json!(true)),
    ] {
        let mut body = body.clone();
        body[name] = value;
        assert_eq!(server.post(path, body).error().2.as_deref(), Some(name));
    }
}

#[test]
fn unused_tools_and_zero_top_logprobs_are_accepted() {
    let server = fable();
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let messages = json!([{"role": "user", "content": "A"}]);
    for logprobs in [Value::Null, json!(false)] {
        let body = json!({"messages": messages, "max_tokens": 1, "tools": tools, "tool_choice": "none",
            "logprobs": logprobs, "top_logprobs": 0});
        let response = server.post("/v1/chat/completions", body).ok();
        assert_eq!(response["choices"][0]["logprobs"], Value::Null);
    }
}

#[test]
fn whole_number_is_accepted_where_an_integer_is_meant() {
    let server = fable();
    let body = json!({"prompt": [5.0, 6.0], "max_tokens": 2.0, "n": 2.0, "logprobs": 1.0, "seed": 3.0,
        "logit_bias": {"4095": -100}});
    assert_eq!(server.post("/v1/completions", body).ok()["usage"]["completion_tokens"], 4);
    for (body, message) in [
        (json!({"max_tokens": 2.5}), "max_tokens: found 2.5, expected a whole number of at most 64 bits"),
        (json!({"n": "2"}), "n: found \"2\", expected an integer"),
        (json!({"temperature": "hot"}), "temperature: found \"hot\", expected a number"),
        (json!({"stop": 3}), "stop: found 3, expected a string or a list of strings"),
        (json!({"stream": "yes"}), "stream: found \"yes\", expected a boolean"),
        (json!({"logit_bias": [1]}), "logit_bias: found [1], expected an object"),
        (
            json!({"stop_token_ids": [-1]}),
            "stop_token_ids[0]: found -1, expected an integer from 0 to 4294967295",
        ),
        (
            json!({"prompt": {"a": 1}}),
            "prompt: found {\"a\":1}, expected a string, a list of strings, a list of",
        ),
    ] {
        let response = server.post("/v1/completions", body).json();
        let found = response["error"]["message"].as_str().unwrap();
        assert!(found.starts_with(message), "{found}");
    }
}

#[test]
fn extensions_constrain_the_completion() {
    let server = fable();
    let hornbook = super::client::open("fable");
    let complete = |extra: Value| {
        let mut body = json!({"prompt": "The king", "max_tokens": 12, "temperature": 0,
            "return_token_ids": true, "logit_bias": {"4095": -100}});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let choice = server.post("/v1/completions", body).ok()["choices"][0].clone();
        (super::ids(&choice["token_ids"]), choice)
    };
    let (plain, _) = complete(json!({}));
    assert_eq!(plain.len(), 12);
    // A stop token ends the text, and is not part of it.
    let stop = plain[4];
    let first = plain.iter().position(|&id| id == stop).unwrap();
    let (ids, choice) = complete(json!({"stop_token_ids": [stop]}));
    assert_eq!((&ids[..], &choice["finish_reason"]), (&plain[..=first], &json!("stop")));
    assert_eq!(choice["text"], hornbook.tokenizer().unwrap().decode(&plain[..first]));
    let (ids, _) = complete(json!({"stop_token_ids": [stop], "min_tokens": 8}));
    assert!(ids.len() >= 8 && !ids[..8].contains(&stop), "{ids:?}");
    // The end of the text is banned, however probable.
    let (ids, choice) = complete(json!({"ignore_eos": true, "logit_bias": {"4095": 100}}));
    assert_eq!((ids.len(), ids.contains(&4095), &choice["finish_reason"]), (12, false, &json!("length")));
    let (ids, _) = complete(json!({"allowed_token_ids": [plain[1], plain[3]], "temperature": 1}));
    assert!(ids.iter().all(|id| [plain[1], plain[3]].contains(id)), "{ids:?}");
    // A bad word of several tokens is banned where it would be complete.
    let text = hornbook.tokenizer().unwrap().decode(&plain);
    let words: Vec<&str> = text.split(' ').filter(|word| word.len() > 2).collect();
    let (_, choice) = complete(json!({"bad_words": words}));
    let constrained = choice["text"].as_str().unwrap();
    for word in words {
        assert!(!constrained.split(' ').any(|other| other == word), "{word}: {constrained}");
    }
}

#[test]
fn fields_are_checked_though_another_takes_their_place() {
    let server = fable();
    let (long, chat) = ("m".repeat(257), json!([{"role": "user", "content": "A"}]));
    for (path, param, body) in [
        ("/v1/completions", "max_tokens", json!({"max_tokens": -1, "max_completion_tokens": 1})),
        (
            "/v1/chat/completions",
            "max_tokens",
            json!({"messages": chat, "max_tokens": -1,
            "max_completion_tokens": 1}),
        ),
        ("/v1/engines/fable/completions", "model", json!({"model": long, "max_tokens": 1})),
        ("/v1/engines/fable/embeddings", "model", json!({"model": long, "input": "A"})),
        ("/v1/completions", "min_tokens", json!({"min_tokens": 512})),
        ("/v1/completions", "logit_bias", json!({"logit_bias": {"+5": 1}, "max_tokens": 1})),
    ] {
        let (status, _, found, _) = server.post(path, body.clone()).error();
        assert_eq!((status, found.as_deref()), (400, Some(param)), "{path} {body}");
    }
    server.post("/v1/completions", json!({"logit_bias": {"005": 1}, "max_tokens": 1})).ok();
}
