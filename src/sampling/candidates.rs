//! The tokens a draw may fall on, and the filters that thin them out: top-k, top-p, min-p, typical-p.
//!
//! Candidates stay in id order, each with its score (over the temperature, the best at 0) and its weight, the
//! exponential of that. A filter sees the probabilities among what the filters before it left, as in transformers.
//! Nothing here sorts the vocabulary: where a filter needs the tokens down to some share of the probability, it
//! halves its way to the boundary.

use super::select::Best;
use super::softmax;

/// Candidates that are looked at together: as many as a few vector registers hold.
const BLOCK: usize = 16;

/// What is left of the vocabulary.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    ids: Vec<u32>,
    scores: Vec<f32>,
    weights: Vec<f32>,
    /// The sum of the weights.
    total: f64,
    best: Best,
    ranked: Vec<Ranked>,
}

/// A candidate where a filter has put it: lower ranks are kept first, and lower ids among equals.
#[derive(Clone, Copy, Debug)]
struct Ranked {
    rank: f32,
    id: u32,
    weight: f32,
}

impl Candidates {
    /// Starts from processed scores, `[vocab_size]`, of which at least one is possible. `top_k` keeps the k best and
    /// what ties with the last of them; 0 keeps all. The temperature is above 0.
    pub fn fill(&mut self, scores: &[f32], temperature: f32, top_k: usize) {
        let max = softmax::max_tame(scores);
        // Room for everything, so that a token with more candidates than any before allocates nothing.
        self.ids.clear();
        self.ids.reserve(scores.len());
        self.scores.clear();
        self.scores.reserve(scores.len());
        self.ranked.clear();
        self.ranked.reserve(scores.len());
        if 0 < top_k && top_k < scores.len() {
            self.best.reset(top_k);
            self.best.look(0, scores);
            let worst = self.best.worst();
            for (block, scores) in scores.chunks(BLOCK).enumerate() {
                if !scores.iter().fold(false, |any, &s| any | (s >= worst)) {
                    continue;
                }
                for (i, score) in scores.iter().enumerate().filter(|(_, s)| **s >= worst) {
                    self.ids.push((block * BLOCK + i) as u32);
                    softmax::tempered(&[*score], max, temperature, &mut self.scores);
                }
            }
        } else {
            self.ids.extend(0..scores.len() as u32);
            softmax::tempered(scores, max, temperature, &mut self.scores);
        }
        self.weights.clear();
        self.weights.reserve(scores.len());
        softmax::weights(&self.scores, &mut self.weights);
        self.total = softmax::sum(&self.weights);
    }

    /// Keeps the fewest tokens, the best first, whose probabilities reach `p`; always the best one.
    pub fn top_p(&mut self, p: f32) {
        let target = f64::from(p) * self.total;
        self.retain_at_least(self.floor(target) as f32);
        self.rank(|score| -score);
        let last = self.boundary(target);
        self.retain(|id, score, _| (-score, id) <= (last.rank, last.id));
        self.total = softmax::sum(&self.weights);
    }

    /// Keeps tokens at least `min_p` times as probable as the best.
    pub fn min_p(&mut self, min_p: f32) {
        // The best token weighs 1, and neither top-k nor top-p ever drops it.
        self.retain_at_least(min_p);
        self.total = softmax::sum(&self.weights);
    }

    /// Keeps the tokens whose surprise, `-ln p`, is nearest the expected surprise, until they reach `p`, and those that
    /// tie with the last (Meister et al. 2022).
    pub fn typical_p(&mut self, p: f32) {
        // -ln p is ln(total) - score: the distance from the mean surprise is that from the mean score.
        let mean = softmax::weighted_sum(&self.scores, &self.weights) / self.total;
        let strangeness = |score: f32| (f64::from(score) - mean).abs() as f32;
        let target = f64::from(p) * self.total;
        // As far below the mean as the best score, 0, is above it, and down to the floor: what is stranger than that
        // is all below the floor.
        let lowest = libm::log(self.floor(target)).min(2.0 * mean) as f32;
        self.retain(|_, score, _| score >= lowest);
        self.rank(strangeness);
        let last = self.boundary(target);
        self.retain(|_, score, _| strangeness(score) <= last.rank);
        self.total = softmax::sum(&self.weights);
    }

    /// All tokens lighter than this together cannot weigh what is beyond `target`, so that the boundary is among the
    /// others. At most half the best token's weight, lest rounding drop that.
    fn floor(&self, target: f64) -> f64 {
        ((self.total - target) / self.ids.len() as f64 * 0.5).clamp(f64::MIN_POSITIVE, 0.5)
    }

    /// The candidate at which the weights, added up in id order, first exceed `u` times their sum. `u` is in `[0, 1)`.
    pub fn draw(&self, u: f64) -> u32 {
        let target = u * self.total;
        let mut below = 0.0;
        for (block, weights) in self.weights.chunks(BLOCK).enumerate() {
            let in_block = softmax::sum(weights);
            if below + in_block <= target {
                below += in_block;
                continue;
            }
            for (i, &weight) in weights.iter().enumerate() {
                below += f64::from(weight);
                if below > target {
                    return self.ids[block * BLOCK + i];
                }
            }
        }
        // `u * total` was rounded up to `total`: the last token that has any weight.
        let last = self.weights.iter().rposition(|&w| w > 0.0);
        self.ids[last.unwrap_or(0)]
    }

    /// What is left, in id order, each with its probability among what is left.
    pub fn probabilities(&self) -> impl Iterator<Item = (u32, f64)> {
        let weights = self.ids.iter().zip(&self.weights);
        weights.map(|(&id, &w)| (id, f64::from(w) / self.total))
    }

    /// Drops candidates; the total is the caller's to renew.
    fn retain(&mut self, keep: impl Fn(u32, f32, f32) -> bool) {
        let mut kept = 0;
        for i in 0..self.ids.len() {
            let (id, score, weight) = (self.ids[i], self.scores[i], self.weights[i]);
            if keep(id, score, weight) {
                (self.ids[kept], self.scores[kept], self.weights[kept]) = (id, score, weight);
                kept += 1;
            }
        }
        self.truncate(kept);
    }

    /// Drops candidates that weigh less, most of them a block at a time.
    fn retain_at_least(&mut self, floor: f32) {
        let mut kept = 0;
        for start in (0..self.ids.len()).step_by(BLOCK) {
            let end = (start + BLOCK).min(self.ids.len());
            if !self.weights[start..end].iter().fold(false, |any, &w| any | (w >= floor)) {
                continue;
            }
            for i in start..end {
                if self.weights[i] >= floor {
                    self.ids[kept] = self.ids[i];
                    self.scores[kept] = self.scores[i];
                    self.weights[kept] = self.weights[i];
                    kept += 1;
                }
            }
        }
        self.truncate(kept);
    }

    fn truncate(&mut self, len: usize) {
        self.ids.truncate(len);
        self.scores.truncate(len);
        self.weights.truncate(len);
    }

    /// Gives every candidate its rank, from its score.
    fn rank(&mut self, rank: impl Fn(f32) -> f32) {
        let weighted = self.scores.iter().zip(&self.weights);
        let ranked = self.ids.iter().zip(weighted).map(|(&id, (&score, &weight))| Ranked {
            rank: rank(score),
            id,
            weight,
        });
        self.ranked.clear();
        self.ranked.extend(ranked);
    }

    /// The candidate, going up in rank, at which the weights reach `target`; the last if they never do. Each step splits
    /// what is left in the middle and weighs the better half, so that all together look at each candidate about twice.
    /// The halves come in no particular order, which exact sums do not mind.
    fn boundary(&mut self, target: f64) -> Ranked {
        let mut open = &mut self.ranked[..];
        let mut below = 0.0;
        while open.len() > 1 {
            let middle = open.len() / 2;
            open.select_nth_unstable_by(middle, |a, b| a.rank.total_cmp(&b.rank).then(a.id.cmp(&b.id)));
            let (better, worse) = open.split_at_mut(middle);
            let weight: f64 = better.iter().map(|r| f64::from(r.weight)).sum();
            open = if below + weight >= target {
                better
            } else {
                below += weight;
                worse
            };
        }
        open[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kept(candidates: &Candidates) -> Vec<u32> {
        candidates.probabilities().map(|(id, _)| id).collect()
    }

    fn filled(scores: &[f32], top_k: usize) -> Candidates {
        let mut candidates = Candidates::default();
        candidates.fill(scores, 1.0, top_k);
        candidates
    }

    #[test]
    fn top_k_keeps_ties_with_the_last() {
        assert_eq!(kept(&filled(&[1.0, 3.0, 2.0, 2.0, 0.0], 2)), [1, 2, 3]);
        assert_eq!(kept(&filled(&[1.0, 3.0], 9)), [0, 1]);
        assert_eq!(kept(&filled(&[0.5; 40], 1)).len(), 40);
    }

    #[test]
    fn top_p_takes_the_lower_id_of_equals_and_at_least_one() {
        for (p, expected) in [(0.0, 1), (0.25, 1), (0.3, 2), (0.5, 2), (0.75, 3), (0.9, 4)] {
            let mut candidates = filled(&[0.0; 4], 0);
            candidates.top_p(p);
            assert_eq!(kept(&candidates), (0..expected).collect::<Vec<_>>(), "{p}");
        }
    }

    #[test]
    fn a_draw_falls_on_tokens_in_proportion_and_never_on_the_impossible() {
        let ln = |p: f64| libm::log(p) as f32;
        let scores = [f32::NEG_INFINITY, ln(0.5), ln(0.25), f32::NEG_INFINITY, ln(0.25), f32::NAN];
        let candidates = filled(&scores, 0);
        for (u, id) in [(0.0, 1), (0.4999, 1), (0.5001, 2), (0.7499, 2), (0.7501, 4)] {
            assert_eq!(candidates.draw(u), id, "{u}");
        }
        assert_eq!(candidates.draw(1.0 - f64::EPSILON / 2.0), 4);
        assert_eq!(candidates.draw(1.0), 4);
    }

    proptest! {
        /// Against the definitions, carried out by sorting everything.
        #[test]
        fn filters_keep_what_their_definition_keeps(
            scores in prop::collection::vec((-60i8..20).prop_map(|s| f32::from(s) / 5.0), 1..600),
            p in 0.01f32..1.0,
        ) {
            let all = filled(&scores, 0);
            let total: f64 = all.weights.iter().map(|&w| f64::from(w)).sum();
            let reach = |order: &[usize]| {
                let mut sum = 0.0;
                let reached = order.iter().position(|&i| {
                    sum += f64::from(all.weights[i]);
                    sum >= f64::from(p) * total
                });
                reached.unwrap_or(order.len() - 1)
            };

            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
            let mut expected: Vec<u32> = order[..=reach(&order)].iter().map(|&i| i as u32).collect();
            expected.sort_unstable();
            let mut top_p = filled(&scores, 0);
            top_p.top_p(p);
            prop_assert_eq!(kept(&top_p), expected);

            let entropy: f64 = all.probabilities().map(|(_, p)| -p * libm::log(p)).sum();
            let strange = |i: usize| (-libm::log(f64::from(all.weights[i]) / total) - entropy).abs();
            order.sort_by(|&a, &b| strange(a).total_cmp(&strange(b)));
            let last = strange(order[reach(&order)]);
            let mut typical = filled(&scores, 0);
            typical.typical_p(p);
            let found = kept(&typical);
            for i in 0..scores.len() {
                let is_kept = found.contains(&(i as u32));
                // Rounding may decide only what is as good as on the boundary.
                prop_assert!(is_kept == (strange(i) <= last) || (strange(i) - last).abs() < 2e-5);
            }

            let mut min_p = filled(&scores, 0);
            min_p.min_p(p);
            let expected = (0..scores.len()).filter(|&i| all.weights[i] >= p).map(|i| i as u32);
            prop_assert_eq!(kept(&min_p), expected.collect::<Vec<_>>());
        }
    }
}
