//! Prompt lookup: drafts that come from the text itself (Saxena 2023). If the last tokens (an n-gram) have
//! occurred earlier in the prompt or in the completion, the tokens that followed them are drafted.
//!
//! A rejected draft costs time, so the draft length adapts to the acceptance rate: it grows by one with every
//! accepted token and is halved by every rejected one. Below [`MIN_DRAFT_LEN`] a draft of one token is still
//! made and compared with the output, but no forward pass is spent on it. So text without repetition costs
//! nothing, and drafting resumes when it starts to repeat itself.

use std::collections::HashMap;
use std::hash::Hash;

/// Draft length at the start of a completion.
const INITIAL_DRAFT_LEN: usize = 4;
/// Minimum draft length that is verified by the model; shorter drafts are only compared with the output.
const MIN_DRAFT_LEN: usize = 3;

/// The usual maximum of tokens in a draft.
pub const DEFAULT_MAX_DRAFT_LEN: usize = 8;

/// What has occurred in a text, and how long drafts from it are.
pub(super) struct PromptLookup {
    /// Maximum tokens of a draft.
    max_draft_len: usize,
    ngrams: NgramIndex,
    /// The current draft length, adapted to the acceptance rate.
    draft_len: usize,
}

impl PromptLookup {
    /// Creates drafts of up to `max_draft_len` tokens.
    pub(super) fn new(max_draft_len: usize) -> Self {
        Self { max_draft_len, ngrams: NgramIndex::default(), draft_len: INITIAL_DRAFT_LEN }
    }

    /// Prepares for another completion.
    pub(super) fn restart(&mut self) {
        *self = Self::new(self.max_draft_len);
    }

    /// Adapts the draft length to whether a draft token was accepted.
    pub(super) fn record_acceptance(&mut self, is_accepted: bool) {
        self.draft_len = match is_accepted {
            true => (self.draft_len + 1).min(self.max_draft_len.max(MIN_DRAFT_LEN)),
            false => self.draft_len / 2,
        };
    }

    /// Appends the tokens that are expected after `tokens` to `draft`, and returns how many of them the model
    /// is to compute, at most `room`.
    pub(super) fn draft(&mut self, tokens: &[u32], room: usize, draft: &mut Vec<u32>) -> usize {
        self.ngrams.extend(tokens);
        let len = match self.draft_len < MIN_DRAFT_LEN {
            true => 0,
            false => self.draft_len.min(self.max_draft_len).min(room),
        };
        let Some(start) = self.ngrams.lookup(tokens) else { return 0 };
        let first = draft.len();
        // The copied range may extend into the draft itself, so that a cycle is continued at any length.
        for i in start..start + len.max(1) {
            let next = tokens.get(i).copied().unwrap_or_else(|| draft[first + i - tokens.len()]);
            draft.push(next);
        }
        len
    }
}

/// The position after the last occurrence of each bigram and trigram of a text.
#[derive(Debug, Default)]
struct NgramIndex {
    /// Number of tokens indexed.
    indexed: usize,
    trigrams: HashMap<[u32; 3], usize>,
    bigrams: HashMap<[u32; 2], usize>,
}

impl NgramIndex {
    /// Indexes the new tokens of a text, except for the n-grams at its end, which nothing follows yet.
    fn extend(&mut self, tokens: &[u32]) {
        for end in self.indexed..tokens.len() {
            index_ngram(&mut self.trigrams, &tokens[..end]);
            index_ngram(&mut self.bigrams, &tokens[..end]);
        }
        self.indexed = self.indexed.max(tokens.len());
    }

    /// Returns the position after the last earlier occurrence of the text's final trigram, or else of its
    /// final bigram.
    fn lookup(&self, tokens: &[u32]) -> Option<usize> {
        lookup_ngram(&self.trigrams, tokens).or_else(|| lookup_ngram(&self.bigrams, tokens))
    }
}

fn index_ngram<const N: usize>(index: &mut HashMap<[u32; N], usize>, prefix: &[u32])
where
    [u32; N]: Hash + Eq,
{
    if let Some(ngram) = prefix.last_chunk() {
        index.insert(*ngram, prefix.len());
    }
}

fn lookup_ngram<const N: usize>(index: &HashMap<[u32; N], usize>, tokens: &[u32]) -> Option<usize>
where
    [u32; N]: Hash + Eq,
{
    index.get(tokens.last_chunk()?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn draft(tokens: &[u32], draft_len: usize, max_draft_len: usize, room: usize) -> (Vec<u32>, usize) {
        let mut lookup = PromptLookup { draft_len, ..PromptLookup::new(max_draft_len) };
        let mut draft = vec![];
        let n_computed = lookup.draft(tokens, room, &mut draft);
        (draft, n_computed)
    }

    #[test]
    fn draft_copies_what_followed_the_last_occurrence() {
        assert_eq!(draft(&[1, 2, 3, 4, 5, 9, 1, 2, 3], 4, 8, 99), (vec![4, 5, 9, 1], 4));
        // A trigram takes precedence over a later bigram, a later occurrence over an earlier one.
        assert_eq!(draft(&[1, 2, 3, 4, 9, 7, 2, 3, 8, 1, 2, 3], 3, 8, 99).0, [4, 9, 7]);
        assert_eq!(draft(&[2, 3, 4, 2, 3, 5, 6, 2, 3], 3, 8, 99).0, [5, 6, 2]);
        assert_eq!(draft(&[1, 2, 3, 4], 4, 8, 99), (vec![], 0));
        assert_eq!(draft(&[1], 4, 8, 99), (vec![], 0));
        assert_eq!(draft(&[7; 4], 8, 5, 99), (vec![7; 5], 5));
        assert_eq!(draft(&[1, 2, 1, 2, 1], 6, 8, 99), (vec![2, 1, 2, 1, 2, 1], 6)); // a cycle
    }

    #[test]
    fn computed_draft_is_limited_by_draft_len_maximum_and_room() {
        let cycle = [1, 2, 1, 2, 1];
        assert_eq!(draft(&cycle, 4, 9, 3), (vec![2, 1, 2], 3));
        assert_eq!(draft(&cycle, 4, 9, 0), (vec![2], 0));
        assert_eq!(draft(&cycle, 4, 2, 9), (vec![2, 1], 2));
        assert_eq!(draft(&cycle, MIN_DRAFT_LEN - 1, 9, 9), (vec![2], 0)); // compared only
    }

    #[test]
    fn draft_len_grows_by_one_and_is_halved() {
        let mut lookup = PromptLookup::new(8);
        let mut record = |is_accepted| {
            lookup.record_acceptance(is_accepted);
            lookup.draft_len
        };
        assert_eq!([true; 6].map(&mut record), [5, 6, 7, 8, 8, 8]);
        assert_eq!([false; 5].map(&mut record), [4, 2, 1, 0, 0]);
        assert_eq!([true; MIN_DRAFT_LEN].map(&mut record), [1, 2, 3]);
    }

    proptest! {
        /// Compares the index with a search of the whole text.
        #[test]
        fn lookup_is_the_last_occurrence_before_the_end(
            tokens in prop::collection::vec(0u32..4, 1..40), cut in any::<prop::sample::Index>(),
        ) {
            let mut ngrams = NgramIndex::default();
            ngrams.extend(&tokens[..=cut.index(tokens.len())]); // in two steps
            ngrams.extend(&tokens);
            let last_occurrence = |n: usize| {
                let ngram = tokens.len().checked_sub(n).map(|start| &tokens[start..])?;
                (n..tokens.len()).rev().find(|&end| tokens[..end].ends_with(ngram))
            };
            prop_assert_eq!(ngrams.lookup(&tokens), last_occurrence(3).or_else(|| last_occurrence(2)));
        }
    }
}
