//! Counters and gauges of an engine.

use crate::generate::DraftStats;

/// Counters since the start, and gauges of the present state. Statistics are published before a step's events
/// are sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Maximum running sequences.
    pub batch_slots: usize,
    /// Running sequences.
    pub running: usize,
    /// Waiting sequences.
    pub waiting: usize,
    /// Bytes of the running sequences' KV caches.
    pub kv_bytes: usize,
    /// Tokens in the running sequences' KV caches.
    pub kv_tokens: usize,
    /// Tokens in the KV caches if the sequences of all batch slots fill their context.
    pub max_kv_tokens: usize,
    /// Forward passes.
    pub steps: u64,
    /// `batch_sizes[n]` forward passes had a batch of `n` sequences.
    pub batch_sizes: Vec<u64>,
    /// Prompt tokens computed by the model.
    pub prompt_tokens_computed: u64,
    /// Prompt tokens whose keys and values were copied from a running sequence or the prefix cache.
    pub prompt_tokens_cached: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Speculative decoding; each sequence of a pass with a draft counts.
    pub drafts: DraftStats,
    /// Requests with at least one cached prompt token.
    pub prefix_cache_hits: u64,
    /// Requests without a cached prompt token.
    pub prefix_cache_misses: u64,
    /// Sequences in the prefix cache.
    pub prefix_cache_entries: usize,
    /// Bytes of the prefix cache.
    pub prefix_cache_bytes: usize,
}
