//! Logprobs: values, offsets and formats.

use super::client::{fable, open};
use hornbook::sampling::{token_logprob, top_logprobs};
use hornbook::tokenizer::Utf8Decoder;
use serde_json::{Value, json};

const PROMPT: &str = "Once upon a time, “there” was";

fn floats(value: &Value) -> Vec<Option<f32>> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn echoed_prompt_has_logprobs_and_null_for_the_first_token() {
    let server = fable();
    let hornbook = open("fable");
    let ids = hornbook.encode(PROMPT).unwrap();
    let body =
        json!({"prompt": PROMPT, "echo": true, "logprobs": 3, "max_tokens": 4, "temperature": 0, "n": 2});
    let response = server.post("/v1/completions", body).ok();
    for choice in response["choices"].as_array().unwrap() {
        let logprobs = &choice["logprobs"];
        let generated = response["usage"]["completion_tokens"].as_u64().unwrap() as usize / 2;
        for list in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
            assert_eq!(logprobs[list].as_array().unwrap().len(), ids.len() + generated, "{list}");
        }
        let scores = floats(&logprobs["token_logprobs"]);
        assert_eq!((scores[0], &logprobs["top_logprobs"][0]), (None, &Value::Null));
        // Each is the model's log probability of the token given those before it.
        let mut session = hornbook::model::Session::new(hornbook.model(), ids.len(), None);
        session
            .score(&ids, |t, logits| {
                let Some(&next) = ids.get(t + 1) else { return };
                assert_eq!(scores[t + 1], Some(token_logprob(logits, next)));
                let top = logprobs["top_logprobs"][t + 1].as_object().unwrap();
                assert!((3..=4).contains(&top.len()), "{top:?}");
                let best = top_logprobs(logits, 1)[0].1;
                assert!(top.values().any(|logprob| logprob.as_f64().unwrap() as f32 == best));
            })
            .unwrap();
        assert!(choice["text"].as_str().unwrap().starts_with(PROMPT));
    }
    // As lm_eval does: score the prompt, generate nothing.
    let body = json!({"prompt": [ids], "echo": true, "logprobs": 1, "max_tokens": 0, "temperature": 0});
    let scored = server.post("/v1/completions", body).ok();
    let actual = floats(&scored["choices"][0]["logprobs"]["token_logprobs"]);
    assert_eq!(actual, floats(&response["choices"][0]["logprobs"]["token_logprobs"])[..ids.len()]);
    assert_eq!(scored["choices"][0]["text"], PROMPT);
}

#[test]
fn text_offsets_count_characters_from_prompt_start() {
    let server = fable();
    let hornbook = open("fable");
    let (tokenizer, ids) = (hornbook.tokenizer().unwrap(), hornbook.encode(PROMPT).unwrap());
    let complete = |echo: bool, prompt: Value| {
        let body = json!({"prompt": prompt, "echo": echo, "logprobs": 0, "max_tokens": 6, "seed": 1,
            "return_token_ids": true});
        server.post("/v1/completions", body).ok()["choices"][0].clone()
    };
    let (echoed, plain) = (complete(true, json!(PROMPT)), complete(false, json!(PROMPT)));
    let offsets = |choice: &Value| -> Vec<usize> {
        serde_json::from_value(choice["logprobs"]["text_offset"].clone()).unwrap()
    };
    assert_eq!(offsets(&echoed)[ids.len()..], offsets(&plain));
    assert_eq!(offsets(&plain)[0], PROMPT.chars().count());
    let generated: Vec<u32> = serde_json::from_value(plain["token_ids"].clone()).unwrap();
    let (mut decoder, mut n_chars) = (Utf8Decoder::new(), 0);
    for (&id, offset) in ids.iter().chain(&generated).zip(offsets(&echoed)) {
        assert_eq!(offset, n_chars + decoder.clone().finish().chars().count());
        n_chars += decoder.push(tokenizer.token_bytes(id)).chars().count();
    }
    // A token that is part of a character is named by its bytes.
    let quote = hornbook.encode("é“").unwrap();
    let parts: Vec<u32> =
        quote.into_iter().filter(|&id| str::from_utf8(tokenizer.token_bytes(id)).is_err()).collect();
    assert!(!parts.is_empty(), "fable has no token for one of these alone");
    let names = complete(true, json!(parts))["logprobs"]["tokens"].clone();
    let byte = tokenizer.token_bytes(parts[0])[0];
    assert!(names[0].as_str().unwrap().starts_with(&format!("bytes:\\x{byte:02x}")), "{names}");
}

#[test]
fn chat_logprobs_have_the_chat_format() {
    let server = fable();
    let chat = |top: Value| {
        let messages = json!([{"role": "user", "content": "Once upon"}]);
        let body = json!({"messages": messages, "max_tokens": 6, "temperature": 0, "repetition_penalty": 1,
            "logprobs": true, "top_logprobs": top});
        server.post("/v1/chat/completions", body).ok()["choices"][0].clone()
    };
    let choice = chat(json!(2));
    let content = choice["logprobs"]["content"].as_array().unwrap();
    assert!(!content.is_empty() && choice["logprobs"]["refusal"].is_null());
    for token in content {
        let bytes: Vec<u8> = serde_json::from_value(token["bytes"].clone()).unwrap();
        assert_eq!(String::from_utf8_lossy(&bytes), token["token"].as_str().unwrap());
        let top = token["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 2);
        assert_eq!((&top[0]["token"], &top[0]["logprob"]), (&token["token"], &token["logprob"]));
        assert!(top[0]["logprob"].as_f64() >= top[1]["logprob"].as_f64() && top[0]["bytes"].is_array());
    }
    let text: Vec<u8> =
        content.iter().flat_map(|t| serde_json::from_value::<Vec<u8>>(t["bytes"].clone()).unwrap()).collect();
    let message = choice["message"]["content"].as_str().unwrap();
    assert!(String::from_utf8_lossy(&text).trim_start().starts_with(message));
    assert!(choice["logprobs"].get("tokens").is_none());
    // Without top_logprobs there are no alternatives.
    let plain = chat(Value::Null);
    assert_eq!(plain["logprobs"]["content"].as_array().unwrap().len(), content.len());
    assert_eq!(plain["logprobs"]["content"][0]["top_logprobs"], json!([]));
}

#[test]
fn logprobs_are_finite() {
    let server = fable();
    let hornbook = open("fable");
    let rare: Vec<u32> = (0..40).map(|i| i * 97 % 4096).collect();
    let body = json!({"prompt": rare, "echo": true, "logprobs": 5, "max_tokens": 8, "temperature": 2,
        "logit_bias": {"5": 100}});
    let response = server.post("/v1/completions", body).ok();
    let logprobs = &response["choices"][0]["logprobs"];
    let scores = floats(&logprobs["token_logprobs"]);
    assert!(
        scores[1..].iter().all(|score| score.is_some_and(|score| (-9999.0..=0.0).contains(&score))),
        "{scores:?}"
    );
    for top in &logprobs["top_logprobs"].as_array().unwrap()[1..] {
        assert!(top.as_object().unwrap().values().all(|score| score.is_f64()), "{top}");
    }
    assert_eq!(hornbook::generate::completion::finite_logprob(f32::NEG_INFINITY), -9999.0);
    drop(hornbook);
}

#[test]
fn logprobs_are_before_temperature_and_filters() {
    let server = fable();
    let hornbook = open("fable");
    let ids = hornbook.encode("The king").unwrap();
    let mut session = hornbook::model::Session::new(hornbook.model(), 8, None);
    let logits = session.feed(&ids).unwrap().to_vec();
    let best = top_logprobs(&logits, 2);
    // Bias and top_p leave only the second-best token.
    let body = json!({"prompt": "The king", "max_tokens": 1, "temperature": 0.1, "top_p": 0.1, "logprobs": 2,
        "logit_bias": {(best[1].0.to_string()): 50}, "presence_penalty": 1});
    let response = server.post("/v1/completions", body).ok();
    let logprobs = &response["choices"][0]["logprobs"];
    assert_eq!(floats(&logprobs["token_logprobs"]), [Some(best[1].1)]);
    let name = hornbook::generate::completion::token_name(hornbook.try_tokenizer(), best[0].0);
    assert_eq!(logprobs["top_logprobs"][0][&name].as_f64().unwrap() as f32, best[0].1);
}

/// Returns the ids of fable's tokens of one byte each.
fn byte_ids(tokenizer: &hornbook::tokenizer::Tokenizer, bytes: &[u8]) -> Vec<u32> {
    let id = |&byte: &u8| (0..4096).find(|&id| tokenizer.token_bytes(id) == [byte]).unwrap();
    bytes.iter().map(id).collect()
}

#[test]
fn prompt_that_ends_inside_a_character_is_joined_with_the_completion() {
    let server = fable();
    let hornbook = open("fable");
    let tokenizer = hornbook.tokenizer().unwrap();
    let emoji = "😀".as_bytes();
    // The character is completed, still incomplete at the end, or broken off by another.
    for (n, next) in [(3, 3), (2, 2), (2, 0)] {
        let prompt = [byte_ids(tokenizer, b"a"), byte_ids(tokenizer, &emoji[..n])].concat();
        let next = byte_ids(tokenizer, &emoji[next..=next])[0];
        for max_tokens in [1, 0] {
            let ids = [&prompt[..], &[next][..max_tokens]].concat();
            let text = tokenizer.decode(&ids);
            let mut body = json!({"prompt": prompt, "echo": true, "logprobs": 0, "max_tokens": max_tokens,
                "allowed_token_ids": [next]});
            let choice = server.post("/v1/completions", body.clone()).ok()["choices"][0].clone();
            assert_eq!(choice["text"], text);
            let offsets: Vec<usize> =
                serde_json::from_value(choice["logprobs"]["text_offset"].clone()).unwrap();
            let expected: Vec<usize> =
                (0..ids.len()).map(|i| tokenizer.decode(&ids[..i]).chars().count()).collect();
            assert_eq!(offsets, expected);
            body["stream"] = json!(true);
            let events = server.post("/v1/completions", body.clone()).events();
            let streamed: String =
                events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
            assert_eq!(streamed, text);
            // Without echo, the completion has what follows the prompt's complete characters.
            (body["stream"], body["echo"]) = (json!(false), json!(false));
            let plain = server.post("/v1/completions", body).ok()["choices"][0]["text"].clone();
            let expected = if max_tokens == 0 { "" } else { text.strip_prefix('a').unwrap() };
            assert_eq!(plain, expected);
        }
    }
}

#[test]
fn empty_prompt_has_offsets_from_zero() {
    let server = fable();
    for prompt in [json!(""), Value::Null, json!([""])] {
        for echo in [false, true] {
            let body = json!({"prompt": prompt, "echo": echo, "logprobs": 0, "max_tokens": 3, "seed": 1});
            let logprobs = server.post("/v1/completions", body).ok()["choices"][0]["logprobs"].clone();
            assert_eq!(
                (&logprobs["text_offset"][0], logprobs["tokens"].as_array().unwrap().len()),
                (&json!(0), 3)
            );
        }
    }
}

#[test]
fn stop_string_completed_by_the_last_flush_is_stop() {
    let server = fable();
    let first = byte_ids(open("fable").tokenizer().unwrap(), &"é".as_bytes()[..1])[0];
    let body = json!({"prompt": "A", "max_tokens": 1, "allowed_token_ids": [first], "stop": "\u{fffd}"});
    let choice = server.post("/v1/completions", body).ok()["choices"][0].clone();
    assert_eq!((&choice["text"], &choice["finish_reason"]), (&json!(""), &json!("stop")));
}
