//! The n best of many scores without sorting them.

use std::cmp::Ordering;

/// Scores that are looked at together: as many as a few vector registers hold.
const BLOCK: usize = 16;

/// Keeps the `n` best scores of one or more passes, in room for a few times as many.
#[derive(Clone, Debug, Default)]
pub struct Best {
    n: usize,
    /// Everything that may be among the best; thinned out when full.
    held: Vec<(f32, u32)>,
    /// Scores no better than this cannot be among the best.
    threshold: f32,
}

/// Best first: the higher score, and the lower index among equals.
fn order(a: &(f32, u32), b: &(f32, u32)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

impl Best {
    /// Starts over, to keep the best `n`, at least 1.
    pub fn reset(&mut self, n: usize) {
        self.n = n.max(1);
        self.held.clear();
        self.held.reserve(self.room() + BLOCK);
        self.threshold = f32::NEG_INFINITY;
    }

    /// Looks at some scores, indexed from `first` on. Those of negative infinity and NaN are never kept.
    pub fn look(&mut self, first: u32, scores: &[f32]) {
        for (block, scores) in scores.chunks(BLOCK).enumerate() {
            // Most blocks hold nothing of interest, and this test runs in vector lanes.
            if !scores.iter().fold(false, |any, &s| any | (s > self.threshold)) {
                continue;
            }
            for (i, &score) in scores.iter().enumerate() {
                // Indices rise, so that among equals the ones held already come first.
                if score > self.threshold {
                    self.held.push((score + 0.0, first + (block * BLOCK + i) as u32));
                }
            }
            if self.held.len() >= self.room() {
                self.thin();
            }
        }
    }

    /// How many are held before they are thinned out.
    fn room(&self) -> usize {
        (2 * self.n).max(512)
    }

    fn thin(&mut self) {
        if self.held.len() > self.n {
            let (_, nth, _) = self.held.select_nth_unstable_by(self.n - 1, order);
            self.threshold = nth.0;
            self.held.truncate(self.n);
        }
    }

    /// The score of the worst that is kept; negative infinity where there were fewer than `n`.
    pub fn worst(&mut self) -> f32 {
        self.thin();
        match self.held.len() == self.n {
            true => self.held.iter().map(|&(s, _)| s).fold(f32::INFINITY, f32::min),
            false => f32::NEG_INFINITY,
        }
    }

    /// The best, in order, with their indices.
    pub fn sorted(&mut self) -> &[(f32, u32)] {
        self.thin();
        self.held.sort_unstable_by(order);
        &self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_best_are_those_a_sort_puts_first(
            scores in prop::collection::vec(prop_oneof![
                9 => (-40i8..40).prop_map(|s| f32::from(s) / 4.0),
                1 => prop::sample::select(&[f32::NEG_INFINITY, f32::INFINITY, f32::NAN, -0.0][..]),
            ], 0..2500),
            n in prop_oneof![1usize..6, 1usize..900],
            cut in any::<prop::sample::Index>(),
        ) {
            let mut expected: Vec<(f32, u32)> = (0u32..).zip(&scores)
                .filter(|(_, s)| **s > f32::NEG_INFINITY).map(|(i, &s)| (s + 0.0, i)).collect();
            expected.sort_by(order);
            let worst = expected.get(n - 1).map_or(f32::NEG_INFINITY, |&(s, _)| s);
            expected.truncate(n);

            let mut best = Best::default();
            for _ in 0..2 {
                best.reset(n);
                let (head, tail) = scores.split_at(cut.index(scores.len() + 1));
                best.look(0, head);
                best.look(head.len() as u32, tail);
                prop_assert_eq!(best.worst(), worst);
                prop_assert_eq!(best.sorted(), &expected[..]);
            }
        }
    }
}
