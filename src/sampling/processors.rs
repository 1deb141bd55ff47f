//! The logits processors, for sampling and beam search, in this order: logit bias, repetition penalty,
//! presence and frequency penalties ([`penalties`]), no repeated n-grams ([`ngram`]), no stop token before
//! `min_tokens`, no bad words, and allowed tokens only ([`constraints`]).

use super::penalties::{self, TokenCounts};
use super::{SamplingParams, constraints, ngram};

/// All processors that the parameters enable.
#[derive(Clone, Debug)]
pub struct LogitsProcessors {
    params: SamplingParams,
    counts: TokenCounts,
}

impl LogitsProcessors {
    /// The processors that `params` enables.
    pub fn new(mut params: SamplingParams) -> Self {
        params.allowed_ids.sort_unstable();
        params.allowed_ids.dedup();
        Self { params, counts: TokenCounts::default() }
    }

    /// The sampling parameters, those of the later steps included.
    pub fn params(&self) -> &SamplingParams {
        &self.params
    }

    /// Processes `scores`, `[vocab_size]` logits or logprobs, in place. `generated` is the completion so far.
    pub fn apply(&mut self, scores: &mut [f32], prompt: &[u32], generated: &[u32]) {
        let Self { params: p, counts } = self;
        penalties::apply_logit_bias(scores, &p.logit_bias);
        if p.repetition_penalty != 1.0 {
            penalties::apply_repetition_penalty(scores, p.repetition_penalty, prompt, generated, counts);
        }
        if p.presence_penalty != 0.0 || p.frequency_penalty != 0.0 {
            let (presence, frequency) = (p.presence_penalty, p.frequency_penalty);
            penalties::apply_presence_and_frequency_penalties(scores, presence, frequency, generated, counts);
        }
        ngram::ban_repeated_ngrams(scores, p.no_repeat_ngram_size, prompt, generated);
        if generated.len() < p.min_tokens {
            for &id in &p.stop_ids {
                if let Some(score) = scores.get_mut(id as usize) {
                    *score = f32::NEG_INFINITY;
                }
            }
        }
        constraints::ban_bad_words(scores, &p.bad_words_ids, generated);
        constraints::ban_all_but(scores, &p.allowed_ids);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each step depends on the steps before it, so any other order would give other scores.
    #[test]
    fn processors_run_in_documented_order() {
        let mut processors = LogitsProcessors::new(SamplingParams {
            logit_bias: vec![(0, -3.0), (2, 1.0)],
            repetition_penalty: 2.0,
            presence_penalty: 1.0,
            frequency_penalty: 0.5,
            no_repeat_ngram_size: 2,
            min_tokens: 4,
            stop_ids: vec![3],
            ..Default::default()
        });
        let mut scores = [1.0, 4.0, 1.0, 9.0];
        processors.apply(&mut scores, &[0, 1], &[0, 2, 0]);
        // 0: (1 - 3) * 2 - 1 - 2 * 0.5; 1: repeats the bigram 0 1; 2: repeats 0 2; 3: a stop id before
        // min_tokens.
        assert_eq!(scores, [-6.0, f32::NEG_INFINITY, f32::NEG_INFINITY, f32::NEG_INFINITY]);

        let mut scores = [1.0, 4.0, 1.0, 9.0];
        processors.apply(&mut scores, &[0, 1], &[0, 2, 2, 3]);
        // No bigram starts with 3, and 1 occurs only in the prompt.
        assert_eq!(scores, [(1.0 - 3.0) * 2.0 - 1.5, 4.0 / 2.0, 2.0 / 2.0 - 2.0, 9.0 / 2.0 - 1.5]);
    }
}
