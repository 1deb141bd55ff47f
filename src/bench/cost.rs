//! The minimum cost of a forward pass: bytes to read and FLOPs to compute.

use crate::kernels::attention::KvPrecision;
use crate::model::Model;

/// The cost of a model's forward passes.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Bytes of weights that every pass reads: the blocks, the final layer norm and the LM head, but not the
    /// embeddings, of which a token reads one row.
    weight_bytes: usize,
    /// Bytes of one position's keys and values in all layers.
    kv_bytes_per_position: usize,
    /// Multiply-adds per token of a block's linear layers.
    block_macs: usize,
    /// Multiply-adds per token of a block's key and value projections.
    kv_proj_macs: usize,
    /// Multiply-adds per token of the LM head.
    lm_head_macs: usize,
    n_layer: usize,
    n_embd: usize,
}

impl Cost {
    /// The cost of a model with a KV cache of this precision.
    pub fn new(model: &Model, kv_precision: KvPrecision) -> Self {
        let config = model.config();
        let n_embd = config.n_embd;
        let head_dim = n_embd / config.n_head;
        Self {
            weight_bytes: model.pass_bytes(),
            kv_bytes_per_position: config.n_layer * config.n_head * kv_precision.bytes_per_head(head_dim),
            block_macs: 4 * n_embd * n_embd + 2 * n_embd * config.n_inner,
            kv_proj_macs: 2 * n_embd * n_embd,
            lm_head_macs: n_embd * config.vocab_size,
            n_layer: config.n_layer,
            n_embd,
        }
    }

    /// Returns the bytes read by a decode step of `sequences` sequences with `depth` cached tokens each.
    pub fn decode_bytes(&self, sequences: usize, depth: f64) -> f64 {
        self.weight_bytes as f64 + sequences as f64 * depth * self.kv_bytes_per_position as f64
    }

    /// Returns the FLOPs (a multiply-add is two) of `tokens` tokens after `position` cached ones, with logits
    /// of the last token only: in the last block the other tokens need only their keys and values. Masked
    /// pairs do not count.
    pub fn flops(&self, tokens: usize, position: usize) -> f64 {
        let (n, p) = (tokens as f64, position as f64);
        // Each query meets every token up to its own, once in Q·Kᵀ and once in P·V.
        let pairs = n * p + n * (n + 1.0) / 2.0;
        let attention = |pairs: f64| 2.0 * pairs * self.n_embd as f64;
        let whole_blocks = (self.n_layer - 1) as f64 * (n * self.block_macs as f64 + attention(pairs));
        let last_block = (n - 1.0) * self.kv_proj_macs as f64 + self.block_macs as f64 + attention(p + n);
        2.0 * (whole_blocks + last_block + self.lm_head_macs as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::kernels::isa::Isa;
    use crate::kernels::thread_pool::ThreadPool;

    fn fable() -> Model {
        Model::new(Checkpoint::embedded().unwrap(), ThreadPool::new(1, Isa::Portable))
    }

    #[test]
    fn fable_cost_matches_hand_count() {
        let cost = Cost::new(&fable(), KvPrecision::F16);
        // Matrices are f16; biases and layer norms were converted to f32.
        let matrices = 6 * (256 * 768 + 256 * 256 + 2 * 256 * 1024) + 4096 * 256;
        let vectors = 6 * (4 * 256 + 768 + 256 + 1024 + 256) + 2 * 256;
        assert_eq!(cost.decode_bytes(1, 0.0), (2 * matrices + 4 * vectors) as f64);
        assert_eq!(cost.decode_bytes(3, 10.0) - cost.decode_bytes(3, 0.0), (3 * 10 * 2 * 6 * 256 * 2) as f64);
        // One token: every matrix once, and attention to itself in every layer.
        assert_eq!(cost.flops(1, 0), (2 * matrices + 6 * 4 * 256) as f64);
    }

    #[test]
    fn chunked_prompt_costs_extra_only_for_unused_logits() {
        let cost = Cost::new(&fable(), KvPrecision::F32);
        let (whole, chunked) = (cost.flops(30, 0), cost.flops(10, 0) + cost.flops(20, 10));
        let extra = 2 * (4096 * 256 + 10 * 256 * 256) + 4 * 256 * 10;
        assert_eq!(chunked - whole, extra as f64);
    }
}
