//! Every known kind of invalid checkpoint, and its error message.

use std::fs;
use std::path::Path;

use hornbook::checkpoint::Checkpoint;
use safetensors::Dtype;
use serde_json::{Value, json};

use super::tiny::{N_EMBD, Tiny, assert_rejected, file, split_file};

#[test]
fn truncated_file_is_error_at_any_length() {
    let tiny = Tiny::new(Dtype::F16);
    let config = tiny.config.to_string();
    let whole = tiny.bytes();
    for length in 0..whole.len() {
        let truncated = Checkpoint::from_bytes(config.as_bytes(), whole[..length].to_vec());
        assert_rejected(truncated, "memory/model.safetensors", "found & expected");
    }
    let extended = Checkpoint::from_bytes(config.as_bytes(), [whole, vec![0]].concat());
    assert_rejected(extended, "memory/model.safetensors", "belong to no tensor");
}

#[test]
fn file_that_is_not_safetensors_is_error() {
    let tiny = Tiny::new(Dtype::F32);
    let length = |length: u64| {
        let mut bytes = tiny.bytes();
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        bytes
    };
    let not_text = [&8u64.to_le_bytes()[..], &[0xff; 8]].concat();
    let deep = "[".repeat(100_000);
    let not_json = "the header is not a JSON object";
    for (bytes, words) in [
        (vec![], "empty file"),
        (vec![1, 2, 3], "found 3 bytes & the 8 of the header length"),
        (length(u64::MAX), "found a header length of 18446744073709551615 & at most 100000000"),
        (length(90_000_000), "found a header length of 90000000 & truncated"),
        (length(10), not_json),
        (not_text, not_json),
        (file("", &[]), not_json),
        (file("[1, 2]", &[]), not_json),
        (file("{\"\u{1}\"", &[]), not_json),
        (file(&deep, &[]), not_json),
        (file("{}", &[]), "tensor wte.weight & found no such tensor"),
        (file(r#"{"a": 7}"#, &[]), "tensor a & dtype, shape and data_offsets"),
        (file(r#"{"a": {"dtype": "F32"}}"#, &[]), "tensor a & missing field"),
        (file(r#"{"__metadata__": {"a": [3]}}"#, &[]), "not valid safetensors"),
        (
            file(r#"{"a\nb": {"dtype": "F32", "shape": [1], "data_offsets": [9, 13]}}"#, &[]),
            r"tensor a\nb & found data_offsets 9 to 13 & start at 0",
        ),
    ] {
        assert_rejected_on_disk(&tiny, &bytes, words);
    }
}

#[test]
fn inconsistent_tensor_header_is_error() {
    let tiny = Tiny::new(Dtype::F32);
    let (header, data) = split_file(&tiny.bytes());
    let offsets = &header["wte.weight"]["data_offsets"];
    let (start, end) = (offsets[0].as_u64().unwrap(), offsets[1].as_u64().unwrap());
    let far = 1u64 << 63;

    let elsewhere = "data_offsets & expected offsets that start at";
    let wte_elsewhere = format!("tensor wte.weight & data_offsets & start at {start}");
    for (field, value, words) in [
        ("dtype", json!("F33"), "tensor wte.weight & F33 & expected"),
        ("dtype", json!("I32"), "tensor wte.weight & dtype I32 & F32, F16 or BF16"),
        ("dtype", json!("I64"), "tensor wte.weight & found 352 bytes & 704 bytes for I64 [11, 8]"),
        ("shape", json!([8, 11]), "tensor wte.weight & found shape [8, 11] & expected shape [11, 8]"),
        ("shape", json!([88]), "tensor wte.weight & found shape [88] & expected shape [11, 8]"),
        ("shape", json!([11, 9]), "tensor wte.weight & found 352 bytes & 396 bytes for F32 [11, 9]"),
        ("shape", json!([]), "tensor wte.weight & found 352 bytes & 4 bytes for F32 []"),
        ("shape", json!([0, 8]), "tensor wte.weight & found 352 bytes & 0 bytes for F32 [0, 8]"),
        ("shape", json!([-1, 8]), "tensor wte.weight & -1"),
        ("shape", json!([1.5, 8]), "tensor wte.weight & 1.5"),
        ("shape", json!([far, 8]), "tensor wte.weight & F32 [9223372036854775808, 8]"),
        ("shape", json!([far, 2, 11]), "tensor wte.weight & a size in whole bytes"),
        ("shape", json!("11x8"), "tensor wte.weight & 11x8"),
        ("data_offsets", json!([end, start]), &wte_elsewhere),
        ("data_offsets", json!([start + 4, end]), &wte_elsewhere),
        ("data_offsets", json!([start - 4, end - 4]), elsewhere),
        ("data_offsets", json!([far, far + 352]), elsewhere),
        ("data_offsets", json!([0, u64::MAX]), elsewhere),
        ("data_offsets", json!([start, end + 4]), "tensor wte.weight & found 356 bytes & 352 bytes"),
        ("data_offsets", json!([start]), "tensor wte.weight & expected"),
        ("data_offsets", json!([-4, 4]), "tensor wte.weight & -4"),
    ] {
        let mut header = header.clone();
        header["wte.weight"][field] = value;
        let bytes = file(&Value::Object(header).to_string(), &data);
        assert_rejected_on_disk(&tiny, &bytes, words);
    }

    // Removing a tensor's entry leaves a gap in the data section.
    let mut with_gap = header.clone();
    with_gap.remove("h.1.ln_2.bias");
    let with_gap = file(&Value::Object(with_gap).to_string(), &data);
    assert_rejected_on_disk(&tiny, &with_gap, elsewhere);
}

#[test]
fn missing_or_mistyped_tensor_is_error() {
    let tiny = Tiny::new(Dtype::F32);
    for (name, (_, shape, _)) in &tiny.tensors {
        let assert_rejected = |wrong: Tiny, words: &str| {
            let words = format!("tensor {name}: & {words}");
            assert_rejected(wrong.load(), "memory/model.safetensors", &words);
        };
        let mut missing = tiny.clone();
        missing.tensors.remove(name);
        assert_rejected(missing, "found no such tensor & expected");

        let mut integers = tiny.clone();
        integers.set(name, Dtype::I64, shape);
        assert_rejected(integers, "found dtype I64 & expected F32, F16 or BF16");

        let mut larger = shape.clone();
        larger[0] += 1;
        let mut longer = tiny.clone();
        longer.set(name, Dtype::F32, &larger);
        assert_rejected(longer, &format!("found shape {larger:?} & expected shape & {shape:?}"));
    }
}

#[test]
fn mixed_layouts_are_error() {
    let tiny = Tiny::new(Dtype::F32);
    let mut mixed = tiny.clone();
    mixed.set("h.1.attn.c_attn.weight", Dtype::F32, &[3 * N_EMBD, N_EMBD]);
    let words = "h.1.attn.c_attn.weight & found shape [24, 8] & expected shape [8, 24]";
    assert_rejected(mixed.load(), "memory/model.safetensors", words);

    let mut neither = tiny;
    neither.set("h.0.attn.c_attn.weight", Dtype::F32, &[16, 8]);
    let words = "found shape [16, 8] & [8, 24] (Conv1D) or [24, 8] (nn.Linear)";
    assert_rejected(neither.load(), "memory/model.safetensors", words);
}

#[test]
fn invalid_config_field_is_error() {
    let far = || json!(1u64 << 63);
    for (field, value, words) in [
        ("model_type", json!("llama"), r#"found "llama", expected "gpt2""#),
        ("model_type", json!(null), "found null & gpt2"),
        ("n_embd", json!(0), "found 0, expected an integer from 1"),
        ("n_embd", json!(-8), "found -8"),
        ("n_embd", json!(8.0), "found 8.0"),
        ("n_embd", json!("8"), r#"found "8""#),
        ("n_embd", json!([8]), "found [8]"),
        ("n_embd", json!(null), "found null"),
        ("n_embd", json!(1e300), "found 1e+300"),
        ("n_embd", far(), "found 9223372036854775808"),
        ("n_layer", far(), "found 9223372036854775808"),
        ("n_layer", json!(true), "found true"),
        ("n_head", json!(0), "found 0"),
        ("n_head", json!(3), "found 3, expected a divisor of n_embd, which is 8"),
        ("n_head", far(), "found 9223372036854775808"),
        ("n_positions", json!(0), "found 0"),
        ("n_positions", json!(u64::MAX), "found 18446744073709551615"),
        ("n_inner", json!(0), "found 0"),
        ("n_inner", json!({}), "found {}"),
        ("n_inner", far(), "found 9223372036854775808"),
        ("vocab_size", json!(-1), "found -1"),
        ("vocab_size", far(), "found 9223372036854775808"),
        ("layer_norm_epsilon", json!(0), "found 0, expected a number above 0"),
        ("layer_norm_epsilon", json!(-0.5), "found -0.5"),
        ("layer_norm_epsilon", json!(1e-300), "found 1e-300"),
        ("layer_norm_epsilon", json!(1e300), "found 1e+300"),
        ("layer_norm_epsilon", json!("tiny"), r#"found "tiny""#),
        ("activation_function", json!("mish"), r#"found "mish", expected gelu_new & relu & silu"#),
        ("activation_function", json!(1), "found 1"),
        ("activation_function", json!("x\ny".repeat(99)), r#"found "x\ny & ..."#),
        ("scale_attn_weights", json!("yes"), r#"found "yes", expected true or false"#),
        ("scale_attn_by_inverse_layer_idx", json!(1), "found 1, expected true or false"),
        ("reorder_and_upcast_attn", json!(null), "found null, expected true or false"),
        ("tie_word_embeddings", json!(0), "found 0, expected true or false"),
        ("bos_token_id", json!(-1), "found -1, expected a token id"),
        ("bos_token_id", json!(1u64 << 32), "found 4294967296, expected a token id"),
        ("eos_token_id", json!("end"), r#"found "end", expected a token id"#),
        ("eos_token_id", json!([1, -2]), "found -2, expected a token id"),
        ("position_embedding_type", json!("rotary"), r#"found "rotary" & sinusoidal"#),
    ] {
        let mut tiny = Tiny::new(Dtype::F32);
        tiny.config[field] = value;
        assert_rejected(tiny.load(), "memory/config.json", &format!("{field}: & {words}"));
    }

    let mut legacy = Tiny::new(Dtype::F32);
    legacy.config.as_object_mut().unwrap().remove("n_positions");
    legacy.config["n_ctx"] = json!(-6);
    assert_rejected(legacy.load(), "memory/config.json", "n_ctx: found -6");

    let mut odd = Tiny::new(Dtype::F32);
    for (field, value) in [("n_embd", json!(3)), ("n_head", json!(1))] {
        odd.config[field] = value;
    }
    odd.config["position_embedding_type"] = json!("sinusoidal");
    odd.tensors.remove("wpe.weight");
    odd.set("h.0.attn.c_attn.weight", Dtype::F32, &[3, 9]);
    assert_rejected(odd.load(), "memory/model.safetensors", "wpe.weight & even n_embd");
}

#[test]
fn mismatched_config_is_error() {
    for (field, tensor) in [
        ("n_positions", "wpe.weight"),
        ("vocab_size", "wte.weight"),
        ("n_inner", "h.0.mlp.c_fc.weight"),
        ("n_layer", "h.2.ln_1.weight"),
        ("n_embd", "h.0.attn.c_attn.weight"),
    ] {
        let mut tiny = Tiny::new(Dtype::F32);
        tiny.config[field] = json!(40);
        let words = format!("tensor {tensor}: & found & expected shape & 40");
        let words = if field == "n_layer" { words.replace(" & 40", "") } else { words };
        assert_rejected(tiny.load(), "memory/model.safetensors", &words);
    }
}

#[test]
fn config_that_is_not_json_is_error() {
    let bytes = Tiny::new(Dtype::F32).bytes();
    let deep = "[".repeat(100_000);
    for (config, words) in [
        ("", "found broken JSON at line 1, column 0 (EOF while parsing a value)"),
        ("[]", "top level: found [], expected a JSON object"),
        ("null", "top level: found null"),
        ("PK\u{3}\u{4}", "broken JSON at line 1, column 1"),
        ("{}\n{}", "broken JSON at line 2, column 1 (trailing characters)"),
        (&deep, "recursion limit"),
        ("{\n \"layer_norm_epsilon\": NaN,\n \"n_head\": 2}", "broken JSON at line 2, column 24"),
        ("{\"layer_norm_epsilon\" : -Infinity}", "broken JSON at line 1, column 26"),
        ("{\"layer_norm_epsilon\": 1e999}", "broken JSON & out of range"),
        ("{\"n_embd\": 8", "broken JSON at line 1, column 12 (EOF"),
        ("{\"n_embd\": \u{0}}", "broken JSON at line 1, column 12"),
    ] {
        let result = Checkpoint::from_bytes(config.as_bytes(), bytes.clone());
        assert_rejected(result, "memory/config.json", words);
    }
    let not_text = Checkpoint::from_bytes(&[b'"', 0xff, b'"'], bytes);
    assert_rejected(not_text, "memory/config.json", "broken JSON at line 1");
    let utf16: Vec<u8> = "\u{feff}{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let utf16 = Checkpoint::from_bytes(&utf16, Tiny::new(Dtype::F32).bytes());
    assert_rejected(utf16, "memory/config.json", "found UTF-16 text, expected UTF-8");
}

#[test]
fn folder_without_checkpoint_is_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let open = |path: &Path| Checkpoint::open(path.to_str().unwrap());
    let folder_path = path.to_str().unwrap();
    assert_rejected(open(path), folder_path, "found no config.json");

    let config = path.join("config.json");
    fs::create_dir(&config).unwrap();
    assert_rejected(open(path), "config.json", "found a folder, expected a regular file");
    fs::remove_dir(&config).unwrap();
    fs::write(&config, Tiny::new(Dtype::F32).config.to_string()).unwrap();
    assert_rejected(open(path), folder_path, "neither model.safetensors nor model.safetensors.index.json");
    assert_rejected(open(&config), "config.json", "found a file, expected the folder");

    fs::write(path.join("pytorch_model.bin"), "").unwrap();
    assert_rejected(
        open(path),
        folder_path,
        "found pytorch_model.bin, expected model.safetensors & save_pretrained",
    );

    fs::create_dir(path.join("model.safetensors")).unwrap();
    assert_rejected(open(path), "model.safetensors", "found a folder, expected a regular file");

    let gone = path.join("gone");
    assert_rejected(open(&gone), "gone", "not found: no such folder & config.json");
    assert_rejected(Checkpoint::from_folder(&gone), "gone", "cannot open");
}

#[cfg(unix)]
#[test]
fn unreadable_file_is_error() {
    use std::os::unix::fs::symlink;

    let tiny = Tiny::new(Dtype::F32);
    let folder = tiny.folder();
    let open = || Checkpoint::from_folder(folder.path());
    let link = |name: &str, target: &Path| {
        let link = folder.path().join(name);
        fs::remove_file(&link).unwrap();
        symlink(target, link).unwrap();
    };
    for unreadable in ["gone", "model.safetensors"] {
        link("model.safetensors", &folder.path().join(unreadable)); // to nowhere, and to itself
        assert_rejected(open(), "model.safetensors", "cannot open");
    }
    link("model.safetensors", Path::new("/dev/zero"));
    assert_rejected(open(), "model.safetensors", "found a device or pipe, expected a regular file");
    link("config.json", Path::new("/dev/zero"));
    assert_rejected(open(), "config.json", "found a device or pipe, expected a regular file");
    link("config.json", &folder.path().join("gone"));
    assert_rejected(open(), "config.json", "cannot open");
}

#[test]
fn invalid_shard_index_is_error() {
    let folder = Tiny::new(Dtype::F32).sharded();
    let index = folder.path().join("model.safetensors.index.json");
    let valid: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    let (first, second) = ("model-00001-of-2.safetensors", "model-00002-of-2.safetensors");
    let assert_rejected = |json: String, file: &str, words: &str| {
        fs::write(&index, json).unwrap();
        assert_rejected(Checkpoint::from_folder(folder.path()), file, words);
    };

    for (json, words) in [
        ("", "found broken JSON at line 1"),
        ("{}", "missing field `weight_map`"),
        ("[", "found broken JSON"),
        (r#"{"weight_map": 3}"#, "weight_map: invalid type: integer `3`, expected a map"),
        (r#"{"weight_map": {"a": 7}}"#, "weight_map.a: invalid type: integer `7`"),
    ] {
        assert_rejected(json.into(), "index.json", words);
    }
    let none = r#"{"weight_map": {}}"#;
    assert_rejected(none.into(), "index.json", "tensor wte.weight & no such tensor");

    let with = |tensor: &str, shard: &str| {
        let mut index = valid.clone();
        index["weight_map"][tensor] = json!(shard);
        index.to_string()
    };
    let elsewhere = match valid["weight_map"]["wte.weight"] == first {
        true => second,
        false => first,
    };
    let misplaced = "tensor wte.weight & found no such tensor & the tensor in this file";
    assert_rejected(with("wte.weight", elsewhere), elsewhere, misplaced);
    assert_rejected(with("extra", first), first, "tensor extra & found no such tensor");
    assert_rejected(with("wte.weight", "gone.safetensors"), "gone.safetensors", "cannot open");
    assert_rejected(with("wte.weight", "config.json"), "config.json", "header length");

    // A valid shard outside the folder.
    let nearby = tempfile::tempdir_in(folder.path().parent().unwrap()).unwrap();
    fs::copy(folder.path().join(first), nearby.path().join(first)).unwrap();
    let nearby_name = nearby.path().file_name().unwrap().to_str().unwrap();
    for outside in [
        format!("../{nearby_name}/{first}"),
        format!("a/../../{nearby_name}/{first}"),
        nearby.path().join(first).to_str().unwrap().into(),
        folder.path().join(first).to_str().unwrap().into(),
        "/etc/passwd".into(),
        "..".into(),
        ".".into(),
        String::new(),
    ] {
        let words = "found shard & expected the name of a file in this folder";
        assert_rejected(with("wte.weight", &outside), "index.json", words);
    }
}

/// Asserts that `weights`, written next to the config of `tiny`, are rejected with `words` and the file's
/// path.
fn assert_rejected_on_disk(tiny: &Tiny, weights: &[u8], words: &str) {
    let folder = tiny.folder();
    let path = folder.path().join("model.safetensors");
    fs::write(&path, weights).unwrap();
    let result = Checkpoint::from_folder(folder.path());
    assert_rejected(result, path.to_str().unwrap(), words);
}
