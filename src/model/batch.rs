//! The input of one forward pass.

use super::cache::KvCache;
use super::workspace::SegmentRows;
use super::{AdapterWeights, Operation};
use crate::kernels::attention;
use crate::kernels::linear::low_rank::LowRank;
use std::ops::Range;
use std::ptr;

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

/// Calls `each` with the weights and the rows of consecutive segments that have the same weights: all of a
/// batch without adapters.
pub(super) fn for_each_run<'w, W: 'w>(
    batch: &'w [Segment],
    segment_rows: &[SegmentRows],
    weights: impl Fn(Option<&'w AdapterWeights>) -> &'w W,
    mut each: impl FnMut(&W, Range<usize>),
) {
    let weights = |segment: usize| weights(batch[segment].adapter());
    let (mut first, mut row) = (0, 0);
    while first < batch.len() {
        let w = weights(first);
        let end = (first..batch.len()).find(|&i| !ptr::eq(weights(i), w)).unwrap_or(batch.len());
        let n: usize = segment_rows[first..end].iter().map(|rows| rows.n).sum();
        if n > 0 {
            each(w, row..row + n);
        }
        (first, row) = (end, row + n);
    }
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
    /// The adapter of the sequence.
    pub(super) fn adapter(&self) -> Option<&AdapterWeights> {
        self.cache.adapter().map(|adapter| &**adapter)
    }

    /// The change that its adapter makes to the linear layer of an operation.
    pub(super) fn low_rank(&self, operation: Operation) -> Option<LowRank<'_>> {
        self.adapter()?.low_rank(operation)
    }

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
