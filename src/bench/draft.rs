//! Speculative decoding beside decoding without drafts, of the same tokens.
//!
//! What a draft saves depends on how much of it is accepted, and so on the text. Both write the same texts,
//! in turn, and the ratio is that of one repetition: whatever else the machine does slows both.

use super::Summary;
use crate::Result;
use crate::generate::{DraftStats, Generation, Hornbook, Options};
use std::time::Instant;

/// The speed of decode with and without drafts.
#[derive(Clone, Debug)]
pub struct DraftMeasurement {
    /// Tokens per second without drafts.
    pub plain: Summary,
    /// Tokens per second with drafts.
    pub drafted: Summary,
    /// The second over the first.
    pub speedup: Summary,
    /// Tokens decoded in all repetitions, without each one's first, which the prompt's logits yield.
    pub tokens: u64,
    /// Drafts of all repetitions.
    pub stats: DraftStats,
}

impl DraftMeasurement {
    /// The accepted share of the draft tokens; none if nothing was drafted.
    pub fn acceptance_rate(&self) -> Option<f64> {
        let DraftStats { drafted_tokens, accepted_tokens, .. } = self.stats;
        (drafted_tokens > 0).then(|| accepted_tokens as f64 / drafted_tokens as f64)
    }

    /// Tokens per pass of the model.
    pub fn tokens_per_pass(&self) -> f64 {
        self.tokens as f64 / (self.tokens - self.stats.accepted_tokens) as f64
    }
}

/// Writes `options.max_tokens` tokens after a prompt, `repeat` times with consecutive seeds, each without and
/// with the drafts of a model that has a draft model ([`Hornbook::with_draft`]). `on_repetition` is called
/// after each repetition.
///
/// # Errors
/// As [`Hornbook::generate`].
pub fn measure_drafts(
    hornbook: &Hornbook,
    prompt: &[u32],
    options: &Options,
    repeat: usize,
    mut on_repetition: impl FnMut(),
) -> Result<DraftMeasurement> {
    let mut options = options.clone();
    options.sampling.min_tokens = options.max_tokens.unwrap_or(0); // a text of this length, and no shorter
    let (mut plain_speeds, mut speeds, mut ratios) = (vec![], vec![], vec![]);
    let (mut tokens, mut stats) = (0, DraftStats::default());
    for _ in 0..repeat {
        let plain = || {
            let generation = hornbook.generate(prompt, &options)?;
            decode(generation.with_prompt_lookup(0).with_draft_len(0))
        };
        let drafted = || decode(hornbook.generate(prompt, &options)?);
        // Neither is always the first.
        let (without, with) = match options.sampling.seed % 2 {
            0 => (plain()?, drafted()?),
            _ => {
                let with = drafted()?;
                (plain()?, with)
            }
        };
        plain_speeds.push(without.tokens as f64 / without.seconds);
        speeds.push(with.tokens as f64 / with.seconds);
        ratios.push(without.seconds / with.seconds);
        tokens += with.tokens;
        stats.drafts += with.stats.drafts;
        stats.drafted_tokens += with.stats.drafted_tokens;
        stats.accepted_tokens += with.stats.accepted_tokens;
        options.sampling.seed += 1;
        on_repetition();
    }
    Ok(DraftMeasurement {
        plain: Summary::new(&plain_speeds),
        drafted: Summary::new(&speeds),
        speedup: Summary::new(&ratios),
        tokens,
        stats,
    })
}

struct Decode {
    tokens: u64,
    seconds: f64,
    stats: DraftStats,
}

/// Times a completion from its second token on.
fn decode(mut generation: Generation) -> Result<Decode> {
    generation.next().transpose()?;
    let start = Instant::now();
    let mut tokens = 0;
    while generation.next().transpose()?.is_some() {
        tokens += 1;
    }
    Ok(Decode { tokens, seconds: start.elapsed().as_secs_f64(), stats: generation.draft_stats() })
}
