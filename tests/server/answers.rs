//! What is answered: the tokens that the library itself gives.

use super::client::{fable, open, serve};
use super::ids;
use hornbook::sampling::SamplingParams;
use hornbook::{Hornbook, Options};
use serde_json::{Value, json};

/// What the library makes of a prompt: the texts and tokens of its choices.
fn generated(hornbook: &Hornbook, prompt: &[u32], options: &Options, n: usize) -> Vec<(String, Vec<u32>)> {
    let mut generation = hornbook.generate(prompt, options).unwrap();
    let mut choices = vec![];
    for choice in 0..n {
        if choice > 0 {
            generation.restart().unwrap();
        }
        let text: String = generation.by_ref().map(|token| token.unwrap().text).collect();
        choices.push((text, generation.generated().to_vec()));
    }
    choices
}

fn options(max_tokens: usize, sampling: SamplingParams) -> Options {
    Options { max_tokens: Some(max_tokens), sampling, ..Options::default() }
}

#[test]
fn detail_05_all_four_prompt_shapes_and_the_index_of_each_choice() {
    let server = fable();
    let hornbook = open("fable");
    let (one, two) = (hornbook.encode("The king").unwrap(), hornbook.encode("Once upon a time").unwrap());
    let ask = |prompt: Value| {
        let body = json!({"prompt": prompt, "n": 2, "max_tokens": 6, "seed": 5, "return_token_ids": true});
        server.post("/v1/completions", body).ok()["choices"].as_array().unwrap().clone()
    };
    let single = ask(json!("The king"));
    assert_eq!(single, ask(json!(one)));
    assert_eq!(single, ask(json!(["The king"])));
    let expected =
        generated(&hornbook, &one, &options(6, SamplingParams { seed: 5, ..Default::default() }), 2);
    for (choice, (text, tokens)) in single.iter().zip(&expected) {
        assert_eq!((choice["text"].as_str().unwrap(), &ids(&choice["token_ids"])), (text.as_str(), tokens));
    }
    let several = ask(json!(["The king", "Once upon a time", "The king"]));
    assert_eq!(several, ask(json!([one, two, one])));
    let indexes: Vec<u64> = several.iter().map(|choice| choice["index"].as_u64().unwrap()).collect();
    assert_eq!(indexes, [0, 1, 2, 3, 4, 5]);
    // The same prompt twice is not the same text twice.
    assert_eq!(several[..2], single[..]);
    assert_ne!(several[4]["token_ids"], several[0]["token_ids"]);
    for prompt in [
        json!([]),
        json!([[]]),
        json!(["a", 1]),
        json!([1, "a"]),
        json!({"a": 1}),
        json!(3),
        json!([-1]),
        json!([1.5]),
        json!([4096]),
    ] {
        let answer = server.post("/v1/completions", json!({"prompt": prompt}));
        assert_eq!((answer.error().0, answer.error().2.as_deref()), (400, Some("prompt")), "{prompt}");
    }
    // Nothing, and OpenAI's name for it, are the beginning of a text.
    let greedy =
        |prompt: Value| server.post("/v1/completions", json!({"prompt": prompt, "temperature": 0})).ok();
    let first = greedy(Value::Null);
    for prompt in [json!(""), json!("<|endoftext|>"), json!([4095])] {
        let again = greedy(prompt);
        assert_eq!((&again["choices"], &again["usage"]), (&first["choices"], &first["usage"]));
    }
}

#[test]
fn detail_18_a_seed_gives_the_same_bytes_and_no_seed_does_not() {
    let server = fable();
    let hornbook = open("fable");
    let ask = |prompt: &str, seed: Value, temperature: f32| {
        let body = json!({"prompt": prompt, "max_tokens": 12, "seed": seed, "temperature": temperature, "logprobs": 2});
        server.post("/v1/completions", body).ok()["choices"].clone()
    };
    let first = ask("Once upon a time", json!(7), 1.0);
    let sampling = SamplingParams { seed: 7, ..Default::default() };
    let prompt = hornbook.encode("Once upon a time").unwrap();
    assert_eq!(
        first[0]["text"].as_str().unwrap(),
        generated(&hornbook, &prompt, &options(12, sampling), 1)[0].0
    );
    // Again, now that the prompt is in the prefix cache, and in a batch with others.
    assert_eq!(first, ask("Once upon a time", json!(7), 1.0));
    assert!(server.metric("hornbook_prefix_cache_hits_total") > 0.0);
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..4).map(|_| scope.spawn(|| ask("Once upon a time", json!(7), 1.0))).collect();
        let noise: Vec<_> = (0..4).map(|i| scope.spawn(move || ask("The king was", json!(i), 1.0))).collect();
        asked.into_iter().for_each(|asked| assert_eq!(asked.join().unwrap(), first));
        noise.into_iter().for_each(|noise| drop(noise.join().unwrap()));
    });
    assert_ne!(first, ask("Once upon a time", json!(8), 1.0));
    assert_ne!(ask("Once upon a time", Value::Null, 1.0), ask("Once upon a time", Value::Null, 1.0));
    // Temperature 0 needs no seed, and is nothing else than the likeliest token.
    let greedy = ask("Once upon a time", Value::Null, 0.0);
    assert_eq!(greedy, ask("Once upon a time", json!(3), 0.0));
    assert_ne!(greedy[0]["text"], first[0]["text"]);
}

#[test]
fn best_of_keeps_the_likeliest() {
    let server = fable();
    let ask = |n: u32, best_of: Option<u32>| {
        let body = json!({"prompt": "The king", "n": n, "best_of": best_of, "max_tokens": 5, "seed": 2, "logprobs": 0, "return_token_ids": true});
        server.post("/v1/completions", body).ok()
    };
    let mean = |choice: &Value| {
        let logprobs: Vec<f64> =
            serde_json::from_value(choice["logprobs"]["token_logprobs"].clone()).unwrap();
        logprobs.iter().sum::<f64>() / logprobs.len() as f64
    };
    let mut all = ask(6, None)["choices"].as_array().unwrap().clone();
    all.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
    let best = ask(2, Some(6));
    assert_eq!(best["choices"].as_array().unwrap().len(), 2);
    for (best, expected) in best["choices"].as_array().unwrap().iter().zip(&all) {
        assert_eq!(best["token_ids"], expected["token_ids"]);
    }
    assert_eq!(best["choices"][1]["index"], 1);
    assert!(best["usage"]["completion_tokens"].as_u64().unwrap() > 20, "all that were written count");
    let refused = |body: Value| server.post("/v1/completions", body).error().2;
    assert_eq!(refused(json!({"n": 3, "best_of": 2})).as_deref(), Some("best_of"));
    assert_eq!(refused(json!({"n": 1, "best_of": 2, "stream": true})).as_deref(), Some("best_of"));
    assert_eq!(refused(json!({"best_of": 21})).as_deref(), Some("best_of"));
}

#[test]
fn a_chat_is_what_the_models_template_makes_of_it() {
    let server = fable();
    let ask = |body: Value| server.post("/v1/chat/completions", body).ok();
    let messages = json!([{"role": "system", "content": "A tale."}, {"role": "user", "content": [{"type": "text", "text": "On"}, {"type": "text", "text": "ce"}]}]);
    let answer = ask(json!({"messages": messages, "max_tokens": 20, "temperature": 0}));
    let choice = &answer["choices"][0];
    assert_eq!(
        (&answer["object"], &choice["message"]["role"]),
        (&json!("chat.completion"), &json!("assistant"))
    );
    let said = choice["message"]["content"].as_str().unwrap();
    // The same through completions, by hand.
    let prompt = "A tale.\n\n\"Good morning, grandmother,\" said the child.\n\n\"Good morning, my child,\" said the \
                  old woman. \"What is it that you wish to know?\"\n\n\"Once\" asked the child.\n\n\"";
    let body = json!({"prompt": prompt, "max_tokens": 20, "temperature": 0, "stop": "\""});
    let by_hand = server.post("/v1/completions", body).ok();
    assert_eq!(said, by_hand["choices"][0]["text"].as_str().unwrap());
    assert_eq!(answer["usage"], by_hand["usage"]);

    let folder = tempfile::tempdir().unwrap();
    let template = folder.path().join("t.jinja");
    std::fs::write(&template, "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}").unwrap();
    let own = serve(&["fable"], |options| options.chat_template = Some(template));
    let body =
        json!({"messages": [{"role": "tool", "content": "The king"}], "max_tokens": 8, "temperature": 0});
    let answer = own.post("/v1/chat/completions", body).ok();
    let ids = open("fable").tokenizer().unwrap().encode("<|endoftext|>The king", true).unwrap();
    let by_hand = own.post("/v1/completions", json!({"prompt": ids, "max_tokens": 8, "temperature": 0})).ok();
    assert_eq!(answer["choices"][0]["message"]["content"], by_hand["choices"][0]["text"]);
}

#[test]
fn a_model_without_a_tokenizer_takes_ids() {
    let server = serve(&["tiny-gelu-new"], |_| {});
    let hornbook = open("tiny-gelu-new");
    let body = json!({"prompt": [1, 2, 3], "max_tokens": 5, "seed": 4, "n": 2, "return_token_ids": true});
    let answer = server.post("/v1/completions", body).ok();
    let expected =
        generated(&hornbook, &[1, 2, 3], &options(5, SamplingParams { seed: 4, ..Default::default() }), 2);
    for (choice, (_, tokens)) in answer["choices"].as_array().unwrap().iter().zip(&expected) {
        assert_eq!((&ids(&choice["token_ids"]), &choice["text"]), (tokens, &json!("")));
    }
    let refused = |path: &str, body: Value| server.post(path, body).error().2;
    assert_eq!(refused("/v1/completions", json!({"prompt": "A"})).as_deref(), Some("prompt"));
    assert_eq!(
        refused("/v1/completions", json!({"prompt": [1], "logprobs": 1})).as_deref(),
        Some("logprobs")
    );
    assert_eq!(
        refused("/v1/chat/completions", json!({"messages": [{"role": "user"}]})).as_deref(),
        Some("messages")
    );
    assert_eq!(refused("/tokenize", json!({"prompt": "A"})).as_deref(), Some("prompt"));
    assert_eq!(server.post("/v1/embeddings", json!({"input": [[1, 2], [3]]})).ok()["data"][1]["index"], 1);
}
