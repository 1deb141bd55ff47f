//! What the forward and the backward pass of a micro-batch share.

use super::layout::Layout;
use crate::checkpoint::Config;
use crate::kernels::thread_pool::ThreadPool;
use std::ops::Range;

/// A micro-batch: sequences of tokens, and for each token the one that follows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// The tokens of all sequences, one after the other, `[n_tokens]`.
    pub ids: Vec<u32>,
    /// The position of each token in its sequence, `[n_tokens]`.
    pub positions: Vec<u32>,
    /// The tokens of each sequence.
    pub sequences: Vec<Range<usize>>,
    /// The token that follows each token, `[n_tokens]`.
    pub targets: Vec<u32>,
    /// How much each token's loss counts, `[n_tokens]`; 0 where it does not.
    pub weights: Vec<f32>,
}

impl Batch {
    /// Adds a sequence: all of `ids` but the last are read, all but the first are predicted, and the loss of
    /// each prediction counts `weight`.
    pub fn push(&mut self, ids: &[u32], weight: f32) {
        self.push_weighted(ids, &vec![weight; ids.len().saturating_sub(1)]);
    }

    /// Adds a sequence whose predictions count differently: `weights[i]` is that of predicting `ids[i + 1]`.
    ///
    /// # Panics
    /// If the lengths do not match.
    pub fn push_weighted(&mut self, ids: &[u32], weights: &[f32]) {
        let (Some((_, targets)), Some((_, inputs))) = (ids.split_first(), ids.split_last()) else { return };
        assert_eq!(targets.len(), weights.len(), "one weight for each prediction");
        let start = self.ids.len();
        self.sequences.push(start..start + inputs.len());
        self.ids.extend_from_slice(inputs);
        self.positions.extend(0..inputs.len() as u32);
        self.targets.extend_from_slice(targets);
        self.weights.extend_from_slice(weights);
    }

    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// One pass of a micro-batch through a model.
pub(super) struct Pass<'a> {
    pub(super) pool: &'a ThreadPool,
    pub(super) config: &'a Config,
    pub(super) layout: &'a Layout,
    pub(super) weights: &'a [f32],
    /// Sinusoidal position embeddings, `[n_positions, n_embd]`; empty if they are learned.
    pub(super) sinusoidal: &'a [f32],
    pub(super) batch: &'a Batch,
}

impl<'a> Pass<'a> {
    /// `[n_positions, n_embd]`
    pub(super) fn position_embeddings(&self) -> &'a [f32] {
        self.layout.wpe.as_ref().map_or(self.sinusoidal, |wpe| &self.weights[wpe.clone()])
    }
}
