//! The memory a pass works in, kept from one pass to the next: nothing is allocated for a token.

use super::{Config, Segment};
use crate::kernels::rows::{Rows, RowsMut, row_stride};

/// Activations of a batch. Grows to the largest batch it has seen.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Tokens still in the pass.
    pub(super) rows: usize,
    /// Where each segment's tokens are among them.
    pub(super) runs: Vec<Run>,
    /// The residual stream, `[n_tokens, n_embd]`.
    pub(super) x: Buffer,
    /// It, normalised. Holds the memory of `z` too, which is needed when this is not.
    pub(super) normed: Buffer,
    /// Queries, keys and values, `[n_tokens, 3 * n_embd]`. Holds the memory of `hidden` too.
    pub(super) qkv: Buffer,
    /// What attention brings, `[n_tokens, n_embd]`.
    pub(super) z: Buffer,
    /// The MLP's inside, `[n_tokens, n_inner]`.
    pub(super) hidden: Buffer,
    /// `[n_wanted, vocab_size]`
    pub(super) logits: Buffer,
}

/// A segment's rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) row: usize,
    pub(super) n: usize,
    /// The first row's position in its sequence.
    pub(super) position: usize,
}

impl Scratch {
    /// Room to work in.
    pub fn new() -> Self {
        Self::default()
    }

    /// The logits of the last pass, `[n_wanted, vocab_size]`, in the order of its segments.
    pub fn logits(&self) -> Rows<'_> {
        self.logits.rows(self.rows)
    }

    /// Makes room for a batch and lays its tokens one below the other.
    pub(super) fn lay_out(&mut self, batch: &[Segment], config: &Config) {
        self.runs.clear();
        self.rows = 0;
        let mut wanted = 0;
        for segment in batch {
            let n = segment.tokens.len();
            self.runs.push(Run { row: self.rows, n, position: segment.cache.len() });
            self.rows += n;
            wanted += segment.wanted().len();
        }
        self.x.fit(self.rows, config.n_embd);
        self.normed.fit_both(&mut self.z, self.rows, [config.n_embd; 2]);
        self.qkv.fit_both(&mut self.hidden, self.rows, [3 * config.n_embd, config.n_inner]);
        self.logits.fit(wanted, config.vocab_size);
    }

    /// Drops the rows of tokens that want no logits, and moves the others together.
    pub(super) fn keep_wanted(&mut self, batch: &[Segment]) {
        self.rows = 0;
        for (run, segment) in self.runs.iter_mut().zip(batch) {
            let wanted = segment.wanted();
            for from in wanted.clone() {
                let to = self.rows + from - wanted.start;
                for buffer in [&mut self.x, &mut self.normed, &mut self.qkv] {
                    buffer.move_row(run.row + from, to);
                }
            }
            *run = Run { row: self.rows, n: wanted.len(), position: run.position + wanted.start };
            self.rows += wanted.len();
        }
    }
}

/// Rows of one width.
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

    /// Makes room for rows of two widths, those of `other` being needed at other times.
    fn fit_both(&mut self, other: &mut Buffer, rows: usize, widths: [usize; 2]) {
        let strides = widths.map(row_stride);
        ([self.width, other.width], [self.stride, other.stride]) = (widths, strides);
        self.reserve(rows * strides[0].max(strides[1]));
    }

    fn reserve(&mut self, len: usize) {
        if self.data.len() < len {
            self.data = vec![0.0; len];
        }
    }

    /// Takes the memory of another, whose rows are needed no more.
    pub(super) fn take_over(&mut self, other: &mut Buffer) {
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
