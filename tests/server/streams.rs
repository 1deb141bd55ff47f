//! Streaming: server-sent events and their chunks.

use super::client::{Response, TestServer, data, fable, open, serve};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};

fn text(chunks: &[Value], index: u64) -> String {
    let choices = chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap());
    choices.filter(|choice| choice["index"] == index).map(|choice| choice["text"].as_str().unwrap()).collect()
}

/// Returns the chunks of a streamed request and the response of the same one unstreamed.
fn streamed_and_complete(server: &TestServer, mut body: Value) -> (Vec<Value>, Value) {
    let complete = server.post("/v1/completions", body.clone()).ok();
    body["stream"] = json!(true);
    (server.post("/v1/completions", body).events(), complete)
}

/// Asserts that each choice's chunks add up to the complete response.
fn assert_same(chunks: &[Value], complete: &Value) {
    for choice in complete["choices"].as_array().unwrap() {
        let index = choice["index"].as_u64().unwrap();
        assert_eq!(text(chunks, index), choice["text"].as_str().unwrap());
        let choice_chunks: Vec<&Value> =
            chunks.iter().map(|chunk| &chunk["choices"][0]).filter(|c| c["index"] == index).collect();
        for list in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
            let Some(expected) = choice["logprobs"][list].as_array() else { continue };
            let actual: Vec<&Value> = choice_chunks
                .iter()
                .flat_map(|c| c["logprobs"][list].as_array().into_iter().flatten())
                .collect();
            assert_eq!(actual, expected.iter().collect::<Vec<_>>(), "{list}");
        }
        let (last, others) = choice_chunks.split_last().unwrap();
        assert_eq!(last["finish_reason"], choice["finish_reason"]);
        assert!(others.iter().all(|choice| choice["finish_reason"].is_null()));
    }
}

#[test]
fn stop_strings_across_tokens_are_found_and_never_streamed() {
    let server = fable();
    let unstopped = server
        .post("/v1/completions", json!({"prompt": "Once upon a time", "max_tokens": 40, "temperature": 0}))
        .ok();
    let unstopped = unstopped["choices"][0]["text"].as_str().unwrap().to_string();
    let characters: Vec<char> = unstopped.chars().collect();
    for (from, to) in [(20, 29), (33, 36), (50, 52)] {
        let stop: String = characters[from..to].iter().collect();
        let expected = &unstopped[..unstopped.find(&stop).unwrap()];
        let body = json!({"prompt": "Once upon a time", "max_tokens": 40, "temperature": 0,
            "stop": ["never seen", stop]});
        let (chunks, complete) = streamed_and_complete(&server, body);
        assert_eq!(
            (complete["choices"][0]["text"].as_str().unwrap(), &complete["choices"][0]["finish_reason"]),
            (expected, &json!("stop"))
        );
        assert_same(&chunks, &complete);
        // No streamed text goes beyond the expected text.
        let mut streamed = String::new();
        for chunk in &chunks {
            streamed += chunk["choices"][0]["text"].as_str().unwrap();
            assert!(expected.starts_with(&streamed), "{streamed:?} {expected:?}");
        }
    }
    // Text held back as a possible stop string is sent at the end.
    let end: String = characters[characters.len() - 3..].iter().collect();
    let body =
        json!({"prompt": "Once upon a time", "max_tokens": 40, "temperature": 0, "stop": format!("{end}~~")});
    let (chunks, complete) = streamed_and_complete(&server, body);
    assert_eq!(complete["choices"][0]["text"], unstopped);
    assert_same(&chunks, &complete);
}

#[test]
fn chunks_never_split_a_character() {
    let server = fable();
    let hornbook = open("fable");
    let tokenizer = hornbook.tokenizer().unwrap();
    // Makes tokens that are parts of characters likely.
    let parts: Vec<u32> =
        (0..4096).filter(|&id| str::from_utf8(tokenizer.token_bytes(id)).is_err()).collect();
    let bias: serde_json::Map<String, Value> =
        parts.iter().take(120).map(|id| (id.to_string(), json!(20))).collect();
    let body = json!({"prompt": "The", "max_tokens": 60, "seed": 3, "logit_bias": bias, "logprobs": 0,
        "return_token_ids": true});
    let (chunks, complete) = streamed_and_complete(&server, body);
    let ids: Vec<u32> = serde_json::from_value(complete["choices"][0]["token_ids"].clone()).unwrap();
    assert!(ids.iter().filter(|id| parts.contains(id)).count() > 10, "{ids:?}");
    assert_eq!(complete["choices"][0]["text"].as_str().unwrap(), tokenizer.decode(&ids));
    assert_same(&chunks, &complete);
    let streamed: Vec<u32> = chunks
        .iter()
        .flat_map(|chunk| {
            serde_json::from_value::<Vec<u32>>(chunk["choices"][0]["token_ids"].clone()).unwrap()
        })
        .collect();
    assert_eq!(streamed, ids);
    // A character of several tokens decodes without U+FFFD.
    let quote = hornbook.encode("“").unwrap();
    assert_eq!(tokenizer.decode(&quote), "“");
}

#[test]
fn return_token_ids_streams_every_token() {
    for model in ["fable", "tiny-gelu-new"] {
        let server = serve(&[model], |_| {});
        let body = json!({"prompt": [1, 2, 3], "max_tokens": 6, "seed": 4, "ignore_eos": true,
            "return_token_ids": true});
        let (chunks, complete) = streamed_and_complete(&server, body);
        let counts = chunks.iter().map(|chunk| chunk["choices"][0]["token_ids"].as_array().unwrap().len());
        // The finish reason is sent with the last token.
        assert_eq!(counts.filter(|count| *count > 0).collect::<Vec<_>>(), [1; 6], "{model}");
        assert_same(&chunks, &complete);
    }
}

#[test]
fn finish_reason_is_null_until_the_last_chunk() {
    let server = fable();
    let (chunks, complete) = streamed_and_complete(
        &server,
        json!({"prompt": "The king", "max_tokens": 5, "seed": 1, "logit_bias": {"4095": -100}}),
    );
    assert_eq!(complete["choices"][0]["finish_reason"], "length");
    assert_same(&chunks, &complete);
    assert!(
        chunks.iter().all(|chunk| chunk["choices"][0].as_object().unwrap().contains_key("finish_reason"))
    );
    // The end-of-text token gives "stop", the end of the context "length".
    let (chunks, complete) = streamed_and_complete(
        &server,
        json!({"prompt": "The king", "max_tokens": 5, "logit_bias": {"4095": 100}}),
    );
    assert_eq!(
        (&complete["choices"][0]["finish_reason"], &complete["choices"][0]["text"]),
        (&json!("stop"), &json!(""))
    );
    assert_same(&chunks, &complete);
    // A chat that repeats one word runs to the end of the context; one biased to end-of-text stops at once.
    let word = open("fable").encode(" the").unwrap()[0].to_string();
    for (token, reason) in [(word.as_str(), "length"), ("4095", "stop")] {
        let chat = json!({"messages": [{"role": "user", "content": "a ".repeat(420)}],
            "logit_bias": {token: 100}, "temperature": 0, "stream": true,
            "stream_options": {"include_usage": true}});
        let chunks = server.post("/v1/chat/completions", chat).events();
        let usage = &chunks[chunks.len() - 1]["usage"];
        assert_eq!(chunks[chunks.len() - 2]["choices"][0]["finish_reason"], reason);
        assert_eq!(usage["total_tokens"] == 512, reason == "length", "{usage}");
    }
}

#[test]
fn usage_chunk_is_sent_only_if_requested() {
    let server = fable();
    let stream = |path: &str, mut body: Value, options: Value| {
        body["stream"] = json!(true);
        body["max_tokens"] = json!(3);
        body["seed"] = json!(1);
        body["stream_options"] = options;
        server.post(path, body).events()
    };
    for (path, body) in [
        ("/v1/completions", json!({"prompt": "The king"})),
        ("/v1/chat/completions", json!({"messages": [{"role": "user", "content": "Hi"}]})),
    ] {
        for options in
            [Value::Null, json!({}), json!({"include_usage": false}), json!({"include_obfuscation": true})]
        {
            for chunk in stream(path, body.clone(), options) {
                assert!(
                    chunk.get("usage").is_none() && chunk["choices"].as_array().unwrap().len() == 1,
                    "{chunk}"
                );
            }
        }
        let chunks = stream(path, body.clone(), json!({"include_usage": true}));
        let (last, others) = chunks.split_last().unwrap();
        assert_eq!(last["choices"], json!([]));
        assert!(others.iter().all(|chunk| chunk["usage"].is_null() && chunk.get("usage").is_some()));
        let complete = server
            .post(path, {
                let mut body = body;
                body["max_tokens"] = json!(3);
                body["seed"] = json!(1);
                body
            })
            .ok();
        assert_eq!(last["usage"], complete["usage"]);
        assert!(complete["usage"]["prompt_tokens"].as_u64().unwrap() > 1);
    }
}

#[test]
fn choices_interleave_with_independent_random_numbers() {
    let server = fable();
    let body = json!({"prompt": ["The king", "A dog"], "n": 3, "max_tokens": 8, "seed": 9, "logprobs": 2,
        "echo": true});
    let (chunks, complete) = streamed_and_complete(&server, body);
    assert_same(&chunks, &complete);
    let texts: Vec<String> = (0..6).map(|index| text(&chunks, index)).collect();
    assert!(texts[..3].iter().all(|text| text.starts_with("The king")));
    assert!(texts[3..].iter().all(|text| text.starts_with("A dog")));
    assert!(texts[0] != texts[1] && texts[1] != texts[2] && texts[0] != texts[2], "{texts:?}");
    let order: Vec<u64> = chunks.iter().map(|chunk| chunk["choices"][0]["index"].as_u64().unwrap()).collect();
    let last_of_0 = order.iter().rposition(|index| *index == 0).unwrap();
    assert!(order[..last_of_0].contains(&1), "{order:?}");
    let finished: Vec<u64> = chunks
        .iter()
        .map(|chunk| &chunk["choices"][0])
        .filter(|c| !c["finish_reason"].is_null())
        .map(|c| c["index"].as_u64().unwrap())
        .collect();
    let mut sorted = finished.clone();
    sorted.sort();
    assert_eq!(sorted, [0, 1, 2, 3, 4, 5]);
    // All chunks share id, time, model and object type.
    for chunk in &chunks {
        for key in ["id", "created", "model", "object"] {
            assert_eq!(chunk[key], chunks[0][key], "{key}");
        }
    }
    assert_eq!(chunks[0]["object"], complete["object"]);
    assert!(chunks[0]["id"].as_str().unwrap().starts_with("cmpl-"));
}

#[test]
fn chat_stream_sends_deltas() {
    let server = fable();
    let mut body = json!({"messages": [{"role": "user", "content": "Once upon a time"}], "max_tokens": 12,
        "seed": 3, "n": 2, "logprobs": true, "top_logprobs": 1});
    let complete = server.post("/v1/chat/completions", body.clone()).ok();
    body["stream"] = json!(true);
    let chunks = server.post("/v1/chat/completions", body).events();
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk["object"] == "chat.completion.chunk" && chunk["id"] == chunks[0]["id"])
    );
    for choice in complete["choices"].as_array().unwrap() {
        let deltas: Vec<&Value> = chunks
            .iter()
            .map(|chunk| &chunk["choices"][0])
            .filter(|c| c["index"] == choice["index"])
            .collect();
        assert_eq!(deltas[0]["delta"], json!({"role": "assistant", "content": ""}));
        let (last, content) = deltas[1..].split_last().unwrap();
        assert_eq!((&last["delta"], &last["finish_reason"]), (&json!({}), &choice["finish_reason"]));
        let text: String = content.iter().map(|c| c["delta"]["content"].as_str().unwrap()).collect();
        assert_eq!(text, choice["message"]["content"].as_str().unwrap());
        let logprobs: Vec<&Value> =
            content.iter().flat_map(|c| c["logprobs"]["content"].as_array().unwrap()).collect();
        assert_eq!(logprobs, choice["logprobs"]["content"].as_array().unwrap().iter().collect::<Vec<_>>());
    }
}

#[test]
fn first_token_is_sent_before_generation_ends() {
    let server = fable();
    let body = json!({"prompt": "The", "max_tokens": 500, "stream": true, "logit_bias": {"4095": -100}});
    let mut lines = BufReader::new(server.start_post("/v1/completions", &body)).lines();
    lines.find(|line| line.as_ref().unwrap().starts_with("data: ")).unwrap().unwrap();
    let generated = server.metric("hornbook_generated_tokens_total");
    assert!(generated < 500.0, "{generated}");
}

#[test]
fn every_event_is_one_data_line_and_a_blank_line() {
    let server = fable();
    let response: Response =
        server.post("/v1/completions", json!({"prompt": "The", "max_tokens": 3, "stream": true}));
    let events = data(&response.text);
    assert_eq!(response.text, events.iter().map(|data| format!("data: {data}\n\n")).collect::<String>());
    assert_eq!(response.header("cache-control"), "no-cache");
}
