//! What decode will need: memory works only as long as something is asked for.
//!
//! One query uses every key and value once, so it takes the time that they take to arrive. They lie in more stretches,
//! on more pages, than the hardware can follow. So while keys are multiplied, the values of the same positions are asked
//! for; while values are mixed, the keys of a block later, and after the last of them the first of the next head, which
//! is most often the same thread's. Nothing is asked for twice, and little in vain. (Measured beside asking for what
//! follows in the same stretch: a tenth less time in f32, a fifth in f16, a third in int8.)

use super::aligned::LINE;
use super::panels::Panels;
use crate::kernels::elements::Element;
use crate::kernels::simd::{LANES, Simd};

/// Where a head's keys and values are, and the next head's keys.
pub(super) struct Ahead<E> {
    /// The first keys that are asked for: those behind the first block.
    keys: *const E,
    /// Elements of them.
    rest: usize,
    next_head: *const E,
    values: *const E,
    /// Elements from one stretch of values to the next.
    stretch: usize,
}

impl<E: Element> Ahead<E> {
    /// Sixteens of a cache line.
    const IN_LINE: usize = LINE / size_of::<[E; LANES]>();

    /// Of head `h`, of which `end` positions are used, `block` at a time.
    pub(super) fn new(past: &Panels<E>, h: usize, end: usize, block: usize) -> Self {
        let head_dim = past.head_dim();
        let values = past.values(h, 0, 0);
        Self {
            keys: past.keys(h, 0).as_ptr().wrapping_add(block * head_dim),
            rest: end.saturating_sub(block).next_multiple_of(LANES) * head_dim,
            next_head: past.keys((h + 1).min(past.n_head() - 1), 0).as_ptr(), // behind the last its own, which are near
            values: values.as_ptr(),
            stretch: values.len(),
        }
    }

    /// Asks for the sixteen values of a position that belong to a dimension near `d`: in sixteen calls, for all positions
    /// from `position` to `position + 15`. A line is asked for once.
    #[inline(always)]
    pub(super) fn values<S: Simd>(&self, simd: S, position: usize, d: usize) {
        if d.is_multiple_of(Self::IN_LINE) {
            let at = d / LANES * self.stretch + (position + d % LANES) * LANES;
            simd.prefetch(self.values.wrapping_add(at));
        }
    }

    /// Asks for the keys to come, sixteen at a time; `i` counts the calls for a head.
    #[inline(always)]
    pub(super) fn keys<S: Simd>(&self, simd: S, i: usize) {
        if i.is_multiple_of(Self::IN_LINE) {
            let at = i * LANES;
            let (keys, at) = if at < self.rest { (self.keys, at) } else { (self.next_head, at - self.rest) };
            simd.prefetch(keys.wrapping_add(at));
        }
    }
}
