//! What an engine has done, in numbers.

/// Counters since the start, and the present state. What a request adds is counted before its events can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Sequences that are being computed.
    pub running: usize,
    /// Sequences that wait.
    pub waiting: usize,
    /// Bytes of keys and values of the sequences being computed.
    pub kv_bytes: usize,
    /// Passes through the model.
    pub steps: u64,
    /// `batch_sizes[n]` passes were over `n` sequences.
    pub batch_sizes: Vec<u64>,
    /// Prompt tokens that went through the model.
    pub prompt_tokens_computed: u64,
    /// Prompt tokens whose keys and values were there already, other requests' or earlier ones'.
    pub prompt_tokens_cached: u64,
    /// Tokens written.
    pub generated_tokens: u64,
    /// Requests of which a part was there already.
    pub prefix_cache_hits: u64,
    /// Requests of which nothing was.
    pub prefix_cache_misses: u64,
    /// Finished sequences that are kept.
    pub prefix_cache_entries: usize,
    /// Bytes they take.
    pub prefix_cache_bytes: usize,
}
