//! Memory that begins at a cache line, so that a vector of sixteen numbers never lies across two lines.

use std::ops::{Deref, DerefMut};

/// Bytes of a cache line.
pub(super) const LINE: usize = 64;

/// As many elements as were asked for.
#[derive(Debug)]
pub(super) struct Aligned<E> {
    data: Vec<E>,
    start: usize,
    len: usize,
}

impl<E: bytemuck::Pod> Aligned<E> {
    /// Zeros; of no elements no allocation, since every thread has some scratch that it may never use. A long stretch is
    /// zeroed by the system page by page, when a page is first used.
    pub(super) fn zeroed(len: usize) -> Self {
        let spare = if len == 0 { 0 } else { LINE / size_of::<E>() };
        let data: Vec<E> = bytemuck::zeroed_vec(len + spare);
        let start = data.as_ptr().align_offset(LINE).min(data.len() - len);
        Self { data, start, len }
    }
}

impl<E: bytemuck::Pod> Clone for Aligned<E> {
    fn clone(&self) -> Self {
        let mut copy = Self::zeroed(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

impl<E> Deref for Aligned<E> {
    type Target = [E];

    #[inline(always)]
    fn deref(&self) -> &[E] {
        &self.data[self.start..][..self.len]
    }
}

impl<E> DerefMut for Aligned<E> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [E] {
        &mut self.data[self.start..][..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_at_a_cache_line_and_so_does_its_copy() {
        for len in [1, 63, 1000] {
            let mut numbers = Aligned::<i8>::zeroed(len);
            numbers.iter_mut().zip(1..).for_each(|(to, i)| *to = i as i8);
            let copy = numbers.clone();
            assert_eq!((numbers.as_ptr().align_offset(LINE), copy.as_ptr().align_offset(LINE)), (0, 0));
            assert_eq!((numbers.len(), &numbers[..]), (len, &copy[..]));
        }
    }
}
