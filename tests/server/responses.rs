//! `/v1/responses`: the same text as chat completions, in the objects and events of OpenAI's newer API.

use super::client::{Response, TestServer, fable, serve};
use serde_json::{Value, json};

const MESSAGES: [(&str, &str); 2] = [("system", "You tell fables."), ("user", "Tell me one.")];

fn message((role, content): (&str, &str)) -> Value {
    json!({"role": role, "content": content})
}

fn respond(server: &TestServer, mut body: Value, more: Value) -> Response {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    server.post("/v1/responses", body)
}

fn text(response: &Value) -> &str {
    response["output"][0]["content"][0]["text"].as_str().unwrap()
}

/// The events of a stream: each has its type as its name too.
fn events(response: &Response) -> Vec<Value> {
    assert_eq!((response.status, response.header("content-type")), (200, "text/event-stream"));
    let events: Vec<Value> = response
        .text
        .split("\n\n")
        .filter(|event| !event.is_empty() && !event.starts_with(':'))
        .map(|event| {
            let (name, data) = event.split_once('\n').unwrap();
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(data["type"], name.strip_prefix("event: ").unwrap());
            data
        })
        .collect();
    for (i, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], i);
    }
    events
}

/// A response without what differs between two of the same request.
fn without_ids(response: &Value) -> Value {
    let mut response = response.clone();
    for field in ["id", "created_at", "completed_at"] {
        response.as_object_mut().unwrap().remove(field).unwrap();
    }
    response["output"][0].as_object_mut().unwrap().remove("id").unwrap();
    response
}

#[test]
fn response_is_the_answer_of_chat_whatever_the_form_of_the_input() {
    let server = fable();
    let sampling = json!({"seed": 3, "temperature": 0.5, "top_p": 0.9, "top_k": 20});
    let chat = json!({"messages": MESSAGES.map(message), "max_tokens": 4});
    let mut chat_body = chat;
    chat_body.as_object_mut().unwrap().extend(sampling.as_object().unwrap().clone());
    let chat = server.post("/v1/chat/completions", chat_body).ok();
    let expected = chat["choices"][0]["message"]["content"].as_str().unwrap();
    let parts = json!([{"type": "message", "role": "developer", "content": [
        {"type": "input_text", "text": "You tell "}, {"type": "input_text", "text": "fables."}]},
        {"role": "user", "content": "Tell me one."}]);
    for input in [
        json!({"input": MESSAGES.map(message)}),
        json!({"input": "Tell me one.", "instructions": "You tell fables."}),
        json!({"input": [message(MESSAGES[1])], "instructions": "You tell fables."}),
        json!({"input": parts}),
    ] {
        let more = json!({"max_output_tokens": 4, "metadata": {"a": "b"}});
        let mut body = input.clone();
        body.as_object_mut().unwrap().extend(sampling.as_object().unwrap().clone());
        let response = respond(&server, body, more).ok();
        assert_eq!(text(&response), expected, "{input}");
        assert_eq!((&response["object"], &response["model"]), (&json!("response"), &json!("fable")));
        assert_eq!((&response["temperature"], &response["top_p"]), (&json!(0.5), &json!(0.9)));
        assert_eq!((&response["store"], &response["metadata"]), (&json!(false), &json!({"a": "b"})));
        assert_eq!(response["usage"]["input_tokens"], chat["usage"]["prompt_tokens"]);
        assert_eq!(response["usage"]["output_tokens"], 4);
        assert_eq!(response["usage"]["total_tokens"], chat["usage"]["total_tokens"]);
        assert_eq!((&response["status"], &response["completed_at"]), (&json!("incomplete"), &Value::Null));
        assert_eq!(response["incomplete_details"]["reason"], "max_output_tokens");
        assert_eq!(response["output"][0]["status"], "incomplete");
        assert!(response["id"].as_str().unwrap().starts_with("resp_"));
        assert!(response["output"][0]["id"].as_str().unwrap().starts_with("msg_"));
    }
    let stop = &expected[expected.len() - 4..];
    let body = json!({"input": MESSAGES.map(message), "stop": stop, "max_output_tokens": 20});
    let response = respond(&server, body, sampling).ok();
    assert_eq!((&response["status"], &response["incomplete_details"]), (&json!("completed"), &Value::Null));
    assert!(response["completed_at"].as_u64() >= response["created_at"].as_u64());
    // An answer and a further question.
    let body = json!({"input": [message(MESSAGES[1]), response["output"][0],
        {"type": "message", "role": "user", "content": "Another."}], "max_output_tokens": 1});
    respond(&server, body, json!({})).ok();
}

#[test]
fn stream_has_every_event_in_order_and_the_response_in_the_last() {
    let server = fable();
    let logprobs = json!({"include": ["message.output_text.logprobs"], "top_logprobs": 2});
    for more in [json!({}), logprobs] {
        let body = json!({"input": "Tell me one.", "seed": 2, "max_output_tokens": 16});
        let complete = respond(&server, body.clone(), more.clone()).ok();
        let mut streaming = more.clone();
        streaming["stream"] = json!(true);
        let events = events(&respond(&server, body, streaming));
        let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
        let deltas = kinds.iter().filter(|kind| **kind == "response.output_text.delta").count();
        assert!(deltas > 2, "{kinds:?}");
        let opening = ["created", "in_progress", "output_item.added", "content_part.added"];
        let status = complete["status"].as_str().unwrap();
        let closing = ["output_text.done", "content_part.done", "output_item.done", status];
        let named = |names: [&str; 4]| names.map(|name| format!("response.{name}"));
        assert_eq!(kinds[..4], named(opening));
        assert_eq!(kinds[4 + deltas..], named(closing));

        let last = &events.last().unwrap()["response"];
        assert_eq!(without_ids(last), without_ids(&complete));
        let (created, item) = (&events[0]["response"], &last["output"][0]);
        assert_eq!((&created["status"], &created["output"]), (&json!("in_progress"), &json!([])));
        assert_eq!((&created["id"], &created["usage"]), (&last["id"], &Value::Null));
        assert_eq!((&events[2]["item"]["id"], &events[2]["item"]["content"]), (&item["id"], &json!([])));
        let deltas = &events[4..4 + deltas];
        let all: String = deltas.iter().map(|event| event["delta"].as_str().unwrap()).collect();
        assert_eq!(all, text(last));
        for event in &events[3..events.len() - 2] {
            assert_eq!((&event["item_id"], &event["content_index"]), (&item["id"], &json!(0)));
            assert_eq!(event["output_index"], 0);
        }
        let [done, part, whole, _] = events.last_chunk().unwrap();
        assert_eq!((done["text"].as_str(), &part["part"]), (Some(text(last)), &item["content"][0]));
        assert_eq!(whole["item"], *item);
        let logprobs: Vec<&Value> =
            deltas.iter().flat_map(|event| event["logprobs"].as_array().unwrap()).collect();
        assert_eq!(done["logprobs"].as_array().unwrap().iter().collect::<Vec<_>>(), logprobs);
        assert_eq!(item["content"][0]["logprobs"], done["logprobs"]);
        match more.get("top_logprobs") {
            None => assert_eq!(logprobs.len(), 0),
            Some(_) => assert!(logprobs.len() > 2),
        }
        assert!(logprobs.iter().all(|token| token["top_logprobs"].as_array().unwrap().len() == 2));
    }
}

#[test]
fn what_needs_a_store_or_tools_is_refused_by_name_and_foreign_tools_are_ignored() {
    let server = fable();
    let refused = |body: Value| {
        let response = respond(&server, json!({"input": "A", "max_output_tokens": 1}), body);
        let (status, kind, param, code) = response.error();
        assert_eq!((status, kind.as_str()), (400, "invalid_request_error"));
        (param.unwrap(), code)
    };
    for body in [
        json!({"previous_response_id": "resp_1"}),
        json!({"conversation": "conv_1"}),
        json!({"conversation": {"id": "conv_1"}}),
        json!({"prompt": {"id": "pmpt_1"}}),
        json!({"store": true}),
        json!({"background": true}),
        json!({"tool_choice": "required", "tools": [{"type": "function", "name": "f"}]}),
        json!({"tool_choice": {"type": "function", "name": "f"}}),
        json!({"text": {"format": {"type": "json_object"}}}),
        json!({"n": 2}),
        json!({"max_tokens": 3}),
    ] {
        let (param, code) = refused(body.clone());
        let field = body.as_object().unwrap().keys().next().unwrap();
        assert_eq!(param.strip_suffix(".format").unwrap_or(&param), field, "{body}");
        assert_eq!(code.as_deref(), Some("unsupported_parameter"));
    }
    let image = json!([{"role": "user", "content": [{"type": "input_text", "text": "a"},
        {"type": "input_image", "image_url": "x"}]}]);
    for (body, param) in [
        (json!({"input": null}), "input"),
        (json!({"input": []}), "input"),
        (json!({"input": 3}), "input"),
        (json!({"input": [{"role": "user"}]}), "input[0].content"),
        (json!({"input": [{"role": "king", "content": "a"}]}), "input[0].role"),
        (json!({"input": [{"content": "a"}]}), "input[0].role"),
        (json!({"input": [{"role": "user", "content": [3]}]}), "input[0].content"),
        (json!({"input": [{"type": "function_call_output", "output": "a"}]}), "input[0].type"),
        (json!({"input": image}), "input[0].content[1].type"),
        (json!({"max_output_tokens": -1}), "max_output_tokens"),
        (json!({"min_tokens": 2}), "min_tokens"),
        (json!({"top_logprobs": 2}), "top_logprobs"),
        (json!({"include": ["nothing"]}), "include[0]"),
        (json!({"truncation": "some"}), "truncation"),
        (json!({"metadata": {"a": 1}}), "metadata.a"),
        (json!({"metadata": {"a": "b".repeat(513)}}), "metadata"),
    ] {
        assert_eq!(refused(body.clone()).0, param, "{body}");
    }
    let accepted = json!({"tools": [{"type": "web_search"}, {"type": "custom", "name": "shell"}],
        "tool_choice": "auto", "store": false, "previous_response_id": null, "reasoning": {"effort": "high"},
        "include": ["reasoning.encrypted_content"], "text": {"format": {"type": "text"}}, "metadata": null,
        "background": false, "parallel_tool_calls": false, "service_tier": "auto", "top_logprobs": 0});
    let response = respond(&server, json!({"input": "A", "max_output_tokens": 1}), accepted).ok();
    assert_eq!((&response["tools"], &response["tool_choice"]), (&json!([]), &json!("auto")));
}

#[test]
fn conversation_that_does_not_fit_is_an_error_unless_it_may_be_truncated() {
    let server = fable();
    let story = "Once upon a time there was a little fox who lived in a wood. ".repeat(12);
    let turn = |i: usize| message((["user", "assistant"][i % 2], &format!("{i}: {story}")));
    let mut input: Vec<Value> = (0..8).map(turn).collect();
    input.push(message(("user", "What is his name?")));
    let body = json!({"input": input, "instructions": "You know.", "max_output_tokens": 8, "temperature": 0});
    let (status, _, param, code) = server.post("/v1/responses", body.clone()).error();
    assert_eq!((status, param.as_deref()), (400, Some("input")));
    assert_eq!(code.as_deref(), Some("context_length_exceeded"));
    let truncated = respond(&server, body.clone(), json!({"truncation": "auto"})).ok();
    assert_eq!(truncated["truncation"], "auto");
    // As if only the latest turns that fit had been sent.
    let fitting = (0..=8).step_by(2).find_map(|start| {
        let response = respond(&server, body.clone(), json!({"input": input[start..]}));
        (response.status == 200).then(|| response.json())
    });
    let fitting = fitting.unwrap();
    assert_eq!(text(&truncated), text(&fitting));
    assert_eq!(truncated["usage"], fitting["usage"]);
    let tokens = truncated["usage"]["input_tokens"].as_u64().unwrap();
    assert!((100..=504).contains(&tokens), "{tokens}");
}

#[test]
fn failure_within_a_stream_is_its_last_event() {
    let folder = tempfile::tempdir().unwrap();
    let template = folder.path().join("template.jinja"); // without stop strings
    std::fs::write(&template, "{{ messages[0].content }}").unwrap();
    let server = serve(&["fable"], |options| {
        options.grace_period = std::time::Duration::ZERO;
        options.chat_template = Some(template);
    });
    let shut_down = server.shutdown_handle();
    // Others fill the batch, so that it does not end too soon.
    let others = json!({"prompt": "The", "n": 100, "max_tokens": 400, "ignore_eos": true, "stream": true});
    let _others = server.start_post("/v1/completions", &others);
    server.wait_for("hornbook_sequences_running", |running| running == 16.0);
    let body = json!({"input": "Tell me one.", "stream": true, "ignore_eos": true});
    let stream = std::thread::scope(|scope| {
        let stream = scope.spawn(|| server.post("/v1/responses", body));
        let prompts = server.metric("hornbook_prompt_tokens_total");
        server.wait_for("hornbook_prompt_tokens_total", |now| now > prompts);
        shut_down();
        stream.join().unwrap()
    });
    let events = events(&stream);
    let last = events.last().unwrap();
    assert_eq!(last["type"], "response.failed");
    assert_eq!((&last["response"]["status"], &last["response"]["output"]), (&json!("failed"), &json!([])));
    assert_eq!(last["response"]["error"]["code"], "server_error");
    assert!(last["response"]["error"]["message"].as_str().unwrap().contains("shutting down"));
}
