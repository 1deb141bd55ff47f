//! Routes and model selection.

use super::client::{fable, open, serve};
use super::ids;
use serde_json::json;

#[test]
fn routes_work_with_and_without_v1_and_under_engines() {
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
            ("/responses", &json!({"input": "The", "max_output_tokens": 1})),
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
    // Engine names are percent-decoded; openai 0.28 encodes a space as `+`.
    let server = serve(&["fable"], |options| {
        options.aliases = vec![("a/b c".into(), "fable".into()), ("100%+".into(), "fable".into())];
    });
    for (path, name) in [("a%2Fb+c", "a/b c"), ("a%2fb%20c", "a/b c"), ("100%25%2B", "100%+")] {
        assert_eq!(server.get(&format!("/v1/engines/{path}")).ok()["id"], name);
        let response = server.post(&format!("/v1/engines/{path}/completions"), text.clone());
        assert_eq!(response.ok()["model"], name);
    }
    assert_eq!(server.get("/v1/models/a/b%20c").ok()["id"], "a/b c");
}

#[test]
fn path_model_takes_precedence_and_any_name_selects_a_single_model() {
    let server = fable();
    for name in ["text-davinci-002", "gpt-3.5-turbo", "fable"] {
        let response = server.post("/v1/completions", json!({"model": name, "prompt": "A", "max_tokens": 1}));
        assert_eq!(response.ok()["model"], name);
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
    let complete = |name: &str| {
        let body = json!({"model": name, "prompt": [1, 2], "max_tokens": 2, "temperature": 0,
            "return_token_ids": true});
        two.post("/v1/completions", body)
    };
    assert_eq!(complete("text-davinci-002").ok()["model"], "text-davinci-002");
    let tokens = |name: &str| complete(name).ok()["choices"][0]["token_ids"].clone();
    assert_eq!(tokens("text-davinci-002"), tokens("tiny-gelu-new"));
    assert_ne!(tokens("text-davinci-002"), tokens("fable"));
    assert_eq!(
        complete("gpt-4").error(),
        (404, "invalid_request_error".into(), Some("model".into()), Some("model_not_found".into()))
    );
    let without_model = two.post("/v1/completions", json!({"prompt": [1]}));
    assert_eq!(without_model.error().2.as_deref(), Some("model"));
    let list = two.get("/v1/models").ok();
    let names: Vec<&str> =
        list["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
    assert_eq!(
        (list["object"].as_str(), names),
        (Some("list"), vec!["fable", "tiny-gelu-new", "text-davinci-002"])
    );
    assert_eq!(two.get("/v1/models/text-davinci-002").ok()["object"], "model");
    assert_eq!(two.get("/v1/models/gpt-4").error().0, 404);
}

#[test]
fn tokenize_and_detokenize_round_trip() {
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
fn openapi_json_describes_the_routes() {
    let server = fable();
    let description = server.get("/openapi.json").ok();
    assert!(description["openapi"].as_str().unwrap().starts_with("3."));
    let request = &description["components"]["schemas"]["CompletionRequest"];
    assert!(request.to_string().contains("best_of"), "{request}");
    for path in
        ["/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/v1/models", "/tokenize", "/metrics"]
    {
        assert!(description["paths"][path].is_object(), "{path}");
    }
    for (path, operations) in description["paths"].as_object().unwrap() {
        let target = path.replace("{model}", "fable").replace("{engine}", "fable");
        for method in operations.as_object().unwrap().keys() {
            let response = server.raw(&format!("{} {target}", method.to_uppercase()), "", "");
            let is_unknown = response.status == 405 || response.text.contains("unknown_url");
            assert!(!is_unknown, "{method} {path} is described, but {}", response.text);
        }
    }
}

#[test]
fn missing_route_is_404_that_names_the_path_as_written() {
    let server = fable();
    for (method, path) in [("GET", "/v1/nothing"), ("GET", "//v1//nothing"), ("PATCH", "/v1/nothing")] {
        let response = server.raw(&format!("{method} {path}"), "", "");
        let (status, _, _, code) = response.error();
        assert_eq!((status, code.as_deref()), (404, Some("unknown_url")), "{method} {path}");
        let message = response.json()["error"]["message"].clone();
        assert_eq!(message, format!("Unknown request URL: {method} {path}"));
    }
    for (path, what) in [
        ("POST /v1/moderations", "no moderation model"),
        ("POST /v1/images/generations", "no image model"),
        ("POST /audio/speech", "no audio model"),
        ("GET /v1/assistants", "no assistants"),
        ("GET /v1/threads/thread_1/messages", "no threads"),
        ("DELETE /v1/vector_stores/vs_1", "no search"),
        ("GET /v1/responses/resp_1", "no stored responses"),
        ("POST /v1/engines/ada/search", "no search"),
    ] {
        let response = server.raw(path, "", "");
        assert_eq!((response.error().0, response.error().3.as_deref()), (404, Some("unknown_url")));
        let message = response.json()["error"]["message"].as_str().unwrap().to_string();
        let expected = format!("Unknown request URL: {path}. This server has {what}");
        assert!(message.starts_with(&expected), "{message}");
    }
    let response = server.get("/v1/completions");
    assert_eq!(response.json()["error"]["message"], "Not allowed to GET on /v1/completions");
}

#[test]
fn model_name_of_excessive_length_or_encoding_is_refused() {
    let server = fable();
    let name = "m".repeat(257);
    let body = json!({"model": name, "prompt": "A", "max_tokens": 1});
    assert_eq!(server.post("/v1/completions", body).error().2.as_deref(), Some("model"));
    let body = json!({"prompt": "A", "max_tokens": 1});
    let path = format!("/v1/engines/{name}/completions");
    assert_eq!(server.post(&path, body.clone()).error().2.as_deref(), Some("model"));
    assert_eq!(server.post("/v1/engines/%ff/completions", body).error().2.as_deref(), Some("model"));
    assert_eq!(server.get("/v1/models/%ff").error().2.as_deref(), Some("model"));
    assert_eq!(server.get(&format!("/v1/models/{name}")).error().0, 404);
}
