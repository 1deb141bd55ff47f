//! The forward pass: from token ids to logits.
//!
//! ```text
//! ids ─▶ token embedding + position ─▶ block 0 ─▶ … ─▶ block n_layer - 1 ─▶ layer norm ─▶ LM head ─▶ logits
//!
//! block:  x ─┬─▶ layer norm ─▶ attention ─▶ + ─┬─▶ layer norm ─▶ MLP ─▶ + ─▶
//!            └────────────────────────────────▶┘ └──────────────────────▶┘
//! ```
//!
//! A pass takes a *batch* of segments. A segment holds the new tokens of one sequence and that sequence's
//! [`KvCache`]: a whole prompt (prefill), one token (decode), or a mix of both for different sequences. All
//! tokens go through the linear layers together; in attention, each segment has its own KV cache.

mod batch;
mod cache;
mod finite;
mod interpretability;
mod observer;
mod operation;
mod precision;
mod session;
mod weights;
mod workspace;

pub use batch::{LogitsWanted, Segment};
pub use cache::{KvCache, common_prefix_len};
pub use observer::{Observer, Site};
pub use operation::Operation;
pub use precision::Precision;
pub use session::Session;
pub use workspace::Workspace;

use crate::checkpoint::{Checkpoint, Config, LayerNormWeights, Tensor};
use crate::kernels::attention::{
    AttentionKernel, Flash, KvPrecision, Segments, attention, attention_weights,
};
use crate::kernels::elements::Elements;
use crate::kernels::embedding::copy_row;
use crate::kernels::layer_norm::layer_norm;
use crate::kernels::linear::{Epilogue, linear};
use crate::kernels::logits::logits;
use crate::kernels::mlp::Mlp;
use crate::kernels::positions::{add_position, sinusoidal};
use crate::kernels::rows::{Rows, RowsMut};
use crate::kernels::thread_pool::ThreadPool;
use crate::{Error, Result};
use ndarray::ArrayViewMutD;
use observer::emit;
use std::sync::OnceLock;
use weights::{Linear, LmHead, ModelWeights, matrix};

/// A GPT-2 model: its weights, and the threads that compute with them.
pub struct Model {
    config: Config,
    weights: ModelWeights,
    /// Sinusoidal position embeddings, `[n_positions, n_embd]`, if the checkpoint has no learned ones.
    sinusoidal: Option<Vec<f32>>,
    attention: &'static dyn AttentionKernel,
    pool: ThreadPool,
    /// The first tensor with a value that is not a finite number; searched for only when a result is not.
    not_finite: OnceLock<Option<Tensor>>,
}

impl Model {
    /// Builds a model on a checkpoint's weights, without copying them.
    pub fn new(checkpoint: Checkpoint, pool: ThreadPool) -> Self {
        Self::build(checkpoint, pool, None).expect("weights that are not converted")
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
        match (checkpoint.quantized_dtype(), precision) {
            (Some(stored), Some(requested)) if requested.dtype() != stored => Err(Error::Parameter {
                name: "precision".into(),
                found: requested.to_string(),
                expected: format!("{}, the precision '{}' is quantized to", stored.name(), checkpoint.name),
            }),
            _ => Self::build(checkpoint, pool, precision),
        }
    }

    fn build(checkpoint: Checkpoint, pool: ThreadPool, precision: Option<Precision>) -> Result<Self> {
        let Checkpoint { config, weights, .. } = checkpoint;
        let sinusoidal = weights.wpe.is_none().then(|| sinusoidal(config.n_positions, config.n_embd));
        let weights = ModelWeights::new(weights, precision)?;
        Ok(Self { config, weights, sinusoidal, attention: &Flash, pool, not_finite: OnceLock::new() })
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
        self.weights.blocks.first().is_some_and(|block| block.c_attn.dtype().is_quantized())
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

    /// Runs the new tokens of any number of sequences through the model. Appends their keys and values to
    /// their caches and leaves the requested logits in `workspace`, in the order of the segments. Whether
    /// these are finite numbers is for [`Model::check_finite`] to say, for each sequence by itself.
    ///
    /// # Errors
    /// [`Error::TokenId`] and [`Error::ContextOverflow`]; both are checked before anything is computed or
    /// cached.
    pub fn forward(
        &self,
        batch: &mut [Segment],
        workspace: &mut Workspace,
        observer: &mut impl Observer,
    ) -> Result<()> {
        self.validate(batch)?;
        workspace.prepare(batch, &self.config);
        self.embed(batch, workspace, observer);
        for layer in 0..self.config.n_layer {
            self.block(layer, batch, workspace, observer);
        }
        self.lm_head(batch, workspace, observer);
        for segment in batch {
            segment.cache.advance(segment.tokens.len());
        }
        Ok(())
    }

    fn validate(&self, batch: &[Segment]) -> Result<()> {
        let &Config { vocab_size, n_positions, .. } = &self.config;
        for Segment { tokens, cache, .. } in batch {
            if let Some(&id) = tokens.iter().find(|&&id| id as usize >= vocab_size) {
                return Err(Error::TokenId { id, vocab_size });
            }
            if cache.len() + tokens.len() > n_positions.min(cache.capacity()) {
                let prompt_tokens = cache.len() + tokens.len();
                return Err(Error::ContextOverflow { prompt_tokens, n_positions });
            }
        }
        Ok(())
    }

    /// Token embeddings plus position embeddings, `[n_tokens, n_embd]`.
    fn embed(&self, batch: &[Segment], ws: &mut Workspace, observer: &mut impl Observer) {
        let ids = batch.iter().flat_map(|segment| segment.tokens);
        for (t, &id) in ids.enumerate() {
            copy_row(self.weights.wte.elements(), id as usize, ws.x.rows_mut(ws.rows).row_mut(t)); // wte[id]
        }
        emit(observer, Site::Embed, ws.x.rows_mut(ws.rows));
        let wpe = self.wpe();
        let positions = batch.iter().flat_map(Segment::positions);
        self.add_to_residual(ws.x.rows_mut(ws.rows), Site::PosEmbed, observer, |epilogue, mut y| {
            for (t, position) in positions.clone().enumerate() {
                match epilogue {
                    Epilogue::Add => {
                        add_position(wpe, position, y.row_mut(t), ws.normed.rows_mut(1).row_mut(0));
                    }
                    _ => copy_row(wpe, position, y.row_mut(t)),
                }
            }
        });
        observer.operation_finished(Operation::Embed);
    }

    /// The position embeddings, learned or sinusoidal.
    fn wpe(&self) -> Elements<'_> {
        match &self.weights.wpe {
            Some(learned) => learned.elements(),
            None => Elements::F32(self.sinusoidal.as_deref().unwrap_or_default()),
        }
    }

    /// The position embeddings in f32, `[n_positions, n_embd]`.
    pub fn position_embeddings(&self) -> Vec<f32> {
        let &Config { n_positions, n_embd, .. } = &self.config;
        let mut rows = vec![0.0; n_positions * n_embd];
        rows.chunks_mut(n_embd).enumerate().for_each(|(position, row)| copy_row(self.wpe(), position, row));
        rows
    }

    /// One transformer block: attention, then MLP; each adds its output to the residual stream.
    fn block<O: Observer>(&self, layer: usize, batch: &mut [Segment], ws: &mut Workspace, observer: &mut O) {
        let (w, pool) = (&self.weights.blocks[layer], &self.pool);
        let n_embd = self.config.n_embd;
        emit(observer, Site::ResidPre(layer), ws.x.rows_mut(ws.rows));

        self.norm(ws.x.rows(ws.rows), &w.ln_1, ws.normed.rows_mut(ws.rows)); // [n_tokens, n_embd]
        observer.operation_finished(Operation::Ln1(layer));
        emit(observer, Site::Ln1(layer), ws.normed.rows_mut(ws.rows));
        // [n_tokens, n_embd] -> [n_tokens, 3 * n_embd]
        self.linear(ws.normed.rows(ws.rows), &w.c_attn, Epilogue::Store, ws.qkv.rows_mut(ws.rows));
        observer.operation_finished(Operation::CAttn(layer));
        self.emit_qkv(layer, ws, observer);
        let (qkv, segment_rows) = (ws.qkv.rows(ws.rows), &ws.segment_rows);
        pool.for_each_chunk(batch, 1, |i, segment| {
            let kv = qkv.row_range(segment_rows[i].row, segment_rows[i].n);
            segment[0].cache.append(pool, layer, kv.columns(n_embd, n_embd), kv.columns(2 * n_embd, n_embd));
        });
        observer.operation_finished(Operation::KvAppend(layer));
        if layer + 1 == self.config.n_layer && !O::ENABLED {
            ws.retain_logit_rows(batch); // only these rows are needed from here on
        }

        ws.z.swap_storage(&mut ws.normed);
        let q = ws.qkv.rows(ws.rows).columns(0, n_embd);
        let segment = |i: usize| batch[i].attention_segment(layer, &ws.segment_rows[i]);
        let (segments, scale) = (Segments::new(batch.len(), &segment), self.attention_scale(layer));
        self.emit_patterns(layer, q, segments, scale, observer);
        // [n_tokens, n_embd], heads concatenated
        attention(self.attention, pool, q, segments, scale, ws.z.rows_mut(ws.rows));
        observer.operation_finished(Operation::Attention(layer));
        emit(observer, Site::Z(layer), ws.z.rows_mut(ws.rows));
        self.add_to_residual(ws.x.rows_mut(ws.rows), Site::AttnOut(layer), observer, |epilogue, y| {
            self.linear(ws.z.rows(ws.rows), &w.attn_proj, epilogue, y);
        });
        observer.operation_finished(Operation::AttnProj(layer));
        emit(observer, Site::ResidMid(layer), ws.x.rows_mut(ws.rows));

        ws.normed.swap_storage(&mut ws.z);
        ws.hidden.swap_storage(&mut ws.qkv);
        self.norm(ws.x.rows(ws.rows), &w.ln_2, ws.normed.rows_mut(ws.rows)); // [n_tokens, n_embd]
        observer.operation_finished(Operation::Ln2(layer));
        emit(observer, Site::Ln2(layer), ws.normed.rows_mut(ws.rows));
        let mlp = Mlp {
            c_fc: w.c_fc.weight_matrix(),
            c_fc_bias: w.c_fc.bias(),
            activation: self.config.activation_function,
            c_proj: w.mlp_proj.weight_matrix(),
            c_proj_bias: w.mlp_proj.bias(),
        };
        if O::ENABLED && observer.is_interested(Site::Pre(layer)) {
            // Unfused, so that the values before the activation can be observed; the bits are the same.
            mlp.c_fc(pool, ws.normed.rows(ws.rows), ws.hidden.rows_mut(ws.rows));
            emit(observer, Site::Pre(layer), ws.hidden.rows_mut(ws.rows));
            mlp.act(pool, ws.hidden.rows_mut(ws.rows));
        } else {
            mlp.c_fc_act(pool, ws.normed.rows(ws.rows), ws.hidden.rows_mut(ws.rows)); // [n_tokens, n_inner]
        }
        observer.operation_finished(Operation::CFc(layer));
        emit(observer, Site::Post(layer), ws.hidden.rows_mut(ws.rows));
        self.add_to_residual(ws.x.rows_mut(ws.rows), Site::MlpOut(layer), observer, |epilogue, y| {
            mlp.c_proj(pool, ws.hidden.rows(ws.rows), epilogue, y);
        });
        observer.operation_finished(Operation::MlpProj(layer));
        ws.qkv.swap_storage(&mut ws.hidden);
        emit(observer, Site::ResidPost(layer), ws.x.rows_mut(ws.rows));
    }

    /// The requested logits, `[n_logits, vocab_size]`.
    fn lm_head<O: Observer>(&self, batch: &[Segment], ws: &mut Workspace, observer: &mut O) {
        self.norm(ws.x.rows(ws.rows), &self.weights.ln_f, ws.normed.rows_mut(ws.rows));
        observer.operation_finished(Operation::LnF);
        emit(observer, Site::FinalNorm, ws.normed.rows_mut(ws.rows));
        if O::ENABLED {
            ws.retain_logit_rows(batch);
        }
        self.unembed(ws.normed.rows(ws.rows), ws.logits.rows_mut(ws.rows));
        observer.operation_finished(Operation::LmHead);
        emit(observer, Site::Logits, ws.logits.rows_mut(ws.rows));
    }

    /// The LM head: turns the output of the last layer norm into logits.
    fn unembed(&self, x: Rows, y: RowsMut) {
        match &self.weights.lm_head {
            LmHead::Embedding(table) => logits(&self.pool, x, matrix(table), y),
            LmHead::Quantized(layer) => self.linear(x, layer, Epilogue::Store, y),
        }
    }

    fn norm(&self, x: Rows, w: &LayerNormWeights, y: RowsMut) {
        layer_norm(&self.pool, x, w.weight.as_f32(), w.bias.as_f32(), self.config.layer_norm_epsilon, y);
    }

    fn linear(&self, x: Rows, w: &Linear, epilogue: Epilogue, y: RowsMut) {
        linear(&self.pool, x, w.weight_matrix(), w.bias(), epilogue, y);
    }

    /// Adds the output of a layer, or position embeddings, to the residual stream. For an interested observer
    /// the output is computed first and then added, with the same bits.
    fn add_to_residual<O: Observer>(
        &self,
        mut y: RowsMut,
        site: Site,
        observer: &mut O,
        mut layer: impl FnMut(Epilogue, RowsMut),
    ) {
        if !O::ENABLED || !observer.is_interested(site) {
            return layer(Epilogue::Add, y);
        }
        let width = y.width();
        let mut out = vec![0.0; y.len() * width];
        layer(Epilogue::Store, RowsMut::dense(&mut out, width));
        emit(observer, site, RowsMut::dense(&mut out, width));
        for (t, out) in out.chunks(width).enumerate() {
            y.row_mut(t).iter_mut().zip(out).for_each(|(y, out)| *y += out);
        }
    }

    /// The factor that scales attention scores: 1/√head_dim, unless the checkpoint says otherwise.
    fn attention_scale(&self, layer: usize) -> f32 {
        let Config { n_embd, n_head, .. } = self.config;
        let scale = match self.config.scale_attn_weights {
            true => 1.0 / ((n_embd / n_head) as f32).sqrt(),
            false => 1.0,
        };
        match self.config.scale_attn_by_inverse_layer_idx {
            true => scale / (layer + 1) as f32,
            false => scale,
        }
    }

    fn emit_qkv<O: Observer>(&self, layer: usize, ws: &mut Workspace, observer: &mut O) {
        for (i, site) in [Site::Q(layer), Site::K(layer), Site::V(layer)].into_iter().enumerate() {
            let n_embd = self.config.n_embd;
            emit(observer, site, ws.qkv.rows_mut(ws.rows).columns_mut(i * n_embd, n_embd));
        }
    }

    fn emit_patterns<O: Observer>(
        &self,
        layer: usize,
        q: Rows,
        segments: Segments,
        scale: f32,
        observer: &mut O,
    ) {
        if O::ENABLED && observer.is_interested(Site::Pattern(layer)) {
            for segment in segments.iter() {
                let shape = [self.config.n_head, segment.len, segment.position + segment.len];
                let mut p = attention_weights(self.pool.isa(), q, segment, scale, self.attention.mask());
                let p = ArrayViewMutD::from_shape(&shape[..], &mut p).expect("patterns have this shape");
                observer.observe(Site::Pattern(layer), p);
            }
        }
    }
}
