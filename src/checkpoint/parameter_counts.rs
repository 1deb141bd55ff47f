//! How many numbers a model learned, part by part, and how many bytes they are.

use super::quantized::quantized_bytes;
use super::tensor::{Dtype, Tensor};
use super::{BlockWeights, Checkpoint, LayerNormWeights, LinearWeights};

/// Learned numbers by the part they belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterCounts {
    /// `wte`, one row a token.
    pub token_embeddings: usize,
    /// `wpe`, one row a position; none where positions are computed.
    pub position_embeddings: usize,
    /// `c_attn` and `c_proj` of every block's attention.
    pub attention: usize,
    /// `c_fc` and `c_proj` of every block's MLP.
    pub mlp: usize,
    /// The layer norms.
    pub layer_norms: usize,
    /// `lm_head`, where it is not `wte` itself.
    pub head: usize,
}

impl ParameterCounts {
    /// All together.
    pub fn total(&self) -> usize {
        let Self { token_embeddings, position_embeddings, attention, mlp, layer_norms, head } = self;
        token_embeddings + position_embeddings + attention + mlp + layer_norms + head
    }
}

impl Checkpoint {
    /// How many numbers the model learned, whatever they are stored in.
    pub fn parameter_counts(&self) -> ParameterCounts {
        let weights = &self.weights;
        let norm = |norm: &LayerNormWeights| norm.weight.len() + norm.bias.len();
        let linear = |linear: &LinearWeights| linear.weight.len() + linear.bias.len();
        let blocks = |part: &dyn Fn(&BlockWeights) -> usize| weights.h.iter().map(part).sum::<usize>();
        // A quantized file has the head beside the embeddings even where they are one.
        let head = weights.lm_head.as_ref().filter(|_| !self.config.tie_word_embeddings);
        ParameterCounts {
            token_embeddings: weights.wte.len(),
            position_embeddings: weights.wpe.as_ref().map_or(0, Tensor::len),
            attention: blocks(&|block| linear(&block.attn.c_attn) + linear(&block.attn.c_proj)),
            mlp: blocks(&|block| linear(&block.mlp.c_fc) + linear(&block.mlp.c_proj)),
            layer_norms: blocks(&|block| norm(&block.ln_1) + norm(&block.ln_2)) + norm(&weights.ln_f),
            head: head.map_or(0, Tensor::len),
        }
    }

    /// Bytes that every token reads where the model computes in `dtype`: the blocks, the last layer norm and the head.
    /// Of the embeddings, which stay as they are stored, it reads a row each.
    pub fn pass_bytes(&self, dtype: Dtype) -> usize {
        let matrix = |[rows, columns]: [usize; 2], dtype: Dtype| match dtype.bytes() {
            Some(bytes) => rows * columns * bytes,
            None => quantized_bytes(dtype, rows, columns).iter().sum(),
        };
        let vectors = |tensors: &[&Tensor]| tensors.iter().map(|tensor| tensor.stored_bytes()).sum::<usize>();
        let linear = |linear: &LinearWeights| {
            let shape = linear.weight.shape();
            matrix([shape[0], shape[1]], dtype) + vectors(&[&linear.bias])
        };
        let norm = |norm: &LayerNormWeights| vectors(&[&norm.weight, &norm.bias]);
        let block = |block: &BlockWeights| {
            let linears = [&block.attn.c_attn, &block.attn.c_proj, &block.mlp.c_fc, &block.mlp.c_proj];
            norm(&block.ln_1) + norm(&block.ln_2) + linears.map(linear).iter().sum::<usize>()
        };
        let (n_embd, vocab_size) = (self.config.n_embd, self.config.vocab_size);
        // Four bits would be too few for the head. Turned over, it is a linear layer with a bias of zeros.
        let (head, zeros) = match dtype {
            Dtype::Int4 => (Dtype::Int8, vocab_size * size_of::<f32>()),
            plain if plain.is_plain() => (plain, 0),
            packed => (packed, vocab_size * size_of::<f32>()),
        };
        let blocks = self.weights.h.iter().map(block).sum::<usize>();
        blocks + norm(&self.weights.ln_f) + matrix([n_embd, vocab_size], head) + zeros
    }

    /// Bytes of all weights where the model computes in `dtype`, mapped or not.
    pub fn weight_bytes(&self, dtype: Dtype) -> usize {
        let weights = &self.weights;
        // The table of a tied head serves twice, unless it has to be converted.
        let shared = weights.lm_head.is_none() && weights.wte.dtype() == dtype;
        let table = if shared { 0 } else { weights.wte.stored_bytes() };
        self.pass_bytes(dtype) + table + weights.wpe.as_ref().map_or(0, Tensor::stored_bytes)
    }

    /// The precision the matrices are stored in.
    pub fn stored_dtype(&self) -> Dtype {
        self.quantized().unwrap_or(self.weights.wte.dtype())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fables_parts_are_those_of_its_shape() {
        let parameters = Checkpoint::embedded().unwrap().parameter_counts();
        let expected = ParameterCounts {
            token_embeddings: 4096 * 256,
            position_embeddings: 512 * 256,
            attention: 6 * (256 * 768 + 768 + 256 * 256 + 256),
            mlp: 6 * (256 * 1024 + 1024 + 1024 * 256 + 256),
            layer_norms: 13 * 512,
            head: 0,
        };
        assert_eq!(parameters, expected);
        assert_eq!(parameters.total(), 5_918_720);
    }
}
