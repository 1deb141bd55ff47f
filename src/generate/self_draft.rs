//! Drafts from a quantized copy of the model: it reads a fraction of the bytes, and mostly says the same.
//!
//! The copy needs no prompt and no cache of its own. It attends to the keys and values that the model has
//! computed, adds those of its draft, and these are dropped again before the model verifies the draft. It
//! draws with the noise that the model will draw with, so that it is right as often as the two distributions
//! have the same winner ([`gumbel`](crate::sampling::gumbel)).
//!
//! A draft of k tokens pays if what it yields takes less time than without it. With a share α of accepted
//! tokens, a pass yields `1 + α + … + α^k` tokens (Leviathan et al. 2023, equation 1) and takes
//! `plain + k · row` seconds after `k · draft` seconds of drafting. All four are measured as the text goes
//! on, and k is the number with the most tokens a second: 0 if the model is as fast as its copy, or the copy
//! seldom right.

use super::CompletionState;
use crate::Result;
use crate::model::{Model, Observer, Session, Workspace};
use crate::sampling::Sampler;
use std::time::Instant;

/// Maximum tokens of a draft.
const MAX_DRAFT_LEN: usize = 8;
/// How much faster drafting must be, to be worth its uncertainty.
const MIN_GAIN: f64 = 1.03;
/// Tokens without a draft after which one token is drafted, in case it pays now.
const RETRY_INTERVAL: usize = 64;
/// Weight of a new measurement in its moving average.
const SMOOTHING: f64 = 0.1;

/// The draft model, and what its drafts cost and save.
pub(super) struct SelfDraft<'h> {
    model: &'h Model,
    workspace: Workspace,
    /// The completion's sampler, at the draft's position; none before the first draft.
    sampler: Option<Sampler>,
    /// The text and the draft.
    tokens: Vec<u32>,
    cost_model: CostModel,
    /// Passes since the last draft.
    idle: usize,
    fixed_len: Option<usize>,
}

/// The moving averages that the length of a draft follows from.
#[derive(Clone, Copy, Debug, Default)]
struct CostModel {
    /// The share of accepted tokens, α.
    acceptance_rate: f64,
    /// Seconds of a pass of the model over one token.
    plain: f64,
    /// Seconds that each further token adds to the pass.
    row: f64,
    /// Seconds of drafting a token.
    draft: f64,
}

impl CostModel {
    /// A draft model whose drafts are not known yet.
    const UNKNOWN: Self = Self { acceptance_rate: 0.8, plain: 0.0, row: 0.0, draft: 0.0 };

    /// The length of the draft with the most tokens a second, at most `max`.
    fn draft_len(&self, max: usize) -> usize {
        let rate = |k: usize| {
            let tokens: f64 = (0..=k).map(|i| self.acceptance_rate.powi(i as i32)).sum();
            tokens / (self.plain + k as f64 * (self.row + self.draft))
        };
        let best = (1..=max).max_by(|&a, &b| rate(a).total_cmp(&rate(b)));
        best.filter(|&k| rate(k) > MIN_GAIN * rate(0)).unwrap_or(0)
    }
}

fn update(average: &mut f64, value: f64) {
    *average = if *average == 0.0 { value } else { *average + SMOOTHING * (value - *average) };
}

impl<'h> SelfDraft<'h> {
    /// Drafts by a copy of the completion's model.
    pub(super) fn new(model: &'h Model) -> Self {
        let (workspace, cost_model) = (Workspace::new(), CostModel::UNKNOWN);
        Self { model, workspace, sampler: None, tokens: vec![], cost_model, idle: 0, fixed_len: None }
    }

    /// Drafts this many tokens each time, whether that pays or not.
    pub(super) fn fix_len(&mut self, len: usize) {
        self.fixed_len = Some(len);
    }

    /// Prepares for another completion.
    pub(super) fn restart(&mut self) {
        self.sampler = None;
    }

    /// Appends the next tokens to `draft`, at most `room`, as many as pay. The session holds the text up to
    /// its last token.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub(super) fn draft<O: Observer>(
        &mut self,
        session: &mut Session<O>,
        state: &CompletionState,
        room: usize,
        draft: &mut Vec<u32>,
    ) -> Result<()> {
        self.idle += 1;
        let len = match (self.fixed_len, self.cost_model) {
            (Some(len), _) => len.min(room),
            (None, CostModel { plain: 0.0, .. }) => 0, // the first pass is without a draft, to time it
            (None, CostModel { draft: 0.0, .. }) => 1,
            (None, cost_model) => {
                cost_model.draft_len(MAX_DRAFT_LEN.min(room)).max(usize::from(self.idle > RETRY_INTERVAL))
            }
        };
        if len == 0 {
            return Ok(());
        }
        self.idle = 0;
        let (start, position) = (Instant::now(), session.len());
        let sampler = self.sampler.get_or_insert_with(|| state.sampler().clone());
        sampler.seek(state.generated().len());
        self.tokens.clear();
        self.tokens.extend_from_slice(state.tokens());
        for _ in 0..len {
            let last = self.tokens[self.tokens.len() - 1];
            session.feed_draft(self.model, last, &mut self.workspace)?;
            let (prompt, generated) = self.tokens.split_at(state.prompt().len());
            let token = sampler.choose(self.workspace.logits().row(0), prompt, generated);
            self.tokens.push(token);
            draft.push(token);
        }
        session.truncate(position);
        update(&mut self.cost_model.draft, start.elapsed().as_secs_f64() / len as f64);
        Ok(())
    }

    /// Records whether a draft token was accepted.
    pub(super) fn record_acceptance(&mut self, is_accepted: bool) {
        update(&mut self.cost_model.acceptance_rate, f64::from(u8::from(is_accepted)));
    }

    /// Records the seconds of a pass over the last token and a draft of `len` tokens.
    pub(super) fn record_pass(&mut self, len: usize, seconds: f64) {
        match len {
            0 => update(&mut self.cost_model.plain, seconds),
            len => update(&mut self.cost_model.row, (seconds - self.cost_model.plain).max(0.0) / len as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draft_is_as_long_as_it_pays() {
        let cost_model = CostModel { acceptance_rate: 0.9, plain: 16.2, row: 0.35, draft: 2.8 };
        assert_eq!(cost_model.draft_len(8), 7);
        assert_eq!(cost_model.draft_len(3), 3);
        assert_eq!(CostModel { acceptance_rate: 0.1, ..cost_model }.draft_len(8), 0, "seldom right");
        assert_eq!(CostModel { draft: 16.0, ..cost_model }.draft_len(8), 0, "as slow as the model");
        assert_eq!(cost_model.draft_len(0), 0);
        assert_eq!(CostModel { acceptance_rate: 1.0, draft: 0.1, row: 0.1, ..cost_model }.draft_len(8), 8);
    }
}
