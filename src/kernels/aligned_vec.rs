//! Memory that starts at a cache line, so that no vector of sixteen elements straddles two lines.

use super::gemm::prefetch::CACHE_LINE;
use std::ops::{Deref, DerefMut};

/// A fixed-length vector aligned to a cache line.
#[derive(Debug)]
pub struct AlignedVec<E> {
    data: Vec<E>,
    start: usize,
    len: usize,
}

impl<E: bytemuck::Pod> AlignedVec<E> {
    /// Returns `len` zeros. An empty vector allocates nothing, since every thread owns a workspace that it
    /// may never use; the pages of a large one are zeroed by the system when they are first touched.
    pub fn zeroed(len: usize) -> Self {
        let padding = if len == 0 { 0 } else { CACHE_LINE / size_of::<E>() };
        let data: Vec<E> = bytemuck::zeroed_vec(len + padding);
        let start = data.as_ptr().align_offset(CACHE_LINE).min(data.len() - len);
        Self { data, start, len }
    }
}

impl<E: bytemuck::Pod> Clone for AlignedVec<E> {
    fn clone(&self) -> Self {
        let mut copy = Self::zeroed(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

impl<E> Deref for AlignedVec<E> {
    type Target = [E];

    #[inline(always)]
    fn deref(&self) -> &[E] {
        &self.data[self.start..][..self.len]
    }
}

impl<E> DerefMut for AlignedVec<E> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [E] {
        &mut self.data[self.start..][..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroed_and_cloned_vec_start_at_a_cache_line() {
        for len in [1, 63, 1000] {
            let mut values = AlignedVec::<i8>::zeroed(len);
            values.iter_mut().zip(1..).for_each(|(to, i)| *to = i as i8);
            let copy = values.clone();
            let offsets = (values.as_ptr().align_offset(CACHE_LINE), copy.as_ptr().align_offset(CACHE_LINE));
            assert_eq!(offsets, (0, 0));
            assert_eq!((values.len(), &values[..]), (len, &copy[..]));
        }
    }
}
