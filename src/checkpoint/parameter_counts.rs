//! Parameter counts of a model by component, and the size of its weights in bytes.

use super::tensor::Tensor;
use super::{BlockWeights, Checkpoint, LayerNormWeights, LinearWeights};
use crate::kernels::formats::Precision;

/// The number of parameters of each component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterCounts {
    /// `wte`, one row per token.
    pub token_embeddings: usize,
    /// `wpe`, one row per position; 0 if positions are sinusoidal.
    pub position_embeddings: usize,
    /// `c_attn` and `c_proj` of every block's attention.
    pub attention: usize,
    /// `c_fc` and `c_proj` of every block's MLP.
    pub mlp: usize,
    /// The layer norms.
    pub layer_norms: usize,
    /// `lm_head`; 0 if it is tied to `wte`.
    pub lm_head: usize,
}

impl ParameterCounts {
    /// The sum over all components.
    pub fn total(&self) -> usize {
        let Self { token_embeddings, position_embeddings, attention, mlp, layer_norms, lm_head } = self;
        token_embeddings + position_embeddings + attention + mlp + layer_norms + lm_head
    }
}

impl Checkpoint {
    /// The number of parameters of each component, independent of their precision.
    pub fn parameter_counts(&self) -> ParameterCounts {
        let weights = &self.weights;
        let norm = |norm: &LayerNormWeights| norm.weight.len() + norm.bias.len();
        let linear = |linear: &LinearWeights| linear.weight.len() + linear.bias.len();
        let blocks = |count: &dyn Fn(&BlockWeights) -> usize| weights.h.iter().map(count).sum::<usize>();
        // A quantized file has a separate LM head even if it is tied to the embeddings.
        let lm_head = weights.lm_head.as_ref().filter(|_| !self.config.tie_word_embeddings);
        ParameterCounts {
            token_embeddings: weights.wte.len(),
            position_embeddings: weights.wpe.as_ref().map_or(0, Tensor::len),
            attention: blocks(&|block| linear(&block.attn.c_attn) + linear(&block.attn.c_proj)),
            mlp: blocks(&|block| linear(&block.mlp.c_fc) + linear(&block.mlp.c_proj)),
            layer_norms: blocks(&|block| norm(&block.ln_1) + norm(&block.ln_2)) + norm(&weights.ln_f),
            lm_head: lm_head.map_or(0, Tensor::len),
        }
    }

    /// The bytes of weights read by a forward pass if the model computes in `precision`: the blocks, the last
    /// layer norm and the LM head. The embeddings are not counted: each token reads only one row of them.
    pub fn pass_bytes(&self, precision: Precision) -> usize {
        let vectors = |tensors: &[&Tensor]| tensors.iter().map(|tensor| tensor.stored_bytes()).sum::<usize>();
        let linear =
            |linear: &LinearWeights| precision.bytes(linear.weight.shape()) + vectors(&[&linear.bias]);
        let norm = |norm: &LayerNormWeights| vectors(&[&norm.weight, &norm.bias]);
        let block = |block: &BlockWeights| {
            let linears = [&block.attn.c_attn, &block.attn.c_proj, &block.mlp.c_fc, &block.mlp.c_proj];
            norm(&block.ln_1) + norm(&block.ln_2) + linears.map(linear).iter().sum::<usize>()
        };
        let (n_embd, vocab_size) = (self.config.n_embd, self.config.vocab_size);
        let lm_head = precision.lm_head();
        // A quantized LM head is a linear layer with a zero bias.
        let zero_bias = if lm_head.is_quantized() { vocab_size * size_of::<f32>() } else { 0 };
        let blocks = self.weights.h.iter().map(block).sum::<usize>();
        blocks + norm(&self.weights.ln_f) + lm_head.bytes(&[n_embd, vocab_size]) + zero_bias
    }

    /// The bytes of all weights if the model computes in `precision`, mapped or owned.
    pub fn weight_bytes(&self, precision: Precision) -> usize {
        let weights = &self.weights;
        // Tied embeddings are stored once, unless the LM head has to be converted.
        let shared = weights.lm_head.is_none() && weights.wte.precision() == precision;
        let wte = if shared { 0 } else { weights.wte.stored_bytes() };
        self.pass_bytes(precision) + wte + weights.wpe.as_ref().map_or(0, Tensor::stored_bytes)
    }

    /// The precision of the stored matrices.
    pub fn stored_precision(&self) -> Precision {
        self.quantized_precision().unwrap_or(self.weights.wte.precision())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_counts_of_fable_match_its_shape() {
        let parameters = Checkpoint::embedded().unwrap().parameter_counts();
        let expected = ParameterCounts {
            token_embeddings: 4096 * 256,
            position_embeddings: 512 * 256,
            attention: 6 * (256 * 768 + 768 + 256 * 256 + 256),
            mlp: 6 * (256 * 1024 + 1024 + 1024 * 256 + 256),
            layer_norms: 13 * 512,
            lm_head: 0,
        };
        assert_eq!(parameters, expected);
        assert_eq!(parameters.total(), 5_918_720);
    }
}
