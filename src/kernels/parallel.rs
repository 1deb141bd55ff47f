//! Parallel iterators for work that is done once per model, such as converting its weights: rayon's, or
//! without the feature `threads` the standard library's under the same names.

#[cfg(feature = "threads")]
pub use rayon::prelude::*;

#[cfg(not(feature = "threads"))]
pub use sequential::*;

#[cfg(not(feature = "threads"))]
mod sequential {
    use std::slice::{Chunks, ChunksMut, IterMut};

    /// `par_chunks`, `par_chunks_mut` and `par_iter_mut` of slices.
    pub trait ParallelSlice<T> {
        /// [`slice::chunks`]
        fn par_chunks(&self, size: usize) -> Chunks<'_, T>;
        /// [`slice::chunks_mut`]
        fn par_chunks_mut(&mut self, size: usize) -> ChunksMut<'_, T>;
        /// [`slice::iter_mut`]
        fn par_iter_mut(&mut self) -> IterMut<'_, T>;
    }

    impl<T> ParallelSlice<T> for [T] {
        fn par_chunks(&self, size: usize) -> Chunks<'_, T> {
            self.chunks(size)
        }

        fn par_chunks_mut(&mut self, size: usize) -> ChunksMut<'_, T> {
            self.chunks_mut(size)
        }

        fn par_iter_mut(&mut self) -> IterMut<'_, T> {
            self.iter_mut()
        }
    }

    /// `into_par_iter` of whatever can be iterated.
    pub trait IntoParallelIterator: IntoIterator + Sized {
        /// [`IntoIterator::into_iter`]
        fn into_par_iter(self) -> Self::IntoIter {
            self.into_iter()
        }
    }

    impl<I: IntoIterator> IntoParallelIterator for I {}

    /// `position_first` of iterators.
    pub trait IndexedParallelIterator: Iterator + Sized {
        /// [`Iterator::position`]
        fn position_first(mut self, predicate: impl Fn(Self::Item) -> bool) -> Option<usize> {
            self.position(predicate)
        }
    }

    impl<I: Iterator> IndexedParallelIterator for I {}
}
