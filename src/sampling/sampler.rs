//! Sampling one token from one position's logits.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::candidates::Candidates;
use super::gumbel::{Drawn, Noise};
use super::logprobs::LogSoftmax;
use super::processors::LogitsProcessors;
use super::{SamplingParams, constraints, softmax};
use std::hash::{BuildHasher, RandomState};

/// Returns a random seed, short enough to type.
pub fn random_seed() -> u64 {
    RandomState::new().hash_one(0) % 1_000_000_000
}

/// A sampled token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampledToken {
    /// The token id.
    pub id: u32,
    /// The logprob in the model's own distribution: temperature 1, no penalties, no filters.
    pub logprob: f32,
}

/// Chooses the tokens of one completion. Allocates nothing after the first token.
#[derive(Clone, Debug)]
pub struct Sampler {
    processors: LogitsProcessors,
    rng: ChaCha8Rng,
    /// The processed logits, `[vocab_size]`.
    scores: Vec<f32>,
    candidates: Candidates,
}

impl Sampler {
    /// A sampler for choice `stream` of a request. Each stream of a seed is an independent sequence of random
    /// numbers.
    pub fn new(params: SamplingParams, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(params.seed);
        rng.set_stream(stream);
        Self {
            processors: LogitsProcessors::new(params),
            rng,
            scores: Vec::new(),
            candidates: Candidates::default(),
        }
    }

    /// The sampling parameters.
    pub fn params(&self) -> &SamplingParams {
        self.processors.params()
    }

    /// Chooses the token after `prompt` and `generated` from that position's logits, `[vocab_size]`, at least
    /// one.
    ///
    /// Uses one number of the stream, or none at temperature 0. If the processors ban every token, the raw
    /// logits of the allowed tokens are used; if those are all negative infinity or NaN, each is equally
    /// probable.
    pub fn sample(&mut self, logits: &[f32], prompt: &[u32], generated: &[u32]) -> SampledToken {
        let id = self.choose(logits, prompt, generated);
        let logprob = LogSoftmax::new(logits).logprob(logits[id as usize]);
        SampledToken { id, logprob }
    }

    /// As [`Sampler::sample`], without the logprob.
    pub fn choose(&mut self, logits: &[f32], prompt: &[u32], generated: &[u32]) -> u32 {
        if self.params().temperature == 0.0 {
            self.process(logits, prompt, generated);
            argmax(&self.scores)
        } else {
            self.draw(logits, prompt, generated).id
        }
    }

    /// As [`Sampler::choose`], with the margin of the token's score over the next, in nats: of processed
    /// logits at temperature 0, else with the noise of the draw.
    pub(crate) fn choose_with_margin(&mut self, logits: &[f32], prompt: &[u32], generated: &[u32]) -> Drawn {
        if self.params().temperature > 0.0 {
            return self.draw(logits, prompt, generated);
        }
        let id = self.choose(logits, prompt, generated);
        let score = std::mem::replace(&mut self.scores[id as usize], f32::NEG_INFINITY);
        Drawn { id, margin: score - softmax::max_logit(&self.scores) }
    }

    fn draw(&mut self, logits: &[f32], prompt: &[u32], generated: &[u32]) -> Drawn {
        let noise = Noise::new(self.rng.next_u64());
        self.distribution(logits, prompt, generated).draw(noise)
    }

    /// Goes on with the noise of the completion's token `n`, counted from 0.
    pub fn seek(&mut self, n: usize) {
        self.rng.set_word_pos(2 * n as u128); // a draw takes two words of 32 bits
    }

    /// The candidate tokens of this position with their probabilities. The temperature must be above 0.
    pub fn distribution(&mut self, logits: &[f32], prompt: &[u32], generated: &[u32]) -> &Candidates {
        self.process(logits, prompt, generated);
        let Self { processors, scores, candidates, .. } = self;
        candidates.narrow(scores, processors.params());
        candidates
    }

    fn process(&mut self, logits: &[f32], prompt: &[u32], generated: &[u32]) {
        self.scores.clear();
        self.scores.extend_from_slice(logits);
        self.processors.apply(&mut self.scores, prompt, generated);
        let all_banned = |scores: &[f32]| softmax::max_logit(scores) == f32::NEG_INFINITY;
        if all_banned(&self.scores) {
            self.scores.copy_from_slice(logits);
            constraints::ban_all_but(&mut self.scores, &self.processors.params().allowed_ids);
        }
        if all_banned(&self.scores) {
            self.scores.fill(0.0);
            constraints::ban_all_but(&mut self.scores, &self.processors.params().allowed_ids);
        }
        if all_banned(&self.scores) {
            self.scores.fill(0.0); // no allowed id is in the vocabulary
        }
    }
}

/// The token with the largest score, the lowest id among ties.
fn argmax(scores: &[f32]) -> u32 {
    let max = softmax::max_logit(scores);
    let first = scores.iter().position(|&s| s >= max);
    first.expect("a processed score above negative infinity") as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allowed_tokens_bind_even_where_everything_is_banned() {
        let (nan, minus_inf) = (f32::NAN, f32::NEG_INFINITY);
        for temperature in [0.0, 1.0] {
            let params = SamplingParams {
                temperature,
                allowed_ids: vec![2, 1, 2],
                stop_ids: vec![1, 2],
                min_tokens: 9,
                ..SamplingParams::default()
            };
            for logits in [[5.0, 1.0, 2.0], [5.0, nan, minus_inf], [minus_inf; 3]] {
                let id = Sampler::new(params.clone(), 0).sample(&logits, &[], &[]).id;
                assert!(id == 1 || id == 2, "{id} from {logits:?}");
            }
        }
    }
}
