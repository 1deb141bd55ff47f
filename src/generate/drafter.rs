//! Drafts from a [draft model](DraftModel): it reads a fraction of the bytes, and mostly says the same.
//!
//! A quantized copy of the model needs no prompt and no cache of its own. It attends to the keys and values
//! that the model has computed, adds those of its draft, and these are dropped again before the model
//! verifies the draft. Another model has a cache of its own for each sequence. Either draws with the noise
//! that the model will draw with, so that it is right as often as the two distributions have the same winner
//! ([`gumbel`](crate::sampling::gumbel)).
//!
//! Several sequences draft together: one pass of the draft model computes a token of each.

use super::CompletionState;
use super::draft_len::{AcceptanceRate, DraftLen, MAX_DRAFT_LEN};
use super::draft_model::DraftModel;
use super::sequence_draft::SequenceDraft;
use crate::Result;
use crate::model::{KvCache, Segment, Workspace};
use std::time::Instant;

/// What drafts of a draft model cost and save, whatever completions they are for.
#[derive(Default)]
pub(crate) struct Drafter {
    workspace: Workspace,
    acceptance_rate: AcceptanceRate,
    /// By number of sequences in the pass.
    lengths: Vec<DraftLen>,
    fixed_len: Option<usize>,
}

/// A sequence to draft for. Its cache holds all tokens but the last.
pub(crate) struct DraftSequence<'a> {
    pub(crate) cache: &'a mut KvCache,
    pub(crate) state: &'a CompletionState,
    pub(crate) draft: &'a mut SequenceDraft,
}

impl DraftSequence<'_> {
    /// Tokens that the model may compute beyond the last one.
    fn room(&self) -> usize {
        self.cache.capacity() - self.state.window().len()
    }

    /// Tokens that the draft model may compute beyond the last one.
    fn draft_room(&self, model: &DraftModel) -> usize {
        model.capacity(self.cache).saturating_sub(self.state.window().len())
    }
}

impl Drafter {
    /// Drafts this many tokens each time, whether that pays or not.
    pub(crate) fn fix_len(&mut self, len: usize) {
        self.fixed_len = Some(len);
    }

    /// Drafts the next tokens of sequences in decode: from their texts, and where these repeat nothing, as
    /// many as pay by the draft model, if there is one.
    ///
    /// # Errors
    /// As [`Model::forward`](crate::model::Model::forward).
    pub(crate) fn draft(&mut self, model: Option<&DraftModel>, batch: &mut [DraftSequence]) -> Result<()> {
        let n_sequences = batch.len();
        let looks_up = self.fixed_len.is_some() || self.length(n_sequences).lookup_pays(n_sequences);
        for sequence in &mut *batch {
            self.record_outcome(sequence.draft);
            let room = if looks_up { sequence.room() } else { 0 };
            sequence.draft.look_up(sequence.state, room);
        }
        let Some(model) = model else { return Ok(()) };
        let is_open = |s: &&mut DraftSequence| s.draft.to_compute().is_empty() && s.draft_room(model) > 0;
        let mut open: Vec<&mut DraftSequence> = batch.iter_mut().filter(is_open).collect();
        let max =
            open.iter().map(|sequence| sequence.draft_room(model)).min().unwrap_or(0).min(MAX_DRAFT_LEN);
        let acceptance_rate = self.acceptance_rate;
        let limit = match self.fixed_len {
            Some(len) => len.min(max),
            None if max == 0 => 0,
            None => self.length(n_sequences).limit(open.len(), acceptance_rate, max),
        };
        if limit > 0 {
            for DraftSequence { cache, state, draft } in open.iter_mut().map(|sequence| &mut **sequence) {
                draft.start_model_draft(state, model, model.capacity(cache), &mut self.workspace)?;
            }
            let start = Instant::now();
            let (mut len, mut tokens) = (0, n_sequences as f64);
            while len < limit {
                self.draft_token(model, &mut open)?;
                len += 1;
                let chances = open.iter().map(|sequence| acceptance_rate.of_all(sequence.draft.margins()));
                let accepted: f64 = chances.sum();
                tokens += accepted;
                let next = accepted * acceptance_rate.average();
                if self.fixed_len.is_none() && !self.length(n_sequences).pays(open.len(), len, tokens, next) {
                    break;
                }
            }
            if model.shares_cache() {
                open.iter_mut().for_each(|s| s.cache.truncate(s.state.window().len() - 1));
            }
            self.length(n_sequences).record_draft(len, start.elapsed().as_secs_f64());
        }
        Ok(())
    }

    /// One pass of the draft model: a token of each sequence.
    fn draft_token(&mut self, model: &DraftModel, batch: &mut [&mut DraftSequence]) -> Result<()> {
        let segments = batch.iter_mut().map(|sequence| {
            let DraftSequence { cache, state, draft } = &mut **sequence;
            draft.segment(state, cache)
        });
        let mut segments: Vec<Segment> = segments.collect();
        model.model().forward(&mut segments, &mut self.workspace, &mut ())?;
        let logits = self.workspace.logits();
        model.model().pool().for_each_chunk(batch, 1, |i, sequence| {
            let DraftSequence { state, draft, .. } = &mut *sequence[0];
            draft.push(logits.row(i), state);
        });
        Ok(())
    }

    /// Records the seconds of a pass over the last token of each of `n` sequences, and `drafted` draft
    /// tokens.
    pub(crate) fn record_pass(&mut self, n: usize, drafted: usize, seconds: f64) {
        self.length(n).record_pass(drafted, seconds);
    }

    fn record_outcome(&mut self, draft: &SequenceDraft) {
        for (margin, is_accepted) in draft.model_outcome() {
            self.acceptance_rate.record(margin, is_accepted);
        }
    }

    fn length(&mut self, n_sequences: usize) -> &mut DraftLen {
        if self.lengths.len() <= n_sequences {
            self.lengths.resize(n_sequences + 1, DraftLen::default());
        }
        &mut self.lengths[n_sequences]
    }
}
