//! The steps that change scores before any token is chosen, in their one order, for sampling and beam search alike.

use super::penalties::{self, Counts};
use super::{SamplingParams, ngram};

/// Logit bias, repetition penalty, presence and frequency penalties, no repeated n-gram, minimum length: in this order.
#[derive(Clone, Debug)]
pub struct LogitsProcessors {
    params: SamplingParams,
    counts: Counts,
}

impl LogitsProcessors {
    /// The processors a user asked for.
    pub fn new(params: SamplingParams) -> Self {
        Self { params, counts: Counts::default() }
    }

    /// The options these processors, and the steps after them, were made with.
    pub fn params(&self) -> &SamplingParams {
        &self.params
    }

    /// Changes `scores`, `[vocab_size]` logits or logprobs, in place. `generated` is the completion so far.
    pub fn apply(&mut self, scores: &mut [f32], prompt: &[u32], generated: &[u32]) {
        let Self { params: p, counts } = self;
        penalties::logit_bias(scores, &p.logit_bias);
        if p.repetition_penalty != 1.0 {
            penalties::repetition(scores, p.repetition_penalty, prompt, generated, counts);
        }
        if p.presence_penalty != 0.0 || p.frequency_penalty != 0.0 {
            let (presence, frequency) = (p.presence_penalty, p.frequency_penalty);
            penalties::presence_and_frequency(scores, presence, frequency, generated, counts);
        }
        ngram::no_repeat(scores, p.no_repeat_ngram_size, prompt, generated);
        if generated.len() < p.min_tokens {
            for &id in &p.stop_ids {
                if let Some(score) = scores.get_mut(id as usize) {
                    *score = f32::NEG_INFINITY;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each step's outcome depends on the ones before it, so any other order gives other numbers.
    #[test]
    fn the_order_is_the_documented_one() {
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
        // 0: (1 - 3) * 2 - 1 - 2 * 0.5; 1: after 0 came 1 before; 2: after 0 came 2; 3: a stop id too early.
        assert_eq!(scores, [-6.0, f32::NEG_INFINITY, f32::NEG_INFINITY, f32::NEG_INFINITY]);

        let mut scores = [1.0, 4.0, 1.0, 9.0];
        processors.apply(&mut scores, &[0, 1], &[0, 2, 2, 3]);
        // Nothing came after 3 before, and 1 is in the prompt alone.
        assert_eq!(scores, [(1.0 - 3.0) * 2.0 - 1.5, 4.0 / 2.0, 2.0 / 2.0 - 2.0, 9.0 / 2.0 - 1.5]);
    }
}
