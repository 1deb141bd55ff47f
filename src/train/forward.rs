//! The forward pass of training: the same operations as [`Model::forward`](crate::model::Model::forward), but
//! over whole sequences without a cache, and what the backward pass needs is kept.

use super::activations::{Activations, BlockActivations};
use super::layout::WeightAndBias;
use super::pass::Pass;
use super::profile::{Operation, finished};
use crate::checkpoint::Config;
use crate::kernels::activation::activation;
use crate::kernels::attention::{Flash, KeyValues, KvPrecision, Segment, Segments, attention};
use crate::kernels::elements::Elements;
use crate::kernels::layer_norm::layer_norm;
use crate::kernels::linear::Epilogue::{self, Add, Store};
use crate::kernels::linear::{Matrix, linear};
use crate::kernels::logits::logits;
use crate::kernels::rows::{Rows, RowsMut};

impl Pass<'_> {
    /// Computes the residual stream after the last block and, in `normed`, what the LM head reads.
    pub(super) fn forward(&self, a: &mut Activations) {
        self.embed(a);
        let mut cache = self.new_cache();
        for layer in 0..self.config.n_layer {
            self.block(layer, a, &mut cache);
        }
        self.layer_norm(a.resid_final.rows(), &self.layout.ln_f, a.normed.rows_mut());
    }

    /// The logits after the last token, `[vocab_size]`, of a forward pass.
    pub(super) fn next_logits(&self, a: &Activations) -> Vec<f32> {
        let Config { vocab_size, n_embd, .. } = *self.config;
        let head = Matrix::new(Elements::F32(&self.weights[self.layout.head().clone()]), vocab_size, n_embd);
        let last = a.normed.rows().row_range(self.batch.len() - 1, 1);
        let mut y = vec![0.0; vocab_size];
        logits(self.pool, last, head, RowsMut::dense(&mut y, vocab_size));
        y
    }

    /// The residual stream before the first block: token embeddings plus position embeddings.
    fn embed(&self, a: &mut Activations) {
        let (n_embd, wte) = (self.config.n_embd, &self.weights[self.layout.wte.clone()]);
        let wpe = self.position_embeddings();
        let x = match a.blocks.first_mut() {
            Some(block) => &mut block.resid_pre,
            None => &mut a.resid_final,
        };
        let (ids, positions) = (&self.batch.ids, &self.batch.positions);
        x.for_each_row(self.pool, |t, x| {
            let token = &wte[ids[t] as usize * n_embd..][..n_embd];
            let position = &wpe[positions[t] as usize * n_embd..][..n_embd];
            x.iter_mut().zip(token).zip(position).for_each(|((x, t), p)| *x = t + p);
        });
        finished(Operation::Embedding);
    }

    /// One block: attention, then MLP; each adds its output to the residual stream.
    fn block(&self, layer: usize, a: &mut Activations, cache: &mut [KeyValues]) {
        let w = &self.layout.blocks[layer];
        let Activations { blocks, resid_final, normed, hidden, .. } = a;
        let (block, later) = blocks[layer..].split_first_mut().expect("a layer of the model");
        let BlockActivations { resid_pre, qkv, z, resid_mid, pre } = block;
        let resid_post = later.first_mut().map_or(resid_final, |next| &mut next.resid_pre);

        // x += attention(layer_norm(x))
        self.layer_norm(resid_pre.rows(), &w.ln_1, normed.rows_mut()); // [n_tokens, n_embd]
        self.linear(normed.rows(), &w.c_attn, Store, qkv.rows_mut()); // [n_tokens, 3 * n_embd]
        self.attention(layer, qkv.rows(), cache, z.rows_mut()); // [n_tokens, n_embd]
        resid_mid.copy_from(self.pool, resid_pre);
        self.linear(z.rows(), &w.attn_proj, Add, resid_mid.rows_mut()); // [n_tokens, n_embd]

        // x += mlp(layer_norm(x))
        self.layer_norm(resid_mid.rows(), &w.ln_2, normed.rows_mut()); // [n_tokens, n_embd]
        self.linear(normed.rows(), &w.c_fc, Store, pre.rows_mut()); // [n_tokens, n_inner]
        self.activation(pre.rows(), hidden.rows_mut()); // [n_tokens, n_inner]
        resid_post.copy_from(self.pool, resid_mid);
        self.linear(hidden.rows(), &w.mlp_proj, Add, resid_post.rows_mut()); // [n_tokens, n_embd]
    }

    pub(super) fn layer_norm(&self, x: Rows, w: &WeightAndBias, y: RowsMut) {
        let (weight, bias) = (&self.weights[w.weight.clone()], &self.weights[w.bias.clone()]);
        layer_norm(self.pool, x, weight, bias, self.config.layer_norm_epsilon, y);
        finished(Operation::LayerNorm);
    }

    fn linear(&self, x: Rows, w: &WeightAndBias, epilogue: Epilogue, y: RowsMut) {
        let (weight, bias) = (&self.weights[w.weight.clone()], &self.weights[w.bias.clone()]);
        let weight = Matrix::new(Elements::F32(weight), x.width(), y.as_rows().width());
        linear(self.pool, x, weight, bias, epilogue, y);
        finished(Operation::Linear);
    }

    fn activation(&self, x: Rows, y: RowsMut) {
        activation(self.pool, self.config.activation_function, x, y);
        finished(Operation::Activation);
    }

    /// Keys and values of one layer, for each sequence.
    fn new_cache(&self) -> Vec<KeyValues> {
        let (n_head, head_dim) = (self.config.n_head, self.config.n_embd / self.config.n_head);
        let cache =
            |rows: &std::ops::Range<usize>| KeyValues::new(n_head, head_dim, rows.len(), KvPrecision::F32);
        self.batch.sequences.iter().map(cache).collect()
    }

    /// Every head of every sequence.
    fn attention(&self, layer: usize, qkv: Rows, cache: &mut [KeyValues], z: RowsMut) {
        let n_embd = self.config.n_embd;
        let [q, k, v] = [0, 1, 2].map(|part| qkv.columns(part * n_embd, n_embd));
        let sequences = &self.batch.sequences;
        for (kv, rows) in cache.iter_mut().zip(sequences) {
            let [k, v] = [k, v].map(|x| x.row_range(rows.start, rows.len()));
            kv.append(self.pool, 0, k, v);
        }
        let segment = |i: usize| {
            let rows = &sequences[i];
            Segment { first_row: rows.start, len: rows.len(), position: 0, kv: &cache[i] }
        };
        let segments = Segments::new(sequences.len(), &segment);
        attention(&Flash, self.pool, q, segments, self.config.attention_scale(layer), z);
        finished(Operation::Attention);
    }
}
