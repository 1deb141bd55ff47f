//! The candidate tokens of one sampling step, and the logits warpers that filter them, in this order:
//! temperature, top-k, top-p (nucleus sampling), min-p and typical-p.
//!
//! Candidates stay in id order. Each has a score (the processed logit less the largest, divided by the
//! temperature: at most 0) and a weight, `exp(score)`, its unnormalized probability. Each filter renormalizes
//! over the candidates that the filters before it kept, as in transformers. Nothing here sorts the
//! vocabulary: a filter that needs a cumulative probability finds its cutoff by quickselect.

use super::gumbel::{self, Drawn, Noise};
use super::top_n::TopN;
use super::{SamplingParams, softmax};

/// Candidates tested together, as many as fit into a few vector registers.
const BLOCK: usize = 16;

/// The tokens that are still candidates, in id order.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    ids: Vec<u32>,
    scores: Vec<f32>,
    weights: Vec<f32>,
    /// The sum of the weights.
    total: f64,
    top_n: TopN,
    ranked: Vec<RankedCandidate>,
}

/// A candidate with its sort key: lower keys are kept first, and lower ids among equal keys.
#[derive(Clone, Copy, Debug)]
struct RankedCandidate {
    key: f32,
    id: u32,
    weight: f32,
}

impl Candidates {
    /// Narrows processed logits, `[vocab_size]`, of which at least one is above negative infinity, with the
    /// warpers that `params` enables. The temperature is positive.
    pub fn narrow(&mut self, scores: &[f32], params: &SamplingParams) {
        self.reset(scores, params.temperature, params.top_k);
        if params.top_p < 1.0 {
            self.top_p(params.top_p);
        }
        if params.min_p > 0.0 {
            self.min_p(params.min_p);
        }
        if params.typical_p < 1.0 {
            self.typical_p(params.typical_p);
        }
    }

    /// Starts from processed logits, as [`Candidates::narrow`] does. `top_k` keeps the k best and any that
    /// tie with the last of them; 0 keeps all.
    pub fn reset(&mut self, scores: &[f32], temperature: f32, top_k: usize) {
        let max = softmax::max_logit(scores);
        // Reserve for the whole vocabulary, so that later steps never allocate.
        self.ids.clear();
        self.ids.reserve(scores.len());
        self.scores.clear();
        self.scores.reserve(scores.len());
        self.ranked.clear();
        self.ranked.reserve(scores.len());
        if 0 < top_k && top_k < scores.len() {
            self.top_n.reset(top_k);
            self.top_n.scan(0, scores);
            let kth = self.top_n.nth_score();
            for (block, scores) in scores.chunks(BLOCK).enumerate() {
                if !scores.iter().fold(false, |any, &s| any | (s >= kth)) {
                    continue;
                }
                for (i, score) in scores.iter().enumerate().filter(|(_, s)| **s >= kth) {
                    self.ids.push((block * BLOCK + i) as u32);
                    softmax::apply_temperature(&[*score], max, temperature, &mut self.scores);
                }
            }
        } else {
            self.ids.extend(0..scores.len() as u32);
            softmax::apply_temperature(scores, max, temperature, &mut self.scores);
        }
        self.weights.clear();
        self.weights.reserve(scores.len());
        softmax::exp_weights(&self.scores, &mut self.weights);
        self.total = softmax::sum(&self.weights);
    }

    /// Keeps the smallest set of most probable tokens whose cumulative probability reaches `p`, at least one
    /// token (Holtzman et al. 2020).
    pub fn top_p(&mut self, p: f32) {
        let target = f64::from(p) * self.total;
        self.retain_at_least(self.weight_floor(target) as f32);
        self.compute_keys(|score| -score);
        let last = self.cutoff(target);
        self.retain(|id, score, _| (-score, id) <= (last.key, last.id));
        self.total = softmax::sum(&self.weights);
    }

    /// Keeps tokens at least `min_p` times as probable as the most probable one.
    pub fn min_p(&mut self, min_p: f32) {
        // The most probable token has weight 1, and neither top-k nor top-p drops it.
        self.retain_at_least(min_p);
        self.total = softmax::sum(&self.weights);
    }

    /// Locally typical sampling (Meister et al. 2022): keeps the tokens whose surprisal, `-ln p`, is nearest
    /// the entropy, until their cumulative probability reaches `p`, and those that tie with the last.
    pub fn typical_p(&mut self, p: f32) {
        // -ln p = ln(total) - score: the distance of the surprisal from the entropy is that of the score from
        // its mean.
        let mean = softmax::weighted_sum(&self.scores, &self.weights) / self.total;
        let deviation = |score: f32| (f64::from(score) - mean).abs() as f32;
        let target = f64::from(p) * self.total;
        // Keep at least the scores as close to the mean as the best one, 0, and all above the weight floor:
        // the candidates dropped here deviate most and are all below the floor.
        let lowest = libm::log(self.weight_floor(target)).min(2.0 * mean) as f32;
        self.retain(|_, score, _| score >= lowest);
        self.compute_keys(deviation);
        let last = self.cutoff(target);
        self.retain(|_, score, _| deviation(score) <= last.key);
        self.total = softmax::sum(&self.weights);
    }

    /// A weight such that all candidates below it sum to less than `total - target`, so that the cutoff is
    /// among the others. At most half the largest weight, so that rounding never drops the best candidate.
    fn weight_floor(&self, target: f64) -> f64 {
        ((self.total - target) / self.ids.len() as f64 * 0.5).clamp(f64::MIN_POSITIVE, 0.5)
    }

    /// Draws a candidate.
    pub fn draw(&self, noise: Noise) -> Drawn {
        // The filters keep at least one candidate with a weight above 0.
        gumbel::draw(noise, &self.ids, &self.weights).unwrap_or(Drawn { id: self.ids[0], margin: 0.0 })
    }

    /// The remaining candidates, in id order, with their normalized probabilities.
    pub fn probabilities(&self) -> impl Iterator<Item = (u32, f64)> {
        let weights = self.ids.iter().zip(&self.weights);
        weights.map(|(&id, &w)| (id, f64::from(w) / self.total))
    }

    /// Keeps the candidates that `keep` accepts. The caller updates `total`.
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

    /// Drops candidates whose weight is below `floor`, a block at a time where a whole block is.
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

    /// Fills `ranked` with every candidate and its sort key, computed from its score.
    fn compute_keys(&mut self, key: impl Fn(f32) -> f32) {
        let weighted = self.scores.iter().zip(&self.weights);
        let ranked = self.ids.iter().zip(weighted).map(|(&id, (&score, &weight))| RankedCandidate {
            key: key(score),
            id,
            weight,
        });
        self.ranked.clear();
        self.ranked.extend(ranked);
    }

    /// The candidate, in ascending order of keys, at which the cumulative weight reaches `target`; the last
    /// if it never does. A weighted quickselect: each step partitions the remaining candidates at the median
    /// and sums the weights of the lower half, about two visits to each candidate in all. Within a half the
    /// order is arbitrary, which does not matter because the sums are exact.
    fn cutoff(&mut self, target: f64) -> RankedCandidate {
        let mut open = &mut self.ranked[..];
        let mut cumulative = 0.0;
        while open.len() > 1 {
            let middle = open.len() / 2;
            open.select_nth_unstable_by(middle, |a, b| a.key.total_cmp(&b.key).then(a.id.cmp(&b.id)));
            let (better, worse) = open.split_at_mut(middle);
            let weight: f64 = better.iter().map(|r| f64::from(r.weight)).sum();
            open = if cumulative + weight >= target {
                better
            } else {
                cumulative += weight;
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
    use std::collections::BTreeSet;

    fn kept(candidates: &Candidates) -> Vec<u32> {
        candidates.probabilities().map(|(id, _)| id).collect()
    }

    fn candidates(scores: &[f32], top_k: usize) -> Candidates {
        let mut candidates = Candidates::default();
        candidates.reset(scores, 1.0, top_k);
        candidates
    }

    #[test]
    fn top_k_keeps_ties_with_kth() {
        assert_eq!(kept(&candidates(&[1.0, 3.0, 2.0, 2.0, 0.0], 2)), [1, 2, 3]);
        assert_eq!(kept(&candidates(&[1.0, 3.0], 9)), [0, 1]);
        assert_eq!(kept(&candidates(&[0.5; 40], 1)).len(), 40);
    }

    #[test]
    fn top_p_breaks_ties_by_id_and_keeps_at_least_one() {
        for (p, expected) in [(0.0, 1), (0.25, 1), (0.3, 2), (0.5, 2), (0.75, 3), (0.9, 4)] {
            let mut candidates = candidates(&[0.0; 4], 0);
            candidates.top_p(p);
            assert_eq!(kept(&candidates), (0..expected).collect::<Vec<_>>(), "{p}");
        }
    }

    #[test]
    fn impossible_tokens_are_never_drawn() {
        let candidates = candidates(&[f32::NEG_INFINITY, -1.0, f32::NAN, 0.0], 0);
        let drawn: BTreeSet<u32> = (0..200).map(|key| candidates.draw(Noise::new(key)).id).collect();
        assert_eq!(Vec::from_iter(drawn), [1, 3]);
    }

    proptest! {
        /// Compares the filters with their definitions, computed by sorting.
        #[test]
        fn filters_match_sorted_reference(
            scores in prop::collection::vec((-60i8..20).prop_map(|s| f32::from(s) / 5.0), 1..600),
            p in 0.01f32..1.0,
        ) {
            let all = candidates(&scores, 0);
            let total: f64 = all.weights.iter().map(|&w| f64::from(w)).sum();
            let cutoff = |order: &[usize]| {
                let mut sum = 0.0;
                let position = order.iter().position(|&i| {
                    sum += f64::from(all.weights[i]);
                    sum >= f64::from(p) * total
                });
                position.unwrap_or(order.len() - 1)
            };

            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
            let mut expected: Vec<u32> = order[..=cutoff(&order)].iter().map(|&i| i as u32).collect();
            expected.sort_unstable();
            let mut top_p = candidates(&scores, 0);
            top_p.top_p(p);
            prop_assert_eq!(kept(&top_p), expected);

            let entropy: f64 = all.probabilities().map(|(_, p)| -p * libm::log(p)).sum();
            let deviation = |i: usize| (-libm::log(f64::from(all.weights[i]) / total) - entropy).abs();
            order.sort_by(|&a, &b| deviation(a).total_cmp(&deviation(b)));
            let last = deviation(order[cutoff(&order)]);
            let mut typical = candidates(&scores, 0);
            typical.typical_p(p);
            let kept_ids = kept(&typical);
            for i in 0..scores.len() {
                let is_kept = kept_ids.contains(&(i as u32));
                // Rounding may decide only candidates at the cutoff.
                prop_assert!(is_kept == (deviation(i) <= last) || (deviation(i) - last).abs() < 2e-5);
            }

            let mut min_p = candidates(&scores, 0);
            min_p.min_p(p);
            let expected = (0..scores.len()).filter(|&i| all.weights[i] >= p).map(|i| i as u32);
            prop_assert_eq!(kept(&min_p), expected.collect::<Vec<_>>());
        }
    }
}
