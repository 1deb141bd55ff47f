//! Software prefetching, while other data are multiplied: of the weights that are packed next, and in decode
//! of keys and values. Only the LM head prefetches at a fixed distance along the rows of its table.

use crate::simd::{LANES, Simd};
use std::ops::Range;

/// Bytes of a cache line.
pub(crate) const CACHE_LINE: usize = 64;

/// The number of cache lines of `n` elements.
fn lines<E>(n: usize) -> usize {
    (n * size_of::<E>()).div_ceil(CACHE_LINE)
}

/// Prefetches rows of memory, one cache line at a time and row by row: each row is on a page of its own, so
/// going down the columns would cost a TLB miss per line.
#[derive(Clone, Copy)]
pub(crate) struct Prefetcher {
    /// The first byte of the current row.
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
        let row = w.as_ptr().wrapping_add(rows.start * width + columns.start);
        let rows = if columns.is_empty() { 0 } else { rows.len() };
        // One line more, as the columns may begin in the middle of a cache line.
        Self::of_rows(row, columns.len() + CACHE_LINE / size_of::<E>(), width, rows)
    }

    /// Creates a prefetcher for `rows` rows of `n` elements, `stride` elements apart.
    pub(crate) fn of_rows<E>(row: *const E, n: usize, stride: usize, rows: usize) -> Self {
        let row_stride = stride * size_of::<E>();
        Self { row: row.cast(), line: 0, lines_per_row: lines::<E>(n), row_stride, rows }
    }

    /// Creates a prefetcher for `n` elements from `first` on, then for what begins at `next`, without end.
    pub(crate) fn chained<E>(first: *const E, n: usize, next: *const E) -> Self {
        // Two endless rows, of which the first is entered near its end.
        const ENDLESS: usize = usize::MAX / CACHE_LINE;
        let line = ENDLESS - lines::<E>(n);
        let row = first.cast::<u8>().wrapping_sub(line * CACHE_LINE);
        let row_stride = next.addr().wrapping_sub(row.addr());
        Self { row, line, lines_per_row: ENDLESS, row_stride, rows: 2 }
    }

    /// The total number of cache lines to prefetch.
    pub(super) fn total_lines(&self) -> usize {
        self.rows * self.lines_per_row
    }

    /// Prefetches the next cache line, if any is left.
    #[inline(always)]
    pub(super) fn prefetch_line<S: Simd>(&mut self, simd: S) {
        if self.line == self.lines_per_row {
            (self.row, self.line) = (self.row.wrapping_add(self.row_stride), 0);
            self.rows -= 1;
        }
        if self.rows > 0 {
            simd.prefetch(self.row.wrapping_add(self.line * CACHE_LINE));
            self.line += 1;
        }
    }

    /// Prefetches as many vectors as a microkernel of `NR_VECS` panels of `E` loads in step `k`.
    #[inline(always)]
    pub(crate) fn prefetch_vectors<S: Simd, E, const NR_VECS: usize>(&mut self, simd: S, k: usize) {
        for i in k * NR_VECS..(k + 1) * NR_VECS {
            if i.is_multiple_of(CACHE_LINE / size_of::<[E; LANES]>()) {
                self.prefetch_line(simd);
            }
        }
    }
}
