//! LoRA adapters in peft's format: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! LoRA (Hu et al. 2021) leaves a model's matrices as they are and adds the product of two thin ones:
//!
//! ```text
//! y = x · W + b + scaling · (x · Aᵀ) · Bᵀ        A is [r, in], B is [out, r]
//! ```
//!
//! peft stores both as `nn.Linear` does, `[out, in]`, although GPT-2's `W` is a Conv1D, `[in, out]`. A tensor
//! is named after its place in the model, with a prefix:
//!
//! ```text
//! base_model.model.transformer.h.0.attn.c_attn.lora_A.weight      A
//! base_model.model.transformer.h.0.attn.c_attn.lora_B.weight      B
//! base_model.model.transformer.ln_f.weight                        in place of the model's: modules_to_save
//! base_model.model.transformer.h.0.attn.c_attn.base_layer.bias    the same: bias lora_only or all
//! ```
//!
//! - `config`: reads `adapter_config.json`.
//! - `patterns`: matches the names of layers in it.
//! - `target`: the linear layers that can be changed.
//! - `places`: finds the place of each tensor.

mod config;
mod patterns;
mod places;
mod target;

pub use config::{AdapterConfig, Layers, TrainedBiases};
pub use patterns::{Modules, Patterns};
pub use target::Target;

use super::source::Source;
use super::trained::{F32Tensor, write_f32_tensors};
use super::write::create_folder;
use super::{Config, Tensor};
use crate::atomic_file::AtomicFile;
use crate::error::{Error, Result};
use places::Places;
use std::collections::BTreeMap;
use std::path::Path;

/// The name of the configuration.
const CONFIG_FILE: &str = "adapter_config.json";
/// The name of the tensors' file.
const TENSORS_FILE: &str = "adapter_model.safetensors";

/// A LoRA adapter: its configuration and its tensors, which have the shapes that a model's configuration
/// requires.
///
/// Training starts with [`Adapter::new`], fills [`LowRank::a`] and [`LowRank::b`], and ends with
/// [`Adapter::write`], whose folder [`Adapter::open`] and peft's `PeftModel.from_pretrained` read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Adapter {
    /// The adapter's name for users: that of its folder.
    pub name: String,
    /// The configuration.
    pub config: AdapterConfig,
    /// The changes of linear layers, in the order of the forward pass.
    pub low_rank: Vec<LowRank>,
    /// Tensors that replace the model's, in f32, by their name in the model without prefix: `ln_f.weight`.
    pub replaced: BTreeMap<String, Tensor>,
}

/// The change of one linear layer, `y += scaling · (x · Aᵀ) · Bᵀ`.
#[derive(Clone, Debug, PartialEq)]
pub struct LowRank {
    /// The block.
    pub layer: usize,
    /// The linear layer in the block.
    pub target: Target,
    /// The rank.
    pub r: usize,
    /// `lora_A.weight`, `[r, in]`.
    pub a: Vec<f32>,
    /// `lora_B.weight`, `[out, r]`.
    pub b: Vec<f32>,
    /// `lora_alpha / r`, or `lora_alpha / √r` with `use_rslora`.
    pub scaling: f32,
}

impl Adapter {
    /// The files of an adapter.
    pub const FILES: [&str; 2] = [CONFIG_FILE, TENSORS_FILE];

    /// An adapter for a model of this configuration, in which every number is zero.
    ///
    /// # Errors
    /// [`Error::Parameter`] if `config` names no linear layer.
    pub fn new(name: &str, config: AdapterConfig, model: &Config) -> Result<Self> {
        let all = (0..model.n_layer).flat_map(|layer| Target::ALL.map(|target| (layer, target)));
        let targets = all.filter(|&(layer, target)| config.is_target(layer, target));
        let low_rank: Vec<LowRank> = targets
            .map(|(layer, target)| {
                let ((inputs, outputs), r) = (target.widths(model), config.rank(layer, target));
                let scaling = config.scaling(layer, target);
                LowRank { layer, target, r, a: vec![0.0; r * inputs], b: vec![0.0; outputs * r], scaling }
            })
            .collect();
        if low_rank.is_empty() {
            return Err(Error::Parameter {
                name: "target_modules".into(),
                found: serde_json::to_string(&config.target_modules).unwrap_or_default(),
                expected: format!("some of {}", Target::ALL.map(Target::name).join(", ")),
            });
        }
        Ok(Self { name: name.into(), config, low_rank, replaced: BTreeMap::new() })
    }

    /// Opens the folder of an adapter for a model of this configuration. All tensors are read and converted
    /// to f32.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be read, [`Error::Config`] for an invalid field or a feature that
    /// is not supported, [`Error::Checkpoint`] for a file with an invalid structure, [`Error::Tensor`] for a
    /// tensor that is missing, has another shape, has no place in the model, or holds a NaN or an infinity.
    pub fn open(folder: &Path, model: &Config) -> Result<Self> {
        let invalid = |problem: &str| Error::Checkpoint { file: folder.into(), problem: problem.into() };
        let (config, tensors) = (folder.join(CONFIG_FILE), folder.join(TENSORS_FILE));
        if !folder.is_dir() {
            let found = if folder.exists() { "found a file" } else { "found nothing" };
            return Err(invalid(&format!("{found}, expected the folder of an adapter, with {CONFIG_FILE}")));
        }
        if config.symlink_metadata().is_err() {
            let is_model = folder.join("config.json").exists();
            let found = if is_model { "found a model" } else { &*format!("found no {CONFIG_FILE}") };
            return Err(invalid(&format!(
                "{found}, expected the folder of an adapter that peft has written"
            )));
        }
        let config = AdapterConfig::open(&config)?;
        if tensors.symlink_metadata().is_err() && folder.join("adapter_model.bin").exists() {
            return Err(invalid(&format!(
                "found adapter_model.bin, expected {TENSORS_FILE}: PyTorch pickle files can execute code and \
                 are not supported; load the adapter with peft and save it again"
            )));
        }
        let path = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let source = Source::map(&tensors)?;
        Places::new(&config, model).fill(&name, tensors, source)
    }

    /// Writes `adapter_config.json` and `adapter_model.safetensors` to a folder, which is created, as peft
    /// reads them. Each file is replaced atomically.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn write(&self, folder: &Path) -> Result<()> {
        create_folder(folder)?;
        let mut tensors: Vec<F32Tensor> = vec![];
        for LowRank { layer, target, r, a, b, .. } in &self.low_rank {
            for (name, values, shape) in [("A", a, [*r, a.len() / r]), ("B", b, [b.len() / r, *r])] {
                let name = format!("{}{}.lora_{name}.weight", places::PREFIX, target.module(*layer));
                tensors.push(F32Tensor { name, shape: shape.to_vec(), values });
            }
        }
        tensors.extend(self.replaced.iter().map(|(name, tensor)| F32Tensor {
            name: self.stored_name(name),
            shape: tensor.shape().to_vec(),
            values: tensor.as_f32(),
        }));
        write_f32_tensors(&folder.join(TENSORS_FILE), serde_json::json!({"format": "pt"}), &tensors)?;
        AtomicFile::create(&folder.join(CONFIG_FILE))?.write_and_commit(self.config.to_json().as_bytes())
    }

    /// The change of a linear layer of a block, if there is one.
    pub fn low_rank(&self, layer: usize, target: Target) -> Option<&LowRank> {
        self.low_rank.iter().find(|change| (change.layer, change.target) == (layer, target))
    }

    /// The name in the file of a tensor that replaces the model's. peft wraps the layers that it changes.
    fn stored_name(&self, name: &str) -> String {
        let module = name.strip_suffix(".bias");
        let is_wrapped =
            |change: &LowRank| module == change.target.module(change.layer).strip_prefix("transformer.");
        match module.filter(|_| self.low_rank.iter().any(is_wrapped)) {
            Some(module) => format!("{}transformer.{module}.base_layer.bias", places::PREFIX),
            None if name.starts_with("lm_head.") => format!("{}{name}", places::PREFIX),
            None => format!("{}transformer.{name}", places::PREFIX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;

    fn fable() -> Config {
        Checkpoint::embedded().unwrap().config
    }

    fn example() -> Adapter {
        let config = AdapterConfig {
            r: 3,
            target_modules: Some(Modules::Names(vec!["c_attn".into(), "mlp.c_proj".into()])),
            ..AdapterConfig::default()
        };
        let mut adapter = Adapter::new("example", config, &fable()).unwrap();
        for (i, change) in adapter.low_rank.iter_mut().enumerate() {
            change.a.iter_mut().chain(&mut change.b).for_each(|x| *x = i as f32 + 0.5);
        }
        adapter
    }

    fn open(folder: &Path) -> Result<Adapter> {
        Adapter::open(folder, &fable())
    }

    #[test]
    fn written_adapter_is_read_again() {
        let (folder, adapter) = (tempfile::tempdir().unwrap(), example());
        let folder = folder.path().join("new/example");
        adapter.write(&folder).unwrap();
        let read = open(&folder).unwrap();
        assert_eq!((read.name.as_str(), &read.low_rank), ("example", &adapter.low_rank));
        assert_eq!(read.config, adapter.config);
        assert_eq!(adapter.low_rank.len(), 12);
        assert_eq!(adapter.low_rank(1, Target::MlpProj).unwrap().a.len(), 3 * 1024);
        assert_eq!(adapter.low_rank(1, Target::CFc), None);
    }

    #[test]
    fn invalid_folder_is_one_line_error() {
        let folder = tempfile::tempdir().unwrap();
        let check = |path: &Path, expected: &str| {
            let error = open(path).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        };
        check(&folder.path().join("none"), "found nothing, expected the folder of an adapter");
        check(folder.path(), "found no adapter_config.json, expected the folder of an adapter");
        example().write(folder.path()).unwrap();
        let tensors = folder.path().join(TENSORS_FILE);
        std::fs::write(&tensors, "").unwrap();
        check(folder.path(), "found an empty file, expected a safetensors file");
        std::fs::remove_file(&tensors).unwrap();
        check(folder.path(), "adapter_model.safetensors: cannot open");
        std::fs::write(folder.path().join("adapter_model.bin"), "").unwrap();
        check(folder.path(), "found adapter_model.bin, expected adapter_model.safetensors");
        std::fs::remove_file(folder.path().join(CONFIG_FILE)).unwrap();
        std::fs::write(folder.path().join("config.json"), "{}").unwrap();
        check(folder.path(), "found a model, expected the folder of an adapter");
    }

    #[test]
    fn tensor_that_is_missing_or_has_no_place_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let check = |tensors: &[(String, Vec<usize>, f32)], expected: &str| {
            let mut adapter = example();
            adapter.config.base_model_name_or_path = Some("gpt2".into());
            adapter.write(folder.path()).unwrap();
            let values: Vec<Vec<f32>> =
                tensors.iter().map(|(_, shape, x)| vec![*x; shape.iter().product()]).collect();
            let tensors: Vec<F32Tensor> = tensors
                .iter()
                .zip(&values)
                .map(|((name, shape, _), values)| {
                    let name = format!("{}transformer.{name}", places::PREFIX);
                    F32Tensor { name, shape: shape.clone(), values }
                })
                .collect();
            write_f32_tensors(
                &folder.path().join(TENSORS_FILE),
                serde_json::json!({"format": "pt"}),
                &tensors,
            )
            .unwrap();
            let error = open(folder.path()).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        };
        let mut all: Vec<(String, Vec<usize>, f32)> = vec![];
        for layer in 0..6 {
            for (module, inputs, outputs) in [("attn.c_attn", 256, 768), ("mlp.c_proj", 1024, 256)] {
                all.push((format!("h.{layer}.{module}.lora_A.weight"), vec![3, inputs], 1.0));
                all.push((format!("h.{layer}.{module}.lora_B.weight"), vec![outputs, 3], 1.0));
            }
        }
        let with = |name: &str, shape: &[usize], value: f32| {
            let mut all = all.clone();
            all.retain(|(other, ..)| other != name);
            if !shape.is_empty() {
                all.push((name.to_string(), shape.to_vec(), value));
            }
            all
        };
        check(
            &with("h.2.attn.c_attn.lora_B.weight", &[], 0.0),
            "tensor base_model.model.transformer.h.2.attn.c_attn.lora_B.weight: found no such tensor, \
             expected shape [768, 3]",
        );
        check(
            &with("h.2.attn.c_attn.lora_A.weight", &[3, 768], 0.0),
            "found shape [3, 768], expected shape [3, 256] for this model; the adapter was trained for gpt2",
        );
        check(&with("h.0.mlp.c_proj.lora_A.weight", &[3, 1024], f32::NAN), "found NaN at [0, 0], expected");
        check(
            &with("h.6.attn.c_attn.lora_A.weight", &[3, 256], 0.0),
            "found no place for it in the model, expected base_model.model.transformer.h.N. (N below 6) \
             attn.c_attn, mlp.c_proj",
        );
        check(&with("h.0.mlp.c_fc.lora_A.weight", &[3, 256], 0.0), "found no place for it in the model");
        check(&with("h.0.attn.c_attn.lora_magnitude_vector", &[768], 0.0), "a tensor of DoRA, which is not");
        check(&with("ln_f.weight", &[255], 0.0), "found shape [255], expected shape [256]");
    }
}
