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
//! Drafts come from the text itself ([`PromptLookup`]), and where nothing in it is repeated, from a quantized
//! copy of the model ([`SelfDraft`]).

use super::prompt_lookup::PromptLookup;
use super::self_draft::SelfDraft;
use super::{CompletionState, Hornbook};
use crate::Result;
use crate::model::{Observer, Session};
use std::time::Instant;

/// The drafts of one completion after the other.
#[derive(Default)]
pub struct Speculation<'h> {
    pub(super) prompt_lookup: Option<PromptLookup>,
    self_draft: Option<SelfDraft<'h>>,
    draft: Draft,
    stats: DraftStats,
}

/// The tokens predicted to follow.
#[derive(Debug, Default)]
struct Draft {
    tokens: Vec<u32>,
    /// Number of tokens in the last forward pass.
    n_computed: usize,
    /// Number of tokens accepted so far.
    n_accepted: usize,
    is_of_model: bool,
}

/// Statistics of speculative decoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DraftStats {
    /// Forward passes with a draft.
    pub drafts: usize,
    /// Draft tokens.
    pub drafted_tokens: usize,
    /// Accepted draft tokens.
    pub accepted_tokens: usize,
}

impl<'h> Speculation<'h> {
    /// Drafts by the copy of the model, if there is one ([`Hornbook::with_draft`]).
    pub fn new(hornbook: &'h Hornbook) -> Self {
        Self { self_draft: hornbook.draft_model.as_ref().map(SelfDraft::new), ..Self::default() }
    }

    /// Drafts `len` tokens by the copy of the model each time.
    pub fn fix_draft_len(&mut self, len: usize) {
        self.self_draft.iter_mut().for_each(|self_draft| self_draft.fix_len(len));
    }

    /// Resets all but the statistics, for another completion.
    pub fn restart(&mut self) {
        self.prompt_lookup.iter_mut().for_each(PromptLookup::restart);
        self.self_draft.iter_mut().for_each(SelfDraft::restart);
        self.draft = Draft::default();
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
        let window = state.window();
        let last = window.len() - 1;
        if self.accepts(window[last]) && self.draft.n_accepted <= self.draft.n_computed {
            self.stats.accepted_tokens += 1;
            return Ok(session.logits().row(self.draft.n_accepted));
        }
        session.truncate(last); // removes rejected draft tokens
        let new = &window[session.len()..];
        // A pass after a context shift has no draft.
        let room = if new.len() > 1 { 0 } else { session.cache().capacity() - window.len() };
        self.make_draft(session, state, room)?;
        let draft = &self.draft.tokens[..self.draft.n_computed];
        self.stats.drafts += usize::from(!draft.is_empty());
        self.stats.drafted_tokens += draft.len();
        let start = self.self_draft.as_ref().map(|_| Instant::now());
        match draft {
            [] => session.feed(new).map(drop)?,
            draft => session.feed_all(&[new, draft].concat()).map(drop)?,
        }
        if let (Some(self_draft), Some(start), [_]) = (&mut self.self_draft, start, new) {
            self_draft.record_pass(draft.len(), start.elapsed().as_secs_f64());
        }
        Ok(session.logits().row(0))
    }

    /// Returns whether `token` equals the next draft token, and tells the source of the draft.
    fn accepts(&mut self, token: u32) -> bool {
        let Draft { tokens, n_accepted, is_of_model, .. } = &mut self.draft;
        let Some(&drafted) = tokens.get(*n_accepted) else { return false };
        let is_accepted = drafted == token;
        *n_accepted += usize::from(is_accepted);
        match (is_of_model, &mut self.self_draft, &mut self.prompt_lookup) {
            (true, Some(self_draft), _) => self_draft.record_acceptance(is_accepted),
            (false, _, Some(prompt_lookup)) => prompt_lookup.record_acceptance(is_accepted),
            _ => {}
        }
        is_accepted
    }

    /// Drafts the next tokens, of which the model is to compute at most `room`.
    fn make_draft<O: Observer>(
        &mut self,
        session: &mut Session<O>,
        state: &CompletionState,
        room: usize,
    ) -> Result<()> {
        let draft = &mut self.draft;
        (draft.n_accepted, draft.n_computed, draft.is_of_model) = (0, 0, false);
        draft.tokens.clear();
        if let Some(prompt_lookup) = &mut self.prompt_lookup {
            draft.n_computed = prompt_lookup.draft(state.tokens(), room, &mut draft.tokens);
        }
        if let Some(self_draft) = self.self_draft.as_mut().filter(|_| draft.n_computed == 0 && room > 0) {
            let looked_up = draft.tokens.pop(); // to be compared only
            self_draft.draft(session, state, room, &mut draft.tokens)?;
            (draft.n_computed, draft.is_of_model) = (draft.tokens.len(), !draft.tokens.is_empty());
            match (looked_up, draft.tokens.first(), &mut self.prompt_lookup) {
                (Some(looked_up), Some(&drafted), Some(prompt_lookup)) => {
                    prompt_lookup.record_acceptance(looked_up == drafted)
                }
                (Some(looked_up), None, _) => draft.tokens.push(looked_up),
                _ => {}
            }
        }
        Ok(())
    }
}
