//! Owned memory for weights, aligned to 64 bytes and in transparent huge pages where the system has them:
//! decode reads all weights for every token, and 2 MiB pages need far fewer TLB entries than 4 KiB pages.

use crate::kernels::aligned_vec::AlignedVec;
use std::ops::{Deref, DerefMut};

#[cfg(feature = "mmap")]
use memmap2::MmapMut;

/// The alignment of the first byte, in bytes.
pub(super) const ALIGNMENT: usize = 64;
/// The size in bytes from which a buffer is mapped in pages of its own.
#[cfg(any(feature = "mmap", test))]
const MIN_MAPPED_LEN: usize = 1 << 20;

/// An owned byte buffer, aligned to 64 bytes.
#[derive(Debug)]
pub struct AlignedBuffer(Storage);

#[derive(Debug)]
enum Storage {
    /// At least one byte, so that an empty buffer is aligned too.
    Heap(AlignedVec<u8>, usize),
    #[cfg(feature = "mmap")]
    Pages(MmapMut),
}

impl AlignedBuffer {
    /// Allocates `len` zeros.
    ///
    /// # Errors
    /// If the system cannot map the buffer.
    pub fn zeroed(len: usize) -> std::io::Result<Self> {
        #[cfg(feature = "mmap")]
        if len >= MIN_MAPPED_LEN {
            let pages = MmapMut::map_anon(len)?;
            #[cfg(target_os = "linux")]
            let _ = pages.advise(memmap2::Advice::HugePage); // optional: 4 KiB pages are only slightly slower
            return Ok(Self(Storage::Pages(pages)));
        }
        Ok(Self(Storage::Heap(AlignedVec::zeroed(len.max(1)), len)))
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Storage::Heap(bytes, len) => &bytes[..*len],
            #[cfg(feature = "mmap")]
            Storage::Pages(pages) => pages,
        }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Storage::Heap(bytes, len) => &mut bytes[..*len],
            #[cfg(feature = "mmap")]
            Storage::Pages(pages) => pages,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroed_buffer_is_aligned_and_writable() {
        for len in [0, 1, 63, 64, 1000, MIN_MAPPED_LEN - 1, MIN_MAPPED_LEN, 3 * MIN_MAPPED_LEN + 5] {
            let mut buffer = AlignedBuffer::zeroed(len).unwrap();
            assert_eq!(buffer.len(), len);
            assert!(buffer.as_ptr().addr().is_multiple_of(ALIGNMENT));
            assert!(buffer.iter().all(|&byte| byte == 0));
            buffer.fill(1);
        }
    }
}
