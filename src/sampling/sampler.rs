//! One token from one position's logits.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::candidates::Candidates;
use super::logprobs::LogSoftmax;
use super::processors::LogitsProcessors;
use super::{SamplingParams, softmax};

/// A token that was chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampled {
    /// The token.
    pub id: u32,
    /// Its logprob in the model's own distribution: temperature 1, no penalties, no filters.
    pub logprob: f32,
}

/// Chooses the tokens of one completion. Nothing is allocated after the first.
#[derive(Clone, Debug)]
pub struct Sampler {
    processors: LogitsProcessors,
    rng: ChaCha8Rng,
    /// The logits as the processors leave them, `[vocab_size]`.
    scores: Vec<f32>,
    candidates: Candidates,
}

impl Sampler {
    /// A sampler for choice `stream` of a request: each stream of a seed is a sequence of random numbers of its own.
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

    /// The options it was made with.
    pub fn params(&self) -> &SamplingParams {
        self.processors.params()
    }

    /// Chooses the token that follows `prompt` and then `generated`, given its logits, `[vocab_size]`, at least one.
    ///
    /// Uses one random number, or none at temperature 0. Should every token be ruled out, the bans are lifted;
    /// logits that are themselves all impossible count as equal.
    pub fn sample(&mut self, logits: &[f32], prompt: &[u32], generated: &[u32]) -> Sampled {
        let id = if self.params().temperature == 0.0 {
            self.process(logits, prompt, generated);
            best(&self.scores)
        } else {
            let u = (self.rng.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64);
            self.distribution(logits, prompt, generated).draw(u)
        };
        let logprob = LogSoftmax::of(logits).at(logits[id as usize]);
        Sampled { id, logprob }
    }

    /// The tokens a draw at this point may fall on, with their probabilities. The temperature must be above 0.
    pub fn distribution(&mut self, logits: &[f32], prompt: &[u32], generated: &[u32]) -> &Candidates {
        self.process(logits, prompt, generated);
        let Self { processors, scores, candidates, .. } = self;
        let p = processors.params();
        candidates.fill(scores, p.temperature, p.top_k);
        if p.top_p < 1.0 {
            candidates.top_p(p.top_p);
        }
        if p.min_p > 0.0 {
            candidates.min_p(p.min_p);
        }
        if p.typical_p < 1.0 {
            candidates.typical_p(p.typical_p);
        }
        candidates
    }

    fn process(&mut self, logits: &[f32], prompt: &[u32], generated: &[u32]) {
        self.scores.clear();
        self.scores.extend_from_slice(logits);
        self.processors.apply(&mut self.scores, prompt, generated);
        let nothing_left = |scores: &[f32]| softmax::max_tame(scores) == f32::NEG_INFINITY;
        if nothing_left(&self.scores) {
            self.scores.copy_from_slice(logits);
            if nothing_left(logits) {
                self.scores.fill(0.0);
            }
        }
    }
}

/// The best token, the lowest id among equals.
fn best(scores: &[f32]) -> u32 {
    let max = softmax::max_tame(scores);
    let first = scores.iter().position(|&s| s >= max);
    first.expect("the processed scores hold a possible token") as u32
}
