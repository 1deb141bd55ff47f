//! Tokenizer files: the two formats agree, and a file that is not byte-level BPE gives a one-line error that
//! names it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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

/// Fable's tokenizer from `vocab.json` and `merges.txt`, with files beside them or instead.
fn from_files(others: &[(&str, &[u8])]) -> hornbook::Result<Tokenizer> {
    let mut files = BTreeMap::new();
    for name in ["vocab.json", "merges.txt"] {
        files.insert(PathBuf::from(name), std::fs::read(Path::new(FABLE).join(name)).unwrap().into());
    }
    files.extend(others.iter().map(|(name, bytes)| (PathBuf::from(name), bytes.to_vec().into())));
    let files: Vec<_> = files.into_iter().collect();
    Ok(Tokenizer::from_files(&files)?.expect("a vocabulary and merges"))
}

fn parse_value(json: &Value) -> Tokenizer {
    parse(&serde_json::to_vec(json).unwrap())
}

#[test]
fn tokenizer_json_and_vocab_merges_agree() {
    let json = parse(&fable_json());
    let files = from_files(&[]).unwrap();
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

/// A long text is encoded in pieces only where added tokens allow it.
#[test]
fn long_texts_with_added_tokens_have_the_tokens_of_their_parts() {
    for (content, flag, tail) in
        [("<r>", "rstrip", "<r> the fox"), ("<l>", "lstrip", "x <l>the"), ("a b", "special", "a b the a b")]
    {
        let mut json: Value = serde_json::from_slice(&fable_json()).unwrap();
        let mut token = json["added_tokens"][0].clone();
        (token["id"], token["content"], token[flag]) = (json!(4096), json!(content), json!(true));
        json["added_tokens"].as_array_mut().unwrap().push(token);
        let tokenizer = parse_value(&json);
        let head = format!("{}-", "the ".repeat(10_000).trim_end().replace(' ', "_"));
        let parts = [&*head, tail].map(|part| tokenizer.encode(part, true).unwrap());
        assert!(parts[1].contains(&4096), "{content}");
        assert_eq!(tokenizer.encode(&format!("{head}{tail}"), true).unwrap(), parts.concat(), "{content}");
    }
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
        ("/model/vocab", json!({}), "out of vocabulary"),
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
        ("/added_tokens/0/id", json!(17), "found id 17, expected 4095"),
        ("/added_tokens/0/id", json!(4096), r#"added token "<|endoftext|>": found id 4096, expected 4095"#),
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
    let valid_vocab = std::fs::read(Path::new(FABLE).join("vocab.json")).unwrap();
    let valid_merges = std::fs::read_to_string(Path::new(FABLE).join("merges.txt")).unwrap();
    let assert_error = |vocab: &[u8], merges: &[u8], file: &str, expected: &str| {
        let error = from_files(&[("vocab.json", vocab), ("merges.txt", merges)]).err().expect(expected);
        assert_one_line(&error.to_string(), file, expected);
    };
    let (v, m) = (&valid_vocab[..], valid_merges.as_bytes());
    assert_error(b"", m, "vocab.json", "EOF");
    assert_error(b"[]", m, "vocab.json", "expected a map");
    assert_error(&v[..v.len() - 3], m, "vocab.json", "");
    assert_error(v, b"\xFF\xFF", "merges.txt", "not UTF-8");
    assert_error(v, b"#version: 0.2\nh e\nhe\n", "merges.txt", r#"line 3: merge "he""#);
    assert_error(v, b"h e\n\nt h\n", "merges.txt", "line 2");
    assert_error(v, b"h e\nqqq z\n", "merges.txt", "out of vocabulary");
    for (added, expected) in [
        (&br#"{"<a>": 4097}"#[..], r#"added token "<a>": found id 4097, expected 4096"#),
        (br#"{"fox": 4096, "<a>": "x"}"#, "<a>: invalid type: string"),
        (b"{", "EOF"),
    ] {
        let error = from_files(&[("added_tokens.json", added)]).err().expect(expected);
        assert_one_line(&error.to_string(), "added_tokens.json", expected);
    }

    let without_merges = [("vocab.json".into(), v.into())];
    assert!(Tokenizer::from_files(&without_merges).unwrap().is_none());
    // Windows line endings are accepted.
    let crlf = from_files(&[("merges.txt", valid_merges.replace('\n', "\r\n").as_bytes())]).unwrap();
    assert_eq!(crlf.encode("Once upon a time", false).unwrap().len(), 4);
}

/// The ids are those of transformers 5.24 for the same files.
#[test]
fn special_tokens_beside_vocab_and_merges_match_transformers() {
    let token = |content: &str| {
        json!({"content": content, "lstrip": false, "rstrip": false, "single_word": false,
            "normalized": false, "special": true})
    };
    let mut declared = ["<l>", "<r>", "<b>", "fox", "<n>"].map(token);
    for (token, flag) in
        [(0, "lstrip"), (1, "rstrip"), (2, "lstrip"), (2, "rstrip"), (3, "single_word"), (4, "normalized")]
    {
        declared[token][flag] = json!(true);
    }
    declared[3]["special"] = json!(false);
    declared[4]["special"] = json!(false);
    let declared: serde_json::Map<_, _> =
        (4096..).zip(declared).map(|(id, token)| (id.to_string(), token)).collect();
    let config = json!({"added_tokens_decoder": declared, "pad_token": "[PAD]", "eos_token":
        {"__type": "AddedToken", "content": "<e>", "rstrip": true, "lstrip": false, "normalized": true}});
    let tokenizer = from_files(&[("tokenizer_config.json", config.to_string().as_bytes())]).unwrap();
    for (text, expected) in [
        ("the  <l>  the", &[1070, 4096, 220, 259][..]),
        ("the  <r>  the", &[1070, 220, 220, 4097, 1070]),
        ("the \n<b>\t the", &[1070, 4098, 1070]),
        ("the fox foxs afox fox", &[1070, 220, 4099, 2003, 82, 548, 1767, 220, 4099]),
        ("the<n> <e>  the[PAD]", &[1070, 4100, 220, 4101, 1070, 4102]),
        ("<l> <r> <b>", &[4096, 220, 4097, 4098]),
        ("<|endoftext|>", &[4095]),
    ] {
        assert_eq!(tokenizer.encode(text, true).unwrap(), expected, "{text:?}");
    }
    assert_eq!(tokenizer.decode(&[1070, 4098, 4102, 4099]), "the<b>[PAD]fox");
    assert_eq!(tokenizer.vocab_size(), 4103);

    let map = r#"{"bos_token": "<|endoftext|>", "eos_token": null, "pad_token": "[PAD]",
        "additional_special_tokens": ["<|user|>", "<|bot|>"]}"#;
    let added = br#"{"<|bot|>": 4097, "<|user|>": 4096, "[PAD]": 4099, "fox": 4098}"#;
    let files: [(&str, &[u8]); 2] =
        [("special_tokens_map.json", map.as_bytes()), ("added_tokens.json", added)];
    let tokenizer = from_files(&files).unwrap();
    let text = "<|user|>the fox<|bot|>";
    assert_eq!(tokenizer.encode(text, true).unwrap(), [4096, 1070, 220, 4098, 4097]);
    let plain = tokenizer.encode(text, false).unwrap();
    assert!(plain.contains(&4098) && !plain.contains(&4096) && !plain.contains(&4097), "{plain:?}");
    assert_eq!(tokenizer.decode(&plain), text);
}

/// transformers adds GPT-2's end-of-text token to a vocabulary without it, unless a file says otherwise.
#[test]
fn end_of_text_is_default_special_token() {
    let mut vocab: Value =
        serde_json::from_slice(&std::fs::read(Path::new(FABLE).join("vocab.json")).unwrap()).unwrap();
    vocab.as_object_mut().unwrap().remove("<|endoftext|>").unwrap();
    let vocab = vocab.to_string();
    let encode = |others: &[(&str, &[u8])]| {
        let files = [&[("vocab.json", vocab.as_bytes())], others].concat();
        from_files(&files).unwrap().encode("<|endoftext|><|bot|>", true).unwrap()
    };
    assert_eq!(encode(&[])[0], 4095);
    assert_eq!(encode(&[("added_tokens.json", br#"{"<|bot|>": 4095}"#)]), [4096, 4095]);
    let none = br#"{"bos_token": null, "eos_token": null, "unk_token": null}"#;
    assert!(encode(&[("tokenizer_config.json", none)]).iter().all(|&id| id < 4095));
    assert_eq!(encode(&[("tokenizer_config.json", br#"{"add_prefix_space": true}"#)])[0], 4095);
}

#[test]
fn special_tokens_beside_tokenizer_json_are_added() {
    let config = br#"{"eos_token": "<|im_end|>", "bos_token": "<|endoftext|>"}"#;
    let files = [("tokenizer.json", fable_json()), ("tokenizer_config.json", config.to_vec())];
    let files = files.map(|(name, bytes)| (name.into(), bytes.into()));
    let tokenizer = Tokenizer::from_files(&files).unwrap().unwrap();
    assert_eq!(tokenizer.encode("the<|im_end|><|endoftext|>", true).unwrap(), [1070, 4096, 4095]);
}

#[test]
fn added_prefix_space_is_read_from_tokenizer_config() {
    let tokenizer = from_files(&[("tokenizer_config.json", br#"{"add_prefix_space": true}"#)]).unwrap();
    let expected = parse(&fable_json()).encode(" Once upon", false).unwrap();
    assert_eq!(tokenizer.encode("Once upon", false).unwrap(), expected);
}

/// As in transformers: bytes without a token are dropped, or become the unknown token if there is one.
#[test]
fn bytes_without_token_are_dropped_or_unknown() {
    let mut json: Value = serde_json::from_slice(&fable_json()).unwrap();
    let original = parse_value(&json);
    let vocab = json["model"]["vocab"].as_object_mut().unwrap();
    vocab.retain(|token, _| !token.contains(['z', 'Z', 'Ń']));
    let merges = json["model"]["merges"].as_array_mut().unwrap();
    merges.retain(|merge| !merge.to_string().contains(['z', 'Z', 'Ń']));
    let tokenizer = parse_value(&json);
    let encode = |tokenizer: &Tokenizer, text: &str| tokenizer.encode(text, false).unwrap();
    let expected = encode(&original, "ab the");
    assert_eq!(encode(&tokenizer, "azb the"), expected);
    assert!(encode(&tokenizer, "zZ").is_empty());
    let steps = tokenizer.merge_steps("azb the zebra", false).unwrap();
    let tokens: Vec<u32> = steps.iter().flat_map(|word| word.tokens()).copied().collect();
    assert_eq!(tokens, encode(&tokenizer, "azb the zebra"));

    json["model"]["unk_token"] = json!("<|endoftext|>");
    let tokenizer = parse_value(&json);
    assert_eq!(encode(&tokenizer, "zZ"), [4095, 4095]);
    assert_eq!(tokenizer.merge_steps("zZ", false).unwrap()[0].tokens(), [4095, 4095]);
    json["model"]["fuse_unk"] = json!(true);
    assert_eq!(encode(&parse_value(&json), "zZ"), [4095]);
}

/// Each case makes the `tokenizers` crate panic or its patterns fail, at load or on a text.
#[test]
fn tokenizer_json_that_cannot_be_used_is_one_line_error() {
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true});
    let before_byte_level = |step: Value| json!({"type": "Sequence", "pretokenizers": [step, byte_level]});
    let split = |pattern: &str| {
        before_byte_level(json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated",
            "invert": false}))
    };
    let replace = |pattern: &str| json!({"type": "Replace", "pattern": {"Regex": pattern}, "content": "x"});
    for (pointer, value) in [
        ("/pre_tokenizer", before_byte_level(json!({"type": "FixedLength", "length": 0}))),
        ("/pre_tokenizer", split("(a|a)*(?!a)b|(?=c)c(c|c|cc)*d")),
        ("/pre_tokenizer", split("(")),
        ("/normalizer", json!({"type": "Prepend", "prepend": ""})),
        ("/normalizer", replace("")),
        ("/normalizer", replace("(")),
        ("/normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"})),
        ("/normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "////////"})),
    ] {
        let mut json: Value = serde_json::from_slice(&fable_json()).unwrap();
        json[&pointer[1..]] = value.clone();
        json["added_tokens"][0]["normalized"] = json!(true);
        let text = format!("hello {}", "c".repeat(64));
        let error = Tokenizer::from_json(Path::new("t.json"), json.to_string().as_bytes())
            .and_then(|tokenizer| tokenizer.encode(&text, true).and(tokenizer.merge_steps(&text, true)));
        let error = error.err().unwrap_or_else(|| panic!("accepted: {value}")).to_string();
        assert_one_line(&error, "t.json", "");
    }
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
