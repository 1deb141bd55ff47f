//! The prefix cache: keys and values of sequences that are over, for those that begin alike.
//!
//! Conversations send everything said so far with every turn, and programs send the same instructions before every
//! question. A token's keys and values depend on the tokens before it alone, so the longest beginning that two sequences
//! share is computed once.

use crate::model::KvCache;

/// Sequences that are over, bounded in bytes; the one that was of use least recently goes first.
pub(super) struct Prefixes {
    entries: Vec<Entry>,
    /// Bytes they may take.
    limit: usize,
    bytes: usize,
    /// Counts uses.
    clock: u64,
}

struct Entry {
    tokens: Vec<u32>,
    /// Exactly theirs.
    cache: KvCache,
    used: u64,
}

/// Where a beginning was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    entry: usize,
    /// Tokens in common, at least one.
    pub(super) len: usize,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.cache.bytes() + size_of_val(&self.tokens[..])
    }
}

/// The number of tokens two sequences begin with alike.
pub(super) fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl Prefixes {
    /// An empty cache of at most `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { entries: vec![], limit, bytes: 0, clock: 0 }
    }

    /// Sequences kept.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes they take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps a sequence; `tokens` are those of `cache`.
    pub(super) fn put(&mut self, tokens: &[u32], cache: KvCache) {
        assert_eq!(tokens.len(), cache.len());
        self.clock += 1;
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.tokens.starts_with(tokens)) {
            entry.used = self.clock; // it is there already
            return;
        }
        // What was allocated for a completion that ended early is not worth keeping.
        let cache = match cache.capacity() >= 2 * cache.len() {
            true => cache.fork(cache.len(), cache.len()),
            false => cache,
        };
        let entry = Entry { tokens: tokens.to_vec(), cache, used: self.clock };
        if entry.bytes() > self.limit {
            return;
        }
        self.entries.retain(|older| !tokens.starts_with(&older.tokens));
        self.entries.push(entry);
        self.bytes = self.entries.iter().map(Entry::bytes).sum();
        while self.bytes > self.limit {
            let oldest = (0..self.entries.len()).min_by_key(|&i| self.entries[i].used);
            self.remove(oldest.expect("what takes bytes is there"));
        }
    }

    /// Where the longest beginning of `tokens` is.
    pub(super) fn longest(&self, tokens: &[u32]) -> Option<Found> {
        let entries = self.entries.iter().enumerate();
        let found = entries.map(|(entry, kept)| Found { entry, len: common(&kept.tokens, tokens) });
        found.filter(|found| found.len > 0).max_by_key(|found| found.len)
    }

    /// A cache with room for `positions` tokens that holds what was found: a copy, or the very cache where the sequence
    /// that asks goes on from its end, and is then as good for others.
    pub(super) fn take(&mut self, Found { entry: index, len }: Found, positions: usize) -> KvCache {
        let entry = &mut self.entries[index];
        if len == entry.tokens.len() && positions <= entry.cache.capacity() {
            return self.remove(index).cache;
        }
        self.clock += 1;
        entry.used = self.clock;
        entry.cache.fork(len, positions)
    }

    fn remove(&mut self, index: usize) -> Entry {
        let entry = self.entries.swap_remove(index);
        self.bytes -= entry.bytes();
        entry
    }
}
