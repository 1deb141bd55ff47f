//! Where each tensor of a GPT-2 lies in one long vector of numbers. Weights, gradients and the optimizer's
//! moments are four such vectors with the same layout, so that what concerns all of them (zeroing, the norm
//! of the gradient, saving) needs no list of tensors.

use crate::checkpoint::{Config, PositionEmbedding};
use std::ops::Range;

/// A tensor: its name in the checkpoint, and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorPlace {
    /// The name, as transformers writes it: `transformer.h.0.attn.c_attn.weight`.
    pub name: String,
    /// `[in, out]` for the matrix of a linear layer, `[rows, n_embd]` for a table.
    pub shape: Vec<usize>,
    /// Its elements in the vector.
    pub range: Range<usize>,
}

impl TensorPlace {
    /// Adds a tensor after those that there are. Returns its elements.
    pub(super) fn after(tensors: &mut Vec<Self>, name: String, shape: &[usize]) -> Range<usize> {
        let start = tensors.last().map_or(0, |last| last.range.end.next_multiple_of(ALIGNMENT));
        let range = start..start + shape.iter().product::<usize>();
        tensors.push(Self { name, shape: shape.to_vec(), range: range.clone() });
        range
    }

    /// Whether it is a matrix or a table, not a bias or a layer norm's vector.
    pub fn is_matrix(&self) -> bool {
        self.shape.len() == 2
    }

    /// The matrices of a linear layer that lie side by side in the tensor: queries, keys and values in
    /// `c_attn`, else one. None for what is not the matrix of a block's linear layer.
    pub fn parts(&self) -> Option<usize> {
        let is_linear = self.is_matrix() && self.name.starts_with("transformer.h.");
        is_linear.then(|| if self.name.ends_with("c_attn.weight") { 3 } else { 1 })
    }
}

/// The places of weight and bias.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightAndBias {
    /// `[in, out]` in a linear layer, `[n_embd]` in a layer norm.
    pub weight: Range<usize>,
    /// `[out]` in a linear layer, `[n_embd]` in a layer norm.
    pub bias: Range<usize>,
}

/// The places of a block's tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// The layer norm before attention.
    pub ln_1: WeightAndBias,
    /// `[n_embd, 3 * n_embd]`: queries, keys and values.
    pub c_attn: WeightAndBias,
    /// `[n_embd, n_embd]`
    pub attn_proj: WeightAndBias,
    /// The layer norm before the MLP.
    pub ln_2: WeightAndBias,
    /// `[n_embd, n_inner]`
    pub c_fc: WeightAndBias,
    /// `[n_inner, n_embd]`
    pub mlp_proj: WeightAndBias,
}

/// The places of all trained tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// `[vocab_size, n_embd]`
    pub wte: Range<usize>,
    /// `[n_positions, n_embd]`; none for sinusoidal position embeddings, which are not trained.
    pub wpe: Option<Range<usize>>,
    /// The blocks.
    pub blocks: Vec<Block>,
    /// The last layer norm.
    pub ln_f: WeightAndBias,
    /// `[vocab_size, n_embd]`; none if the LM head is `wte`.
    pub lm_head: Option<Range<usize>>,
    /// All of them, in the order of the forward pass.
    pub tensors: Vec<TensorPlace>,
}

/// Every tensor begins at a cache line.
const ALIGNMENT: usize = 16;

impl Layout {
    /// Lays out the tensors of a model.
    pub fn new(config: &Config) -> Self {
        let &Config { n_embd, n_inner, vocab_size, n_positions, .. } = config;
        let mut tensors: Vec<TensorPlace> = vec![];
        let mut place = |name: String, shape: &[usize]| TensorPlace::after(&mut tensors, name, shape);
        let wte = place("transformer.wte.weight".into(), &[vocab_size, n_embd]);
        let wpe = (config.position_embedding_type == PositionEmbedding::Learned)
            .then(|| place("transformer.wpe.weight".into(), &[n_positions, n_embd]));
        let mut layer = |name: String, shape: &[usize]| WeightAndBias {
            weight: place(format!("transformer.{name}.weight"), shape),
            bias: place(format!("transformer.{name}.bias"), &shape[shape.len() - 1..]),
        };
        let block = |i| Block {
            ln_1: layer(format!("h.{i}.ln_1"), &[n_embd]),
            c_attn: layer(format!("h.{i}.attn.c_attn"), &[n_embd, 3 * n_embd]),
            attn_proj: layer(format!("h.{i}.attn.c_proj"), &[n_embd, n_embd]),
            ln_2: layer(format!("h.{i}.ln_2"), &[n_embd]),
            c_fc: layer(format!("h.{i}.mlp.c_fc"), &[n_embd, n_inner]),
            mlp_proj: layer(format!("h.{i}.mlp.c_proj"), &[n_inner, n_embd]),
        };
        let blocks = (0..config.n_layer).map(block).collect();
        let ln_f = layer("ln_f".into(), &[n_embd]);
        let lm_head =
            (!config.tie_word_embeddings).then(|| place("lm_head.weight".into(), &[vocab_size, n_embd]));
        Self { wte, wpe, blocks, ln_f, lm_head, tensors }
    }

    /// The length of the vector.
    pub fn len(&self) -> usize {
        self.tensors.last().map_or(0, |last| last.range.end)
    }

    /// Whether there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The table of the LM head.
    pub fn head(&self) -> &Range<usize> {
        self.lm_head.as_ref().unwrap_or(&self.wte)
    }
}
