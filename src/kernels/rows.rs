//! Activations: one row of numbers a token.

use super::threads::Disjoint;

/// A matrix of activations `[n, width]`, its rows `stride` numbers apart.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    data: &'a [f32],
    n: usize,
    width: usize,
    stride: usize,
}

/// The same, to write to.
#[derive(Debug)]
pub struct RowsMut<'a> {
    data: &'a mut [f32],
    n: usize,
    width: usize,
    stride: usize,
}

/// The distance between rows of `width` numbers: an odd number of cache lines. Tiles read a dozen rows side by side,
/// and rows a multiple of 4 KiB apart would all fall into the same few lines of the first-level cache.
pub fn row_stride(width: usize) -> usize {
    (width.div_ceil(16) * 16) | 16
}

impl<'a> Rows<'a> {
    /// `n` rows in `data`. Panics where they do not fit.
    pub fn new(data: &'a [f32], n: usize, width: usize, stride: usize) -> Self {
        assert!(width <= stride && (n == 0 || data.len() >= (n - 1) * stride + width));
        Self { data, n, width, stride }
    }

    /// Rows that follow one another without a gap. Panics where `data` holds no whole number of them.
    pub fn dense(data: &'a [f32], width: usize) -> Self {
        assert_eq!(data.len() % width, 0);
        Self::new(data, data.len() / width, width, width)
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.n
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// Numbers in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Distance between rows.
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
    pub fn range(&self, start: usize, n: usize) -> Rows<'a> {
        assert!(start + n <= self.n);
        let data = if n == 0 { self.data } else { &self.data[start * self.stride..] };
        Rows { data, n, ..*self }
    }
}

impl<'a> RowsMut<'a> {
    /// `n` rows in `data`. Panics where they do not fit.
    pub fn new(data: &'a mut [f32], n: usize, width: usize, stride: usize) -> Self {
        Rows::new(data, n, width, stride);
        Self { data, n, width, stride }
    }

    /// Rows that follow one another without a gap.
    pub fn dense(data: &'a mut [f32], width: usize) -> Self {
        let n = Rows::dense(data, width).len();
        Self::new(data, n, width, width)
    }

    /// To read.
    pub fn as_rows(&self) -> Rows<'_> {
        Rows::new(self.data, self.n, self.width, self.stride)
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.n
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// Numbers in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Row `i`.
    pub fn row_mut(&mut self, i: usize) -> &mut [f32] {
        &mut self.data[i * self.stride..][..self.width]
    }

    /// The columns `start..start + width` of every row.
    pub fn columns_mut(self, start: usize, width: usize) -> RowsMut<'a> {
        assert!(start + width <= self.width);
        let skip = if self.n == 0 { 0 } else { start };
        RowsMut { data: &mut self.data[skip..], width, ..self }
    }

    /// The first row and all that is stored after it, and the distance between rows.
    pub fn into_parts(self) -> (&'a mut [f32], usize) {
        (self.data, self.stride)
    }

    /// The same rows for threads that each write parts of their own.
    pub(super) fn share(&mut self) -> SharedRows<'_> {
        SharedRows { stride: self.stride, width: self.width, data: Disjoint::new(self.data) }
    }
}

/// Rows that several threads write at once, each its own columns or rows.
pub(super) struct SharedRows<'a> {
    data: Disjoint<'a, f32>,
    stride: usize,
    width: usize,
}

impl SharedRows<'_> {
    /// Columns `start..start + n` of row `i`.
    ///
    /// # Safety
    /// No other thread may hold a part that overlaps.
    #[allow(clippy::mut_from_ref)]
    #[inline(always)]
    pub(super) unsafe fn part(&self, i: usize, start: usize, n: usize) -> &mut [f32] {
        debug_assert!(start + n <= self.width);
        let start = i * self.stride + start;
        // SAFETY: the caller's promise.
        unsafe { self.data.slice(start..start + n) }
    }
}
