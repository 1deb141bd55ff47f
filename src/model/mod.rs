//! The forward pass: from token ids to logits, as the explanation goes.
//!
//! ```text
//! ids ─▶ token embedding + position ─▶ block 0 ─▶ … ─▶ block n_layer - 1 ─▶ layer norm ─▶ head ─▶ logits
//!
//! block:  x ─┬─▶ layer norm ─▶ attention ─▶ + ─┬─▶ layer norm ─▶ MLP ─▶ + ─▶
//!            └────────────────────────────────▶┘ └──────────────────────▶┘
//! ```
//!
//! A pass takes a *batch* of segments, each a few new tokens of one sequence with that sequence's [`KvCache`]: a whole
//! prompt (prefill), one token (decode), or both at once for different sequences. All tokens go through the linear
//! layers together, and through attention each with its own past.

mod batch;
mod cache;
mod observer;
mod operation;
mod precision;
mod read_out;
mod scratch;
mod session;
mod weights;

pub use batch::{Segment, Wanted};
pub use cache::{KvCache, common};
pub use observer::{Observer, Site};
pub use operation::Operation;
pub use precision::Precision;
pub use scratch::Scratch;
pub use session::Session;

use crate::checkpoint::{Checkpoint, Config, LayerNormWeights};
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
use observer::show;
use weights::{Head, Linear, ModelWeights, matrix};

/// A GPT-2: its weights, and the threads that compute with them.
pub struct Model {
    config: Config,
    weights: ModelWeights,
    /// The position table, where the checkpoint has none of its own: `[n_positions, n_embd]`.
    sinusoidal: Option<Vec<f32>>,
    attention: &'static dyn AttentionKernel,
    pool: ThreadPool,
}

impl Model {
    /// A model of a checkpoint's weights, used where they lie.
    pub fn new(checkpoint: Checkpoint, pool: ThreadPool) -> Self {
        Self::made(checkpoint, pool, None)
    }

    /// A model of a checkpoint's matrices converted to a precision; none leaves them as they are stored.
    ///
    /// # Errors
    /// [`Error::Parameter`] for another precision than that which the matrices were quantized to.
    pub fn with_precision(
        checkpoint: Checkpoint,
        pool: ThreadPool,
        precision: Option<Precision>,
    ) -> Result<Self> {
        match (checkpoint.quantized(), precision) {
            (Some(stored), Some(wanted)) if wanted.dtype() != stored => Err(Error::Parameter {
                name: "precision".into(),
                found: wanted.to_string(),
                expected: format!("{}, which '{}' was quantized to", stored.name(), checkpoint.name),
            }),
            _ => Ok(Self::made(checkpoint, pool, precision)),
        }
    }

    fn made(checkpoint: Checkpoint, pool: ThreadPool, precision: Option<Precision>) -> Self {
        let Checkpoint { config, weights, .. } = checkpoint;
        let sinusoidal = weights.wpe.is_none().then(|| sinusoidal(config.n_positions, config.n_embd));
        Self { config, weights: ModelWeights::new(weights, precision), sinusoidal, attention: &Flash, pool }
    }

    /// The same model with another way to compute attention than [`Flash`].
    pub fn with_attention(self, attention: &'static dyn AttentionKernel) -> Self {
        Self { attention, ..self }
    }

    /// How it computes attention.
    pub fn attention(&self) -> &'static dyn AttentionKernel {
        self.attention
    }

    /// The model's shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What keys and values are stored in unless one says otherwise: as they were computed, or in f16 where the inputs
    /// of the matrix that makes them are rounded, and more coarsely (bf16-dot, int8, int4).
    pub fn kv_precision(&self) -> KvPrecision {
        if self.rounds_inputs() { KvPrecision::F16 } else { KvPrecision::F32 }
    }

    /// Whether the inputs of the blocks' matrices are rounded (bf16-dot, int8, int4).
    pub(super) fn rounds_inputs(&self) -> bool {
        self.weights.blocks.first().is_some_and(|block| !block.c_attn.dtype().is_plain())
    }

    /// Bytes of weights that every pass reads, however many tokens go through together.
    pub fn pass_bytes(&self) -> usize {
        self.weights.pass_bytes()
    }

    /// Bytes of weights that an operation reads, however many tokens go through together; of the embeddings, the rows
    /// of one token.
    pub fn weight_bytes(&self, operation: Operation) -> usize {
        self.weights.bytes_of(operation)
    }

    /// The threads.
    pub fn pool(&self) -> &ThreadPool {
        &self.pool
    }

    /// Runs new tokens of any number of sequences through the model. Their keys and values join their caches, and the
    /// logits they ask for are left in `scratch`, in the order of the segments.
    ///
    /// # Errors
    /// [`Error::TokenId`] and [`Error::ContextOverflow`], before anything is computed or cached.
    pub fn forward(
        &self,
        batch: &mut [Segment],
        scratch: &mut Scratch,
        see: &mut impl Observer,
    ) -> Result<()> {
        self.check(batch)?;
        scratch.lay_out(batch, &self.config);
        self.embed(batch, scratch, see);
        for layer in 0..self.config.n_layer {
            self.block(layer, batch, scratch, see);
        }
        self.head(batch, scratch, see);
        for segment in batch {
            segment.cache.advance(segment.tokens.len());
        }
        Ok(())
    }

    fn check(&self, batch: &[Segment]) -> Result<()> {
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

    /// What each token is, and where it stands: `[n_tokens, n_embd]`.
    fn embed(&self, batch: &[Segment], s: &mut Scratch, see: &mut impl Observer) {
        let ids = batch.iter().flat_map(|segment| segment.tokens);
        for (t, &id) in ids.enumerate() {
            copy_row(self.weights.wte.elements(), id as usize, s.x.rows_mut(s.rows).row_mut(t)); // wte[id]
        }
        show(see, Site::Embed, s.x.rows_mut(s.rows));
        let wpe = self.wpe();
        let positions = batch.iter().flat_map(Segment::positions);
        self.add(s.x.rows_mut(s.rows), Site::PosEmbed, see, |then, mut y| {
            for (t, position) in positions.clone().enumerate() {
                match then {
                    Epilogue::Add => {
                        add_position(wpe, position, y.row_mut(t), s.normed.rows_mut(1).row_mut(0)); // + wpe[position]
                    }
                    _ => copy_row(wpe, position, y.row_mut(t)),
                }
            }
        });
        see.ended(Operation::Embed);
    }

    /// The position table, learned or not.
    fn wpe(&self) -> Elements<'_> {
        match &self.weights.wpe {
            Some(learned) => learned.elements(),
            None => Elements::F32(self.sinusoidal.as_deref().unwrap_or_default()),
        }
    }

    /// What is added to a token for each position it may stand at, `[n_positions, n_embd]`.
    pub fn position_embeddings(&self) -> Vec<f32> {
        let &Config { n_positions, n_embd, .. } = &self.config;
        let mut rows = vec![0.0; n_positions * n_embd];
        rows.chunks_mut(n_embd).enumerate().for_each(|(position, row)| copy_row(self.wpe(), position, row));
        rows
    }

    /// One block: look around (attention), then think (MLP); each adds to what was there.
    fn block<O: Observer>(&self, layer: usize, batch: &mut [Segment], s: &mut Scratch, see: &mut O) {
        let (w, pool) = (&self.weights.blocks[layer], &self.pool);
        let n_embd = self.config.n_embd;
        show(see, Site::ResidPre(layer), s.x.rows_mut(s.rows));

        self.norm(s.x.rows(s.rows), &w.ln_1, s.normed.rows_mut(s.rows)); // [n_tokens, n_embd]
        see.ended(Operation::Ln1(layer));
        show(see, Site::Ln1(layer), s.normed.rows_mut(s.rows));
        self.linear(s.normed.rows(s.rows), &w.c_attn, Epilogue::Store, s.qkv.rows_mut(s.rows)); // [n_tokens, 3 * n_embd]
        see.ended(Operation::CAttn(layer));
        self.show_qkv(layer, s, see);
        let (qkv, runs) = (s.qkv.rows(s.rows), &s.runs);
        pool.for_each_chunk(batch, 1, |i, segment| {
            let kv = qkv.row_range(runs[i].row, runs[i].n);
            segment[0].cache.append(pool, layer, kv.columns(n_embd, n_embd), kv.columns(2 * n_embd, n_embd));
        });
        see.ended(Operation::KvAppend(layer));
        if layer + 1 == self.config.n_layer && !O::LOOKS {
            s.keep_wanted(batch); // nobody will ask what became of the others
        }

        s.z.take_over(&mut s.normed);
        let q = s.qkv.rows(s.rows).columns(0, n_embd);
        let segment = |i: usize| batch[i].attention_segment(layer, &s.runs[i]);
        let (segments, scale) = (Segments::new(batch.len(), &segment), self.attention_scale(layer));
        self.show_patterns(layer, q, segments, scale, see);
        attention(self.attention, pool, q, segments, scale, s.z.rows_mut(s.rows)); // [n_tokens, n_embd], every head side by side
        see.ended(Operation::Attention(layer));
        show(see, Site::Z(layer), s.z.rows_mut(s.rows));
        self.add(s.x.rows_mut(s.rows), Site::AttnOut(layer), see, |then, y| {
            self.linear(s.z.rows(s.rows), &w.attn_proj, then, y);
        });
        see.ended(Operation::AttnProj(layer));
        show(see, Site::ResidMid(layer), s.x.rows_mut(s.rows));

        s.normed.take_over(&mut s.z);
        s.hidden.take_over(&mut s.qkv);
        self.norm(s.x.rows(s.rows), &w.ln_2, s.normed.rows_mut(s.rows)); // [n_tokens, n_embd]
        see.ended(Operation::Ln2(layer));
        show(see, Site::Ln2(layer), s.normed.rows_mut(s.rows));
        let mlp = Mlp {
            c_fc: w.c_fc.weight_matrix(),
            c_fc_bias: w.c_fc.bias(),
            activation: self.config.activation_function,
            c_proj: w.mlp_proj.weight_matrix(),
            c_proj_bias: w.mlp_proj.bias(),
        };
        if O::LOOKS && see.wants(Site::Pre(layer)) {
            mlp.c_fc(pool, s.normed.rows(s.rows), s.hidden.rows_mut(s.rows)); // in two steps, to the same bits
            show(see, Site::Pre(layer), s.hidden.rows_mut(s.rows));
            mlp.act(pool, s.hidden.rows_mut(s.rows));
        } else {
            mlp.c_fc_act(pool, s.normed.rows(s.rows), s.hidden.rows_mut(s.rows)); // [n_tokens, n_inner]
        }
        see.ended(Operation::CFc(layer));
        show(see, Site::Post(layer), s.hidden.rows_mut(s.rows));
        self.add(s.x.rows_mut(s.rows), Site::MlpOut(layer), see, |then, y| {
            mlp.c_proj(pool, s.hidden.rows(s.rows), then, y);
        });
        see.ended(Operation::MlpProj(layer));
        s.qkv.take_over(&mut s.hidden);
        show(see, Site::ResidPost(layer), s.x.rows_mut(s.rows));
    }

    /// The logits of the tokens that want them: `[n_wanted, vocab_size]`.
    fn head<O: Observer>(&self, batch: &[Segment], s: &mut Scratch, see: &mut O) {
        self.norm(s.x.rows(s.rows), &self.weights.ln_f, s.normed.rows_mut(s.rows));
        see.ended(Operation::LnF);
        show(see, Site::FinalNorm, s.normed.rows_mut(s.rows));
        if O::LOOKS {
            s.keep_wanted(batch);
        }
        self.unembed(s.normed.rows(s.rows), s.logits.rows_mut(s.rows));
        see.ended(Operation::Head);
        show(see, Site::Logits, s.logits.rows_mut(s.rows));
    }

    /// From the last layer norm's output to logits.
    fn unembed(&self, x: Rows, y: RowsMut) {
        match &self.weights.head {
            Head::Table(table) => logits(&self.pool, x, matrix(table), y),
            Head::Rounded(layer) => self.linear(x, layer, Epilogue::Store, y),
        }
    }

    fn norm(&self, x: Rows, w: &LayerNormWeights, y: RowsMut) {
        layer_norm(&self.pool, x, w.weight.as_f32(), w.bias.as_f32(), self.config.layer_norm_epsilon, y);
    }

    fn linear(&self, x: Rows, w: &Linear, then: Epilogue, y: RowsMut) {
        linear(&self.pool, x, w.weight_matrix(), w.bias(), then, y);
    }

    /// Adds a layer's output, or positions, to the residual stream; in two steps where someone looks at it, to the same bits.
    fn add<O: Observer>(
        &self,
        mut y: RowsMut,
        site: Site,
        see: &mut O,
        mut layer: impl FnMut(Epilogue, RowsMut),
    ) {
        if !O::LOOKS || !see.wants(site) {
            return layer(Epilogue::Add, y);
        }
        let width = y.width();
        let mut out = vec![0.0; y.len() * width];
        layer(Epilogue::Store, RowsMut::dense(&mut out, width));
        show(see, site, RowsMut::dense(&mut out, width));
        for (t, out) in out.chunks(width).enumerate() {
            y.row_mut(t).iter_mut().zip(out).for_each(|(y, out)| *y += out);
        }
    }

    /// What scores are multiplied by: 1/√head_dim, unless the checkpoint was trained otherwise.
    fn attention_scale(&self, layer: usize) -> f32 {
        let Config { n_embd, n_head, .. } = self.config;
        let by_width = match self.config.scale_attn_weights {
            true => 1.0 / ((n_embd / n_head) as f32).sqrt(),
            false => 1.0,
        };
        match self.config.scale_attn_by_inverse_layer_idx {
            true => by_width / (layer + 1) as f32,
            false => by_width,
        }
    }

    fn show_qkv<O: Observer>(&self, layer: usize, s: &mut Scratch, see: &mut O) {
        for (i, site) in [Site::Q(layer), Site::K(layer), Site::V(layer)].into_iter().enumerate() {
            let n_embd = self.config.n_embd;
            show(see, site, s.qkv.rows_mut(s.rows).columns_mut(i * n_embd, n_embd));
        }
    }

    fn show_patterns<O: Observer>(&self, layer: usize, q: Rows, segments: Segments, scale: f32, see: &mut O) {
        if O::LOOKS && see.wants(Site::Pattern(layer)) {
            for segment in segments.iter() {
                let shape = [self.config.n_head, segment.len, segment.position + segment.len];
                let mut p = attention_weights(self.pool.isa(), q, segment, scale, self.attention.mask());
                let p = ArrayViewMutD::from_shape(&shape[..], &mut p).expect("patterns have this shape");
                see.see(Site::Pattern(layer), p);
            }
        }
    }
}
