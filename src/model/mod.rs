//! The model: from token ids to logits.
//!
//! ```text
//! ids ─▶ token embedding + position ─▶ block 0 ─▶ … ─▶ block n_layer - 1 ─▶ layer norm ─▶ LM head ─▶ logits
//!
//! block:  x ─┬─▶ layer norm ─▶ attention ─▶ + ─┬─▶ layer norm ─▶ MLP ─▶ + ─▶
//!            └────────────────────────────────▶┘ └──────────────────────▶┘
//! ```
//!
//! Read [`mod@reference`] first, this diagram as plain formulas. [`Model::forward`] (in `forward.rs`) is the
//! same with the fast kernels, the KV cache and an observer; `pass.rs` has the operations that it names.
//!
//! A pass takes a *batch* of segments. A segment holds the new tokens of one sequence and that sequence's
//! [`KvCache`]: a whole prompt (prefill), one token (decode), or a mix of both for different sequences. All
//! tokens go through the linear layers together; in attention, each segment has its own KV cache.

mod adapter;
mod batch;
mod cache;
mod cost;
mod finite;
mod forward;
mod interpretability;
mod observer;
mod operation;
mod operation_timer;
mod pass;
pub mod reference;
mod session;
mod weights;
mod workspace;

pub use adapter::AdapterWeights;
pub use batch::{LogitsWanted, Segment};
pub use cache::{KvCache, common_prefix_len};
pub use cost::{OperationCost, PassWork, SegmentShape};
pub use observer::{Observer, Site};
pub use operation::Operation;
pub use operation_timer::{OperationTime, OperationTimer};
pub(crate) use session::PREFILL_CHUNK;
pub use session::Session;
pub use workspace::Workspace;

pub use crate::kernels::formats::Precision;

use crate::checkpoint::{Checkpoint, Config, LayerNormWeights, Tensor};
use crate::kernels::attention::{AttentionKernel, Flash, KvPrecision};
use crate::kernels::elements::Elements;
use crate::kernels::embedding::copy_row;
use crate::kernels::layer_norm::layer_norm;
use crate::kernels::linear::Epilogue;
use crate::kernels::logits::logits;
use crate::kernels::positions::sinusoidal;
use crate::kernels::rows::{Rows, RowsMut};
use crate::kernels::thread_pool::ThreadPool;
use crate::{Error, Result};
use std::sync::{Arc, OnceLock};
use weights::{Linear, LmHead, ModelWeights, matrix};

/// A GPT-2 model: its weights, and the threads that compute with them. A clone shares both.
#[derive(Clone)]
pub struct Model {
    config: Config,
    weights: Arc<ModelWeights>,
    /// Sinusoidal position embeddings, `[n_positions, n_embd]`, if the checkpoint has no learned ones.
    sinusoidal: Option<Arc<[f32]>>,
    /// The adapter of new sequences.
    adapter: Option<Arc<AdapterWeights>>,
    attention: &'static dyn AttentionKernel,
    pool: Arc<ThreadPool>,
    /// The first tensor with a value that is not a finite number; searched for only when a result is not.
    not_finite: Arc<OnceLock<Option<Tensor>>>,
}

impl Model {
    /// Builds a model on a checkpoint's weights, without copying them.
    pub fn new(checkpoint: Checkpoint, pool: ThreadPool) -> Self {
        Self::build(checkpoint, Arc::new(pool), None).expect("weights that are not converted")
    }

    /// Builds a model with the checkpoint's matrices converted to `precision`; `None` keeps them as stored.
    ///
    /// # Errors
    /// [`Error::Parameter`] if the matrices are already quantized to another precision, [`Error::Tensor`] for
    /// a weight that is not a finite number or beyond the range of `precision`.
    pub fn with_precision(
        checkpoint: Checkpoint,
        pool: ThreadPool,
        precision: Option<Precision>,
    ) -> Result<Self> {
        match (checkpoint.quantized_precision(), precision) {
            (Some(stored), Some(requested)) if requested != stored => Err(Error::Parameter {
                name: "precision".into(),
                found: requested.to_string(),
                expected: format!("{stored}, the precision '{}' is quantized to", checkpoint.name),
            }),
            _ => Self::build(checkpoint, Arc::new(pool), precision),
        }
    }

    fn build(checkpoint: Checkpoint, pool: Arc<ThreadPool>, precision: Option<Precision>) -> Result<Self> {
        let Checkpoint { config, weights, .. } = checkpoint;
        let sinusoidal = weights.wpe.is_none().then(|| sinusoidal(config.n_positions, config.n_embd).into());
        let weights = Arc::new(ModelWeights::new(weights, precision)?);
        let not_finite = Arc::default();
        Ok(Self { config, weights, sinusoidal, adapter: None, attention: &Flash, pool, not_finite })
    }

    /// A copy whose matrices are quantized to `precision`, to draft for this model. It shares all else.
    ///
    /// # Errors
    /// [`Error::Parameter`] if the matrices are quantized already or `precision` is not a quantized one, else
    /// as [`Model::with_precision`].
    pub fn draft_model(&self, precision: Precision) -> Result<Self> {
        let stored = self.weights.precision();
        if stored.is_quantized() || !precision.is_quantized() {
            return Err(Error::Parameter {
                name: "draft".into(),
                found: format!("{precision} for a model in {stored}"),
                expected: "a quantized precision for a model that is not quantized".into(),
            });
        }
        Ok(Self { weights: Arc::new(self.weights.converted(precision)?), ..self.clone() })
    }

    /// Builds another checkpoint's model that computes on the same threads.
    ///
    /// # Errors
    /// As [`Model::with_precision`].
    pub fn on_same_threads(&self, checkpoint: Checkpoint) -> Result<Self> {
        let model = Self::build(checkpoint, Arc::clone(&self.pool), None)?;
        Ok(model.with_attention(self.attention))
    }

    /// Whether this is the other model with quantized matrices, as far as the shape, the embeddings and the
    /// last layer norm tell.
    pub(crate) fn is_quantized_from(&self, other: &Model) -> bool {
        let shape = |model: &Model| {
            let Config { n_layer, n_head, n_embd, n_positions, .. } = model.config;
            [n_layer, n_head, n_embd, n_positions]
        };
        self.quantizes_activations() && shape(self) == shape(other) && self.weights.embeds_as(&other.weights)
    }

    /// Replaces the attention kernel; the default is [`Flash`].
    pub fn with_attention(self, attention: &'static dyn AttentionKernel) -> Self {
        Self { attention, ..self }
    }

    /// The attention kernel.
    pub fn attention(&self) -> &'static dyn AttentionKernel {
        self.attention
    }

    /// The model's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The default precision of the KV cache: f32, or f16 if the activations are quantized (bf16-dot, int8,
    /// int4), since that loses more precision than an f16 cache.
    pub fn kv_precision(&self) -> KvPrecision {
        if self.quantizes_activations() { KvPrecision::F16 } else { KvPrecision::F32 }
    }

    /// Whether the blocks' linear layers quantize their input activations (bf16-dot, int8, int4).
    pub(super) fn quantizes_activations(&self) -> bool {
        self.weights.precision().is_quantized()
    }

    /// Bytes of weights that every pass reads, regardless of the number of tokens.
    pub fn pass_bytes(&self) -> usize {
        self.weights.pass_bytes()
    }

    /// Bytes of weights that an operation reads, regardless of the number of tokens; for the embeddings, the
    /// rows of one token.
    pub fn weight_bytes(&self, operation: Operation) -> usize {
        self.weights.operation_bytes(operation)
    }

    /// The thread pool.
    pub fn pool(&self) -> &ThreadPool {
        &self.pool
    }

    /// The token embeddings.
    fn wte<'a>(&'a self, adapter: Option<&'a AdapterWeights>) -> Elements<'a> {
        adapter.and_then(|adapter| adapter.wte.as_ref()).unwrap_or(&self.weights.wte).elements()
    }

    /// The position embeddings, learned or sinusoidal.
    fn wpe<'a>(&'a self, adapter: Option<&'a AdapterWeights>) -> Elements<'a> {
        match adapter.and_then(|adapter| adapter.wpe.as_ref()).or(self.weights.wpe.as_ref()) {
            Some(learned) => learned.elements(),
            None => Elements::F32(self.sinusoidal.as_deref().unwrap_or_default()),
        }
    }

    /// The position embeddings in f32, `[n_positions, n_embd]`.
    pub fn position_embeddings(&self) -> Vec<f32> {
        let &Config { n_positions, n_embd, .. } = &self.config;
        let mut rows = vec![0.0; n_positions * n_embd];
        let wpe = self.wpe(self.adapter.as_deref());
        rows.chunks_mut(n_embd).enumerate().for_each(|(position, row)| copy_row(wpe, position, row));
        rows
    }

    /// The LM head.
    fn lm_head<'a>(&'a self, adapter: Option<&'a AdapterWeights>) -> &'a LmHead {
        adapter.and_then(|adapter| adapter.lm_head.as_ref()).unwrap_or(&self.weights.lm_head)
    }

    /// Turns the output of the last layer norm into logits.
    fn unembed(&self, x: Rows, w: &LmHead, y: RowsMut) {
        match w {
            LmHead::Embedding(table) => logits(&self.pool, x, matrix(table), y),
            LmHead::Quantized(layer) => self.linear(x, layer, Epilogue::Store, y),
        }
    }

    fn norm(&self, x: Rows, w: &LayerNormWeights, y: RowsMut) {
        layer_norm(&self.pool, x, w.weight.as_f32(), w.bias.as_f32(), self.config.layer_norm_epsilon, y);
    }

    fn linear(&self, x: Rows, w: &Linear, epilogue: Epilogue, y: RowsMut) {
        w.weight_matrix().linear(&self.pool, x, w.bias(), epilogue, y);
    }
}
