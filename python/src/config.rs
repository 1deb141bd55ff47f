//! The configuration of a model.

use hornbook::checkpoint;
use pyo3::prelude::*;

/// A model's configuration, with the names of ``config.json``.
#[pyclass(frozen, get_all, eq, module = "hornbook")]
#[derive(Clone, PartialEq)]
pub struct Config {
    /// The number of blocks.
    n_layer: usize,
    /// The number of attention heads per block.
    n_head: usize,
    /// The width of the residual stream.
    n_embd: usize,
    /// The width of the MLP's hidden layer.
    n_inner: usize,
    /// The context length in tokens.
    n_positions: usize,
    /// The number of tokens in the vocabulary.
    vocab_size: usize,
    /// Added to the variance in every layer norm.
    layer_norm_epsilon: f32,
    /// Whether the LM head is the token embedding.
    tie_word_embeddings: bool,
}

impl From<&checkpoint::Config> for Config {
    fn from(config: &checkpoint::Config) -> Self {
        Self {
            n_layer: config.n_layer,
            n_head: config.n_head,
            n_embd: config.n_embd,
            n_inner: config.n_inner,
            n_positions: config.n_positions,
            vocab_size: config.vocab_size,
            layer_norm_epsilon: config.layer_norm_epsilon,
            tie_word_embeddings: config.tie_word_embeddings,
        }
    }
}

#[pymethods]
impl Config {
    fn __repr__(&self) -> String {
        format!(
            "Config(n_layer={}, n_head={}, n_embd={}, n_inner={}, n_positions={}, vocab_size={})",
            self.n_layer, self.n_head, self.n_embd, self.n_inner, self.n_positions, self.vocab_size
        )
    }
}
