//! Row-major views of activations, one row per token.

use super::thread_pool::DisjointSlice;

/// A matrix of activations `[n, width]` whose rows start `stride` elements apart.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    data: &'a [f32],
    n: usize,
    width: usize,
    stride: usize,
}

/// The mutable counterpart of [`Rows`].
#[derive(Debug)]
pub struct RowsMut<'a> {
    data: &'a mut [f32],
    n: usize,
    width: usize,
    stride: usize,
}

/// Returns the stride for rows of `width` elements: an odd number of cache lines. A register tile reads a
/// dozen rows at once, and rows a multiple of 4 KiB apart would compete for the same set of the L1 cache.
pub fn row_stride(width: usize) -> usize {
    (width.div_ceil(16) * 16) | 16
}

impl<'a> Rows<'a> {
    /// Creates a view of `n` rows in `data`. Panics if they do not fit.
    pub fn new(data: &'a [f32], n: usize, width: usize, stride: usize) -> Self {
        assert!(width <= stride && (n == 0 || data.len() >= (n - 1) * stride + width));
        Self { data, n, width, stride }
    }

    /// Creates a view of contiguous rows. Panics unless the length of `data` is a multiple of `width`.
    pub fn dense(data: &'a [f32], width: usize) -> Self {
        assert_eq!(data.len() % width, 0);
        Self::new(data, data.len() / width, width, width)
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.n
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// The number of elements in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The distance between the starts of consecutive rows, in elements.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Row `i`.
    #[inline(always)]
    pub fn row(&self, i: usize) -> &'a [f32] {
        &self.data[i * self.stride..][..self.width]
    }

    /// The columns `start..start + width` of every row.
    pub fn columns(&self, start: usize, width: usize) -> Rows<'a> {
        assert!(start + width <= self.width);
        let data = if self.n == 0 { self.data } else { &self.data[start..] };
        Rows { data, width, ..*self }
    }

    /// The rows `start..start + n`.
    pub fn row_range(&self, start: usize, n: usize) -> Rows<'a> {
        assert!(start + n <= self.n);
        let data = if n == 0 { self.data } else { &self.data[start * self.stride..] };
        Rows { data, n, ..*self }
    }

    /// Returns the underlying slice, from the first row on, and the stride.
    pub(super) fn into_parts(self) -> (&'a [f32], usize) {
        (self.data, self.stride)
    }
}

impl<'a> RowsMut<'a> {
    /// Creates a view of `n` rows in `data`. Panics if they do not fit.
    pub fn new(data: &'a mut [f32], n: usize, width: usize, stride: usize) -> Self {
        Rows::new(data, n, width, stride);
        Self { data, n, width, stride }
    }

    /// Creates a view of contiguous rows. Panics unless the length of `data` is a multiple of `width`.
    pub fn dense(data: &'a mut [f32], width: usize) -> Self {
        let n = Rows::dense(data, width).len();
        Self::new(data, n, width, width)
    }

    /// Reborrows the rows as read-only.
    pub fn as_rows(&self) -> Rows<'_> {
        Rows::new(self.data, self.n, self.width, self.stride)
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.n
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// The number of elements in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Row `i`.
    pub fn row_mut(&mut self, i: usize) -> &mut [f32] {
        &mut self.data[i * self.stride..][..self.width]
    }

    /// The rows `start..start + n`.
    pub fn row_range_mut(&mut self, start: usize, n: usize) -> RowsMut<'_> {
        assert!(start + n <= self.n);
        let data = if n == 0 { &mut [] } else { &mut self.data[start * self.stride..] };
        RowsMut { data, n, width: self.width, stride: self.stride }
    }

    /// The columns `start..start + width` of every row.
    pub fn columns_mut(self, start: usize, width: usize) -> RowsMut<'a> {
        assert!(start + width <= self.width);
        let skip = if self.n == 0 { 0 } else { start };
        RowsMut { data: &mut self.data[skip..], width, ..self }
    }

    /// Returns the underlying slice, from the first row on, and the stride.
    pub fn into_parts(self) -> (&'a mut [f32], usize) {
        (self.data, self.stride)
    }

    /// Returns a view through which several threads can write disjoint elements.
    pub(super) fn as_disjoint(&mut self) -> DisjointRows<'_> {
        DisjointRows { stride: self.stride, width: self.width, data: DisjointSlice::new(self.data) }
    }
}

/// Rows that several threads write at once, each its own elements.
pub(super) struct DisjointRows<'a> {
    data: DisjointSlice<'a, f32>,
    stride: usize,
    width: usize,
}

impl DisjointRows<'_> {
    /// Columns `start..start + n` of row `i`.
    ///
    /// # Safety
    /// While the returned slice lives, no other slice that overlaps it may exist.
    #[allow(clippy::mut_from_ref)]
    #[inline(always)]
    pub(super) unsafe fn row_slice(&self, i: usize, start: usize, n: usize) -> &mut [f32] {
        debug_assert!(start + n <= self.width);
        let start = i * self.stride + start;
        // SAFETY: the caller upholds this function's contract.
        unsafe { self.data.slice(start..start + n) }
    }
}
