//! Software prefetching of keys and values in decode.
//!
//! A single query uses every key and value once, so attention takes as long as memory takes to deliver them.
//! They lie in more streams, on more pages, than the hardware prefetchers can track. While a block's keys are
//! multiplied, the values of the same positions are prefetched; while values are accumulated, the keys one
//! block ahead, and after the last block the first keys of the next head, which usually runs on the same
//! thread. No cache line is prefetched twice, and few go unused.

use super::panels::Panels;
use crate::elements::Element;
use crate::gemm::prefetch::CACHE_LINE;
use crate::simd::{LANES, Simd};

/// The addresses of one head's keys and values, and of the next head's keys.
pub(super) struct Prefetcher<E> {
    /// The first keys to prefetch: those after the first block.
    keys: *const E,
    /// Key elements from there to the end of the head.
    remaining: usize,
    next_head: *const E,
    values: *const E,
    /// Elements from one panel of values to the next.
    panel_stride: usize,
}

impl<E: Element> Prefetcher<E> {
    /// Vectors of [`LANES`] elements in a cache line.
    const VECTORS_PER_LINE: usize = CACHE_LINE / size_of::<[E; LANES]>();

    /// Creates a prefetcher for head `h`, of which the first `kv_len` positions are used in blocks of
    /// `block`.
    pub(super) fn new(kv: &Panels<E>, h: usize, kv_len: usize, block: usize) -> Self {
        let head_dim = kv.head_dim();
        let values = kv.values(h, 0, 0);
        Self {
            keys: kv.keys(h, 0).as_ptr().wrapping_add(block * head_dim),
            remaining: kv_len.saturating_sub(block).next_multiple_of(LANES) * head_dim,
            // After the last head, its own keys, which are cached.
            next_head: kv.keys((h + 1).min(kv.n_head() - 1), 0).as_ptr(),
            values: values.as_ptr(),
            panel_stride: values.len(),
        }
    }

    /// Prefetches sixteen values of one position, those around dimension `d`: sixteen calls with consecutive
    /// `d` cover the positions `position..position + 16`. Every cache line is prefetched once.
    #[inline(always)]
    pub(super) fn prefetch_values<S: Simd>(&self, simd: S, position: usize, d: usize) {
        if d.is_multiple_of(Self::VECTORS_PER_LINE) {
            let offset = d / LANES * self.panel_stride + (position + d % LANES) * LANES;
            simd.prefetch(self.values.wrapping_add(offset));
        }
    }

    /// Prefetches the next sixteen key elements; `i` counts the calls for a head.
    #[inline(always)]
    pub(super) fn prefetch_keys<S: Simd>(&self, simd: S, i: usize) {
        if i.is_multiple_of(Self::VECTORS_PER_LINE) {
            let offset = i * LANES;
            let (keys, offset) = if offset < self.remaining {
                (self.keys, offset)
            } else {
                (self.next_head, offset - self.remaining)
            };
            simd.prefetch(keys.wrapping_add(offset));
        }
    }
}
