//! The draft of one completion: the tokens that are expected next, and how many of them were right.

use super::CompletionState;
use super::draft_model::{DraftCache, DraftModel};
use super::prompt_lookup::PromptLookup;
use crate::Result;
use crate::model::{KvCache, LogitsWanted, Segment, Workspace};
use crate::sampling::Sampler;
use crate::sampling::gumbel::Drawn;

/// The tokens that are expected after a completion's last one.
#[derive(Default)]
pub(crate) struct SequenceDraft {
    prompt_lookup: Option<PromptLookup>,
    /// The completion's last token, and the draft.
    tokens: Vec<u32>,
    /// The margins of a draft model's tokens, `[draft tokens]`.
    margins: Vec<f32>,
    /// The number of draft tokens that the model is to compute; another may follow, to be compared only.
    n_computed: usize,
    /// The number of tokens accepted so far.
    n_accepted: usize,
    is_rejected: bool,
    is_of_model: bool,
    /// A token from the text that is compared with the first one of the draft model.
    looked_up: Option<u32>,
    /// The completion's sampler at the draft's position; none before the first draft of a model.
    sampler: Option<Sampler>,
    /// The completion's text with the draft.
    text: Vec<u32>,
    /// The draft model's cache, if it has its own.
    cache: Option<DraftCache>,
}

impl SequenceDraft {
    /// Drafts from the text, at most `max_draft_len` tokens, before a draft model is asked; 0 for none.
    pub(crate) fn with_prompt_lookup(max_draft_len: usize) -> Self {
        let prompt_lookup = (max_draft_len > 0).then(|| PromptLookup::new(max_draft_len));
        Self { prompt_lookup, ..Self::default() }
    }

    /// Prepares for another completion.
    pub(crate) fn restart(&mut self) {
        *self = Self { prompt_lookup: self.prompt_lookup.take(), ..Self::default() };
        self.prompt_lookup.iter_mut().for_each(PromptLookup::restart);
    }

    /// The draft tokens that the model is to compute with the completion's last one.
    pub(crate) fn to_compute(&self) -> &[u32] {
        self.pass_tokens().get(1..).unwrap_or_default()
    }

    /// The completion's last token and those to compute with it; none without a draft.
    pub(crate) fn pass_tokens(&self) -> &[u32] {
        self.tokens.get(..=self.n_computed).unwrap_or_default()
    }

    /// The number of tokens accepted so far, of those computed and the one that is compared only.
    pub(crate) fn n_accepted(&self) -> usize {
        self.n_accepted
    }

    /// Takes the completion's next token, and returns whether it was expected.
    pub(crate) fn accept(&mut self, token: u32) -> bool {
        let Some(&drafted) = self.tokens.get(1 + self.n_accepted).filter(|_| !self.is_rejected) else {
            return false;
        };
        let is_accepted = drafted == token;
        self.n_accepted += usize::from(is_accepted);
        self.is_rejected = !is_accepted;
        if let (false, Some(prompt_lookup)) = (self.is_of_model, &mut self.prompt_lookup) {
            prompt_lookup.record_acceptance(is_accepted);
        }
        is_accepted
    }

    /// Expects nothing.
    pub(crate) fn clear(&mut self) {
        self.tokens.clear();
        self.margins.clear();
        (self.n_computed, self.n_accepted, self.is_rejected, self.is_of_model) = (0, 0, false, false);
    }

    /// Replaces the draft by one from the text, of which the model is to compute at most `room` tokens.
    pub(super) fn look_up(&mut self, state: &CompletionState, room: usize) {
        self.clear();
        self.tokens.extend(state.tokens().last());
        if let Some(prompt_lookup) = &mut self.prompt_lookup {
            self.n_computed = prompt_lookup.draft(state.tokens(), room, &mut self.tokens);
        }
    }

    /// The margins of a draft model's tokens: with which distance to the next each was chosen, in nats.
    pub(super) fn margins(&self) -> &[f32] {
        &self.margins
    }

    /// A draft model's tokens that the model has compared: the margin of each, and whether it was accepted.
    pub(super) fn model_outcome(&self) -> impl Iterator<Item = (f32, bool)> {
        let accepted = self.margins.iter().take(self.n_accepted).map(|margin| (*margin, true));
        let rejected = self.margins.get(self.n_accepted).filter(|_| self.is_rejected);
        accepted.chain(rejected.map(|margin| (*margin, false)))
    }

    /// Begins a draft of the draft model, in place of a token that is compared only. `capacity` is that of a
    /// cache of its own.
    ///
    /// # Errors
    /// As [`DraftCache::catch_up`].
    pub(super) fn start_model_draft(
        &mut self,
        state: &CompletionState,
        model: &DraftModel,
        capacity: usize,
        workspace: &mut Workspace,
    ) -> Result<()> {
        self.looked_up = self.tokens.drain(1..).next();
        self.is_of_model = true;
        self.text.clear();
        self.text.extend_from_slice(state.tokens());
        self.sampler.get_or_insert_with(|| state.sampler().clone()).seek(state.generated().len());
        if !model.shares_cache() {
            let cache = self.cache.get_or_insert_with(|| DraftCache::new(model.model(), capacity));
            cache.catch_up(model.model(), state.window(), workspace)?;
        }
        Ok(())
    }

    /// The part of the draft model's pass that yields the logits after the text and the draft. `shared` is
    /// the model's cache.
    pub(super) fn segment<'a>(&'a mut self, state: &CompletionState, shared: &'a mut KvCache) -> Segment<'a> {
        let window = &self.text[state.discarded()..];
        match &mut self.cache {
            Some(cache) => cache.segment(window),
            None => {
                let tokens = &window[window.len() - 1..];
                Segment { tokens, cache: shared, logits: LogitsWanted::Last }
            }
        }
    }

    /// Appends the token that the completion's sampler chooses from the draft model's logits,
    /// `[vocab_size]`.
    pub(super) fn push(&mut self, logits: &[f32], state: &CompletionState) {
        let Some(sampler) = &mut self.sampler else { return };
        let (prompt, generated) = self.text.split_at(state.prompt().len());
        let Drawn { id: token, margin } = sampler.choose_with_margin(logits, prompt, generated);
        if let (Some(looked_up), Some(prompt_lookup)) = (self.looked_up.take(), &mut self.prompt_lookup) {
            prompt_lookup.record_acceptance(looked_up == token);
        }
        self.text.push(token);
        self.tokens.push(token);
        self.margins.push(margin);
        self.n_computed = self.tokens.len() - 1;
    }
}
