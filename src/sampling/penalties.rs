//! Logit bias, and penalties for what was said before.
//!
//! - *bias* (OpenAI `logit_bias`): `l[id] += bias`.
//! - *repetition* (Keskar et al. 2019, CTRL; transformers' `RepetitionPenaltyLogitsProcessor`): once for each distinct
//!   token of prompt and completion, `l[id] < 0 ? l[id] * r : l[id] / r`.
//! - *presence* and *frequency* (OpenAI): `l[id] -= presence + frequency * count(id)` for each distinct token of the
//!   completion alone; the prompt does not count.
//!
//! All cost time in the length of the history, never in the size of the vocabulary. Ids beyond the logits are passed
//! over.

/// How often each token came, kept between calls so that nothing is allocated.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// One entry a token of the vocabulary; all zero between calls.
    counts: Vec<u32>,
}

impl Counts {
    /// Calls `visit(id, count)` once for each distinct token, in order of first appearance.
    fn visit_distinct(
        &mut self,
        vocab_size: usize,
        tokens: impl Iterator<Item = u32> + Clone,
        mut visit: impl FnMut(usize, u32),
    ) {
        self.counts.resize(vocab_size, 0);
        let known = tokens.map(|id| id as usize).filter(|&id| id < vocab_size);
        known.clone().for_each(|id| self.counts[id] += 1);
        for id in known {
            match std::mem::take(&mut self.counts[id]) {
                0 => {}
                count => visit(id, count),
            }
        }
    }
}

/// Adds each bias to its token's logit.
pub fn logit_bias(logits: &mut [f32], bias: &[(u32, f32)]) {
    for &(id, bias) in bias {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit += bias;
        }
    }
}

/// Makes every token of prompt and completion less likely (`penalty` above 1) or likelier (below).
pub fn repetition(logits: &mut [f32], penalty: f32, prompt: &[u32], generated: &[u32], counts: &mut Counts) {
    let history = prompt.iter().chain(generated).copied();
    counts.visit_distinct(logits.len(), history, |id, _| {
        let logit = &mut logits[id];
        *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
    });
}

/// OpenAI's presence and frequency penalties over the completion.
pub fn presence_and_frequency(
    logits: &mut [f32],
    presence: f32,
    frequency: f32,
    generated: &[u32],
    counts: &mut Counts,
) {
    counts.visit_distinct(logits.len(), generated.iter().copied(), |id, count| {
        logits[id] -= presence + frequency * count as f32;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_distinct_token_is_visited_once_with_its_count_and_the_scratch_left_clean() {
        let mut counts = Counts::default();
        for _ in 0..2 {
            let mut seen = Vec::new();
            let tokens = [3, 1, 3, 99, 3, 0];
            counts.visit_distinct(5, tokens.into_iter(), |id, n| seen.push((id, n)));
            assert_eq!(seen, [(3, 3), (1, 1), (0, 1)]);
        }
    }

    #[test]
    fn openai_penalties_look_at_the_completion() {
        let mut logits = [1.0, 1.0, -1.0];
        presence_and_frequency(&mut logits, 0.5, 0.25, &[2, 0, 2], &mut Counts::default());
        assert_eq!(logits, [0.25, 1.0, -2.0]);
        logit_bias(&mut logits, &[(1, 2.0), (7, 1.0), (2, f32::NEG_INFINITY)]);
        assert_eq!(logits, [0.25, 3.0, f32::NEG_INFINITY]);
    }
}
