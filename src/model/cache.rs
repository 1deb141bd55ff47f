//! The KV cache: what a sequence's tokens have to offer later ones, so that each token is computed once.

use super::Config;
use crate::kernels::attention::{KeyValues, KvPrecision};
use crate::kernels::rows::Rows;
use crate::kernels::thread_pool::ThreadPool;

/// The number of tokens two sequences begin with alike: whose keys and values are the same in both.
pub fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The keys and values of one sequence, in every layer. Allocated once; pages it never reaches cost no memory.
#[derive(Clone, Debug)]
pub struct KvCache {
    layers: Vec<KeyValues>,
    len: usize,
    capacity: usize,
}

impl KvCache {
    /// An empty cache with room for `positions` tokens.
    pub fn new(config: &Config, positions: usize, precision: KvPrecision) -> Self {
        let head_dim = config.n_embd / config.n_head;
        let layer = |_| KeyValues::new(config.n_head, head_dim, positions, precision);
        Self { layers: (0..config.n_layer).map(layer).collect(), len: 0, capacity: positions }
    }

    /// Tokens in the cache.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tokens there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets all but the first `len` tokens.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Becomes a copy of another cache of the same shape.
    pub fn copy_from(&mut self, other: &KvCache) {
        for (to, from) in self.layers.iter_mut().zip(&other.layers) {
            to.copy_from(from, other.len);
        }
        self.len = other.len;
    }

    /// A cache of its own that starts with the first `len` tokens of this one and has room for `positions`.
    pub fn fork(&self, len: usize, positions: usize) -> Self {
        let fork = |layer: &KeyValues| {
            let mut fork = KeyValues::new(layer.n_head(), layer.head_dim(), positions, layer.precision());
            fork.copy_from(layer, len);
            fork
        };
        Self { layers: self.layers.iter().map(fork).collect(), len, capacity: positions }
    }

    /// Bytes it takes, filled or not.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(KeyValues::bytes).sum()
    }

    /// One layer's keys and values.
    pub(super) fn layer(&self, layer: usize) -> &KeyValues {
        &self.layers[layer]
    }

    /// Stores new tokens' keys and values, `[n, n_embd]` each, behind those that are there.
    pub(super) fn append(&mut self, pool: &ThreadPool, layer: usize, k: Rows, v: Rows) {
        self.layers[layer].append(pool, self.len, k, v);
    }

    /// Counts `n` tokens as stored, once every layer has them.
    pub(super) fn advance(&mut self, n: usize) {
        self.len += n;
    }
}
