//! The activation buffers of a forward pass, reused from pass to pass, so that decoding a token allocates
//! nothing.

use super::{Config, Segment};
use crate::kernels::rows::{Rows, RowsMut, row_stride};

/// The activation buffers of a batch. They grow to the largest batch so far.
#[derive(Debug, Default)]
pub struct Workspace {
    /// The number of rows (tokens) still in the pass.
    pub(super) rows: usize,
    /// The rows of each segment.
    pub(super) segment_rows: Vec<SegmentRows>,
    /// The residual stream, `[n_tokens, n_embd]`.
    pub(super) x: Buffer,
    /// Output of the last layer norm, `[n_tokens, n_embd]`. Shares its storage with `z`; the two are never
    /// needed together.
    pub(super) normed: Buffer,
    /// Queries, keys and values, `[n_tokens, 3 * n_embd]`. Shares its storage with `hidden`.
    pub(super) qkv: Buffer,
    /// Output of the attention heads, `[n_tokens, n_embd]`.
    pub(super) z: Buffer,
    /// Hidden activations of the MLP, `[n_tokens, n_inner]`.
    pub(super) hidden: Buffer,
    /// `[n_logits, vocab_size]`
    pub(super) logits: Buffer,
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
        self.logits.rows(self.rows)
    }

    /// Sizes the buffers for a batch and assigns rows to its segments.
    pub(super) fn prepare(&mut self, batch: &[Segment], config: &Config) {
        self.segment_rows.clear();
        self.rows = 0;
        let mut n_logits = 0;
        for segment in batch {
            let n = segment.tokens.len();
            self.segment_rows.push(SegmentRows { row: self.rows, n, position: segment.cache.len() });
            self.rows += n;
            n_logits += segment.logit_tokens().len();
        }
        self.x.fit(self.rows, config.n_embd);
        self.normed.fit_shared(&mut self.z, self.rows, [config.n_embd; 2]);
        self.qkv.fit_shared(&mut self.hidden, self.rows, [3 * config.n_embd, config.n_inner]);
        self.logits.fit(n_logits, config.vocab_size);
    }

    /// Keeps only the rows of tokens whose logits are requested, and makes them contiguous.
    pub(super) fn retain_logit_rows(&mut self, batch: &[Segment]) {
        self.rows = 0;
        for (rows, segment) in self.segment_rows.iter_mut().zip(batch) {
            let kept = segment.logit_tokens();
            for from in kept.clone() {
                let to = self.rows + from - kept.start;
                for buffer in [&mut self.x, &mut self.normed, &mut self.qkv] {
                    buffer.move_row(rows.row + from, to);
                }
            }
            *rows = SegmentRows { row: self.rows, n: kept.len(), position: rows.position + kept.start };
            self.rows += kept.len();
        }
    }
}

/// A buffer of rows of one width.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    data: Vec<f32>,
    width: usize,
    stride: usize,
}

impl Buffer {
    fn fit(&mut self, rows: usize, width: usize) {
        (self.width, self.stride) = (width, row_stride(width));
        self.reserve(rows * self.stride);
    }

    /// Makes room for rows of this buffer and for those of `other`, which shares the storage.
    fn fit_shared(&mut self, other: &mut Buffer, rows: usize, widths: [usize; 2]) {
        let strides = widths.map(row_stride);
        ([self.width, other.width], [self.stride, other.stride]) = (widths, strides);
        self.reserve(rows * strides[0].max(strides[1]));
    }

    fn reserve(&mut self, len: usize) {
        if self.data.len() < len {
            self.data = vec![0.0; len];
        }
    }

    /// Takes the storage of `other`, whose rows are no longer needed.
    pub(super) fn swap_storage(&mut self, other: &mut Buffer) {
        self.data = std::mem::take(&mut other.data);
    }

    fn move_row(&mut self, from: usize, to: usize) {
        let start = from * self.stride;
        self.data.copy_within(start..start + self.width, to * self.stride);
    }

    pub(super) fn rows(&self, n: usize) -> Rows<'_> {
        Rows::new(&self.data, n, self.width, self.stride)
    }

    pub(super) fn rows_mut(&mut self, n: usize) -> RowsMut<'_> {
        RowsMut::new(&mut self.data, n, self.width, self.stride)
    }
}
