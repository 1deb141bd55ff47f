//! The activations of a forward pass, reused from pass to pass, so that decoding a token allocates nothing.

use super::Segment;
use crate::kernels::rows::{Rows, RowsMut, row_stride};

/// The activations of a batch.
#[derive(Debug, Default)]
pub struct Workspace {
    /// The rows of each segment in every buffer.
    pub(super) segment_rows: Vec<SegmentRows>,
    pub(super) buffers: Buffers,
}

/// The rows of one segment in the batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentRows {
    pub(super) row: usize,
    pub(super) n: usize,
    /// The position of the first row in its sequence.
    pub(super) position: usize,
}

impl Workspace {
    /// Creates an empty workspace.
    pub fn new() -> Self {
        Self::default()
    }

    /// The logits of the last pass, `[n_logits, vocab_size]`, in the order of its segments.
    pub fn logits(&self) -> Rows<'_> {
        match self.buffers.n_tokens {
            0 => Rows::dense(&[], 1),
            _ => self.buffers.rows(Buffer::Logits),
        }
    }

    /// Assigns rows to the segments of a batch.
    pub(super) fn prepare(&mut self, batch: &[Segment]) {
        self.segment_rows.clear();
        self.buffers.n_tokens = 0;
        for segment in batch {
            let (row, n) = (self.buffers.n_tokens, segment.tokens.len());
            self.segment_rows.push(SegmentRows { row, n, position: segment.cache.len() });
            self.buffers.n_tokens += n;
        }
    }

    /// Keeps only the rows of tokens whose logits are requested, and makes them contiguous, in the buffers
    /// that are still needed.
    pub(super) fn retain_logit_rows(&mut self, batch: &[Segment], needed: &[Buffer]) {
        let mut n_kept = 0;
        for (rows, segment) in self.segment_rows.iter_mut().zip(batch) {
            let kept = segment.logit_tokens();
            for from in kept.clone() {
                for buffer in needed {
                    self.buffers.move_row(*buffer, rows.row + from, n_kept + from - kept.start);
                }
            }
            *rows = SegmentRows { row: n_kept, n: kept.len(), position: rows.position + kept.start };
            n_kept += kept.len();
        }
        self.buffers.n_tokens = n_kept;
    }
}

/// The name of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Buffer {
    /// The residual stream, `[n_tokens, n_embd]`.
    X,
    /// The position embeddings, `[n_tokens, n_embd]`.
    Positions,
    /// The output of the last layer norm, `[n_tokens, n_embd]`.
    Normed,
    /// Queries, keys and values, `[n_tokens, 3 * n_embd]`.
    Qkv,
    /// The outputs of the attention heads, concatenated, `[n_tokens, n_embd]`.
    Z,
    /// The MLP's neurons, `[n_tokens, n_inner]`.
    Hidden,
    /// For observers, the output of a linear layer before its epilogue.
    Unfused,
    /// The logits, `[n_logits, vocab_size]`.
    Logits,
}

impl Buffer {
    /// The index of the buffer's storage. Buffers that are never needed together share one, so that more of
    /// it stays in the processor's caches.
    fn storage(self) -> usize {
        match self {
            Buffer::X => 0,
            Buffer::Positions | Buffer::Normed | Buffer::Z => 1,
            Buffer::Qkv | Buffer::Hidden => 2,
            Buffer::Unfused => 3,
            Buffer::Logits => 4,
        }
    }
}

/// Buffers of one row per token. They grow to the largest batch so far.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// The number of tokens still in the pass: first all, in the end those whose logits are requested.
    n_tokens: usize,
    storages: [Storage; 5],
}

/// The memory of one or more buffers.
#[derive(Debug, Default)]
struct Storage {
    /// The buffer that it holds now.
    buffer: Option<Buffer>,
    data: Vec<f32>,
    width: usize,
    stride: usize,
}

impl Buffers {
    /// Starts a buffer of rows of `width` elements. What they hold is undefined, and what the buffers that
    /// share its memory held is lost.
    pub(super) fn start(&mut self, buffer: Buffer, width: usize) {
        let stride = row_stride(width);
        let storage = &mut self.storages[buffer.storage()];
        (storage.buffer, storage.width, storage.stride) = (Some(buffer), width, stride);
        if storage.data.len() < self.n_tokens * stride {
            storage.data = vec![0.0; self.n_tokens * stride];
        }
    }

    /// The rows of a buffer.
    pub(super) fn rows(&self, buffer: Buffer) -> Rows<'_> {
        self.storages[buffer.storage()].rows(buffer, self.n_tokens)
    }

    /// The rows of a buffer, to be written.
    pub(super) fn rows_mut(&mut self, buffer: Buffer) -> RowsMut<'_> {
        self.storages[buffer.storage()].rows_mut(buffer, self.n_tokens)
    }

    /// The rows of one buffer, and those of another to be written. Panics if they share their memory.
    pub(super) fn pair(&mut self, from: Buffer, to: Buffer) -> (Rows<'_>, RowsMut<'_>) {
        let storages = self.storages.get_disjoint_mut([from.storage(), to.storage()]);
        let [x, y] = storages.expect("the buffers of an operation share no memory");
        (x.rows(from, self.n_tokens), y.rows_mut(to, self.n_tokens))
    }

    fn move_row(&mut self, buffer: Buffer, from: usize, to: usize) {
        let Storage { data, width, stride, .. } = &mut self.storages[buffer.storage()];
        data.copy_within(from * *stride..from * *stride + *width, to * *stride);
    }
}

impl Storage {
    fn rows(&self, buffer: Buffer, n: usize) -> Rows<'_> {
        assert_eq!(self.buffer, Some(buffer), "another buffer has been written to this memory");
        Rows::new(&self.data, n, self.width, self.stride)
    }

    fn rows_mut(&mut self, buffer: Buffer, n: usize) -> RowsMut<'_> {
        assert_eq!(self.buffer, Some(buffer), "another buffer has been written to this memory");
        RowsMut::new(&mut self.data, n, self.width, self.stride)
    }
}
