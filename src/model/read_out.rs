//! What the end of the model makes of any vector of the residual stream, and what the heads of a block bring it.
//!
//! The last layer norm and the head turn the residual stream into logits. Nothing says that it must be the stream after
//! the last block: read out earlier, it shows what the model would answer if it stopped there (the *logit lens*,
//! nostalgebraist 2020).

use super::Model;
use crate::kernels::linear::{Epilogue, linear};
use crate::kernels::rows::{Rows, RowsMut};

impl Model {
    /// The logits of vectors of the residual stream, `[n, n_embd]` to `[n, vocab_size]`. For the stream after the last
    /// block they are the forward pass's own bits.
    ///
    /// # Panics
    /// Where the rows are not `n_embd` wide.
    pub fn read_out(&self, residual: Rows) -> Vec<f32> {
        let mut normed = vec![0.0; residual.len() * residual.width()];
        self.norm(residual, &self.weights.ln_f, RowsMut::dense(&mut normed, residual.width()));
        let mut logits = vec![0.0; residual.len() * self.config.vocab_size];
        let to = RowsMut::dense(&mut logits, self.config.vocab_size);
        self.unembed(Rows::dense(&normed, residual.width()), to);
        logits
    }

    /// The row of the head that gives a token's logit, `[n_embd]`.
    ///
    /// # Panics
    /// Where `id` is not below `vocab_size`.
    pub fn unembedding(&self, id: u32) -> Vec<f32> {
        let mut row = vec![0.0; self.config.n_embd];
        self.weights.head.row(id as usize, &mut row);
        row
    }

    /// The mean row of the head, `[n_embd]`: what gives the mean of all logits.
    pub fn mean_unembedding(&self) -> Vec<f64> {
        let mut mean = vec![0.0; self.config.n_embd];
        let mut row = vec![0.0; self.config.n_embd];
        for id in 0..self.config.vocab_size {
            self.weights.head.row(id, &mut row);
            mean.iter_mut().zip(&row).for_each(|(mean, x)| *mean += f64::from(*x));
        }
        mean.iter_mut().for_each(|mean| *mean /= self.config.vocab_size as f64);
        mean
    }

    /// Weight and bias of the last layer norm, `[n_embd]` each.
    pub fn ln_f(&self) -> (&[f32], &[f32]) {
        (self.weights.ln_f.weight.as_f32(), self.weights.ln_f.bias.as_f32())
    }

    /// What each head of a block adds to the residual stream of a token, `[n_head, n_embd]`: its part of `z`, `[n_embd]`,
    /// through its rows of `c_proj`. Together with [`attn_bias`](Model::attn_bias) they make up what attention adds.
    ///
    /// # Panics
    /// Where there is no such block, or `z` is not `n_embd` long.
    pub fn head_results(&self, layer: usize, z: &[f32]) -> Vec<f32> {
        let (n_embd, n_head) = (self.config.n_embd, self.config.n_head);
        assert_eq!(z.len(), n_embd, "z is [n_embd]");
        // One row a head, zero but for its own part.
        let mut alone = vec![0.0; n_head * n_embd];
        for (head, (z, row)) in z.chunks(n_embd / n_head).zip(alone.chunks_mut(n_embd)).enumerate() {
            row[head * z.len()..][..z.len()].copy_from_slice(z);
        }
        let mut results = vec![0.0; n_head * n_embd];
        let (w, no_bias) = (self.weights.blocks[layer].attn_proj.weight_matrix(), vec![0.0; n_embd]);
        let y = RowsMut::dense(&mut results, n_embd);
        linear(&self.pool, Rows::dense(&alone, n_embd), w, &no_bias, Epilogue::Store, y);
        results
    }

    /// The bias of a block's `c_proj` in attention, `[n_embd]`, which belongs to no head.
    ///
    /// # Panics
    /// Where there is no such block.
    pub fn attn_bias(&self, layer: usize) -> &[f32] {
        self.weights.blocks[layer].attn_proj.bias()
    }
}
