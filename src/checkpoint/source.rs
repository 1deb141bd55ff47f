//! Where a checkpoint's bytes live: a mapped file, the program itself, or memory of our own.

use std::alloc::Layout;
use std::fs::File;
use std::io::Read;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;
use rayon::prelude::*;

use super::aligned_buffer::{ALIGNMENT, AlignedBuffer};
use crate::error::{Error, Result};

/// Bytes that one thread copies at a time.
const PIECE: usize = 1 << 20;

/// Bytes that tensors are views of; cheap to clone, alive as long as any view.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// A file mapped read-only: the system loads a page when it is first read.
    Map(Arc<Mmap>),
    /// Bytes compiled into the program.
    Static(&'static [u8]),
    /// What a caller gave us.
    Heap(Arc<Vec<u8>>),
    /// Bytes of our own.
    Buffer(Arc<AlignedBuffer>),
}

impl Source {
    /// Maps `path` into memory. The file must not shrink while it is mapped, as with any program that maps files.
    pub(super) fn map(path: &Path) -> Result<Source> {
        let (file, len) = open_file(path)?;
        if len == 0 {
            // Not every system can map nothing; the header's reader says what is wrong with an empty file.
            return Ok(Source::Static(&[]));
        }
        // SAFETY: the map is private to this process and never written through. What the type system cannot rule out
        // is another process that changes the file meanwhile: changed bytes are read as other numbers (every bit
        // pattern is a valid f32, f16 or bf16, and shapes and offsets were copied out of the header), and a file cut
        // short ends the process with a bus error, never with memory of another object.
        let map = unsafe { Mmap::map(&file) }.map_err(|source| io(path, "map", source))?;
        Ok(Source::Map(Arc::new(map)))
    }
}

impl Deref for Source {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Source::Map(map) => map,
            Source::Static(bytes) => bytes,
            Source::Heap(bytes) => bytes,
            Source::Buffer(bytes) => bytes,
        }
    }
}

/// A part of a source.
#[derive(Clone, Debug)]
pub(super) struct Bytes {
    source: Source,
    range: Range<usize>,
    is_view: bool,
}

impl Bytes {
    /// `range` of `source`, in place if its address is a multiple of `alignment`, else copied.
    pub(super) fn at(source: &Source, range: Range<usize>, alignment: usize) -> Bytes {
        let bytes = &source[range.clone()];
        if !bytes.as_ptr().addr().is_multiple_of(alignment) {
            return Bytes::own(bytes.len(), |copy| copy.copy_from_slice(bytes));
        }
        Bytes { source: source.clone(), range, is_view: true }
    }

    /// Bytes of our own, zero before they are filled.
    pub(super) fn own(len: usize, fill: impl FnOnce(&mut [u8])) -> Bytes {
        let mut memory = zeroed(len);
        fill(&mut memory);
        memory.into()
    }

    /// Moves bytes of our own into one stretch of memory, one after the other, each on a cache line. Most matrices are
    /// smaller than a huge page; together they fill many.
    pub(super) fn coalesce(all: Vec<&mut Bytes>) {
        let mut own: Vec<&mut Bytes> = all.into_iter().filter(|bytes| !bytes.is_view).collect();
        let lengths = own.iter().map(|bytes| bytes.len().next_multiple_of(ALIGNMENT));
        let mut memory = zeroed(lengths.sum());
        let mut ranges = vec![];
        let mut start = 0;
        for bytes in &mut own {
            let range = start..start + bytes.len();
            let to = memory[range.clone()].par_chunks_mut(PIECE);
            to.zip(bytes.par_chunks(PIECE)).for_each(|(to, from)| to.copy_from_slice(from));
            start = range.end.next_multiple_of(ALIGNMENT);
            ranges.push(range);
            **bytes = Bytes { source: Source::Static(&[]), range: 0..0, is_view: false }; // gives its memory back
        }
        let source = Source::Buffer(Arc::new(memory));
        for (bytes, range) in own.into_iter().zip(ranges) {
            *bytes = Bytes { source: source.clone(), range, is_view: false };
        }
    }

    /// Whether they are read in place.
    pub(super) fn is_view(&self) -> bool {
        self.is_view
    }
}

/// AlignedBuffer, or the end of the program where there is none, as wherever else it asks for some.
pub(super) fn zeroed(len: usize) -> AlignedBuffer {
    AlignedBuffer::zeroed(len).unwrap_or_else(|_| {
        std::alloc::handle_alloc_error(Layout::array::<u8>(len).expect("a length in bytes"))
    })
}

impl From<AlignedBuffer> for Bytes {
    fn from(memory: AlignedBuffer) -> Bytes {
        let range = 0..memory.len();
        Bytes { source: Source::Buffer(Arc::new(memory)), range, is_view: false }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.source[self.range.clone()]
    }
}

/// Reads a whole file of at most `limit` bytes (configuration, index, tokenizer: files that are parsed, not mapped).
pub(super) fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let (file, len) = open_file(path)?;
    let mut bytes = Vec::new();
    // One byte past the limit is enough to know, even if the file grows while it is read.
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|source| io(path, "read", source))?;
    if bytes.len() as u64 > limit {
        return Err(Error::Checkpoint {
            file: path.to_path_buf(),
            problem: format!("found {len} bytes, expected at most {limit}"),
        });
    }
    Ok(bytes)
}

/// Opens a regular file and tells its length. Looks before it opens, because opening a pipe would wait for a writer.
fn open_file(path: &Path) -> Result<(File, u64)> {
    let metadata = std::fs::metadata(path).map_err(|source| io(path, "open", source))?;
    if !metadata.is_file() {
        let found = if metadata.is_dir() { "a folder" } else { "a device or pipe" };
        return Err(Error::Checkpoint {
            file: path.to_path_buf(),
            problem: format!("found {found}, expected a file"),
        });
    }
    let file = File::open(path).map_err(|source| io(path, "open", source))?;
    Ok((file, metadata.len()))
}

fn io(path: &Path, action: &'static str, source: std::io::Error) -> Error {
    Error::Io { path: path.to_path_buf(), action, source }
}
