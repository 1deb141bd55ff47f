use super::*;
use crate::checkpoint::Checkpoint;
use std::fs;

/// Reads files with fable's tokenizer and the built-in chat template, or another.
struct Fixture {
    folder: tempfile::TempDir,
    tokenizer: Tokenizer,
    template: &'static str,
}

/// Fable's.
const END_OF_TEXT: u32 = 4095;

impl Fixture {
    fn new(template: &'static str) -> Self {
        let files = Checkpoint::open("fable").unwrap().tokenizer_files().unwrap();
        let tokenizer = Tokenizer::from_files(&files).unwrap().unwrap();
        Self { folder: tempfile::tempdir().unwrap(), tokenizer, template }
    }

    fn read(&self, name: &str, content: impl AsRef<[u8]>) -> Result<Vec<Document>> {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        self.read_path(&path)
    }

    fn read_path(&self, path: &Path) -> Result<Vec<Document>> {
        let reader = DocumentReader {
            tokenizer: &self.tokenizer,
            vocab_size: 4096,
            end_of_text: Some(END_OF_TEXT),
            prompt_loss_weight: 0.25,
            chat_template: &|| match self.template {
                "" => ChatTemplate::transcript(),
                text => ChatTemplate::parse(Path::new("own.jinja"), text),
            },
        };
        reader.read(path)
    }

    fn text(&self, document: &Document, weight: f32) -> String {
        let counted = document.ids.iter().zip(&document.weights).filter(|&(_, found)| *found == weight);
        self.tokenizer.decode(&counted.map(|(&id, _)| id).collect::<Vec<_>>())
    }
}

#[test]
fn texts_are_separated_and_trimmed() {
    let fixture = Fixture::new("");
    let documents = fixture.read("a.txt", "\u{feff} One > two.<|endoftext|>\n<|endoftext|>Three.").unwrap();
    let texts: Vec<_> = documents.iter().map(|document| fixture.text(document, 1.0)).collect();
    assert_eq!(texts, ["One > two.", "Three."]);
}

#[test]
fn conversations_count_where_the_assistant_writes() {
    let fixture = Fixture::new("");
    let hi = r#"{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}"#;
    let system = r#"{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Who are you?"}"#;
    let rest = r#"{"role": "assistant", "content": "I."}, {"role": "user", "content": "Bye"}"#;
    let lines = [
        format!("{{\"messages\": [{hi}]}}"),
        format!("{{\"messages\": [{system}, {rest}], \"id\": 5}}"),
        r#"{"text": "A tale."}"#.into(),
        r#"{"prompt": "Sing:", "completion": " La."}"#.into(),
    ]
    .join("\n");
    let documents = fixture.read("a.jsonl", lines).unwrap();
    let answers: Vec<_> = documents.iter().map(|document| fixture.text(document, 1.0)).collect();
    // The built-in transcript's answers reach to the next speaker.
    assert_eq!(answers, [" Hello.\nAssistant:", " I.\nAssistant:", "A tale.", " La."]);
    assert_eq!(fixture.text(&documents[1], 0.0), "Be kind.\n\nUser: Who are you?\nAssistant:");
    assert_eq!(fixture.text(&documents[3], 0.25), "Sing:");
    let texts = read_texts(&fixture.folder.path().join("a.jsonl")).unwrap();
    assert_eq!(texts, ["Hi\nHello.\n", "Be kind.\nWho are you?\nI.\nBye\n", "A tale.", "Sing: La."]);
}

#[test]
fn template_with_special_tokens_has_them_once() {
    let fixture = Fixture::new(
        "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}\
         {% if add_generation_prompt %}assistant:{% endif %}",
    );
    let line = r#"{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}"#;
    let documents = fixture.read("a.jsonl", line).unwrap();
    let [document] = &documents[..] else { panic!("{documents:?}") };
    assert_eq!(fixture.text(document, 0.0), "user: Hi<|endoftext|>assistant:");
    assert_eq!(fixture.text(document, 1.0), " Ho");
}

#[test]
fn token_files_of_nanogpt_and_llm_c_are_split_at_end_of_text() {
    let fixture = Fixture::new("");
    let tokens: Vec<u8> = [END_OF_TEXT as u16, 5, 6, END_OF_TEXT as u16, END_OF_TEXT as u16, 7]
        .iter()
        .flat_map(|token| token.to_le_bytes())
        .collect();
    let header = |version: u32, n: u32| -> Vec<u8> {
        let mut ints = [0u32; 256];
        ints[..3].copy_from_slice(&[20_240_520, version, n]);
        ints.iter().flat_map(|int| int.to_le_bytes()).collect()
    };
    let expected = [Document::new(vec![5, 6]), Document::new(vec![7])];
    assert_eq!(fixture.read("nano.bin", &tokens).unwrap(), expected);
    assert_eq!(fixture.read("llmc.bin", [header(1, 6), tokens.clone()].concat()).unwrap(), expected);
    let long: Vec<u8> = [9u16; 100_000].iter().flat_map(|token| token.to_le_bytes()).collect();
    assert_eq!(fixture.read("long.bin", long).unwrap(), [Document::new(vec![9; 100_000])]);
    let beyond: Vec<u8> = [5u16, 4096].iter().flat_map(|token| token.to_le_bytes()).collect();
    for (content, expected) in [
        (beyond, "token 1: found id 4096, expected 0 to 4095"),
        (vec![1, 0, 2], "found 3 bytes, expected an even number"),
        ([header(1, 7), tokens.clone()].concat(), "found 6 tokens, expected 7, as its header says"),
        ([header(7, 6), tokens].concat(), "found version 7 of llm.c's token files, expected 1"),
        (header(1, 0), "found no text"),
        (header(1, 0)[..100].to_vec(), "found 0 tokens, expected 0"),
        (vec![], "found no text"),
    ] {
        let error = fixture.read("bad.bin", content).unwrap_err().to_string();
        assert!(error.contains(&format!("bad.bin: {expected}")), "{error}");
    }
}

#[test]
fn folder_has_texts_and_json_lines_in_order_of_names() {
    let fixture = Fixture::new("");
    let folder = fixture.folder.path().join("data");
    fs::create_dir_all(folder.join("b")).unwrap();
    for (name, content) in [
        ("c.txt", "C."),
        ("a.jsonl", "{\"text\": \"A.\"}\n{\"text\": \"\"}"),
        ("b/b.txt", "B."),
        ("d.md", "D."),
    ] {
        fs::write(folder.join(name), content).unwrap();
    }
    let documents = fixture.read_path(&folder).unwrap();
    let texts: Vec<_> = documents.iter().map(|document| fixture.text(document, 1.0)).collect();
    assert_eq!(texts, ["A.", "B.", "C."]);
}

#[test]
fn wrong_line_is_named() {
    let fixture = Fixture::new("");
    for (line, expected) in [
        ("{\"text\": ", "found broken JSON at column 9 (EOF while parsing a value), expected {\"messages\""),
        ("{\"text\": \"a\"} x", "found broken JSON at column 15 (trailing characters)"),
        ("[1]", "found no JSON object, expected {\"messages\""),
        ("hello", "found no JSON object, expected {\"messages\""),
        ("{}", "found none of its fields, expected {\"messages\""),
        ("{\"text\": 5}", "text: found integer `5`, expected a string"),
        ("{\"prompt\": \"a\"}", "completion: found nothing, expected a string"),
        ("{\"completion\": \"a\"}", "prompt: found nothing, expected a string"),
        ("{\"messages\": []}", "messages: found an empty list, expected at least one message"),
        ("{\"messages\": \"a\"}", "messages: found string \"a\", expected a sequence"),
        ("{\"messages\": [{\"role\": \"user\"}]}", "messages[0]: missing field `content`"),
        (
            "{\"messages\": [{\"role\": \"user\", \"content\": null}]}",
            "messages[0].content: found null, expected a string",
        ),
        (
            "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}",
            "messages: found no message of the assistant, expected at least one",
        ),
        (
            r#"{"messages": [{"role": "tool", "content": "a"}, {"role": "assistant", "content": "a"}]}"#,
            "messages[0].role: found \"tool\", expected system, developer, user or assistant",
        ),
    ] {
        let error =
            fixture.read("bad.jsonl", format!("{{\"text\": \"a\"}}\n\n{line}\n")).unwrap_err().to_string();
        assert!(
            error.contains(&format!("bad.jsonl: line 3: {expected}")) && !error.contains('\n'),
            "{error}"
        );
    }
    let error =
        fixture.read("bad.jsonl", b"{\"text\": \"a\"}\n{\"text\": \"\xff\"}").unwrap_err().to_string();
    assert!(error.contains("bad.jsonl: line 2: found invalid UTF-8 at byte 10"), "{error}");
    let refusing = Fixture::new("{{ raise_exception('no ' ~ messages[0].role) }}");
    let line = "{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}]}";
    let error = refusing.read("bad.jsonl", line).unwrap_err().to_string();
    assert!(error.contains("bad.jsonl: line 1: chat template: no assistant"), "{error}");
}
