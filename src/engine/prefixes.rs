//! The prefix cache: keys and values of sequences that are over, for those that begin alike.
//!
//! Conversations send everything said so far with every turn, and programs send the same instructions before every
//! question. A token's keys and values depend on the tokens before it alone, so the longest beginning that two sequences
//! share is computed once.

use crate::model::{KvCache, common};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Hornbook;
    use crate::kernels::attention::KvPrecision;
    use crate::model::Session;

    /// A cache of so many tokens that were really computed.
    fn computed(hornbook: &Hornbook, tokens: &[u32], positions: usize) -> KvCache {
        let mut session = Session::new(hornbook.model(), positions, KvPrecision::F32);
        session.feed(tokens).unwrap();
        session.cache().clone()
    }

    #[test]
    fn the_least_recently_used_goes_first_and_the_bound_holds() {
        let hornbook = Hornbook::open("fable").unwrap();
        let size = computed(&hornbook, &[0], 64).bytes();
        let mut prefixes = Prefixes::new(3 * (size + 100));
        for i in 1..=3 {
            prefixes.put(&[i, i], computed(&hornbook, &[i, i], 3));
        }
        assert_eq!(prefixes.len(), 3);
        let first = prefixes.longest(&[1, 9]).unwrap();
        assert_eq!((first.len, prefixes.take(first, 100).len()), (1, 1)); // a copy
        for i in 4..20 {
            prefixes.put(&[i, i], computed(&hornbook, &[i, i], 3));
            assert!(prefixes.bytes() <= 3 * (size + 100) && prefixes.len() == 3);
            // The second was used least recently, then the third; the first is used all the time.
            assert_eq!(prefixes.longest(&[2]), None);
            assert_eq!(prefixes.longest(&[3]).is_some(), i == 4);
            let first = prefixes.longest(&[1]).unwrap();
            prefixes.take(first, 100);
        }
        // What is too large by itself throws nobody out.
        let long: Vec<u32> = (100..400).collect();
        prefixes.put(&long, computed(&hornbook, &long, 300));
        assert!(prefixes.len() == 3 && prefixes.longest(&long).is_none());
        let mut none = Prefixes::new(0);
        none.put(&[1], computed(&hornbook, &[1], 1));
        assert_eq!((none.len(), none.bytes()), (0, 0));
    }

    #[test]
    fn a_sequence_that_another_holds_is_kept_once() {
        let hornbook = Hornbook::open("fable").unwrap();
        let mut prefixes = Prefixes::new(usize::MAX);
        let put = |prefixes: &mut Prefixes, tokens: &[u32], positions| {
            prefixes.put(tokens, computed(&hornbook, tokens, positions));
        };
        put(&mut prefixes, &[1, 2], 2);
        put(&mut prefixes, &[1, 2, 3], 500);
        put(&mut prefixes, &[1], 1);
        assert_eq!(prefixes.len(), 1);
        assert_eq!(prefixes.bytes(), computed(&hornbook, &[1], 3).bytes() + 12, "the room it did not use");
        put(&mut prefixes, &[1, 3], 3);
        assert_eq!(prefixes.len(), 2);
        let found = prefixes.longest(&[1, 2, 3, 4]).unwrap();
        assert_eq!(found.len, 3);
        // Copied where there is no room to go on; taken as it is where there is.
        assert_eq!((prefixes.take(found, 4).len(), prefixes.len()), (3, 2));
        let found = prefixes.longest(&[1, 3, 4]).unwrap();
        assert_eq!((prefixes.take(found, 3).len(), prefixes.len()), (2, 1));
        assert_eq!(prefixes.longest(&[2]), None);
    }
}
