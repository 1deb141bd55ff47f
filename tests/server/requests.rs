//! What a request may look like, and what its answer does.

use super::client::{fable, open, serve};
use base64::Engine as _;
use hornbook::model::Session;
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

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn detail_01_routes_with_and_without_v1_and_under_engines() {
    let server = fable();
    let (text, chat) = (
        json!({"prompt": "The", "max_tokens": 1}),
        json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}),
    );
    let input = json!({"input": "The"});
    for base in ["", "/v1", "//v1", "/v1/", "//"] {
        for (path, body) in [
            ("/completions", &text),
            ("/chat/completions", &chat),
            ("/embeddings", &input),
            ("/engines/fable/completions", &text),
            ("/engines/fable/chat/completions", &chat),
            ("/engines/fable/embeddings", &input),
            ("/tokenize", &json!({"prompt": "a"})),
            ("/detokenize", &json!({"tokens": [1]})),
        ] {
            server.post(&format!("{base}{path}"), body.clone()).ok();
        }
        for path in ["/models", "/models/fable", "/engines", "/engines/fable", "/health", "/openapi.json"] {
            server.get(&format!("{base}{path}")).ok();
        }
        assert_eq!(server.get(&format!("{base}/metrics")).status, 200);
    }
    // An engine's name is percent-decoded, as the old client quotes it: a space as a plus.
    let server = serve(&["fable"], |options| {
        options.aliases = vec![("a/b c".into(), "fable".into()), ("100%+".into(), "fable".into())];
    });
    for (path, name) in [("a%2Fb+c", "a/b c"), ("a%2fb%20c", "a/b c"), ("100%25%2B", "100%+")] {
        assert_eq!(server.get(&format!("/v1/engines/{path}")).ok()["id"], name);
        let answer = server.post(&format!("/v1/engines/{path}/completions"), text.clone());
        assert_eq!(answer.ok()["model"], name);
    }
    assert_eq!(server.get("/v1/models/a/b%20c").ok()["id"], "a/b c");
}

#[test]
fn detail_02_the_model_in_the_path_wins_and_any_name_means_the_only_model() {
    let server = fable();
    for name in ["text-davinci-002", "gpt-3.5-turbo", "fable"] {
        let answer = server.post("/v1/completions", json!({"model": name, "prompt": "A", "max_tokens": 1}));
        assert_eq!(answer.ok()["model"], name);
    }
    let body = json!({"model": "other", "prompt": "A", "max_tokens": 1});
    assert_eq!(server.post("/v1/engines/davinci/completions", body).ok()["model"], "davinci");
    assert_eq!(
        server.post("/v1/completions", json!({"prompt": "A", "max_tokens": 1})).ok()["model"],
        "fable"
    );

    let two = serve(&["fable", "tiny-gelu-new"], |options| {
        options.aliases = vec![("text-davinci-002".into(), "tiny-gelu-new".into())];
    });
    let ask = |name: &str| {
        two.post("/v1/completions", json!({"model": name, "prompt": [1, 2], "max_tokens": 2, "temperature": 0, "return_token_ids": true}))
    };
    assert_eq!(ask("text-davinci-002").ok()["model"], "text-davinci-002");
    let tokens = |name: &str| ask(name).ok()["choices"][0]["token_ids"].clone();
    assert_eq!(tokens("text-davinci-002"), tokens("tiny-gelu-new"));
    assert_ne!(tokens("text-davinci-002"), tokens("fable"));
    assert_eq!(
        ask("gpt-4").error(),
        (404, "invalid_request_error".into(), Some("model".into()), Some("model_not_found".into()))
    );
    let nameless = two.post("/v1/completions", json!({"prompt": [1]}));
    assert_eq!(nameless.error().2.as_deref(), Some("model"));
    let listed = two.get("/v1/models").ok();
    let names: Vec<&str> =
        listed["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
    assert_eq!(
        (listed["object"].as_str(), names),
        (Some("list"), vec!["fable", "tiny-gelu-new", "text-davinci-002"])
    );
    assert_eq!(two.get("/v1/models/text-davinci-002").ok()["object"], "model");
    assert_eq!(two.get("/v1/models/gpt-4").error().0, 404);
}

#[test]
fn detail_03_every_field_may_be_null() {
    let server = fable();
    let nulls = json!({"model": null, "prompt": null, "suffix": null, "max_tokens": null, "temperature": null,
        "top_p": null, "n": null, "stream": null, "stream_options": null, "logprobs": null, "echo": null, "stop": null,
        "presence_penalty": null, "frequency_penalty": null, "best_of": null, "logit_bias": null, "user": null,
        "seed": null});
    let answer = server.post("/v1/completions", nulls).ok();
    assert_eq!(answer["usage"]["prompt_tokens"], 1);
    server
        .post("/v1/completions", json!({"prompt": "A", "logit_bias": {}, "stop": [], "max_tokens": 1}))
        .ok();
    let nulls = json!({"messages": [{"role": "user", "content": "Hi", "name": null}], "max_tokens": 1,
        "max_completion_tokens": null, "top_logprobs": null, "logprobs": null, "tools": null, "tool_choice": null,
        "functions": null, "function_call": null, "response_format": null, "audio": null, "modalities": null,
        "n": null, "stop": null, "stream": null});
    server.post("/v1/chat/completions", nulls).ok();
    let nulls =
        json!({"input": "A", "encoding_format": null, "dimensions": null, "user": null, "model": null});
    server.post("/v1/embeddings", nulls).ok();
}

#[test]
fn detail_04_unknown_fields_are_ignored_and_unsupported_ones_named() {
    let server = fable();
    let extra = json!({"prompt": "A", "max_tokens": 1, "made_up": {"x": [1]}, "user": "me", "suffix": "", "metadata": {}});
    server.post("/v1/completions", extra).ok();
    let refused = |path: &str, mut body: Value, field: &str, value: Value| {
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
        refused("/v1/completions", json!({"prompt": "A"}), field, value);
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
        refused(
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": "A"}]}),
            field,
            value,
        );
    }
    let harmless = json!({"messages": [{"role": "user", "content": "A"}], "max_tokens": 1, "modalities": ["text"],
        "response_format": {"type": "text"}, "tool_choice": "none", "tools": [], "parallel_tool_calls": true});
    server.post("/v1/chat/completions", harmless).ok();
    refused("/v1/embeddings", json!({"input": "A"}), "dimensions", json!(8));
    refused("/v1/embeddings", json!({"input": "A"}), "encoding_format", json!("hex"));
    let image = json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}]});
    assert_eq!(
        server.post("/v1/chat/completions", image).error().2.as_deref(),
        Some("messages[0].content[1].type")
    );
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
fn detail_06_max_tokens_is_16_unless_given_and_0_is_legal() {
    let server = fable();
    let usage = |body: Value| server.post("/v1/completions", body).ok()["usage"]["completion_tokens"].clone();
    let no_end = json!({"4095": -100});
    assert_eq!(usage(json!({"prompt": "The", "logit_bias": no_end})), 16);
    assert_eq!(usage(json!({"prompt": "The", "logit_bias": no_end, "max_tokens": 3})), 3);
    let answer = server
        .post("/v1/completions", json!({"prompt": "The king", "max_tokens": 0, "echo": true, "n": 2}))
        .ok();
    assert_eq!(answer["choices"][0]["text"], "The king");
    assert_eq!(
        (&answer["choices"][1]["text"], &answer["choices"][1]["finish_reason"]),
        (&json!("The king"), &json!("length"))
    );
    assert_eq!(answer["usage"], json!({"prompt_tokens": 2, "completion_tokens": 0, "total_tokens": 2}));
    assert_eq!(
        server.post("/v1/completions", json!({"prompt": "The", "max_tokens": 0})).ok()["choices"][0]["text"],
        ""
    );
    // A chat goes on to its own end or the context's.
    let chat = json!({"messages": [{"role": "user", "content": "Tell me a story."}], "temperature": 0, "logit_bias": no_end});
    let answer = server.post("/v1/chat/completions", chat).ok();
    let total = answer["usage"]["total_tokens"].as_u64().unwrap();
    assert!(answer["choices"][0]["finish_reason"] == "stop" || total == 512, "{answer}");
}

#[test]
fn detail_07_max_completion_tokens_is_max_tokens() {
    let server = fable();
    let messages = json!([{"role": "user", "content": "Once"}]);
    for body in [
        json!({"messages": messages, "max_completion_tokens": 2}),
        json!({"messages": messages, "max_completion_tokens": 2, "max_tokens": 9}),
    ] {
        let answer = server.post("/v1/chat/completions", body).ok();
        assert!(answer["usage"]["completion_tokens"].as_u64().unwrap() <= 2);
    }
    let answer =
        server.post("/v1/chat/completions", json!({"messages": messages, "max_completion_tokens": -2}));
    assert_eq!(answer.error().2.as_deref(), Some("max_completion_tokens"));
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
fn detail_25_embeddings_are_floats_or_base64_as_asked() {
    let server = fable();
    let hornbook = open("fable");
    let ask = |input: Value, format: Value| {
        server.post("/v1/embeddings", json!({"input": input, "encoding_format": format, "model": "ada"})).ok()
    };
    let floats = ask(json!(["The king", "A"]), json!("float"));
    let coded = ask(json!(["The king", "A"]), json!("base64"));
    assert_eq!((&floats["object"], &floats["model"]), (&json!("list"), &json!("ada")));
    assert_eq!(floats["usage"], json!({"prompt_tokens": 3, "total_tokens": 3}));
    let vector = |answer: &Value, i: usize| -> Vec<f32> {
        serde_json::from_value(answer["data"][i]["embedding"].clone()).unwrap()
    };
    for i in 0..2 {
        let item = &coded["data"][i];
        assert_eq!((&item["object"], &item["index"]), (&json!("embedding"), &json!(i)));
        let bytes =
            base64::engine::general_purpose::STANDARD.decode(item["embedding"].as_str().unwrap()).unwrap();
        let decoded: Vec<f32> = bytes.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        assert_eq!(decoded, vector(&floats, i));
    }
    assert_eq!(vector(&ask(json!("A"), Value::Null), 0), vector(&floats, 1));
    // The mean of the hidden states that the model itself shows.
    let prompt = hornbook.encode("The king").unwrap();
    let mut sum = Mean(vec![0.0; 256], 0);
    let mut session = Session::new(hornbook.model(), prompt.len(), Default::default());
    session.feed(&prompt).unwrap();
    let mut cache = hornbook::model::KvCache::new(hornbook.config(), prompt.len(), Default::default());
    let segment =
        hornbook::model::Segment { tokens: &prompt, cache: &mut cache, wanted: hornbook::model::Wanted::All };
    hornbook.model().forward(&mut [segment], &mut hornbook::model::Scratch::new(), &mut sum).unwrap();
    for (found, sum_of) in vector(&floats, 0).iter().zip(&sum.0) {
        let expected = sum_of / sum.1 as f32;
        assert!((found - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{found} {expected}");
    }
    assert_eq!(server.post("/v1/embeddings", json!({"input": ""})).error().2.as_deref(), Some("input"));
    assert_eq!(server.post("/v1/embeddings", json!({})).error().2.as_deref(), Some("input"));
    assert_eq!(
        server.post("/v1/embeddings", json!({"input": vec!["a"; 2049]})).error().2.as_deref(),
        Some("input")
    );
    let long = server.post("/v1/embeddings", json!({"input": vec![1; 513]}));
    assert_eq!(long.error().3.as_deref(), Some("context_length_exceeded"));
}

/// Adds up final hidden states.
struct Mean(Vec<f32>, usize);

impl hornbook::model::Observer for Mean {
    fn wants(&self, site: hornbook::model::Site) -> bool {
        site == hornbook::model::Site::FinalNorm
    }

    fn see(&mut self, _: hornbook::model::Site, values: ndarray::ArrayViewMutD<f32>) {
        for row in values.outer_iter() {
            self.0.iter_mut().zip(row.iter()).for_each(|(sum, x)| *sum += x);
            self.1 += 1;
        }
    }
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
fn tokens_go_to_text_and_back() {
    let server = fable();
    let tokens = server.post("/tokenize", json!({"prompt": "The king <|endoftext|>"})).ok();
    assert_eq!(tokens["count"].as_u64().unwrap() as usize, ids(&tokens["tokens"]).len());
    assert_eq!(
        (ids(&tokens["tokens"]), &tokens["max_model_len"]),
        (open("fable").encode("The king <|endoftext|>").unwrap(), &json!(512))
    );
    let text = server.post("/detokenize", json!({"tokens": tokens["tokens"]})).ok();
    assert_eq!((&text["prompt"], &text["content"]), (&json!("The king <|endoftext|>"), &text["prompt"]));
    let special = server.post("/tokenize", json!({"content": "<|endoftext|>", "special": true})).ok();
    assert_eq!(special["tokens"], json!([4095]));
    assert_eq!(server.post("/tokenize", json!({})).error().2.as_deref(), Some("prompt"));
    assert_eq!(server.post("/detokenize", json!({"tokens": [4096]})).error().2.as_deref(), Some("tokens"));
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

#[test]
fn the_description_is_openapi() {
    let description = fable().get("/openapi.json").ok();
    assert!(description["openapi"].as_str().unwrap().starts_with("3."));
    let request = &description["components"]["schemas"]["CompletionRequest"];
    assert!(request.to_string().contains("best_of"), "{request}");
    for path in
        ["/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/v1/models", "/tokenize", "/metrics"]
    {
        assert!(description["paths"][path].is_object(), "{path}");
    }
}
