//! What a pass cannot do without: bytes to read and operations to compute.

use crate::kernels::attention::KvPrecision;
use crate::model::Model;

/// The cost of a model's passes.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Bytes of weights that every pass reads: the blocks, the last layer norm and the head, not the embeddings, of
    /// which a token reads one row.
    weight_bytes: usize,
    /// Bytes of keys and values of one position, in all layers.
    position_bytes: usize,
    /// Multiply-adds of a block's linear layers for a token.
    block: usize,
    /// Those of them that make keys and values.
    keys_values: usize,
    /// Multiply-adds of the head for a token.
    head: usize,
    n_layer: usize,
    n_embd: usize,
}

impl Cost {
    /// Of a model, with keys and values stored so.
    pub fn of(model: &Model, kv_precision: KvPrecision) -> Self {
        let config = model.config();
        let n_embd = config.n_embd;
        let head_dim = n_embd / config.n_head;
        Self {
            weight_bytes: model.pass_bytes(),
            position_bytes: config.n_layer * config.n_head * kv_precision.bytes_per_head(head_dim),
            block: 4 * n_embd * n_embd + 2 * n_embd * config.n_inner,
            keys_values: 2 * n_embd * n_embd,
            head: n_embd * config.vocab_size,
            n_layer: config.n_layer,
            n_embd,
        }
    }

    /// Bytes that a pass reads which adds one token to each of `sequences` sequences of `depth` tokens.
    pub fn bytes(&self, sequences: usize, depth: f64) -> f64 {
        self.weight_bytes as f64 + sequences as f64 * depth * self.position_bytes as f64
    }

    /// Operations (a multiply-add is two) of `tokens` tokens that follow `position` others and of which the last wants
    /// logits: in the last block the others need no more than keys and values, and no token needs what the mask hides.
    pub fn operations(&self, tokens: usize, position: usize) -> f64 {
        let (n, p) = (tokens as f64, position as f64);
        // Each query meets every token up to its own, once for its score and once for its value.
        let seen = n * p + n * (n + 1.0) / 2.0;
        let attention = |seen: f64| 2.0 * seen * self.n_embd as f64;
        let whole_blocks = (self.n_layer - 1) as f64 * (n * self.block as f64 + attention(seen));
        let last_block = (n - 1.0) * self.keys_values as f64 + self.block as f64 + attention(p + n);
        2.0 * (whole_blocks + last_block + self.head as f64)
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
    fn the_cost_of_fable_by_hand() {
        let cost = Cost::of(&fable(), KvPrecision::F16);
        // Matrices are f16; biases and layer norms were widened to f32.
        let matrices = 6 * (256 * 768 + 256 * 256 + 2 * 256 * 1024) + 4096 * 256;
        let vectors = 6 * (4 * 256 + 768 + 256 + 1024 + 256) + 2 * 256;
        assert_eq!(cost.bytes(1, 0.0), (2 * matrices + 4 * vectors) as f64);
        assert_eq!(cost.bytes(3, 10.0) - cost.bytes(3, 0.0), (3 * 10 * 2 * 6 * 256 * 2) as f64);
        // One token: every matrix once, and attention over itself in every layer.
        assert_eq!(cost.operations(1, 0), (2 * matrices + 6 * 4 * 256) as f64);
    }

    #[test]
    fn a_prompt_costs_what_its_pieces_cost_but_for_logits_nobody_wants() {
        let cost = Cost::of(&fable(), KvPrecision::F32);
        let (whole, apart) = (cost.operations(30, 0), cost.operations(10, 0) + cost.operations(20, 10));
        let extra = 2 * (4096 * 256 + 10 * 256 * 256) + 4 * 256 * 10;
        assert_eq!(apart - whole, extra as f64);
    }
}
