//! A GPT-2 small enough to be built, corrupted and compared in every test.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use half::{bf16, f16};
use hornbook::checkpoint::{Checkpoint, Tensor, Weights};
use hornbook::kernels::elements::Elements;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use tempfile::TempDir;

pub const N_EMBD: usize = 8;
pub const N_LAYER: usize = 2;
pub const N_POSITIONS: usize = 6;
pub const N_INNER: usize = 4 * N_EMBD;
pub const VOCAB: usize = 11;

/// The config and tensors of a small GPT-2, valid or invalid.
#[derive(Clone)]
pub struct Tiny {
    pub config: Value,
    pub tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
}

impl Tiny {
    pub fn new(dtype: Dtype) -> Tiny {
        let mut tiny = Tiny {
            config: json!({
                "model_type": "gpt2", "n_embd": N_EMBD, "n_layer": N_LAYER, "n_head": 2,
                "n_positions": N_POSITIONS, "vocab_size": VOCAB,
            }),
            tensors: BTreeMap::new(),
        };
        tiny.set("wte.weight", dtype, &[VOCAB, N_EMBD]);
        tiny.set("wpe.weight", dtype, &[N_POSITIONS, N_EMBD]);
        for layer in 0..N_LAYER {
            for (name, shape) in [
                ("ln_1.weight", &[N_EMBD][..]),
                ("ln_1.bias", &[N_EMBD]),
                ("attn.c_attn.weight", &[N_EMBD, 3 * N_EMBD]),
                ("attn.c_attn.bias", &[3 * N_EMBD]),
                ("attn.c_proj.weight", &[N_EMBD, N_EMBD]),
                ("attn.c_proj.bias", &[N_EMBD]),
                ("ln_2.weight", &[N_EMBD]),
                ("ln_2.bias", &[N_EMBD]),
                ("mlp.c_fc.weight", &[N_EMBD, N_INNER]),
                ("mlp.c_fc.bias", &[N_INNER]),
                ("mlp.c_proj.weight", &[N_INNER, N_EMBD]),
                ("mlp.c_proj.bias", &[N_EMBD]),
            ] {
                tiny.set(&format!("h.{layer}.{name}"), dtype, shape);
            }
        }
        tiny.set("ln_f.weight", dtype, &[N_EMBD]);
        tiny.set("ln_f.bias", dtype, &[N_EMBD]);
        tiny
    }

    /// Adds a tensor with values derived from its name, so that they differ between tensors.
    pub fn set(&mut self, name: &str, dtype: Dtype, shape: &[usize]) {
        let seed: u32 =
            name.bytes().fold(7, |hash: u32, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        let count = shape.iter().product::<usize>() as u32;
        let bytes = (0..count)
            .map(|i| ((seed % 977) as f32 + i as f32) / 64.0 - 8.0)
            .flat_map(|x| match dtype {
                Dtype::F16 => f16::from_f32(x).to_le_bytes().to_vec(),
                Dtype::BF16 => bf16::from_f32(x).to_le_bytes().to_vec(),
                Dtype::F32 => x.to_le_bytes().to_vec(),
                _ => vec![1; dtype.bitsize() / 8],
            })
            .collect();
        self.tensors.insert(name.into(), (dtype, shape.to_vec(), bytes));
    }

    pub fn rename(mut self, new: impl Fn(&str) -> String) -> Tiny {
        self.tensors = (self.tensors.into_iter()).map(|(name, tensor)| (new(&name), tensor)).collect();
        self
    }

    /// The same model in the `[out, in]` layout of nn.Linear.
    pub fn into_nn_linear(mut self) -> Tiny {
        for (name, (dtype, shape, bytes)) in &mut self.tensors {
            if name.contains(".c_") && shape.len() == 2 {
                let size = dtype.bitsize() / 8;
                let (rows, columns) = (shape[0], shape[1]);
                let from = bytes.clone();
                for row in 0..rows {
                    for column in 0..columns {
                        let (to, at) = (column * rows + row, row * columns + column);
                        bytes[to * size..][..size].copy_from_slice(&from[at * size..][..size]);
                    }
                }
                *shape = vec![columns, rows];
            }
        }
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let views = self.tensors.iter().map(|(name, (dtype, shape, bytes))| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        safetensors::serialize(views, None).unwrap()
    }

    pub fn write(&self, folder: &Path) {
        fs::write(folder.join("config.json"), self.config.to_string()).unwrap();
        fs::write(folder.join("model.safetensors"), self.bytes()).unwrap();
    }

    pub fn folder(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        self.write(folder.path());
        folder
    }

    /// A folder with two shards and their index.
    pub fn sharded(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.json"), self.config.to_string()).unwrap();
        let mut weight_map = serde_json::Map::new();
        for (i, name) in ["model-00001-of-2.safetensors", "model-00002-of-2.safetensors"].iter().enumerate() {
            let mut shard = self.clone();
            shard.tensors = (self.tensors.clone().into_iter())
                .enumerate()
                .filter(|(n, _)| n % 2 == i)
                .map(|(_, tensor)| tensor)
                .collect();
            for tensor in shard.tensors.keys() {
                weight_map.insert(tensor.clone(), json!(name));
            }
            fs::write(folder.path().join(name), shard.bytes()).unwrap();
        }
        let index = json!({"metadata": {"total_size": 1}, "weight_map": weight_map});
        fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
        folder
    }

    pub fn load(&self) -> hornbook::Result<Checkpoint> {
        Checkpoint::from_bytes(self.config.to_string().as_bytes(), self.bytes())
    }
}

/// A safetensors file from its header and data section.
pub fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// The header and data section of a safetensors file.
pub fn split_file(file: &[u8]) -> (serde_json::Map<String, Value>, Vec<u8>) {
    let (length, rest) = file.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    (serde_json::from_slice(header).unwrap(), data.to_vec())
}

pub fn values(tensor: &Tensor) -> Vec<f32> {
    match tensor.elements() {
        Elements::F32(x) => x.to_vec(),
        Elements::F16(x) => x.iter().map(|x| x.to_f32()).collect(),
        Elements::Bf16(x) => x.iter().map(|x| x.to_f32()).collect(),
    }
}

pub fn all_values(weights: &Weights) -> Vec<(Vec<usize>, Vec<f32>)> {
    weights.tensors().map(|tensor| (tensor.shape().to_vec(), values(tensor))).collect()
}

/// Asserts that loading failed with a one-line error that contains `file` and each of `words`, separated by `
/// & `.
pub fn assert_rejected(result: hornbook::Result<Checkpoint>, file: &str, words: &str) {
    let line = match result {
        Ok(_) => panic!("accepted, expected {file} to be rejected with {words}"),
        Err(error) => error.to_string(),
    };
    assert!(!line.contains('\n'), "more than one line: {line}");
    assert!(line.contains(file), "no {file} in: {line}");
    for word in words.split(" & ") {
        assert!(line.contains(word), "no {word:?} in: {line}");
    }
}
