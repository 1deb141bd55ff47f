//! Speculative decoding: tokens that are drafted cheaply and verified by the model, several in one forward
//! pass (Leviathan et al. 2023).
//!
//! A forward pass reads all weights, for one token as for ten. So the next tokens are *drafted*, and a pass
//! over all of them yields the logits after each at little more than the cost of one token.
//!
//! ```text
//! text     … the king of Spain had a daughter … the king of
//! draft                                                     Spain had a daughter
//! output                                                    Spain had no
//! ```
//!
//! Drafts never change the output. Each token is sampled from its own logits, with the same noise as without
//! drafts, and draft tokens are accepted as long as they equal the sampled ones. After the first mismatch the
//! rest of the draft is rejected and its keys and values are truncated. As the model's logits are the same
//! bits in a pass of one token and of many, tokens and logprobs are bit-identical to decoding without drafts.
//!
//! Drafts come from the text itself ([`PromptLookup`]), and where nothing in it is repeated, from a
//! [`DraftModel`] ([`Drafter`]).

use super::draft_model::DraftModel;
use super::drafter::{DraftSequence, Drafter};
use super::prompt_lookup::DEFAULT_MAX_DRAFT_LEN;
use super::sequence_draft::SequenceDraft;
use super::{CompletionState, Hornbook};
use crate::Result;
use crate::model::{Observer, Session};
use std::time::Instant;

/// The drafts of one completion after the other.
#[derive(Default)]
pub struct Speculation<'h> {
    draft_model: Option<&'h DraftModel>,
    drafter: Drafter,
    draft: SequenceDraft,
    stats: DraftStats,
}

/// Statistics of speculative decoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DraftStats {
    /// Forward passes with a draft.
    pub drafts: u64,
    /// Draft tokens.
    pub drafted_tokens: u64,
    /// Accepted draft tokens.
    pub accepted_tokens: u64,
}

impl<'h> Speculation<'h> {
    /// Drafts from the text and by the draft model, if there is one ([`Hornbook::with_draft`]).
    pub fn new(hornbook: &'h Hornbook) -> Self {
        let draft_model = hornbook.draft_model();
        let max_lookup_len = if draft_model.is_some() { DEFAULT_MAX_DRAFT_LEN } else { 0 };
        let draft = SequenceDraft::with_prompt_lookup(max_lookup_len);
        Self { draft_model, draft, ..Self::default() }
    }

    /// Drafts up to `max_draft_len` tokens from the text itself first; none for 0.
    pub fn look_up(&mut self, max_draft_len: usize) {
        self.draft = SequenceDraft::with_prompt_lookup(max_draft_len);
    }

    /// Drafts `len` tokens by the draft model each time.
    pub fn fix_draft_len(&mut self, len: usize) {
        self.drafter.fix_len(len);
    }

    /// Resets all but the statistics, for another completion.
    pub fn restart(&mut self) {
        self.draft.restart();
    }

    /// The statistics so far.
    pub fn stats(&self) -> DraftStats {
        self.stats
    }

    /// Returns the logits of the completion's last token: from the last pass if that token was an accepted
    /// draft token, or from a new pass over it and a new draft. The session holds the tokens before it, or
    /// none.
    ///
    /// # Errors
    /// As [`Model::forward`](crate::model::Model::forward).
    pub fn logits<'s, O: Observer>(
        &mut self,
        session: &'s mut Session<O>,
        state: &CompletionState,
    ) -> Result<&'s [f32]> {
        let Self { draft_model, drafter, draft, stats } = self;
        let window = state.window();
        let last = window.len() - 1;
        if draft.accept(window[last]) && draft.n_accepted() <= draft.to_compute().len() {
            stats.accepted_tokens += 1;
            return Ok(session.logits().row(draft.n_accepted()));
        }
        session.truncate(last); // removes rejected draft tokens
        let new = &window[session.len()..];
        if new.len() > 1 {
            draft.clear(); // a pass after a context shift has no draft
            return session.feed(new);
        }
        drafter.draft(*draft_model, &mut [DraftSequence { cache: session.cache_mut(), state, draft }])?;
        let n_drafted = draft.to_compute().len();
        stats.drafts += u64::from(n_drafted > 0);
        stats.drafted_tokens += n_drafted as u64;
        let start = draft_model.map(|_| Instant::now());
        session.feed_all(draft.pass_tokens())?;
        if let Some(start) = start {
            drafter.record_pass(1, n_drafted, start.elapsed().as_secs_f64());
        }
        Ok(session.logits().row(0))
    }
}
