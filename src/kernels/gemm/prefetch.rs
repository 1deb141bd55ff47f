//! Software prefetching of weights, while others are multiplied.
//!
//! The microkernel calls a hook before each step of k. In GEMM the hook is a [`Prefetcher`], in attention one
//! of its own (`attention/prefetch.rs`), in the LM head a fixed distance along the rows of the table.

use crate::simd::Simd;
use std::ops::Range;

/// Bytes of a cache line.
pub(crate) const CACHE_LINE: usize = 64;

/// Prefetches the weights to be packed next, one cache line at a time and row by row: each row is on a page
/// of its own, so going down the columns would cost a TLB miss per line.
pub(super) struct Prefetcher {
    /// The first prefetched byte of the current row.
    row: *const u8,
    /// The next cache line of the current row.
    line: usize,
    /// Cache lines per row.
    lines_per_row: usize,
    /// Bytes between rows.
    row_stride: usize,
    /// Rows left, including the current one.
    rows: usize,
}

impl Prefetcher {
    /// Creates a prefetcher for a range of rows and columns of `w`, which has `width` columns.
    pub(super) fn new<E>(w: &[E], width: usize, rows: Range<usize>, columns: Range<usize>) -> Self {
        // One more, as the columns may begin in the middle of a cache line.
        let lines_per_row = (columns.len() * size_of::<E>()).div_ceil(CACHE_LINE) + 1;
        let row = w.as_ptr().wrapping_add(rows.start * width + columns.start).cast();
        let rows = if columns.is_empty() { 0 } else { rows.len() };
        Self { row, line: 0, lines_per_row, row_stride: width * size_of::<E>(), rows }
    }

    /// The total number of cache lines to prefetch.
    pub(super) fn total_lines(&self) -> usize {
        self.rows * self.lines_per_row
    }

    /// Prefetches the next cache line, if any is left.
    #[inline(always)]
    pub(super) fn prefetch_line<S: Simd>(&mut self, simd: S) {
        if self.rows == 0 {
            return;
        }
        simd.prefetch(self.row.wrapping_add(self.line * CACHE_LINE));
        self.line += 1;
        if self.line == self.lines_per_row {
            (self.row, self.line) = (self.row.wrapping_add(self.row_stride), 0);
            self.rows -= 1;
        }
    }
}
