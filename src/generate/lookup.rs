//! Prompt lookup: text that repeats itself is written several tokens a pass.
//!
//! A pass over the model reads all of its weights, for one token as for ten. So where the last tokens have stood together
//! before, in the prompt or in what was written, those that followed them then are taken as a *draft* of what follows
//! now and go through the model together. That finds the logits behind each of them at the cost of little more than one.
//! (Saxena 2023, prompt lookup decoding; Leviathan et al. 2023, speculative decoding, with a table for a model.)
//!
//! ```text
//! text     … the king of Spain had a daughter … the king of
//! draft                                                     Spain had a daughter
//! written                                                   Spain had no
//! ```
//!
//! The draft never decides anything. Each token is sampled from its own logits, with the random number it would have had
//! anyway, and the pass counts for as long as the tokens that are sampled are those of the draft. After the first that
//! is another, the keys and values of the rest are forgotten. As the model's logits are the same bits in a pass of one
//! token and of many, tokens and logprobs are to the bit what they are without.
//!
//! A refused draft costs time and brings nothing, so its length follows the success: the *trust* grows by one with every
//! guess that comes true and is halved by every one that does not. With too little trust the guess goes on, of one
//! token, and no pass is spent on it. Open text costs nothing then, and where the text begins to repeat itself it is
//! noticed.

use super::Writer;
use crate::Result;
use crate::model::{Observer, Session};
use std::collections::HashMap;
use std::hash::Hash;

/// The trust at the beginning of a text.
const HOPE: usize = 4;
/// With less trust than this a guess is only compared with what is written.
const PROVEN: usize = 3;

/// Drafts for one completion after the other.
pub(super) struct Lookup {
    /// The most tokens of a draft.
    most: usize,
    places: Places,
    trust: usize,
    /// The tokens that are guessed to follow.
    guess: Vec<u32>,
    /// How many of them went through the model.
    computed: usize,
    /// How many of them have come true.
    came_true: usize,
    drafted: Drafted,
}

/// What came of the drafts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drafted {
    /// Passes with a draft.
    pub drafts: usize,
    /// Tokens drafted.
    pub tokens: usize,
    /// Those of them that were written.
    pub accepted: usize,
}

impl Lookup {
    /// For drafts of up to `most` tokens.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            places: Places::default(),
            trust: HOPE,
            guess: vec![],
            computed: 0,
            came_true: 0,
            drafted: Drafted::default(),
        }
    }

    /// Begins another completion.
    pub(super) fn restart(&mut self) {
        *self = Self { drafted: self.drafted, ..Self::new(self.most) };
    }

    /// What came of the drafts so far.
    pub(super) fn drafted(&self) -> Drafted {
        self.drafted
    }

    /// The logits behind the writer's last token: from the last pass, where it was drafted, or else from a pass over it
    /// and a new draft. The session holds the tokens before it, or none.
    ///
    /// # Errors
    /// As [`Model::forward`](crate::model::Model::forward).
    pub(super) fn logits<'s, O: Observer>(
        &mut self,
        session: &'s mut Session<O>,
        writer: &Writer,
    ) -> Result<&'s [f32]> {
        let (tokens, window) = (writer.tokens(), writer.window());
        let before = window.len() - 1;
        if self.was_right(window[before]) && self.came_true <= self.computed {
            self.drafted.accepted += 1;
            return Ok(session.logits().row(self.came_true));
        }
        session.truncate(before); // of a draft, what did not come true
        let new = &window[session.len()..];
        // Where the context was full and is begun anew, that is a pass of its own.
        let room = if new.len() > 1 { 0 } else { session.cache().capacity() - window.len() };
        self.places.read(tokens);
        self.guess(tokens, room);
        let drafted = &self.guess[..self.computed];
        self.drafted.drafts += usize::from(!drafted.is_empty());
        self.drafted.tokens += drafted.len();
        if drafted.is_empty() {
            return session.feed(new);
        }
        Ok(session.feed_all(&[new, drafted].concat())?.row(0))
    }

    /// Whether the guess was that `token` follows, and learns from it.
    fn was_right(&mut self, token: u32) -> bool {
        let Some(&guess) = self.guess.get(self.came_true) else { return false };
        if guess == token {
            self.came_true += 1;
            self.trust = (self.trust + 1).min(self.most.max(PROVEN));
        } else {
            self.trust /= 2;
        }
        guess == token
    }

    /// Guesses how the text goes on, and how much of that to compute, which is no more than there is `room` for.
    fn guess(&mut self, tokens: &[u32], room: usize) {
        let trusted = if self.trust < PROVEN { 0 } else { self.trust.min(self.most).min(room) };
        (self.computed, self.came_true) = (0, 0);
        self.guess.clear();
        if let Some(place) = self.places.last(tokens) {
            // What is copied may be what was just copied: so a text that goes round and round is followed all the way.
            for i in place..place + trusted.max(1) {
                let next = tokens.get(i).copied().unwrap_or_else(|| self.guess[i - tokens.len()]);
                self.guess.push(next);
            }
            self.computed = trusted;
        }
    }
}

/// Where in a text each pair and each three of tokens have stood last.
#[derive(Debug, Default)]
struct Places {
    /// Tokens that have been read.
    read: usize,
    /// The place behind them.
    threes: HashMap<[u32; 3], usize>,
    twos: HashMap<[u32; 2], usize>,
}

impl Places {
    /// Reads what is new of a text, but for its end, behind which nothing stands yet.
    fn read(&mut self, tokens: &[u32]) {
        for place in self.read..tokens.len() {
            remember(&mut self.threes, &tokens[..place]);
            remember(&mut self.twos, &tokens[..place]);
        }
        self.read = self.read.max(tokens.len());
    }

    /// The place behind the tokens that the text ends with, where they stood before: three of them, or else two.
    fn last(&self, tokens: &[u32]) -> Option<usize> {
        recall(&self.threes, tokens).or_else(|| recall(&self.twos, tokens))
    }
}

fn remember<const N: usize>(places: &mut HashMap<[u32; N], usize>, head: &[u32])
where
    [u32; N]: Hash + Eq,
{
    if let Some(end) = head.last_chunk() {
        places.insert(*end, head.len());
    }
}

fn recall<const N: usize>(places: &HashMap<[u32; N], usize>, tokens: &[u32]) -> Option<usize> {
    places.get(tokens.last_chunk()?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn guess(tokens: &[u32], trust: usize, most: usize, room: usize) -> (Vec<u32>, usize) {
        let mut lookup = Lookup { trust, ..Lookup::new(most) };
        lookup.places.read(tokens);
        lookup.guess(tokens, room);
        (lookup.guess, lookup.computed)
    }

    #[test]
    fn what_followed_last_time_is_guessed_to_follow() {
        assert_eq!(guess(&[1, 2, 3, 4, 5, 9, 1, 2, 3], 4, 8, 99), (vec![4, 5, 9, 1], 4));
        assert_eq!(guess(&[1, 2, 3, 4, 9, 7, 2, 3, 8, 1, 2, 3], 3, 8, 99).0, [4, 9, 7]); // three count more than two
        assert_eq!(guess(&[2, 3, 4, 2, 3, 5, 6, 2, 3], 3, 8, 99).0, [5, 6, 2]); // the last time counts more
        assert_eq!(guess(&[1, 2, 3, 4], 4, 8, 99), (vec![], 0));
        assert_eq!(guess(&[1], 4, 8, 99), (vec![], 0));
        assert_eq!(guess(&[7; 4], 8, 5, 99), (vec![7; 5], 5));
        assert_eq!(guess(&[1, 2, 1, 2, 1], 6, 8, 99), (vec![2, 1, 2, 1, 2, 1], 6)); // round and round
    }

    #[test]
    fn a_draft_is_as_long_as_trust_bound_and_room_allow() {
        let circle = [1, 2, 1, 2, 1];
        assert_eq!(guess(&circle, 4, 9, 3), (vec![2, 1, 2], 3));
        assert_eq!(guess(&circle, 4, 9, 0), (vec![2], 0));
        assert_eq!(guess(&circle, 4, 2, 9), (vec![2, 1], 2));
        assert_eq!(guess(&circle, PROVEN - 1, 9, 9), (vec![2], 0)); // a guess that costs nothing
    }

    #[test]
    fn trust_grows_step_by_step_and_is_lost_in_halves() {
        let mut lookup = Lookup::new(8);
        let mut trust = |guess: u32, token: u32| {
            (lookup.guess, lookup.came_true) = (vec![guess], 0);
            (lookup.was_right(token), lookup.trust)
        };
        let grown: Vec<_> = (0..6).map(|_| trust(5, 5)).collect();
        assert_eq!(grown, [(true, 5), (true, 6), (true, 7), (true, 8), (true, 8), (true, 8)]);
        let lost: Vec<_> = (0..5).map(|_| trust(5, 6)).collect();
        assert_eq!(lost, [(false, 4), (false, 2), (false, 1), (false, 0), (false, 0)]);
        assert_eq!((0..PROVEN).map(|_| trust(5, 5).1).last(), Some(PROVEN));
        // Where there was no guess, nothing is learnt.
        lookup.guess.clear();
        lookup.came_true = 0;
        assert_eq!((lookup.was_right(5), lookup.trust), (false, PROVEN));
    }

    proptest! {
        /// The definition, by looking through the whole text.
        #[test]
        fn the_place_is_the_last_one_before_the_end(
            tokens in prop::collection::vec(0u32..4, 1..40), cut in any::<prop::sample::Index>(),
        ) {
            let mut places = Places::default();
            places.read(&tokens[..=cut.index(tokens.len())]); // in two readings
            places.read(&tokens);
            let before = |n: usize| {
                let end = tokens.len().checked_sub(n).map(|start| &tokens[start..])?;
                (n..tokens.len()).rev().find(|&place| tokens[..place].ends_with(end))
            };
            prop_assert_eq!(places.last(&tokens), before(3).or_else(|| before(2)));
        }
    }
}
