//! AlignedBuffer of our own for weights, on cache lines, and in huge pages where the system offers them: a page of 2 MiB takes
//! as long to look up as one of 4 KiB, and decode walks through all of them for every token.

use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

/// Where the first byte lies.
pub(super) const ALIGNMENT: usize = 64;
/// From here on, pages of its own are worth asking for.
const LARGE: usize = 1 << 20;

/// Bytes that nothing else holds.
#[derive(Debug)]
pub struct AlignedBuffer(Held);

#[derive(Debug)]
enum Held {
    /// A little more than needed, so that `start` within it is aligned; the vector never grows, so it stays so.
    Heap {
        bytes: Vec<u8>,
        start: usize,
    },
    Pages(MmapMut),
}

impl AlignedBuffer {
    /// `len` zeros.
    ///
    /// # Errors
    /// Where the system has no such memory.
    pub fn zeroed(len: usize) -> std::io::Result<Self> {
        if len < LARGE {
            let mut bytes = vec![0; len + ALIGNMENT - 1];
            let start = bytes.as_ptr().align_offset(ALIGNMENT);
            bytes.truncate(start + len);
            return Ok(Self(Held::Heap { bytes, start }));
        }
        let pages = MmapMut::map_anon(len)?;
        #[cfg(target_os = "linux")]
        let _ = pages.advise(memmap2::Advice::HugePage); // a system without them is only a little slower
        Ok(Self(Held::Pages(pages)))
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Held::Heap { bytes, start } => &bytes[*start..],
            Held::Pages(pages) => pages,
        }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Held::Heap { bytes, start } => &mut bytes[*start..],
            Held::Pages(pages) => pages,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_on_a_cache_line() {
        for len in [0, 1, 63, 64, 1000, LARGE - 1, LARGE, 3 * LARGE + 5] {
            let mut memory = AlignedBuffer::zeroed(len).unwrap();
            assert_eq!(memory.len(), len);
            assert!(memory.as_ptr().addr().is_multiple_of(ALIGNMENT));
            assert!(memory.iter().all(|&byte| byte == 0));
            memory.fill(1);
        }
    }
}
