//! Logit bias, and penalties for tokens that occurred before.
//!
//! - *Bias* (OpenAI `logit_bias`): `l[id] += bias`.
//! - *Repetition* (Keskar et al. 2019, CTRL; transformers' `RepetitionPenaltyLogitsProcessor`): for each
//!   distinct token of prompt and completion, `l[id] < 0 ? l[id] * r : l[id] / r`.
//! - *Presence* and *frequency* (OpenAI): `l[id] -= presence + frequency * count(id)` for each distinct token
//!   of the completion; the prompt does not count.
//!
//! The cost of each is linear in the length of the history and independent of the vocabulary's size. Token
//! ids outside the logits are ignored.

/// Token counts, kept between calls so that nothing is allocated.
#[derive(Clone, Debug, Default)]
pub struct TokenCounts {
    /// One entry for each token of the vocabulary; all zero between calls.
    counts: Vec<u32>,
}

impl TokenCounts {
    /// Calls `visit(id, count)` once for each distinct token, in order of first appearance.
    fn visit_distinct(
        &mut self,
        vocab_size: usize,
        tokens: impl Iterator<Item = u32> + Clone,
        mut visit: impl FnMut(usize, u32),
    ) {
        self.counts.resize(vocab_size, 0);
        let in_vocab = tokens.map(|id| id as usize).filter(|&id| id < vocab_size);
        in_vocab.clone().for_each(|id| self.counts[id] += 1);
        for id in in_vocab {
            match std::mem::take(&mut self.counts[id]) {
                0 => {}
                count => visit(id, count),
            }
        }
    }
}

/// Adds each bias to its token's logit.
pub fn apply_logit_bias(logits: &mut [f32], bias: &[(u32, f32)]) {
    for &(id, bias) in bias {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit += bias;
        }
    }
}

/// Lowers (`penalty` above 1) or raises (below 1) the logit of each distinct token of prompt and completion.
pub fn apply_repetition_penalty(
    logits: &mut [f32],
    penalty: f32,
    prompt: &[u32],
    generated: &[u32],
    counts: &mut TokenCounts,
) {
    let history = prompt.iter().chain(generated).copied();
    counts.visit_distinct(logits.len(), history, |id, _| {
        let logit = &mut logits[id];
        *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
    });
}

/// Subtracts OpenAI's presence and frequency penalties from the logits of the completion's tokens.
pub fn apply_presence_and_frequency_penalties(
    logits: &mut [f32],
    presence: f32,
    frequency: f32,
    generated: &[u32],
    counts: &mut TokenCounts,
) {
    counts.visit_distinct(logits.len(), generated.iter().copied(), |id, count| {
        logits[id] -= presence + frequency * count as f32;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visit_distinct_counts_tokens_and_clears_counts() {
        let mut counts = TokenCounts::default();
        for _ in 0..2 {
            let mut visited = Vec::new();
            let tokens = [3, 1, 3, 99, 3, 0];
            counts.visit_distinct(5, tokens.into_iter(), |id, n| visited.push((id, n)));
            assert_eq!(visited, [(3, 3), (1, 1), (0, 1)]);
        }
    }

    #[test]
    fn openai_penalties_and_bias_adjust_logits() {
        let mut logits = [1.0, 1.0, -1.0];
        apply_presence_and_frequency_penalties(
            &mut logits,
            0.5,
            0.25,
            &[2, 0, 2],
            &mut TokenCounts::default(),
        );
        assert_eq!(logits, [0.25, 1.0, -2.0]);
        apply_logit_bias(&mut logits, &[(1, 2.0), (7, 1.0), (2, f32::NEG_INFINITY)]);
        assert_eq!(logits, [0.25, 3.0, f32::NEG_INFINITY]);
    }
}
