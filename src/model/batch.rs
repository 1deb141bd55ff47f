//! What goes through the model in one pass.

use super::cache::KvCache;
use super::scratch::Run;
use crate::kernels::attention;
use std::ops::Range;

/// New tokens of one sequence.
#[derive(Debug)]
pub struct Segment<'a> {
    /// The tokens, at least one.
    pub tokens: &'a [u32],
    /// What came before them; they join it.
    pub cache: &'a mut KvCache,
    /// Which of them get logits.
    pub wanted: Wanted,
}

/// Which tokens of a segment go through the head, which is a third of GPT-2's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// None: more of the prompt is to come.
    None,
    /// The last, to choose the next token by.
    Last,
    /// All, to score the text.
    All,
}

impl Segment<'_> {
    /// The tokens' positions in their sequence.
    pub(super) fn positions(&self) -> Range<usize> {
        self.cache.len()..self.cache.len() + self.tokens.len()
    }

    /// The tokens that want logits, counted within the segment.
    pub(super) fn wanted(&self) -> Range<usize> {
        let n = self.tokens.len();
        match self.wanted {
            Wanted::None => n..n,
            Wanted::Last => n.saturating_sub(1)..n,
            Wanted::All => 0..n,
        }
    }

    /// The rows of `run` and what they look back on.
    pub(super) fn attention_segment(&self, layer: usize, run: &Run) -> attention::Segment<'_> {
        attention::Segment {
            first_row: run.row,
            len: run.n,
            position: run.position,
            kv: self.cache.layer(layer),
        }
    }
}
