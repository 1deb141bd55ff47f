//! The places in a model that an adapter's tensors can have.

use super::super::config::PositionEmbedding;
use super::super::shards::Shards;
use super::super::source::Source;
use super::super::weights::Loader;
use super::patterns::is_end_of;
use super::{Adapter, AdapterConfig, LowRank, Target};
use crate::checkpoint::{Config, Tensor};
use crate::error::{Error, Result};
use crate::kernels::formats::Precision;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// The prefix of all names in an adapter's file.
pub(super) const PREFIX: &str = "base_model.model.";

/// Parts of names that belong to features that are not supported.
const UNSUPPORTED: [(&str, &str); 4] = [
    ("lora_magnitude_vector", "DoRA"),
    ("lora_embedding_", "LoRA of embeddings"),
    ("lora_B.bias", "a bias of lora_B"),
    ("trainable_tokens_", "single trained tokens"),
];

/// The places of a model for an adapter's tensors.
pub(super) struct Places<'a> {
    config: &'a AdapterConfig,
    model: &'a Config,
    /// The tensors that can be replaced, with their shapes.
    replaceable: BTreeMap<String, Vec<usize>>,
}

impl<'a> Places<'a> {
    pub(super) fn new(config: &'a AdapterConfig, model: &'a Config) -> Self {
        let &Config { n_embd, n_layer, n_positions, vocab_size, .. } = model;
        let mut replaceable = BTreeMap::new();
        let mut norm = |name: String| {
            replaceable.insert(format!("{name}.weight"), vec![n_embd]);
            replaceable.insert(format!("{name}.bias"), vec![n_embd]);
        };
        norm("ln_f".into());
        for layer in 0..n_layer {
            norm(format!("h.{layer}.ln_1"));
            norm(format!("h.{layer}.ln_2"));
        }
        for (layer, target) in (0..n_layer).flat_map(|layer| Target::ALL.map(|target| (layer, target))) {
            replaceable.insert(format!("h.{layer}.{}.bias", target.name()), vec![target.widths(model).1]);
        }
        replaceable.insert("wte.weight".into(), vec![vocab_size, n_embd]);
        replaceable.insert("lm_head.weight".into(), vec![vocab_size, n_embd]);
        if model.position_embedding_type == PositionEmbedding::Learned {
            replaceable.insert("wpe.weight".into(), vec![n_positions, n_embd]);
        }
        Self { config, model, replaceable }
    }

    /// Reads the adapter from the content of its file.
    pub(super) fn fill(&self, name: &str, path: PathBuf, source: Source) -> Result<Adapter> {
        let shards = Shards::single(path, source)?;
        let mut adapter = Adapter::new(name, self.config.clone(), self.model)?;
        let mut unused: BTreeSet<&str> = shards.names().collect();
        for LowRank { layer, target, r, a, b, .. } in &mut adapter.low_rank {
            let ((inputs, outputs), module) = (target.widths(self.model), target.module(*layer));
            for (name, values, shape) in [("A", a, [*r, inputs]), ("B", b, [outputs, *r])] {
                let suffix = format!("lora_{name}.weight");
                let full = full_name(&shards, &module, &suffix);
                *values = self.read(&shards, &full, &shape)?.as_f32().to_vec();
                unused.remove(&*full);
            }
        }
        for full in unused {
            let place =
                full.strip_prefix(PREFIX).map(|name| name.strip_prefix("transformer.").unwrap_or(name));
            let place = place.map(|name| name.replace(".base_layer.", "."));
            match place.and_then(|name| self.replaceable.get_key_value(&name)) {
                Some((name, shape)) => {
                    adapter.replaced.insert(name.clone(), self.read(&shards, full, shape)?);
                }
                None => return Err(self.no_place(&shards, full)),
            }
        }
        for module in self.config.modules_to_save.iter().flatten() {
            let stored =
                |name: &String| name.rsplit_once('.').is_some_and(|(name, _)| is_end_of(module, name));
            if !adapter.replaced.keys().any(stored) {
                return Err(Error::Tensor {
                    file: shards.index_path.clone(),
                    tensor: module.escape_debug().to_string(),
                    found: "no such tensor".into(),
                    expected: format!("one, since modules_to_save names it: {}", self.replaceable_names()),
                });
            }
        }
        Ok(adapter)
    }

    /// A tensor in f32, all of whose numbers are finite.
    fn read(&self, shards: &Shards, name: &str, shape: &[usize]) -> Result<Tensor> {
        let tensor = Loader::plain(shards).tensor_by_full_name(name, shape).map_err(|error| match error {
            // The likeliest cause is another model.
            Error::Tensor { file, tensor, found, expected } if found.starts_with("shape") => {
                let base = self.config.base_model_name_or_path.as_deref().unwrap_or_default();
                let hint = match base {
                    "" => String::new(),
                    base => format!(" for this model; the adapter was trained for {}", base.escape_debug()),
                };
                Error::Tensor { file, tensor, found, expected: expected + &hint }
            }
            error => error,
        })?;
        tensor.check_finite()?;
        tensor.into_precision(Precision::F32)
    }

    fn no_place(&self, shards: &Shards, name: &str) -> Error {
        let feature = UNSUPPORTED.iter().find(|(part, _)| name.contains(part));
        let found = match feature {
            Some((_, feature)) => format!("a tensor of {feature}, which is not supported"),
            None => "no place for it in the model".into(),
        };
        let targets: BTreeSet<&str> = (0..self.model.n_layer)
            .flat_map(|layer| Target::ALL.map(|target| (layer, target)))
            .filter(|&(layer, target)| self.config.is_target(layer, target))
            .map(|(_, target)| target.name())
            .collect();
        let targets: Vec<&str> = targets.into_iter().collect();
        Error::Tensor {
            file: shards.index_path.clone(),
            tensor: name.escape_debug().to_string(),
            found,
            expected: format!(
                "{PREFIX}transformer.h.N. (N below {}) {} .lora_A.weight or .lora_B.weight as target_modules \
                 says, or a whole {}",
                self.model.n_layer,
                targets.join(", "),
                self.replaceable_names()
            ),
        }
    }

    /// What can be replaced, for errors.
    fn replaceable_names(&self) -> &'static str {
        "wte, wpe, ln_1, ln_2, ln_f, lm_head or bias"
    }
}

/// The name of a tensor of a module, which has no `transformer.` if the adapter was trained without an LM
/// head.
fn full_name(shards: &Shards, module: &str, suffix: &str) -> String {
    let bare = module.strip_prefix("transformer.").unwrap_or(module);
    let without = format!("{PREFIX}{bare}.{suffix}");
    if shards.contains(&without) { without } else { format!("{PREFIX}{module}.{suffix}") }
}
