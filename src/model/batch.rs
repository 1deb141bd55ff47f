//! The input of one forward pass.

use super::cache::KvCache;
use super::workspace::SegmentRows;
use crate::kernels::attention;
use std::ops::Range;

/// New tokens of one sequence.
#[derive(Debug)]
pub struct Segment<'a> {
    /// The tokens, at least one.
    pub tokens: &'a [u32],
    /// The keys and values of earlier tokens; those of the new tokens are appended.
    pub cache: &'a mut KvCache,
    /// The tokens whose logits are requested.
    pub logits: LogitsWanted,
}

/// The tokens of a segment whose logits are computed. The LM head takes a third of GPT-2's FLOPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogitsWanted {
    /// No token: more of the prompt follows.
    None,
    /// The last token, to sample the next one.
    Last,
    /// All tokens, to score the text.
    All,
}

impl Segment<'_> {
    /// The tokens whose logits are requested, as indices into the segment.
    pub(super) fn logit_tokens(&self) -> Range<usize> {
        let n = self.tokens.len();
        match self.logits {
            LogitsWanted::None => n..n,
            LogitsWanted::Last => n.saturating_sub(1)..n,
            LogitsWanted::All => 0..n,
        }
    }

    /// The rows of the segment with the KV cache of one layer.
    pub(super) fn attention_segment(&self, layer: usize, rows: &SegmentRows) -> attention::Segment<'_> {
        attention::Segment {
            first_row: rows.row,
            len: rows.n,
            position: rows.position,
            kv: self.cache.layer(layer),
        }
    }
}
