//! The files of a model's folder: each is read, and what disagrees or is missing is named.

use hornbook::Hornbook;
use hornbook::chat::{ChatMessage, ChatTemplate};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A copy of a model's folder.
struct Folder(TempDir);

impl Folder {
    fn copy_of(model: &str) -> Self {
        let folder = Folder(tempfile::tempdir().unwrap());
        for file in fs::read_dir(Path::new(ROOT).join(model)).unwrap().map(|entry| entry.unwrap().path()) {
            fs::copy(&file, folder.file(file.file_name().unwrap().to_str().unwrap())).unwrap();
        }
        folder
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    fn write(&self, name: &str, content: &Value) {
        fs::write(self.file(name), content.to_string()).unwrap();
    }

    fn change_config(&self, change: impl FnOnce(&mut serde_json::Map<String, Value>)) {
        let mut config: Value = serde_json::from_slice(&fs::read(self.file("config.json")).unwrap()).unwrap();
        change(config.as_object_mut().unwrap());
        self.write("config.json", &config);
    }
}

fn hornbook(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hornbook"));
    command.args(args).env("HORNBOOK_CONFIG", "").env_remove("HORNBOOK_ISA");
    command
}

/// Standard output and standard error of a run that must succeed.
fn output(command: &mut Command) -> (String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(status.success(), "{command:?}: {stderr}");
    (String::from_utf8(stdout).unwrap(), stderr)
}

fn stderr_of_failure(command: &mut Command) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(!status.success() && stderr.trim_end().lines().count() == 1, "{command:?}: {stderr}");
    stderr
}

/// The tokens that a model of `tests/data` generates, and the notes.
fn generated(folder: &Folder, more: &[&str]) -> (String, String) {
    let args = ["generate", "--model", folder.path(), "--prompt-ids", "1,2,3", "--output", "ids"];
    output(&mut hornbook(&[&args[..], more].concat()))
}

const GREEDY: [&str; 4] = ["--temperature", "0", "--max-tokens", "6"];

#[test]
fn other_names_of_sizes_give_same_tokens() {
    let folder = Folder::copy_of("tests/data/tiny-gelu-new");
    let expected = generated(&folder, &GREEDY);
    assert_eq!(expected.1, "");
    folder.change_config(|config| {
        for (name, other) in [
            ("n_embd", "hidden_size"),
            ("n_head", "num_attention_heads"),
            ("n_layer", "num_hidden_layers"),
            ("n_positions", "max_position_embeddings"),
        ] {
            let size = config.remove(name).unwrap();
            config.insert(other.into(), size);
        }
    });
    assert_eq!(generated(&folder, &GREEDY), expected);
    folder.change_config(|config| drop(config.remove("num_attention_heads")));
    let line = stderr_of_failure(&mut hornbook(&["generate", "--model", folder.path(), "Hi"]));
    assert!(line.contains("config.json: n_head: found no such field, expected the number"), "{line}");
}

#[test]
fn layers_that_are_not_used_are_noted() {
    let folder = Folder::copy_of("tests/data/tiny-gelu-new");
    folder.change_config(|config| drop(config.insert("n_layer".into(), json!(1))));
    let (_, note) = generated(&folder, &GREEDY);
    assert!(note.ends_with("found 2 layers, but n_layer is 1: the others are not used\n"), "{note}");
    assert_eq!(note.lines().count(), 1, "{note}");
}

#[test]
fn broken_config_is_named_with_line_and_column() {
    let folder = Folder::copy_of("tests/data/tiny-gelu-new");
    fs::write(folder.file("config.json"), "{\n  \"n_embd\": 32,\n  \"n_head\": 4").unwrap();
    let line = stderr_of_failure(&mut hornbook(&["show", folder.path()]));
    assert!(line.contains("config.json: found broken JSON at line 3, column 13 (EOF"), "{line}");
}

#[test]
fn weights_in_another_format_are_named_with_way_out() {
    let folder = Folder::copy_of("tests/data/tiny-gelu-new");
    let run = |model: &Path| stderr_of_failure(&mut hornbook(&["show", model.to_str().unwrap()]));
    fs::write(folder.file("model.safetensors"), b"GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0").unwrap();
    let line = run(folder.0.path());
    assert!(line.contains("model.safetensors: found a GGUF file, expected safetensors: "), "{line}");
    for name in ["gpt2.Q8_0.gguf", "ckpt.pt"] {
        let other = folder.file(name);
        fs::rename(folder.file("model.safetensors"), &other).unwrap();
        for model in [folder.0.path(), &other] {
            let line = run(model);
            assert!(line.contains("expected") && line.contains("python -c"), "{line}");
            assert!(model.is_file() || line.contains(&format!("found {name}")), "{line}");
        }
        fs::rename(other, folder.file("model.safetensors")).unwrap();
    }
    fs::remove_file(folder.file("config.json")).unwrap();
    fs::rename(folder.file("model.safetensors"), folder.file("a.gguf")).unwrap();
    let line = run(folder.0.path());
    assert!(line.contains("found a.gguf, expected config.json and model.safetensors: "), "{line}");
}

#[test]
fn generation_config_is_default_of_every_option_it_names() {
    let folder = Folder::copy_of("tests/data/tiny-gelu-new");
    let greedy = generated(&folder, &GREEDY).0;
    let settings =
        json!({"temperature": 0, "max_new_tokens": 6, "top_k": 7, "top_p": null, "do_sample": true});
    folder.write("generation_config.json", &settings);
    assert_eq!(generated(&folder, &[]).0, greedy);
    let shorter = generated(&folder, &["--max-tokens", "2"]).0;
    assert!(greedy.starts_with(shorter.trim_end()) && shorter.split(',').count() == 2, "{shorter}");
    let mut with_environment =
        hornbook(&["generate", "--model", folder.path(), "--prompt-ids", "1,2,3", "--output", "ids"]);
    assert_eq!(output(with_environment.env("HORNBOOK_MAX_TOKENS", "2")).0, shorter);

    let (config, _) = output(hornbook(&["config", "--json"]).env("HORNBOOK_MODEL", folder.path()));
    let config: Value = serde_json::from_str(&config).unwrap();
    let entry = |name: &str| config.as_array().unwrap().iter().find(|row| row["setting"] == name).unwrap();
    let file = folder.file("generation_config.json");
    for (name, value) in
        [("sampling.max_tokens", "6"), ("sampling.temperature", "0"), ("sampling.top_k", "7")]
    {
        let expected = json!({"setting": name, "value": value, "from": {"kind": "model", "path": file}});
        assert_eq!(entry(name), &expected);
    }
    assert_eq!(entry("sampling.top_p")["from"], json!({"kind": "built-in"}));
    assert_eq!(entry("sampling.top_p")["value"], "0.95");
    let (shown, _) = output(&mut hornbook(&["show", folder.path()]));
    assert!(shown.contains("top_k                 7, from generation_config.json\n"), "{shown}");

    folder.write("generation_config.json", &json!({"top_p": 2}));
    let line = stderr_of_failure(&mut hornbook(&["generate", "--model", folder.path(), "Hi"]));
    assert!(line.contains("generation_config.json: top_p: found 2, expected a number from 0 to 1"), "{line}");
}

/// `do_sample` decides, as in transformers, whatever else the file or the user says but a temperature.
#[test]
fn greedy_generation_config_is_default_temperature() {
    let folder = Folder::copy_of("tests/data/tiny-gelu-new");
    let greedy = generated(&folder, &GREEDY).0;
    let at_random = ["--temperature", "0.9", "--seed", "1", "--max-tokens", "6"];
    let drawn = generated(&folder, &at_random).0;
    assert_ne!(drawn, greedy);
    let settings = json!({"do_sample": false, "temperature": 0.9, "top_p": 0.95});
    folder.write("generation_config.json", &settings);
    for args in [&["--max-tokens", "6"][..], &["--max-tokens", "6", "--top-p", "0.9", "--seed", "1"]] {
        assert_eq!(generated(&folder, args).0, greedy, "{args:?}");
    }
    assert_eq!(generated(&folder, &at_random).0, drawn);

    let (config, _) = output(hornbook(&["config"]).env("HORNBOOK_MODEL", folder.path()));
    let file = folder.file("generation_config.json");
    let line = config.lines().find(|line| line.starts_with("sampling.temperature")).unwrap();
    assert!(line.contains(" 0 ") && line.ends_with(file.to_str().unwrap()), "{line}");
    let (shown, _) = output(&mut hornbook(&["show", folder.path()]));
    for line in ["do_sample             false", "temperature           0"] {
        assert!(shown.contains(&format!("{line}, from generation_config.json\n")), "{shown}");
    }
}

#[test]
fn eos_of_generation_config_ends_the_text() {
    let folder = Folder::copy_of("tests/data/tiny-gelu-new");
    let all = generated(&folder, &GREEDY).0;
    let ids: Vec<u32> = all.trim().split(',').map(|id| id.parse().unwrap()).collect();
    let end = ids[2];
    let length = ids.iter().position(|id| *id == end).unwrap() + 1;
    folder.write("generation_config.json", &json!({"eos_token_id": [96, end]}));
    let ended: Vec<u32> =
        generated(&folder, &GREEDY).0.trim().split(',').map(|id| id.parse().unwrap()).collect();
    assert_eq!(ended, ids[..length]);
}

/// An empty line alone looks as if nothing had happened.
#[test]
fn text_that_ends_at_once_is_noted() {
    let folder = Folder::copy_of("models/fable");
    let first = |args: &[&str]| {
        let args = [&["generate", "The king", "-m", folder.path(), "--temperature", "0"], args].concat();
        output(&mut hornbook(&args))
    };
    let (id, _) = first(&["--max-tokens", "1", "--output", "ids"]);
    let (token, _) = first(&["--max-tokens", "1"]);
    let token = token.trim_end();
    folder.write("generation_config.json", &json!({"eos_token_id": id.trim().parse::<u32>().unwrap()}));
    let note = &*format!("hornbook: the text ended at once: the first token was {token:?}\n");
    assert_eq!(first(&[]), ("\n".into(), note.into()));
    assert_eq!(first(&["-n", "2"]), ("\n---\n\n".into(), note.into()));
    assert_eq!(first(&["--output", "ids"]), (id, String::new()));
    fs::remove_file(folder.file("generation_config.json")).unwrap();
    assert_eq!(first(&["--stop", token]), ("\n".into(), note.into()));
    assert_eq!(first(&["--max-tokens", "0"]), ("\n".into(), String::new()));
}

#[test]
fn template_gets_bos_and_eos_of_tokenizer_files() {
    let folder = Folder::copy_of("models/fable");
    fs::remove_file(folder.file("chat_template.jinja")).unwrap();
    let template = "{{ bos_token }}{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}";
    let tokenizer_config = json!({"bos_token": {"content": "A"}, "chat_template": template});
    folder.write("tokenizer_config.json", &tokenizer_config);
    folder.write("special_tokens_map.json", &json!({"bos_token": "C", "eos_token": "B"}));
    let model = Hornbook::open(folder.path()).unwrap();
    let template = ChatTemplate::for_model(&model).unwrap();
    let (text, _) = template.apply(&[ChatMessage::new("user", "the king")], &model).unwrap();
    assert_eq!(text, "Athe kingB");

    let (shown, _) = output(&mut hornbook(&["show", folder.path(), "--json"]));
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let from = |value: &str, file: &str| json!({"value": value, "from": file});
    assert_eq!(shown["generation"]["bos_token"], from("A", "tokenizer_config.json"));
    assert_eq!(shown["generation"]["eos_token"], from("B", "special_tokens_map.json"));
    // What --draft takes: a copy of the matrices in a quantized precision.
    let bytes = |precision: &str| shown["draft_memory"][precision].as_u64().unwrap();
    assert!(bytes("int4") < bytes("int8") && bytes("int8") < shown["memory"]["f16"].as_u64().unwrap());
}

/// The tokenizers crate prints a warning to standard output if it writes such a vocabulary.
#[test]
fn vocabulary_with_gaps_prints_merges_alone() {
    let folder = Folder::copy_of("models/fable");
    let args = ["tokens", "the king", "--merges", "--json", "--model", folder.path()];
    let (expected, _) = output(&mut hornbook(&args));
    fs::remove_file(folder.file("tokenizer.json")).unwrap();
    let mut vocab: Value = serde_json::from_slice(&fs::read(folder.file("vocab.json")).unwrap()).unwrap();
    vocab["zzzz"] = json!(5000);
    folder.write("vocab.json", &vocab);
    assert_eq!(output(&mut hornbook(&args)).0, expected);
}

#[test]
fn model_template_that_is_none_is_refused() {
    let folder = Folder::copy_of("models/fable");
    for text in ["", "Hello!", "{{ bos_token }}"] {
        fs::write(folder.file("chat_template.jinja"), text).unwrap();
        let line = stderr_of_failure(&mut hornbook(&["chat", "--model", folder.path()]));
        assert!(line.contains("chat_template.jinja: found text that never reads `messages`"), "{line}");
    }
}

/// A broken tokenizer_config.json blocks the chat template in it alone.
#[test]
fn broken_tokenizer_config_is_a_note_where_it_is_not_needed() {
    let folder = Folder::copy_of("models/fable");
    let generate = ["generate", "--model", folder.path(), "The king", "--max-tokens", "4", "--seed", "1"];
    let (expected, note) = output(&mut hornbook(&generate));
    assert_eq!(note, "");
    let utf16: Vec<u8> = "{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (content, problem) in [
        (&b"{"[..], "EOF"),
        (br#"{"eos_token": 7}"#, "eos_token: expected a token: a string, or an object"),
        (&utf16, "found UTF-16LE text"),
    ] {
        fs::write(folder.file("tokenizer_config.json"), content).unwrap();
        let by_ids = [&["generate", "--model", folder.path(), "--prompt-ids", "1,2"][..], &GREEDY].concat();
        for args in [&generate[..], &by_ids, &["show", folder.path()], &["tokens", "Hi", "-m", folder.path()]]
        {
            let (text, note) = output(&mut hornbook(args));
            assert!(note.contains("tokenizer_config.json: ") && note.contains(problem), "{args:?}: {note}");
            assert!(note.lines().count() == 1 && note.ends_with("; not used\n"), "{args:?}: {note}");
            assert!(args != generate || text == expected, "{text}");
        }
        let mut chat = hornbook(&["chat", "--model", folder.path(), "--max-tokens", "4"]);
        let (answer, _) = output(chat.stdin(fs::File::open(folder.file("config.json")).unwrap()));
        assert!(!answer.is_empty(), "the template is in its own file");
    }
    fs::write(folder.file("tokenizer_config.json"), "{").unwrap();
    fs::remove_file(folder.file("chat_template.jinja")).unwrap();
    let Output { status, stderr, .. } = hornbook(&["chat", "--model", folder.path()]).output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(!status.success() && stderr.contains("tokenizer_config.json: found broken JSON"), "{stderr}");
}
