//! Selection of the n largest scores without sorting them all.

use std::cmp::Ordering;

/// Scores tested together, as many as fit into a few vector registers.
const BLOCK: usize = 16;

/// The `n` largest scores of one or more slices, selected through a buffer of at least `2 * n` entries.
#[derive(Clone, Debug, Default)]
pub struct TopN {
    n: usize,
    /// The scores that may be among the largest, with their indices; pruned when full.
    buffer: Vec<(f32, u32)>,
    /// Scores not above this cannot be among the largest.
    threshold: f32,
}

/// Orders entries by descending score, ties by ascending index.
fn order(a: &(f32, u32), b: &(f32, u32)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

impl TopN {
    /// Clears the selection and sets its size to `n`, at least 1.
    pub fn reset(&mut self, n: usize) {
        self.n = n.max(1);
        self.buffer.clear();
        self.buffer.reserve(self.capacity() + BLOCK);
        self.threshold = f32::NEG_INFINITY;
    }

    /// Adds scores whose indices start at `first`. Negative infinity and NaN are never kept.
    pub fn scan(&mut self, first: u32, scores: &[f32]) {
        for (block, scores) in scores.chunks(BLOCK).enumerate() {
            // Most blocks hold nothing above the threshold, and this test is vectorized.
            if !scores.iter().fold(false, |any, &s| any | (s > self.threshold)) {
                continue;
            }
            for (i, &score) in scores.iter().enumerate() {
                // Indices ascend, so the buffered entries precede among ties.
                if score > self.threshold {
                    self.buffer.push((score + 0.0, first + (block * BLOCK + i) as u32));
                }
            }
            if self.buffer.len() >= self.capacity() {
                self.prune();
            }
        }
    }

    /// The buffer's length at which it is pruned.
    fn capacity(&self) -> usize {
        (2 * self.n).max(512)
    }

    fn prune(&mut self) {
        if self.buffer.len() > self.n {
            let (_, nth, _) = self.buffer.select_nth_unstable_by(self.n - 1, order);
            self.threshold = nth.0;
            self.buffer.truncate(self.n);
        }
    }

    /// The `n`-th largest score; negative infinity if there are fewer than `n`.
    pub fn nth_score(&mut self) -> f32 {
        self.prune();
        match self.buffer.len() == self.n {
            true => self.buffer.iter().map(|&(s, _)| s).fold(f32::INFINITY, f32::min),
            false => f32::NEG_INFINITY,
        }
    }

    /// The largest scores, in descending order, with their indices.
    pub fn sorted(&mut self) -> &[(f32, u32)] {
        self.prune();
        self.buffer.sort_unstable_by(order);
        &self.buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn top_n_matches_sort(
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
            let nth_score = expected.get(n - 1).map_or(f32::NEG_INFINITY, |&(s, _)| s);
            expected.truncate(n);

            let mut top_n = TopN::default();
            for _ in 0..2 {
                top_n.reset(n);
                let (head, tail) = scores.split_at(cut.index(scores.len() + 1));
                top_n.scan(0, head);
                top_n.scan(head.len() as u32, tail);
                prop_assert_eq!(top_n.nth_score(), nth_score);
                prop_assert_eq!(top_n.sorted(), &expected[..]);
            }
        }
    }
}
