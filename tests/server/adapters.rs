//! LoRA adapters served beside their model.

use super::client::{TestServer, open, serve};
use hornbook::checkpoint::adapter::{Adapter, AdapterConfig, Modules};
use hornbook::lens::ActivationCache;
use hornbook::sampling::SamplingParams;
use hornbook::server::key_file::add;
use hornbook::server::keys::Key;
use hornbook::server::{BoundServer, ServerOptions};
use hornbook::{Hornbook, Options};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::thread;

/// Writes an adapter for fable with numbers that follow from `seed`.
fn write_adapter(folder: &Path, seed: usize) -> Adapter {
    let config = AdapterConfig {
        r: 4,
        lora_alpha: 16.0,
        target_modules: Some(Modules::Expression("all-linear".into())),
        ..AdapterConfig::default()
    };
    let mut adapter = Adapter::new("adapter", config, open("fable").config()).unwrap();
    for (i, change) in adapter.low_rank.iter_mut().enumerate() {
        let values = change.a.iter_mut().chain(&mut change.b).enumerate();
        values.for_each(|(k, x)| *x = ((seed + i * 31 + k * k % 977) as f32).sin() * 0.1);
    }
    adapter.write(folder).unwrap();
    adapter
}

/// Two adapters, the folder that holds them, and a server with both.
fn server() -> (Vec<Adapter>, tempfile::TempDir, TestServer) {
    let folder = tempfile::tempdir().unwrap();
    let names = ["letters", "tales"];
    let adapters = names.iter().zip(1..).map(|(name, seed)| write_adapter(&folder.path().join(name), seed));
    let adapters = adapters.collect();
    let pairs = names.map(|name| (name.to_string(), folder.path().join(name)));
    let server = serve(&["fable"], |options| options.adapters = pairs.into());
    (adapters, folder, server)
}

/// The greedy completion of a text by a model alone.
fn completion(hornbook: &Hornbook, prompt: &str) -> String {
    let sampling = SamplingParams { temperature: 0.0, ..hornbook.default_options().sampling };
    let options = Options { sampling, max_tokens: Some(12), ..Options::default() };
    let prompt = hornbook.encode(prompt).unwrap();
    hornbook.generate(&prompt, &options).unwrap().map(|token| token.unwrap().text).collect()
}

fn request(model: &str, prompt: &str) -> Value {
    json!({"model": model, "prompt": prompt, "max_tokens": 12, "temperature": 0})
}

#[test]
fn requests_of_different_adapters_have_the_texts_of_each_alone() {
    let (adapters, _folder, server) = server();
    let [letters, tales] = [0, 1].map(|i| open("fable").with_adapter(&adapters[i]).unwrap());
    let models = [("fable", open("fable")), ("letters", letters), ("tales", tales)];
    // All begin alike: what is cached of one is of no use to another.
    let prompts = ["Once upon a time there was", "Once upon a time there was a king who", "Once upon a"];
    let mut texts = vec![];
    for _ in 0..2 {
        thread::scope(|scope| {
            let mut running = vec![];
            for ((name, hornbook), prompt) in models.iter().flat_map(|model| prompts.map(|p| (model, p))) {
                let (server, body) = (&server, request(name, prompt));
                running.push((scope.spawn(move || server.post("/v1/completions", body)), hornbook, prompt));
            }
            for (response, hornbook, prompt) in running {
                let response = response.join().unwrap().ok();
                let expected = completion(hornbook, prompt);
                assert_eq!(response["choices"][0]["text"], expected, "{} {prompt}", response["model"]);
                texts.push(expected);
            }
        });
    }
    assert_ne!(texts[0], texts[3]);
    assert_ne!(texts[3], texts[6]);
    assert!(server.metric("hornbook_prefix_cache_hits_total") > 0.0);

    let chat = |model: &str| {
        let messages = json!([{"role": "user", "content": "Who are you?"}]);
        server.post(
            "/v1/chat/completions",
            json!({"model": model, "messages": messages, "max_tokens": 8, "temperature": 0}),
        )
    };
    assert_ne!(chat("letters").ok()["choices"][0]["message"], chat("fable").ok()["choices"][0]["message"]);
    let embed = |model: &str| server.post("/v1/embeddings", json!({"model": model, "input": "A king"})).ok();
    assert_ne!(embed("tales")["data"][0], embed("fable")["data"][0]);
}

#[test]
fn analysis_shows_the_model_with_the_adapter() {
    let (adapters, _folder, server) = server();
    let letters = open("fable").with_adapter(&adapters[0]).unwrap();
    let ids = letters.encode("Once upon a time").unwrap();
    let expected = ActivationCache::capture(letters.model(), &ids, None, &mut ()).unwrap();
    let look = |model: &str| server.post("/lens", json!({"model": model, "tokens": ids})).ok();
    let norms = |found: &Value| -> Vec<f32> {
        let rows = found["residual_norms"].as_array().unwrap().iter();
        rows.flat_map(|row| row.as_array().unwrap()).map(|x| x.as_f64().unwrap() as f32).collect()
    };
    let (found, base) = (look("letters"), look("fable"));
    assert_eq!(found["model"], "letters");
    assert_eq!(norms(&found), expected.residual_norms().iter().copied().collect::<Vec<_>>());
    assert_ne!(norms(&found), norms(&base));

    // What is computed later is of the same model.
    let id = found["id"].as_str().unwrap();
    let last = ids.len() - 1;
    let token = server.get(&format!("/lens/{id}/tokens/{last}")).ok();
    let depths = token["logit_lens"].as_array().unwrap();
    assert_eq!(depths[depths.len() - 1]["top_logprobs"], found["predictions"][last]["top_logprobs"]);
}

#[test]
fn adapters_are_models_with_a_parent() {
    let (_, _folder, server) = server();
    let list = server.get("/v1/models").ok();
    let fields = |model: &Value| [&model["id"], &model["root"], &model["parent"]].map(Value::clone);
    let listed: Vec<_> = list["data"].as_array().unwrap().iter().map(fields).collect();
    assert_eq!(
        listed,
        [
            [json!("fable"), json!("fable"), Value::Null],
            [json!("letters"), json!("fable"), json!("fable")],
            [json!("tales"), json!("fable"), json!("fable")],
        ]
    );
    assert_eq!(server.get("/v1/models/tales").ok()["parent"], "fable");
    let (status, _, _, code) = server.post("/v1/completions", request("poems", "A")).error();
    assert_eq!((status, code.as_deref()), (404, Some("model_not_found")));
    let metrics = server.get("/metrics").text;
    assert_eq!(metrics.matches("hornbook_sequences_running{").count(), 1);
    let adapters = "{model=\"fable\",max_lora=\"16\",running_lora_adapters=\"letters,tales\",";
    assert!(metrics.contains(&format!("hornbook_lora_requests_info{adapters}")), "{metrics}");
}

#[test]
fn adapter_that_cannot_be_served_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letters");
    write_adapter(&path, 1);
    let error = |models: &[&str], adapters: &[(&str, &PathBuf)]| {
        let adapters = adapters.iter().map(|(name, path)| (name.to_string(), path.to_path_buf())).collect();
        let options = ServerOptions { address: ([127, 0, 0, 1], 0).into(), adapters, ..Default::default() };
        let models = models.iter().map(|model| open(model)).collect();
        BoundServer::bind(options).unwrap().serve(models).map(drop).unwrap_err().to_string()
    };
    assert_eq!(error(&["fable"], &[("fable", &path)]), "two models are named 'fable', expected unique names");
    let two = error(&["fable", "tiny-gelu-new"], &[("a", &path)]);
    assert!(two.ends_with("with 2 models, expected a single model, which the adapter changes"), "{two}");
    let other = error(&["tiny-gelu-new"], &[("a", &path)]);
    assert!(other.contains("found shape [4, 256], expected shape [4, 32]"), "{other}");
    let none = error(&["fable"], &[("a", &folder.path().join("none"))]);
    assert!(
        none.ends_with("found nothing, expected the folder of an adapter, with adapter_config.json"),
        "{none}"
    );
}

#[test]
fn adapters_come_and_go_while_requests_run() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = [1, 2].map(|seed| write_adapter(&folder.path().join(seed.to_string()), seed));
    let server = serve(&["fable"], |options| options.runtime_adapters = true);
    let load = |seed: usize, in_place: bool| {
        let path = folder.path().join(seed.to_string());
        let body = json!({"lora_name": "letters", "lora_path": path, "load_inplace": in_place});
        server.post("/v1/load_lora_adapter", body)
    };
    let text = |model: &str| {
        let response = server.post("/v1/completions", request(model, "Once upon a time"));
        response.ok()["choices"][0]["text"].as_str().unwrap().to_string()
    };
    let expected = |adapter| completion(&open("fable").with_adapter(adapter).unwrap(), "Once upon a time");
    let in_metrics =
        |name: &str| server.get("/metrics").text.contains(&format!("running_lora_adapters=\"{name}\""));

    assert!(in_metrics(""));
    assert_eq!(load(1, false).text, "Success: LoRA adapter 'letters' added successfully.");
    assert_eq!(text("letters"), expected(&first));
    assert!(in_metrics("letters"));
    assert_eq!(server.get("/v1/models/letters").ok()["parent"], "fable");
    assert_eq!(load(2, false).error(), (400, "invalid_request_error".into(), Some("lora_name".into()), None));

    // A request that runs keeps its adapter, also when another takes its place.
    let mut body = request("letters", "Once upon a time");
    (body["max_tokens"], body["stream"]) = (json!(200), json!(true));
    let mut running = server.start_post("/v1/completions", &body);
    server.wait_for("hornbook_sequences_running", |n| n == 1.0);
    assert_eq!(load(2, true).status, 200);
    assert_eq!(text("letters"), expected(&second));
    let unload = || server.post("/v1/unload_lora_adapter", json!({"lora_name": "letters"}));
    assert_eq!(unload().text, "Success: LoRA adapter 'letters' removed successfully.");
    assert_eq!((unload().status, server.get("/v1/models/letters").status), (404, 404));
    assert!(in_metrics(""));
    let mut events = String::new();
    let mut buffer = [0; 4096];
    while !events.contains("[DONE]") {
        let n = std::io::Read::read(&mut running, &mut buffer).unwrap();
        events += std::str::from_utf8(&buffer[..n]).unwrap();
    }
    let chunks = events.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok());
    let streamed: String =
        chunks.map(|chunk: Value| chunk["choices"][0]["text"].as_str().unwrap().to_string()).collect();
    assert!(streamed.starts_with(&expected(&first)), "{streamed}");

    // No name stands for another here.
    assert_eq!(server.post("/v1/completions", request("letters", "A")).status, 404);
    assert_eq!(server.post("/v1/completions", request("fable", "A")).status, 200);
}

#[test]
fn adapter_of_a_key_is_not_in_the_metrics_which_all_keys_see() {
    let folder = tempfile::tempdir().unwrap();
    write_adapter(folder.path(), 1);
    let key_file = folder.path().join("keys.toml");
    let key = add(&key_file, &Key::named("alice")).unwrap();
    let server = serve(&["fable"], |options| {
        (options.runtime_adapters, options.key_file) = (true, Some(key_file));
    });
    let server = server.with_key(&key);
    let body = json!({"lora_name": "letters", "lora_path": folder.path()});
    assert_eq!(server.post("/v1/load_lora_adapter", body).status, 200);
    assert_eq!(server.get("/v1/models/letters").status, 200);
    assert!(server.get("/metrics").text.contains("running_lora_adapters=\"\""));
}

#[test]
fn adapter_that_cannot_be_loaded_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    write_adapter(folder.path(), 1);
    let body = |name: &str, path: &Path| json!({"lora_name": name, "lora_path": path});
    let server = serve(&["fable"], |options| options.runtime_adapters = true);
    for (body, param) in [
        (body("fable", folder.path()), "lora_name"),
        (body("", folder.path()), "lora_name"),
        (body("a", &folder.path().join("none")), "lora_path"),
        (json!({"lora_name": "a"}), "lora_path"),
        (json!({"lora_name": 1, "lora_path": "a"}), "lora_name"),
    ] {
        let (status, _, found, _) = server.post("/v1/load_lora_adapter", body.clone()).error();
        assert_eq!(status, 400, "{body}");
        assert!(found.is_none_or(|found| found == param), "{body}");
    }
    let unload = server.post("/v1/unload_lora_adapter", json!({"lora_name": "fable"}));
    assert_eq!(unload.error().0, 404);
    let in_place = json!({"lora_name": "fable", "lora_path": folder.path(), "load_inplace": true});
    assert_eq!(server.post("/v1/load_lora_adapter", in_place).error().0, 400);

    let server = serve(&["fable"], |_| {});
    for path in ["/v1/load_lora_adapter", "/v1/unload_lora_adapter"] {
        let response = server.post(path, json!({}));
        assert_eq!(response.error().3.as_deref(), Some("not_enabled"));
        assert!(response.text.contains("--allow-runtime-adapters"), "{}", response.text);
    }
    let deletion = server.raw("DELETE /v1/models/fable", "", "");
    assert_eq!((deletion.error().0, deletion.text.contains("fine-tuning")), (403, true));
    assert_eq!(server.raw("DELETE /v1/models/none", "", "").error().0, 404);
}
