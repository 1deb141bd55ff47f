//! What a run trains: all weights, those of the last blocks, or a LoRA adapter. Gradients and moments exist
//! only for what is trained.

use super::layout::{Layout, TensorPlace, WeightAndBias};
use crate::checkpoint::Config;
use crate::checkpoint::adapter::{Adapter, AdapterConfig, LowRank, Target};
use crate::kernels::aligned_vec::AlignedVec;
use crate::kernels::backward::low_rank::{self, Workspace};
use crate::kernels::thread_pool::ThreadPool;
use crate::{Error, Result};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// What is trained.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All weights.
    #[default]
    All,
    /// The last so many blocks, the last layer norm, and the LM head if it is not the token embedding.
    LastLayers(usize),
    /// An adapter: thin matrices beside those of the model, which do not change.
    Lora(Box<AdapterConfig>),
}

impl Scope {
    /// The numbers that are trained of a model, and those that are kept as they were beside them.
    ///
    /// # Errors
    /// [`Error::Parameter`] for more blocks than there are, or an adapter without a layer.
    pub fn sizes(&self, config: &Config) -> Result<[usize; 2]> {
        let layout = Layout::new(config);
        match self {
            Scope::All => Ok([layout.len(), 0]),
            Scope::LastLayers(n) => {
                let first = first_layer(*n, config)?;
                Ok([layout.len() - layout.blocks[first].ln_1.weight.start, 0])
            }
            Scope::Lora(lora) => {
                let adapter = Adapter::new("adapter", (**lora).clone(), config)?;
                let sizes = adapter.low_rank.iter().map(|change| {
                    let (inputs, outputs) = change.target.widths(config);
                    [change.r * (inputs + outputs), inputs * outputs]
                });
                Ok(sizes.fold([0, 0], |[a, b], [c, d]| [a + c, b + d]))
            }
        }
    }
}

/// The first of the last `n` blocks.
fn first_layer(n: usize, config: &Config) -> Result<usize> {
    config.n_layer.checked_sub(n).filter(|_| n > 0).ok_or_else(|| Error::Parameter {
        name: "last_layers".into(),
        found: n.to_string(),
        expected: format!("a number of blocks from 1 to {}", config.n_layer),
    })
}

/// The tensors that are trained, and where in the model they have their effect.
pub(super) struct Trained {
    /// Their places in the vector of what is trained, and so in gradients and moments.
    pub(super) tensors: Vec<TensorPlace>,
    kind: Kind,
}

enum Kind {
    /// The weights from this element on, in blocks from this one on.
    Weights { start: usize, first_layer: usize },
    /// Matrices whose product is added to a model's.
    Lora(Box<Lora>),
}

struct Lora {
    /// Its shapes, names and scaling.
    adapter: Adapter,
    /// A and B of every layer, at the places of `tensors`.
    values: AlignedVec<f32>,
    changes: Vec<Change>,
    workspace: Workspace,
}

/// The change of a linear layer.
struct Change {
    /// The place of the layer's matrix in the weights.
    weight: Range<usize>,
    /// The matrix of the model.
    base: Vec<f32>,
    /// The places of A and B.
    a: Range<usize>,
    b: Range<usize>,
    r: usize,
    scaling: f32,
}

impl Change {
    fn low_rank<'a>(&self, values: &'a [f32]) -> low_rank::LowRank<'a> {
        let [a, b] = [&self.a, &self.b].map(|range| &values[range.clone()]);
        low_rank::LowRank { a, b, r: self.r, scaling: self.scaling }
    }
}

impl Trained {
    /// Says what is trained of a model with these weights.
    ///
    /// # Errors
    /// [`Error::Parameter`] for more blocks than there are, or an adapter without a layer.
    pub(super) fn new(
        scope: &Scope,
        seed: u64,
        config: &Config,
        layout: &Layout,
        weights: &[f32],
    ) -> Result<Self> {
        match scope {
            Scope::All => Ok(Self::weights(layout, 0, 0)),
            Scope::LastLayers(n) => {
                let first = first_layer(*n, config)?;
                Ok(Self::weights(layout, layout.blocks[first].ln_1.weight.start, first))
            }
            Scope::Lora(lora) => {
                let adapter = Adapter::new("adapter", (**lora).clone(), config)?;
                Ok(Self::lora(adapter, seed, layout, weights))
            }
        }
    }

    fn weights(layout: &Layout, start: usize, first_layer: usize) -> Self {
        let trained = layout.tensors.iter().filter(|place| place.range.start >= start);
        let tensors = trained.map(|place| TensorPlace {
            range: place.range.start - start..place.range.end - start,
            ..place.clone()
        });
        Self { tensors: tensors.collect(), kind: Kind::Weights { start, first_layer } }
    }

    fn lora(adapter: Adapter, seed: u64, layout: &Layout, weights: &[f32]) -> Self {
        let (mut tensors, mut changes) = (vec![], vec![]);
        for LowRank { layer, target, r, a, b, scaling } in &adapter.low_rank {
            let mut place = |part: &str, shape: [usize; 2]| {
                let name = format!("{}.lora_{part}.weight", target.module(*layer));
                TensorPlace::after(&mut tensors, name, &shape)
            };
            let a = place("A", [*r, a.len() / r]);
            let b = place("B", [b.len() / r, *r]);
            let weight = linear(layout, *layer, *target).weight.clone();
            let base = weights[weight.clone()].to_vec();
            changes.push(Change { weight, base, a, b, r: *r, scaling: *scaling });
        }
        let len = tensors.last().map_or(0, |last: &TensorPlace| last.range.end);
        let mut values = AlignedVec::zeroed(len);
        // As in peft, B is zero, and A uniform, so that the adapter begins without effect.
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for Change { a, r, .. } in &changes {
            let bound = 1.0 / ((a.len() / r) as f32).sqrt();
            let uniform = |rng: &mut ChaCha8Rng| rng.next_u32() as i32 as f32 / (1u64 << 31) as f32;
            values[a.clone()].iter_mut().for_each(|x| *x = bound * uniform(&mut rng));
        }
        let lora = Lora { adapter, values, changes, workspace: Workspace::default() };
        Self { tensors, kind: Kind::Lora(Box::new(lora)) }
    }

    /// The length of the vector of what is trained.
    pub(super) fn len(&self) -> usize {
        self.tensors.last().map_or(0, |last| last.range.end)
    }

    /// The first block that is trained, down to which gradients flow.
    pub(super) fn first_layer(&self) -> usize {
        match &self.kind {
            Kind::Weights { first_layer, .. } => *first_layer,
            Kind::Lora(lora) => lora.adapter.low_rank.iter().map(|change| change.layer).min().unwrap_or(0),
        }
    }

    /// The values of what is trained.
    pub(super) fn values<'a>(&'a self, weights: &'a [f32]) -> &'a [f32] {
        match &self.kind {
            Kind::Weights { start, .. } => &weights[*start..],
            Kind::Lora(lora) => &lora.values,
        }
    }

    /// The values of what is trained, to be changed; then [`Trained::apply`] is due.
    pub(super) fn values_mut<'a>(&'a mut self, weights: &'a mut [f32]) -> &'a mut [f32] {
        match &mut self.kind {
            Kind::Weights { start, .. } => &mut weights[*start..],
            Kind::Lora(lora) => &mut lora.values,
        }
    }

    /// Brings the weights up to date with what is trained: a layer with an adapter computes with the sum.
    pub(super) fn apply(&mut self, pool: &ThreadPool, weights: &mut [f32]) {
        if let Kind::Lora(lora) = &mut self.kind {
            for change in &lora.changes {
                let low_rank = change.low_rank(&lora.values);
                let sum = &mut weights[change.weight.clone()];
                low_rank::sum(pool, &change.base, low_rank, sum, &mut lora.workspace);
            }
        }
    }

    /// The place in the gradients of what lies in this range of the weights, if it is trained.
    fn gradient(&self, weights: &Range<usize>) -> Option<Range<usize>> {
        match self.kind {
            Kind::Weights { start, .. } if weights.start >= start => {
                Some(weights.start - start..weights.end - start)
            }
            _ => None,
        }
    }

    /// The change of the linear layer with this matrix, if there is one, and the places of A and B in the
    /// gradients.
    pub(super) fn change(&self, w: &WeightAndBias) -> Option<(low_rank::LowRank<'_>, [Range<usize>; 2])> {
        let Kind::Lora(lora) = &self.kind else { return None };
        let change = lora.changes.iter().find(|change| change.weight == w.weight)?;
        Some((change.low_rank(&lora.values), [change.a.clone(), change.b.clone()]))
    }

    /// The adapter, if one is trained.
    pub(super) fn adapter(&self) -> Option<Adapter> {
        let Kind::Lora(lora) = &self.kind else { return None };
        let mut adapter = lora.adapter.clone();
        for (low_rank, change) in adapter.low_rank.iter_mut().zip(&lora.changes) {
            low_rank.a.copy_from_slice(&lora.values[change.a.clone()]);
            low_rank.b.copy_from_slice(&lora.values[change.b.clone()]);
        }
        Some(adapter)
    }
}

/// What is trained, and its gradients.
pub(super) struct TrainedGradients<'a> {
    pub(super) trained: &'a Trained,
    pub(super) values: &'a mut [f32],
}

impl TrainedGradients<'_> {
    /// The gradient of what lies in this range of the weights, if it is trained.
    pub(super) fn of(&mut self, weights: &Range<usize>) -> Option<&mut [f32]> {
        self.trained.gradient(weights).map(|range| &mut self.values[range])
    }
}

fn linear(layout: &Layout, layer: usize, target: Target) -> &WeightAndBias {
    let block = &layout.blocks[layer];
    target.of([&block.c_attn, &block.attn_proj, &block.c_fc, &block.mlp_proj])
}
