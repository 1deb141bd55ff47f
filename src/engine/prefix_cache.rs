//! The prefix cache: keys and values of finished sequences, reused by sequences with the same first tokens.
//!
//! In a conversation, every turn resends all previous messages, and programs often send the same instructions
//! before every question. A token's keys and values depend only on the tokens before it and on the adapter,
//! so the longest common prefix of two sequences of one adapter is computed once.

use crate::model::{AdapterWeights, KvCache, common_prefix_len};
use std::sync::Arc;

/// Finished sequences, bounded in bytes; the least recently used one is evicted first (LRU).
pub(super) struct PrefixCache {
    entries: Vec<Entry>,
    /// Maximum size in bytes.
    capacity: usize,
    bytes: usize,
    /// Counter of uses, for LRU eviction.
    clock: u64,
}

struct Entry {
    tokens: Vec<u32>,
    /// Keys and values of exactly `tokens`.
    cache: KvCache,
    last_used: u64,
}

/// A cached prefix of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PrefixMatch {
    entry: usize,
    /// The number of tokens in common, at least one.
    pub(super) len: usize,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.cache.bytes() + size_of_val(&self.tokens[..])
    }

    /// Whether the entry begins with the tokens of another cache, of the same adapter.
    fn covers(&self, tokens: &[u32], cache: &KvCache) -> bool {
        self.tokens.starts_with(tokens) && self.cache.is_of(cache.adapter())
    }
}

impl PrefixCache {
    /// An empty cache of at most `capacity` bytes.
    pub(super) fn new(capacity: usize) -> Self {
        Self { entries: vec![], capacity, bytes: 0, clock: 0 }
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Size in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Inserts a sequence; `cache` holds the keys and values of exactly `tokens`.
    pub(super) fn insert(&mut self, tokens: &[u32], cache: KvCache) {
        assert_eq!(tokens.len(), cache.len());
        self.clock += 1;
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.covers(tokens, &cache)) {
            entry.last_used = self.clock; // already covered by a longer entry
            return;
        }
        // A completion that ended early leaves unused capacity, which is freed.
        let cache = match cache.capacity() >= 2 * cache.len() {
            true => cache.fork(cache.len(), cache.len()),
            false => cache,
        };
        let entry = Entry { tokens: tokens.to_vec(), cache, last_used: self.clock };
        if entry.bytes() > self.capacity {
            return;
        }
        self.entries.retain(|older| !entry.covers(&older.tokens, &older.cache));
        self.entries.push(entry);
        self.bytes = self.entries.iter().map(Entry::bytes).sum();
        while self.bytes > self.capacity {
            let lru = (0..self.entries.len()).min_by_key(|&i| self.entries[i].last_used);
            self.remove(lru.expect("a cache of more than 0 bytes has an entry"));
        }
    }

    /// Returns the longest cached prefix of `tokens` of a sequence of this adapter.
    pub(super) fn longest_match(
        &self,
        tokens: &[u32],
        adapter: Option<&Arc<AdapterWeights>>,
    ) -> Option<PrefixMatch> {
        let entries = self.entries.iter().enumerate().filter(|(_, entry)| entry.cache.is_of(adapter));
        let matches =
            entries.map(|(i, entry)| PrefixMatch { entry: i, len: common_prefix_len(&entry.tokens, tokens) });
        matches.filter(|prefix| prefix.len > 0).max_by_key(|prefix| prefix.len)
    }

    /// Returns a KV cache with room for `positions` tokens that holds the matched prefix. It is a copy, or
    /// the entry's own cache if the new sequence continues the whole entry and will replace it when finished.
    pub(super) fn take_or_fork(&mut self, prefix: PrefixMatch, positions: usize) -> KvCache {
        let entry = &mut self.entries[prefix.entry];
        if prefix.len == entry.tokens.len() && positions <= entry.cache.capacity() {
            return self.remove(prefix.entry).cache;
        }
        self.clock += 1;
        entry.last_used = self.clock;
        entry.cache.fork(prefix.len, positions)
    }

    fn remove(&mut self, index: usize) -> Entry {
        let entry = self.entries.swap_remove(index);
        self.bytes -= entry.bytes();
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Hornbook;
    use crate::kernels::attention::KvPrecision;
    use crate::model::Session;

    /// A KV cache of `tokens`, computed by the model.
    fn computed(hornbook: &Hornbook, tokens: &[u32], positions: usize) -> KvCache {
        let mut session = Session::new(hornbook.model(), positions, KvPrecision::F32);
        session.feed(tokens).unwrap();
        session.cache().clone()
    }

    #[test]
    fn least_recently_used_entry_is_evicted_within_capacity() {
        let hornbook = Hornbook::open("fable").unwrap();
        let size = computed(&hornbook, &[0], 64).bytes();
        let mut prefixes = PrefixCache::new(3 * (size + 100));
        for i in 1..=3 {
            prefixes.insert(&[i, i], computed(&hornbook, &[i, i], 3));
        }
        assert_eq!(prefixes.len(), 3);
        let first = prefixes.longest_match(&[1, 9], None).unwrap();
        assert_eq!((first.len, prefixes.take_or_fork(first, 100).len()), (1, 1)); // a copy
        for i in 4..20 {
            prefixes.insert(&[i, i], computed(&hornbook, &[i, i], 3));
            assert!(prefixes.bytes() <= 3 * (size + 100) && prefixes.len() == 3);
            // The second was used least recently, then the third; the first is used all the time.
            assert_eq!(prefixes.longest_match(&[2], None), None);
            assert_eq!(prefixes.longest_match(&[3], None).is_some(), i == 4);
            let first = prefixes.longest_match(&[1], None).unwrap();
            prefixes.take_or_fork(first, 100);
        }
        // An entry larger than the capacity evicts nothing.
        let long: Vec<u32> = (100..400).collect();
        prefixes.insert(&long, computed(&hornbook, &long, 300));
        assert!(prefixes.len() == 3 && prefixes.longest_match(&long, None).is_none());
        let mut disabled = PrefixCache::new(0);
        disabled.insert(&[1], computed(&hornbook, &[1], 1));
        assert_eq!((disabled.len(), disabled.bytes()), (0, 0));
    }

    #[test]
    fn prefix_of_another_entry_is_stored_once() {
        let hornbook = Hornbook::open("fable").unwrap();
        let mut prefixes = PrefixCache::new(usize::MAX);
        let insert = |prefixes: &mut PrefixCache, tokens: &[u32], positions| {
            prefixes.insert(tokens, computed(&hornbook, tokens, positions));
        };
        insert(&mut prefixes, &[1, 2], 2);
        insert(&mut prefixes, &[1, 2, 3], 500);
        insert(&mut prefixes, &[1], 1);
        assert_eq!(prefixes.len(), 1);
        let unused = "unused capacity is freed";
        assert_eq!(prefixes.bytes(), computed(&hornbook, &[1], 3).bytes() + 12, "{unused}");
        insert(&mut prefixes, &[1, 3], 3);
        assert_eq!(prefixes.len(), 2);
        let prefix = prefixes.longest_match(&[1, 2, 3, 4], None).unwrap();
        assert_eq!(prefix.len, 3);
        // Copied if the entry's capacity is too small to continue; taken as it is otherwise.
        assert_eq!((prefixes.take_or_fork(prefix, 4).len(), prefixes.len()), (3, 2));
        let prefix = prefixes.longest_match(&[1, 3, 4], None).unwrap();
        assert_eq!((prefixes.take_or_fork(prefix, 3).len(), prefixes.len()), (2, 1));
        assert_eq!(prefixes.longest_match(&[2], None), None);
    }
}
