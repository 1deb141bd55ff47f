//! The KV cache: the keys and values of a sequence's tokens, kept so that each token is computed only once.

use super::{AdapterWeights, Config, Model};
use crate::kernels::attention::{KeyValues, KvPrecision};
use crate::kernels::rows::Rows;
use crate::kernels::thread_pool::ThreadPool;
use std::sync::Arc;

/// The length of the longest common prefix of two sequences, whose keys and values are the same in both.
pub fn common_prefix_len(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The keys and values of one sequence, in every layer. Allocated once; untouched pages take no physical
/// memory. They are those of one adapter, or of none, so the cache says which one the sequence is computed
/// with.
#[derive(Clone, Debug)]
pub struct KvCache {
    layers: Vec<KeyValues>,
    len: usize,
    capacity: usize,
    adapter: Option<Arc<AdapterWeights>>,
}

impl Model {
    /// Creates an empty cache with room for `capacity` tokens, of the model's adapter. The default precision
    /// is [`Model::kv_precision`].
    pub fn kv_cache(&self, capacity: usize, precision: impl Into<Option<KvPrecision>>) -> KvCache {
        let precision = precision.into().unwrap_or(self.kv_precision());
        let head_dim = self.config.n_embd / self.config.n_head;
        let layer = |_| KeyValues::new(self.config.n_head, head_dim, capacity, precision);
        let layers = (0..self.config.n_layer).map(layer).collect();
        KvCache { layers, len: 0, capacity, adapter: self.adapter.clone() }
    }
}

impl KvCache {
    /// Makes an empty cache that of an adapter of its model, or of none.
    ///
    /// # Panics
    /// If it is not empty.
    pub fn with_adapter(self, adapter: Option<Arc<AdapterWeights>>) -> Self {
        assert!(self.is_empty(), "keys and values of another adapter");
        Self { adapter, ..self }
    }

    /// Whether the keys and values are those of this adapter, or of none.
    pub fn is_of(&self, adapter: Option<&Arc<AdapterWeights>>) -> bool {
        self.adapter.as_ref().map(Arc::as_ptr) == adapter.map(Arc::as_ptr)
    }

    /// The adapter that the sequence is computed with.
    pub fn adapter(&self) -> Option<&Arc<AdapterWeights>> {
        self.adapter.as_ref()
    }

    /// The bytes of a cache with room for `capacity` tokens, as factors, as their product may be too large.
    pub fn byte_factors(config: &Config, capacity: usize, precision: KvPrecision) -> [usize; 4] {
        let head_dim = config.n_embd / config.n_head;
        [config.n_layer, config.n_head, capacity, precision.bytes_per_head(head_dim)]
    }

    /// The number of tokens in the cache.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the cache holds no token.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of tokens the cache has room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Drops all but the first `len` tokens.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Copies the contents of another cache of the same shape.
    pub fn copy_from(&mut self, other: &KvCache) {
        for (to, from) in self.layers.iter_mut().zip(&other.layers) {
            to.copy_from(from, other.len);
        }
        self.len = other.len;
        self.adapter.clone_from(&other.adapter);
    }

    /// Creates a cache with the first `len` tokens of this one and room for `capacity` tokens.
    pub fn fork(&self, len: usize, capacity: usize) -> Self {
        let fork = |layer: &KeyValues| {
            let mut fork = KeyValues::new(layer.n_head(), layer.head_dim(), capacity, layer.precision());
            fork.copy_from(layer, len);
            fork
        };
        Self { layers: self.layers.iter().map(fork).collect(), len, capacity, adapter: self.adapter.clone() }
    }

    /// Allocated bytes, filled or not.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(KeyValues::bytes).sum()
    }

    /// The precision of the stored keys and values.
    pub(super) fn precision(&self) -> KvPrecision {
        self.layers[0].precision()
    }

    /// The first layer with a key or value that is NaN or infinite.
    pub(super) fn first_not_finite_layer(&self) -> Option<usize> {
        let all_finite = |layer: &KeyValues| {
            (0..layer.n_head()).all(|h| {
                let (keys, values) = layer.to_f32_vecs(h, self.len);
                keys.iter().chain(&values).all(|x| x.is_finite())
            })
        };
        self.layers.iter().position(|layer| !all_finite(layer))
    }

    /// One layer's keys and values.
    pub(super) fn layer(&self, layer: usize) -> &KeyValues {
        &self.layers[layer]
    }

    /// Appends new tokens' keys and values, `[n, n_embd]` each.
    pub(super) fn append(&mut self, pool: &ThreadPool, layer: usize, k: Rows, v: Rows) {
        self.layers[layer].append(pool, self.len, k, v);
    }

    /// Advances the length by `n` tokens, after every layer has stored them.
    pub(super) fn advance(&mut self, n: usize) {
        self.len += n;
    }
}
