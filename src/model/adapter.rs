//! A LoRA adapter as the forward pass applies it: the base's weights stay as they are, and rows of sequences
//! that have the adapter get its changes added. So sequences of different adapters share a pass, and those of
//! none have the bits that they have without adapters.

use super::weights::{LmHead, ModelWeights};
use super::{Config, Model, Operation};
use crate::checkpoint::adapter::{Adapter, Target};
use crate::checkpoint::{LayerNormWeights, Tensor};
use crate::kernels::linear::low_rank;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// An adapter for a model.
pub struct AdapterWeights {
    name: String,
    /// The changes of linear layers, by block and layer.
    low_rank: BTreeMap<(usize, Target), LowRank>,
    /// Layer norms in place of the model's.
    layer_norms: Vec<(Operation, LayerNormWeights)>,
    /// Token embeddings in place of the model's.
    pub(super) wte: Option<Tensor>,
    /// Position embeddings in place of the model's.
    pub(super) wpe: Option<Tensor>,
    /// An LM head in place of the model's.
    pub(super) lm_head: Option<LmHead>,
}

/// The change of a linear layer.
struct LowRank {
    /// `[in, r]`
    a: Vec<f32>,
    /// `[r, out]`
    b: Vec<f32>,
    scaling: f32,
    /// The change of the bias, `[out]`.
    bias: Vec<f32>,
}

impl Model {
    /// Prepares an adapter for sequences of this model, those of
    /// [`KvCache::with_adapter`](super::KvCache::with_adapter).
    ///
    /// # Errors
    /// [`Error::Parameter`] for an adapter that was made for a model of another shape.
    pub fn adapter(&self, adapter: &Adapter) -> Result<Arc<AdapterWeights>> {
        AdapterWeights::new(adapter, &self.weights, &self.config).map(Arc::new)
    }

    /// The adapter of new sequences.
    pub fn default_adapter(&self) -> Option<&Arc<AdapterWeights>> {
        self.adapter.as_ref()
    }

    /// Makes an adapter that of all new sequences.
    ///
    /// # Errors
    /// As [`Model::adapter`].
    pub fn with_adapter(self, adapter: &Adapter) -> Result<Self> {
        let adapter = self.adapter(adapter)?;
        Ok(self.with_adapter_weights(adapter))
    }

    /// Makes an adapter that [`Model::adapter`] has prepared that of all new sequences.
    pub fn with_adapter_weights(self, adapter: Arc<AdapterWeights>) -> Self {
        Self { adapter: Some(adapter), ..self }
    }
}

impl AdapterWeights {
    fn new(adapter: &Adapter, base: &ModelWeights, config: &Config) -> Result<Self> {
        let fits = |change: &&crate::checkpoint::adapter::LowRank| {
            let (inputs, outputs) = change.target.widths(config);
            change.layer < config.n_layer
                && change.a.len() == inputs * change.r
                && change.b.len() == outputs * change.r
        };
        if !adapter.low_rank.iter().all(|change| fits(&change)) {
            return Err(Error::Parameter {
                name: "adapter".into(),
                found: adapter.name.clone(),
                expected: "an adapter that was made for a model of this shape".into(),
            });
        }
        let replaced = |name: &str| adapter.replaced.get(name).cloned();
        let mut low_rank: BTreeMap<(usize, Target), LowRank> = BTreeMap::new();
        for change in &adapter.low_rank {
            let (inputs, outputs) = change.target.widths(config);
            low_rank.insert(
                (change.layer, change.target),
                LowRank {
                    a: transpose(&change.a, change.r, inputs),
                    b: transpose(&change.b, outputs, change.r),
                    scaling: change.scaling,
                    bias: vec![0.0; outputs],
                },
            );
        }
        for (layer, target) in (0..config.n_layer).flat_map(|layer| Target::ALL.map(|target| (layer, target)))
        {
            let Some(bias) = replaced(&format!("h.{layer}.{}.bias", target.name())) else { continue };
            let (inputs, outputs) = target.widths(config);
            // A layer whose bias alone is changed has a product of zeros.
            let unchanged =
                || LowRank { a: vec![0.0; inputs], b: vec![0.0; outputs], scaling: 0.0, bias: vec![] };
            let old = base.linear(layer, target).bias();
            low_rank.entry((layer, target)).or_insert_with(unchanged).bias =
                bias.as_f32().iter().zip(old).map(|(new, old)| new - old).collect();
        }
        let blocks = (0..config.n_layer).flat_map(|layer| [Operation::Ln1(layer), Operation::Ln2(layer)]);
        let layer_norms = blocks.chain([Operation::LnF]).filter_map(|op| {
            let (name, old) = match op {
                Operation::Ln1(layer) => (format!("h.{layer}.ln_1"), &base.blocks[layer].ln_1),
                Operation::Ln2(layer) => (format!("h.{layer}.ln_2"), &base.blocks[layer].ln_2),
                _ => ("ln_f".into(), &base.ln_f),
            };
            let [weight, bias] = ["weight", "bias"].map(|tensor| replaced(&format!("{name}.{tensor}")));
            let is_replaced = weight.is_some() || bias.is_some();
            is_replaced.then(|| {
                let weight = weight.unwrap_or_else(|| old.weight.clone());
                (op, LayerNormWeights { weight, bias: bias.unwrap_or_else(|| old.bias.clone()) })
            })
        });
        let layer_norms = layer_norms.collect();
        let [wte, wpe, lm_head] = ["wte.weight", "wpe.weight", "lm_head.weight"].map(replaced);
        let (name, lm_head) = (adapter.name.clone(), lm_head.map(LmHead::Embedding));
        Ok(Self { name, low_rank, layer_norms, wte, wpe, lm_head })
    }

    /// The adapter's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The change of the linear layer of an operation.
    pub(super) fn low_rank(&self, operation: Operation) -> Option<low_rank::LowRank<'_>> {
        let place = match operation {
            Operation::CAttn(layer) => (layer, Target::CAttn),
            Operation::AttnProj(layer) => (layer, Target::AttnProj),
            Operation::CFc(layer) => (layer, Target::CFc),
            Operation::MlpProj(layer) => (layer, Target::MlpProj),
            _ => return None,
        };
        let LowRank { a, b, scaling, bias } = self.low_rank.get(&place)?;
        Some(low_rank::LowRank { a, b, scaling: *scaling, bias })
    }

    /// The layer norm of an operation, if it is not the model's.
    pub(super) fn layer_norm(&self, operation: Operation) -> Option<&LayerNormWeights> {
        self.layer_norms.iter().find(|(op, _)| *op == operation).map(|(_, norm)| norm)
    }
}

impl fmt::Debug for AdapterWeights {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_tuple("AdapterWeights").field(&self.name).finish()
    }
}

/// Transposes `[rows, columns]`.
fn transpose(from: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| from[row * columns + column])).collect()
}
