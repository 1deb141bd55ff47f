//! Tokenizer files: the two formats agree, and a file that is not byte-level BPE gives a one-line error that
//! names it.

use std::path::Path;

use hornbook::tokenizer::Tokenizer;
use proptest::prelude::*;
use serde_json::{Value, json};

const FABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/fable");

fn fable_json() -> Vec<u8> {
    std::fs::read(Path::new(FABLE).join("tokenizer.json")).unwrap()
}

fn parse(bytes: &[u8]) -> Tokenizer {
    Tokenizer::from_json(Path::new("tokenizer.json"), bytes).unwrap()
}

fn parse_value(json: &Value) -> Tokenizer {
    parse(&serde_json::to_vec(json).unwrap())
}

#[test]
fn tokenizer_json_and_vocab_merges_agree() {
    let json = parse(&fable_json());
    let folder = Path::new(FABLE);
    let files = Tokenizer::from_vocab_merges(&folder.join("vocab.json"), &folder.join("merges.txt")).unwrap();
    assert_eq!((json.vocab_size(), files.vocab_size()), (4096, 4096));
    for id in 0..4096 {
        assert_eq!(json.token_bytes(id), files.token_bytes(id));
    }
    assert_eq!(json.token_to_id("<|endoftext|>"), Some(4095));
    assert_eq!(json.encode("Once upon a time", false).unwrap().len(), 4);
    proptest!(|(text in any::<String>(), special in any::<bool>())| {
        let text = format!("{text}<|endoftext|> Once, {text}");
        let ids = json.encode(&text, special).unwrap();
        prop_assert_eq!(&ids, &files.encode(&text, special).unwrap());
        prop_assert_eq!(ids.contains(&4095), special);
        prop_assert_eq!(json.decode(&ids), text);
    });
}

/// Truncation, padding and post-processing are ignored: the prompt's tokens are exactly those of its text.
#[test]
fn truncation_padding_and_post_processor_are_ignored() {
    let original = parse(&fable_json());
    let mut json: Value = serde_json::from_slice(&fable_json()).unwrap();
    json["truncation"] =
        json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    json["padding"] = json!({"strategy": {"Fixed": 64}, "direction": "Right",
        "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "!"});
    let end = json!({"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}});
    let text = |id, kind| json!({"Sequence": {"id": id, "type_id": kind}});
    json["post_processor"] = json!({"type": "TemplateProcessing",
        "single": [end, text("A", 0)], "pair": [text("A", 0), text("B", 1)],
        "special_tokens": {"<|endoftext|>":
            {"id": "<|endoftext|>", "ids": [4095], "tokens": ["<|endoftext|>"]}}});
    let with_extras = parse_value(&json);
    let text = "Once upon a time there was a fox.";
    for special in [false, true] {
        let ids = with_extras.encode(text, special).unwrap();
        assert_eq!(ids, original.encode(text, special).unwrap());
    }
}

#[test]
fn merges_as_strings_or_pairs_and_added_tokens_are_parsed() {
    let original = parse(&fable_json());
    let mut json: Value = serde_json::from_slice(&fable_json()).unwrap();
    let merges = json["model"]["merges"].as_array_mut().unwrap();
    let pairs: Vec<[String; 2]> = merges
        .iter()
        .map(|merge| match merge {
            Value::String(line) => {
                let (left, right) = line.split_once(' ').unwrap();
                [left.into(), right.into()]
            }
            pair => serde_json::from_value(pair.clone()).unwrap(),
        })
        .collect();
    let text = "The fox said <|fox é|> to nobody's surprise.";
    for as_pairs in [true, false] {
        let merges = pairs.iter().map(|pair| match as_pairs {
            true => json!(pair),
            false => json!(pair.join(" ")),
        });
        json["model"]["merges"] = merges.collect();
        let tokenizer = parse_value(&json);
        assert_eq!(tokenizer.encode(text, false).unwrap(), original.encode(text, false).unwrap());
    }

    let mut token = json["added_tokens"][0].clone();
    token["id"] = json!(4096);
    token["content"] = json!("<|fox é|>");
    json["added_tokens"].as_array_mut().unwrap().push(token);
    let extended = parse_value(&json);
    assert_eq!(extended.vocab_size(), 4097);
    assert_eq!(extended.encode(text, false).unwrap(), original.encode(text, false).unwrap());
    let ids = extended.encode(text, true).unwrap();
    assert!(ids.contains(&4096));
    assert_eq!(extended.decode(&ids), text);
}

/// Each case: the JSON pointer to change in a valid file, the new value, and a part of the expected message.
#[test]
fn malformed_tokenizer_json_is_one_line_error() {
    let valid: Value = serde_json::from_slice(&fable_json()).unwrap();
    #[rustfmt::skip]
    let cases = [
        ("/model/type", json!("Unigram"), r#"model.type: found "Unigram", expected "BPE""#),
        ("/model", json!({"type": "WordPiece", "vocab": {}}),
            r#"model.type: found "WordPiece", expected "BPE""#),
        ("/model", json!({"type": "Unigram", "vocab": [["a", 0.5]]}),
            r#"model.type: found "Unigram", expected "BPE""#),
        ("/model", json!({"type": "BPE"}), "missing field `vocab`"),
        ("/model/vocab", json!({}), "for byte 0x00"),
        ("/model/vocab", json!([1, 2]), "expected a map"),
        ("/model/vocab/A", json!("x"), "expected u32"),
        ("/model/vocab/A", json!(-1), "expected u32"),
        ("/model/vocab/A", json!(4_000_000_000u32), r#"token "A": found id 4000000000"#),
        ("/model/vocab/A", json!(33), r#"id 33: found two tokens, "A" and "B", expected one"#),
        ("/model/merges/0", json!("a"), r#"merge "a": expected two tokens"#),
        ("/model/merges/0", json!("a b c"), "expected two tokens separated by one space"),
        ("/model/merges/0", json!(["a"]), "expected a merge"),
        ("/model/merges/0", json!(["a", "b", "c"]), "expected a merge"),
        ("/model/merges/0", json!(7), "expected a merge"),
        ("/model/merges/0", json!(["no\nsuch", "token"]), "merges: Token `no such` out of vocabulary"),
        ("/model/dropout", json!(0.1), "model.dropout"),
        ("/model/continuing_subword_prefix", json!("##é"),
            r###"model.continuing_subword_prefix: found "##é""###),
        ("/model/end_of_word_suffix", json!("</w>"), r#"model.end_of_word_suffix: found "</w>""#),
        ("/pre_tokenizer", Value::Null, "pre_tokenizer: found none of type ByteLevel"),
        ("/pre_tokenizer", json!({"type": "Whitespace"}), "pre_tokenizer: found none of type ByteLevel"),
        ("/pre_tokenizer", json!({"type": "Nonsense"}), ""),
        ("/added_tokens/0/id", json!(17), r#"id 17: found two tokens"#),
        ("/added_tokens/0/id", json!(4096), r#"added_tokens: "<|endoftext|>": found id 4096, expected 4095"#),
        ("/added_tokens/0/content", json!(""), "expected"),
        ("/added_tokens", json!("x"), "expected a sequence"),
        ("", json!([]), ""),
        ("", json!({"added_tokens": []}), "missing field `model`"),
    ];
    for (pointer, value, message) in cases {
        let mut json = valid.clone();
        *json.pointer_mut(pointer).unwrap() = value;
        assert_json_error(&serde_json::to_vec(&json).unwrap(), message);
    }
    let bytes = fable_json();
    let half = &bytes[..bytes.len() / 2];
    for (text, message) in [(&b""[..], "EOF"), (b"\xFF\xFE{}", ""), (b"null", ""), (half, "EOF")] {
        assert_json_error(text, message);
    }
}

fn assert_json_error(bytes: &[u8], expected: &str) {
    let error = Tokenizer::from_json(Path::new("some/tokenizer.json"), bytes)
        .err()
        .unwrap_or_else(|| panic!("accepted, expected the error {expected:?}"));
    assert_one_line(&error.to_string(), "some/tokenizer.json", expected);
}

fn assert_one_line(message: &str, file: &str, expected: &str) {
    assert!(message.starts_with(&format!("{file}: ")), "{message}");
    assert!(message.contains(expected), "{message}: expected {expected:?}");
    assert!(!message.contains(char::is_control), "{message}");
    assert!(message.len() < 300, "{message}");
}

#[test]
fn malformed_vocab_and_merges_are_one_line_errors() {
    let folder = tempfile::tempdir().unwrap();
    let vocab = folder.path().join("vocab.json");
    let merges = folder.path().join("merges.txt");
    let valid_vocab = std::fs::read(Path::new(FABLE).join("vocab.json")).unwrap();
    let valid_merges = std::fs::read_to_string(Path::new(FABLE).join("merges.txt")).unwrap();
    let assert_error = |v: &[u8], m: &[u8], file: &Path, expected: &str| {
        std::fs::write(&vocab, v).unwrap();
        std::fs::write(&merges, m).unwrap();
        let error = Tokenizer::from_vocab_merges(&vocab, &merges).err().expect(expected);
        assert_one_line(&error.to_string(), file.to_str().unwrap(), expected);
    };
    let (v, m) = (&valid_vocab[..], valid_merges.as_bytes());
    assert_error(b"", m, &vocab, "EOF");
    assert_error(b"[]", m, &vocab, "expected a map");
    assert_error(&v[..v.len() - 3], m, &vocab, "");
    assert_error(v, b"\xFF\xFF", &merges, "not UTF-8");
    assert_error(v, b"#version: 0.2\nh e\nhe\n", &merges, r#"line 3: merge "he""#);
    assert_error(v, b"h e\n\nt h\n", &merges, "line 2");
    assert_error(v, b"h e\nqqq z\n", &merges, "out of vocabulary");

    std::fs::remove_file(&merges).unwrap();
    let error = Tokenizer::from_vocab_merges(&vocab, &merges).err().unwrap();
    assert_one_line(&error.to_string(), merges.to_str().unwrap(), "cannot read");
    // Windows line endings are accepted.
    std::fs::write(&vocab, v).unwrap();
    std::fs::write(&merges, valid_merges.replace('\n', "\r\n")).unwrap();
    let crlf = Tokenizer::from_vocab_merges(&vocab, &merges).unwrap();
    assert_eq!(crlf.encode("Once upon a time", false).unwrap().len(), 4);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// A corrupted file may still be valid, but must not panic.
    #[test]
    fn corrupted_tokenizer_json_never_panics(
        position in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        truncate in any::<bool>(),
    ) {
        let mut bytes = fable_json();
        let position = position.index(bytes.len());
        if truncate { bytes.truncate(position) } else { bytes[position] = byte }
        if let Ok(tokenizer) = Tokenizer::from_json(Path::new("t"), &bytes) {
            let ids = tokenizer.encode("Once upon a time<|endoftext|>", true).unwrap();
            tokenizer.decode(&ids);
        }
    }
}
