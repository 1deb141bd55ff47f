//! All supported forms of a checkpoint load with the same values.

use std::fs;

use half::{bf16, f16};
use hornbook::checkpoint::{Checkpoint, PositionEmbedding};
use safetensors::Dtype;
use serde_json::{Value, json};

use super::tiny::{N_EMBD, Tiny, VOCAB, all_values, assert_rejected, file, split_file, values};

#[test]
fn every_tensor_is_loaded_into_its_field() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        let tiny = Tiny::new(dtype);
        let folder = tiny.folder();
        let checkpoint = Checkpoint::from_folder(folder.path()).unwrap();
        let stored = |name: &str| -> Vec<f32> {
            let (_, _, bytes) = &tiny.tensors[name];
            match dtype {
                Dtype::F16 => (bytes.as_chunks().0.iter()).map(|x| f16::from_le_bytes(*x).to_f32()).collect(),
                Dtype::BF16 => {
                    (bytes.as_chunks().0.iter()).map(|x| bf16::from_le_bytes(*x).to_f32()).collect()
                }
                _ => (bytes.as_chunks().0.iter()).map(|x| f32::from_le_bytes(*x)).collect(),
            }
        };
        let w = &checkpoint.weights;
        let mut expected = vec![
            ("wte.weight".to_string(), &w.wte),
            ("wpe.weight".to_string(), w.wpe.as_ref().unwrap()),
            ("ln_f.weight".to_string(), &w.ln_f.weight),
            ("ln_f.bias".to_string(), &w.ln_f.bias),
        ];
        for (i, block) in w.h.iter().enumerate() {
            for (name, tensor) in [
                ("ln_1.weight", &block.ln_1.weight),
                ("ln_1.bias", &block.ln_1.bias),
                ("attn.c_attn.weight", &block.attn.c_attn.weight),
                ("attn.c_attn.bias", &block.attn.c_attn.bias),
                ("attn.c_proj.weight", &block.attn.c_proj.weight),
                ("attn.c_proj.bias", &block.attn.c_proj.bias),
                ("ln_2.weight", &block.ln_2.weight),
                ("ln_2.bias", &block.ln_2.bias),
                ("mlp.c_fc.weight", &block.mlp.c_fc.weight),
                ("mlp.c_fc.bias", &block.mlp.c_fc.bias),
                ("mlp.c_proj.weight", &block.mlp.c_proj.weight),
                ("mlp.c_proj.bias", &block.mlp.c_proj.bias),
            ] {
                expected.push((format!("h.{i}.{name}"), tensor));
            }
        }
        assert_eq!(expected.len(), tiny.tensors.len());
        assert_eq!(w.tensors().count(), tiny.tensors.len());
        for (name, tensor) in expected {
            assert_eq!(tensor.shape(), tiny.tensors[&name].1, "{name}");
            assert_eq!(values(tensor), stored(&name), "{name}");
            let converted = dtype != Dtype::F32 && tensor.shape().len() == 1;
            assert_eq!(tensor.is_view(), !converted, "{name}");
            if tensor.shape().len() == 1 {
                assert_eq!(tensor.as_f32(), stored(&name));
            }
        }
        assert_eq!(checkpoint.mapped_bytes(), tiny.bytes().len());
        assert_eq!(checkpoint.owned_bytes() == 0, dtype == Dtype::F32);
    }
}

#[test]
fn prefixes_and_extra_tensors_are_ignored() {
    let unprefixed = all_values(&Tiny::new(Dtype::F32).load().unwrap().weights);
    for prefix in ["transformer.", "_orig_mod.", "_orig_mod.transformer."] {
        let mut tiny = Tiny::new(Dtype::F32).rename(|name| format!("{prefix}{name}"));
        tiny.set(&format!("{prefix}h.0.attn.bias"), Dtype::U8, &[1, 1, 6, 6]);
        tiny.set(&format!("{prefix}h.0.attn.masked_bias"), Dtype::F64, &[]);
        tiny.set("something.else", Dtype::I64, &[3]);
        assert_eq!(all_values(&tiny.load().unwrap().weights), unprefixed, "{prefix}");
    }
}

#[test]
fn conv1d_and_linear_layouts_give_same_weights() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        let conv1d = Tiny::new(dtype);
        let linear = conv1d.clone().into_nn_linear().load().unwrap();
        let transposed = &linear.weights.h[1].attn.c_proj.weight;
        assert!(!transposed.is_view());
        assert_eq!(all_values(&linear.weights), all_values(&conv1d.load().unwrap().weights));
    }
}

#[test]
fn shards_equal_single_file() {
    let tiny = Tiny::new(Dtype::BF16);
    let (single, sharded) = (tiny.folder(), tiny.sharded());
    let single = Checkpoint::from_folder(single.path()).unwrap();
    let sharded = Checkpoint::from_folder(sharded.path()).unwrap();
    assert_eq!(all_values(&single.weights), all_values(&sharded.weights));
    assert!(sharded.weights.wte.is_view());
}

#[test]
fn misaligned_tensors_are_copied() {
    let tiny = Tiny::new(Dtype::F32);
    let aligned = tiny.load().unwrap();
    let (header, data) = split_file(&tiny.bytes());
    let header = Value::Object(header).to_string();
    for spaces in 0..4 {
        let folder = tiny.folder();
        let padded = format!("{header}{}", " ".repeat(spaces));
        let misaligned = padded.len() % 4 != 0;
        let path = folder.path().join("model.safetensors");
        fs::write(path, file(&padded, &data)).unwrap();
        let checkpoint = Checkpoint::from_folder(folder.path()).unwrap();
        assert_eq!(all_values(&checkpoint.weights), all_values(&aligned.weights));
        assert_eq!(checkpoint.weights.tensors().all(|t| !t.is_view()), misaligned);
        assert_eq!(checkpoint.owned_bytes(), if misaligned { data.len() } else { 0 });
    }
}

#[test]
fn tensors_decide_whether_lm_head_is_tied() {
    for prefix in ["", "transformer.", "_orig_mod."] {
        let head = format!("{}lm_head.weight", prefix.trim_end_matches("transformer."));
        let mut tiny = Tiny::new(Dtype::F16).rename(|name| format!("{prefix}{name}"));
        let tied = tiny.load().unwrap();
        assert!(tied.weights.lm_head.is_none() && tied.config.tie_word_embeddings);
        tiny.config["tie_word_embeddings"] = json!(false);
        assert_rejected(tiny.load(), "model.safetensors", "lm_head.weight & no such tensor & [11, 8]");

        let wte = format!("{prefix}wte.weight");
        let mut equal = tiny.clone();
        equal.tensors.insert(head.clone(), tiny.tensors[&wte].clone());
        let mut alone = equal.clone();
        alone.tensors.remove(&wte);
        for same in [equal, alone] {
            for tie in [true, false] {
                let mut same = same.clone();
                same.config["tie_word_embeddings"] = json!(tie);
                let same = same.load().unwrap();
                assert!(same.weights.lm_head.is_none() && same.config.tie_word_embeddings);
                assert_eq!(all_values(&same.weights), all_values(&tied.weights));
                assert!(same.notes.is_empty(), "{:?}", same.notes);
            }
        }

        tiny.set(&head, Dtype::F16, &[VOCAB, N_EMBD]);
        for tie in [false, true] {
            tiny.config["tie_word_embeddings"] = json!(tie);
            let untied = tiny.load().unwrap();
            assert_ne!(values(untied.weights.lm_head.as_ref().unwrap()), values(&untied.weights.wte));
            assert!(!untied.config.tie_word_embeddings);
            let note =
                format!("{wte} and {head} differ, although tie_word_embeddings is true: both are used");
            assert_eq!(untied.notes.iter().any(|line| line.contains(&note)), tie, "{:?}", untied.notes);
            let quantized = tempfile::tempdir().unwrap();
            let folder = tiny.folder();
            let untied = Checkpoint::from_folder(folder.path()).unwrap();
            untied.quantize(hornbook::model::Precision::Int8, None, quantized.path(), |_| Ok(())).unwrap();
            let quantized = Checkpoint::from_folder(quantized.path()).unwrap();
            assert_eq!(quantized.parameter_counts(), untied.parameter_counts());
            assert!(quantized.notes.is_empty(), "{:?}", quantized.notes);
        }
        tiny.set(&head, Dtype::F16, &[VOCAB + 1, N_EMBD]);
        assert_rejected(tiny.load(), "model.safetensors", "lm_head.weight & shape [12, 8] & [11, 8]");
    }
}

#[test]
fn missing_sizes_are_read_off_the_tensors() {
    let all = ["n_embd", "n_layer", "n_positions", "n_inner", "vocab_size"];
    for linear in [false, true] {
        let tiny = Tiny::new(Dtype::F32);
        let mut tiny = if linear { tiny.into_nn_linear() } else { tiny };
        let given = tiny.load().unwrap();
        for field in all {
            tiny.config.as_object_mut().unwrap().remove(field);
        }
        assert_eq!(tiny.load().unwrap().config, given.config);
        tiny.config.as_object_mut().unwrap().remove("n_head");
        assert_rejected(tiny.load(), "config.json", "n_head: found no such field & expected");
        tiny.config["num_attention_heads"] = json!(2);
        assert_eq!(tiny.load().unwrap().config, given.config);
    }
    let mut sinusoidal = Tiny::new(Dtype::F32);
    sinusoidal.config["position_embedding_type"] = json!("sinusoidal");
    sinusoidal.config.as_object_mut().unwrap().remove("n_positions");
    sinusoidal.tensors.remove("wpe.weight");
    assert_rejected(sinusoidal.load(), "config.json", "n_positions: found no such field & expected");
}

#[test]
fn layers_beyond_n_layer_are_noted() {
    let mut tiny = Tiny::new(Dtype::F32);
    assert!(tiny.load().unwrap().notes.is_empty());
    tiny.config["n_layer"] = json!(1);
    let shortened = tiny.load().unwrap();
    assert_eq!(shortened.weights.h.len(), 1);
    let note = "memory/model.safetensors: found 2 layers, but n_layer is 1: the others are not used";
    assert_eq!(shortened.notes, [note]);
}

#[test]
fn sinusoidal_positions_require_absent_wpe() {
    let mut tiny = Tiny::new(Dtype::F32);
    tiny.config["position_embedding_type"] = json!("sinusoidal");
    let with_wpe = tiny.load().unwrap();
    assert_eq!(with_wpe.config.position_embedding_type, PositionEmbedding::Learned);
    assert!(with_wpe.weights.wpe.is_some());
    tiny.tensors.remove("wpe.weight");
    let without_wpe = tiny.load().unwrap();
    assert_eq!(without_wpe.config.position_embedding_type, PositionEmbedding::Sinusoidal);
    assert!(without_wpe.weights.wpe.is_none());
    tiny.config["position_embedding_type"] = json!("absolute");
    assert_rejected(tiny.load(), "model.safetensors", "wpe.weight & no such tensor & [6, 8]");
}

#[test]
fn tokenizer_is_optional() {
    let folder = Tiny::new(Dtype::F32).folder();
    let path = folder.path();
    let files = || -> Vec<String> {
        let files = Checkpoint::from_folder(path).unwrap().tokenizer_files().unwrap();
        files.iter().map(|(file, _)| file.strip_prefix(path).unwrap().display().to_string()).collect()
    };
    assert!(files().is_empty());
    for name in ["merges.txt", "vocab.json", "special_tokens_map.json", "added_tokens.json"] {
        fs::write(path.join(name), "{}").unwrap();
    }
    assert_eq!(files(), ["vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json"]);
    fs::write(path.join("tokenizer.json"), "{\"a\"").unwrap();
    fs::write(path.join("tokenizer_config.json"), "{}").unwrap();
    assert_eq!(files(), ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]);
}

#[cfg(target_os = "linux")]
#[test]
fn tokenizer_file_that_is_a_device_is_an_error() {
    let folder = Tiny::new(Dtype::F32).folder();
    for name in ["added_tokens.json", "merges.txt", "vocab.json", "tokenizer_config.json", "tokenizer.json"] {
        let file = folder.path().join(name);
        std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
        let error = Checkpoint::from_folder(folder.path()).unwrap().tokenizer_files().unwrap_err();
        let expected = format!("{}: found a device or pipe, expected a regular file", file.display());
        assert_eq!(error.to_string(), expected);
        fs::remove_file(&file).unwrap();
    }
}

#[test]
fn checkpoint_is_named_after_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("my-model");
    fs::create_dir(&path).unwrap();
    Tiny::new(Dtype::F32).write(&path);
    let checkpoint = Checkpoint::open(path.to_str().unwrap()).unwrap();
    assert_eq!(checkpoint.name, "my-model");
    assert_eq!(checkpoint.folder.as_deref(), Some(path.as_path()));
    let indirect = path.join("..").join("my-model").join(".");
    assert_eq!(Checkpoint::open(indirect.to_str().unwrap()).unwrap().name, "my-model");
}
