//! The parts of the model that the logit lens and direct logit attribution need.
//!
//! The last layer norm and the LM head turn the residual stream into logits. Applied to the stream after an
//! earlier block, they show what the model would predict if it stopped there (the *logit lens*,
//! nostalgebraist 2020). *Direct logit attribution* splits a token's logit into the contributions of the
//! embeddings, heads and MLPs.

use super::{Model, Operation};
use crate::checkpoint::LayerNormWeights;
use crate::kernels::linear::Epilogue;
use crate::kernels::linear::low_rank::{LowRank, add_low_rank};
use crate::kernels::rows::{Rows, RowsMut};

impl Model {
    /// Applies the last layer norm and the LM head to vectors of the residual stream, `[n, n_embd]` → `[n,
    /// vocab_size]`. For the stream after the last block, the logits have the same bits as those of the
    /// forward pass.
    ///
    /// # Panics
    /// Panics if the rows are not `n_embd` wide.
    pub fn unembed_residual(&self, residual: Rows) -> Vec<f32> {
        let mut normed = vec![0.0; residual.len() * residual.width()];
        self.norm(residual, self.last_layer_norm(), RowsMut::dense(&mut normed, residual.width()));
        let mut logits = vec![0.0; residual.len() * self.config.vocab_size];
        let y = RowsMut::dense(&mut logits, self.config.vocab_size);
        self.unembed(Rows::dense(&normed, residual.width()), self.lm_head(self.adapter.as_deref()), y);
        logits
    }

    /// A token's row of the LM head, `[n_embd]`.
    ///
    /// # Panics
    /// Panics if `id >= vocab_size`.
    pub fn unembedding_row(&self, id: u32) -> Vec<f32> {
        let mut row = vec![0.0; self.config.n_embd];
        self.lm_head(self.adapter.as_deref()).row(id as usize, &mut row);
        row
    }

    /// The mean row of the LM head, `[n_embd]`, whose dot product with the normalized stream is the mean
    /// logit.
    pub fn mean_unembedding_row(&self) -> Vec<f64> {
        let lm_head = self.lm_head(self.adapter.as_deref());
        let mut mean = vec![0.0; self.config.n_embd];
        let mut row = vec![0.0; self.config.n_embd];
        for id in 0..self.config.vocab_size {
            lm_head.row(id, &mut row);
            mean.iter_mut().zip(&row).for_each(|(mean, x)| *mean += f64::from(*x));
        }
        mean.iter_mut().for_each(|mean| *mean /= self.config.vocab_size as f64);
        mean
    }

    /// The weight and bias of the last layer norm, `[n_embd]` each.
    pub fn ln_f(&self) -> (&[f32], &[f32]) {
        let LayerNormWeights { weight, bias } = self.last_layer_norm();
        (weight.as_f32(), bias.as_f32())
    }

    fn last_layer_norm(&self) -> &LayerNormWeights {
        let replaced = self.adapter.as_ref().and_then(|adapter| adapter.layer_norm(Operation::LnF));
        replaced.unwrap_or(&self.weights.ln_f)
    }

    /// The output of each head of a block in the residual stream of one token, `[n_head, n_embd]`
    /// (TransformerLens' `attn.hook_result`): the head's slice of `z`, `[n_embd]`, times its rows of
    /// `c_proj`. With [`attn_proj_bias`](Model::attn_proj_bias) added, they sum to the output of attention.
    ///
    /// # Panics
    /// Panics if there is no such block, or if `z` is not `n_embd` long.
    pub fn head_results(&self, layer: usize, z: &[f32]) -> Vec<f32> {
        let (n_embd, n_head) = (self.config.n_embd, self.config.n_head);
        assert_eq!(z.len(), n_embd, "z is [n_embd]");
        // One row per head, zero outside its own slice.
        let mut one_head_per_row = vec![0.0; n_head * n_embd];
        for (head, (z, row)) in z.chunks(n_embd / n_head).zip(one_head_per_row.chunks_mut(n_embd)).enumerate()
        {
            row[head * z.len()..][..z.len()].copy_from_slice(z);
        }
        let mut results = vec![0.0; n_head * n_embd];
        let (w, zero_bias) = (self.weights.blocks[layer].attn_proj.weight_matrix(), vec![0.0; n_embd]);
        let y = RowsMut::dense(&mut results, n_embd);
        let z = Rows::dense(&one_head_per_row, n_embd);
        w.linear(&self.pool, z, &zero_bias, Epilogue::Store, y);
        if let Some(low_rank) = self.attn_proj_change(layer) {
            let y = RowsMut::dense(&mut results, n_embd);
            add_low_rank(&self.pool, z, LowRank { bias: &zero_bias, ..low_rank }, y);
        }
        results
    }

    /// The bias of attention's `c_proj` in a block, `[n_embd]`, which belongs to no head.
    ///
    /// # Panics
    /// Panics if there is no such block.
    pub fn attn_proj_bias(&self, layer: usize) -> Vec<f32> {
        let mut bias = self.weights.blocks[layer].attn_proj.bias().to_vec();
        if let Some(LowRank { bias: change, .. }) = self.attn_proj_change(layer) {
            bias.iter_mut().zip(change).for_each(|(bias, change)| *bias += change);
        }
        bias
    }

    fn attn_proj_change(&self, layer: usize) -> Option<LowRank<'_>> {
        self.adapter.as_ref()?.low_rank(Operation::AttnProj(layer))
    }
}
