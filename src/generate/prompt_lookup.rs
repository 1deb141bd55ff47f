//! Prompt-lookup decoding: speculative decoding whose drafts come from the text itself.
//!
//! A forward pass reads all weights, for one token as for ten. So if the last tokens (an n-gram) have
//! occurred earlier in the prompt or in the completion, the tokens that followed them are taken as a *draft*
//! of what follows now, and verified in one forward pass. It yields the logits after each draft token at
//! little more than the cost of one token. (Saxena 2023, prompt lookup decoding; Leviathan et al. 2023,
//! speculative decoding, with an n-gram index as the draft model.)
//!
//! ```text
//! text     … the king of Spain had a daughter … the king of
//! draft                                                     Spain had a daughter
//! output                                                    Spain had no
//! ```
//!
//! Drafts never change the output. Each token is sampled from its own logits, with the same noise as
//! without drafts, and draft tokens are accepted as long as they equal the sampled ones. After the first
//! mismatch the rest of the draft is rejected and its keys and values are truncated. As the model's logits
//! are the same bits in a pass of one token and of many, tokens and logprobs are bit-identical to decoding
//! without drafts.
//!
//! A rejected draft costs time, so the draft length adapts to the acceptance rate: it grows by one with every
//! accepted token and is halved by every rejected one. Below [`MIN_DRAFT_LEN`] a draft of one token is still
//! made and compared with the output, but no forward pass is spent on it. So text without repetition costs
//! nothing, and drafting resumes when it starts to repeat itself.

use super::CompletionState;
use crate::Result;
use crate::model::{Observer, Session};
use std::collections::HashMap;
use std::hash::Hash;

/// Draft length at the start of a completion.
const INITIAL_DRAFT_LEN: usize = 4;
/// Minimum draft length that is verified by the model; shorter drafts are only compared with the output.
const MIN_DRAFT_LEN: usize = 3;

/// The drafts of one completion after the other.
pub(super) struct PromptLookup {
    /// Maximum tokens of a draft.
    max_draft_len: usize,
    ngrams: NgramIndex,
    /// The current draft length, adapted to the acceptance rate.
    draft_len: usize,
    /// The tokens predicted to follow.
    draft: Vec<u32>,
    /// Number of draft tokens in the last forward pass.
    n_computed: usize,
    /// Number of draft tokens accepted so far.
    n_accepted: usize,
    stats: DraftStats,
}

/// Statistics of prompt-lookup decoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DraftStats {
    /// Forward passes with a draft.
    pub drafts: usize,
    /// Draft tokens.
    pub drafted_tokens: usize,
    /// Accepted draft tokens.
    pub accepted_tokens: usize,
}

impl PromptLookup {
    /// Creates drafts of up to `max_draft_len` tokens.
    pub(super) fn new(max_draft_len: usize) -> Self {
        Self {
            max_draft_len,
            ngrams: NgramIndex::default(),
            draft_len: INITIAL_DRAFT_LEN,
            draft: vec![],
            n_computed: 0,
            n_accepted: 0,
            stats: DraftStats::default(),
        }
    }

    /// Resets all but the statistics, for another completion.
    pub(super) fn restart(&mut self) {
        *self = Self { stats: self.stats, ..Self::new(self.max_draft_len) };
    }

    /// The statistics so far.
    pub(super) fn stats(&self) -> DraftStats {
        self.stats
    }

    /// Returns the logits of the completion's last token: from the last pass if that token was an accepted
    /// draft token, or from a new pass over it and a new draft. The session holds the tokens before it, or
    /// none.
    ///
    /// # Errors
    /// As [`Model::forward`](crate::model::Model::forward).
    pub(super) fn logits<'s, O: Observer>(
        &mut self,
        session: &'s mut Session<O>,
        state: &CompletionState,
    ) -> Result<&'s [f32]> {
        let (tokens, window) = (state.tokens(), state.window());
        let last = window.len() - 1;
        if self.accepts(window[last]) && self.n_accepted <= self.n_computed {
            self.stats.accepted_tokens += 1;
            return Ok(session.logits().row(self.n_accepted));
        }
        session.truncate(last); // removes rejected draft tokens
        let new = &window[session.len()..];
        // A pass after a context shift has no draft.
        let room = if new.len() > 1 { 0 } else { session.cache().capacity() - window.len() };
        self.ngrams.extend(tokens);
        self.make_draft(tokens, room);
        let draft = &self.draft[..self.n_computed];
        self.stats.drafts += usize::from(!draft.is_empty());
        self.stats.drafted_tokens += draft.len();
        if draft.is_empty() {
            return session.feed(new);
        }
        Ok(session.feed_all(&[new, draft].concat())?.row(0))
    }

    /// Returns whether `token` equals the next draft token, and adapts the draft length.
    fn accepts(&mut self, token: u32) -> bool {
        let Some(&drafted) = self.draft.get(self.n_accepted) else { return false };
        if drafted == token {
            self.n_accepted += 1;
            self.draft_len = (self.draft_len + 1).min(self.max_draft_len.max(MIN_DRAFT_LEN));
        } else {
            self.draft_len /= 2;
        }
        drafted == token
    }

    /// Drafts the next tokens, and sets how many to compute, at most `room`.
    fn make_draft(&mut self, tokens: &[u32], room: usize) {
        let len = match self.draft_len < MIN_DRAFT_LEN {
            true => 0,
            false => self.draft_len.min(self.max_draft_len).min(room),
        };
        (self.n_computed, self.n_accepted) = (0, 0);
        self.draft.clear();
        if let Some(start) = self.ngrams.lookup(tokens) {
            // The copied range may extend into the draft itself, so that a cycle is continued at any length.
            for i in start..start + len.max(1) {
                let next = tokens.get(i).copied().unwrap_or_else(|| self.draft[i - tokens.len()]);
                self.draft.push(next);
            }
            self.n_computed = len;
        }
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
        lookup.ngrams.extend(tokens);
        lookup.make_draft(tokens, room);
        (lookup.draft, lookup.n_computed)
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
        let mut offer = |drafted: u32, token: u32| {
            (lookup.draft, lookup.n_accepted) = (vec![drafted], 0);
            (lookup.accepts(token), lookup.draft_len)
        };
        let accepted: Vec<_> = (0..6).map(|_| offer(5, 5)).collect();
        assert_eq!(accepted, [(true, 5), (true, 6), (true, 7), (true, 8), (true, 8), (true, 8)]);
        let rejected: Vec<_> = (0..5).map(|_| offer(5, 6)).collect();
        assert_eq!(rejected, [(false, 4), (false, 2), (false, 1), (false, 0), (false, 0)]);
        assert_eq!((0..MIN_DRAFT_LEN).map(|_| offer(5, 5).1).last(), Some(MIN_DRAFT_LEN));
        // Without a draft the draft length stays.
        lookup.draft.clear();
        lookup.n_accepted = 0;
        assert_eq!((lookup.accepts(5), lookup.draft_len), (false, MIN_DRAFT_LEN));
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
