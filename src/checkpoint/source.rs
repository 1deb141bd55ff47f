//! Storage of a checkpoint's bytes: a memory-mapped file, the program itself, or owned memory.

use std::alloc::Layout;
use std::fs::File;
use std::io::Read;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

use crate::kernels::parallel::*;
#[cfg(feature = "mmap")]
use memmap2::Mmap;

use super::aligned_buffer::{ALIGNMENT, AlignedBuffer};
use crate::error::{Error, Result};

/// The chunk size of parallel copies, in bytes.
const COPY_CHUNK: usize = 1 << 20;

/// Reference-counted bytes that tensors are views of.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// A file memory-mapped read-only: the system loads a page when it is first read.
    #[cfg(feature = "mmap")]
    Map(Arc<Mmap>),
    /// Bytes compiled into the program.
    Static(&'static [u8]),
    /// A vector from the caller.
    Heap(Arc<Vec<u8>>),
    /// An owned buffer.
    Buffer(Arc<AlignedBuffer>),
}

impl Source {
    /// Reads `path` into memory.
    #[cfg(not(feature = "mmap"))]
    pub(super) fn map(path: &Path) -> Result<Source> {
        let (mut file, len) = open_file(path)?;
        let mut bytes = Vec::with_capacity(len as usize);
        file.read_to_end(&mut bytes).map_err(|source| io(path, "read", source))?;
        Ok(Source::Heap(Arc::new(bytes)))
    }

    /// Memory-maps `path`. The file must not shrink while it is mapped.
    #[cfg(feature = "mmap")]
    pub(super) fn map(path: &Path) -> Result<Source> {
        let (file, len) = open_file(path)?;
        if len == 0 {
            // Not every system can map an empty file; the header parser reports the problem.
            return Ok(Source::Static(&[]));
        }
        // SAFETY: the map is never written through. Another process may still change the file: changed bytes
        // are read as other values (every bit pattern is a valid f32, f16 or bf16, and shapes and offsets
        // were copied out of the header), and truncating the file ends the process with SIGBUS, never with
        // access to another object's memory.
        let map = unsafe { Mmap::map(&file) }.map_err(|source| io(path, "map", source))?;
        Ok(Source::Map(Arc::new(map)))
    }
}

impl Deref for Source {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            #[cfg(feature = "mmap")]
            Source::Map(map) => map,
            Source::Static(bytes) => bytes,
            Source::Heap(bytes) => bytes,
            Source::Buffer(bytes) => bytes,
        }
    }
}

/// A byte range of a source.
#[derive(Clone, Debug)]
pub(super) struct Bytes {
    source: Source,
    range: Range<usize>,
    is_view: bool,
}

impl Bytes {
    /// A view of `range` of `source` if its address is a multiple of `alignment`, else a copy.
    pub(super) fn view_or_copy(source: &Source, range: Range<usize>, alignment: usize) -> Bytes {
        let bytes = &source[range.clone()];
        if !bytes.as_ptr().addr().is_multiple_of(alignment) {
            return Bytes::owned(bytes.len(), |copy| copy.copy_from_slice(bytes));
        }
        Bytes { source: source.clone(), range, is_view: true }
    }

    /// Owned bytes, zero-initialized and then passed to `fill`.
    pub(super) fn owned(len: usize, fill: impl FnOnce(&mut [u8])) -> Bytes {
        let mut buffer = zeroed(len);
        fill(&mut buffer);
        buffer.into()
    }

    /// Moves owned bytes into one contiguous buffer, each range aligned to 64 bytes. Most matrices are
    /// smaller than a huge page; together they fill many.
    pub(super) fn coalesce(all: Vec<&mut Bytes>) {
        let mut owned: Vec<&mut Bytes> = all.into_iter().filter(|bytes| !bytes.is_view).collect();
        let lengths = owned.iter().map(|bytes| bytes.len().next_multiple_of(ALIGNMENT));
        let mut buffer = zeroed(lengths.sum());
        let mut ranges = vec![];
        let mut start = 0;
        for bytes in &mut owned {
            let range = start..start + bytes.len();
            let to = buffer[range.clone()].par_chunks_mut(COPY_CHUNK);
            to.zip(bytes.par_chunks(COPY_CHUNK)).for_each(|(to, from)| to.copy_from_slice(from));
            start = range.end.next_multiple_of(ALIGNMENT);
            ranges.push(range);
            **bytes = Bytes { source: Source::Static(&[]), range: 0..0, is_view: false }; // frees its memory
        }
        let source = Source::Buffer(Arc::new(buffer));
        for (bytes, range) in owned.into_iter().zip(ranges) {
            *bytes = Bytes { source: source.clone(), range, is_view: false };
        }
    }

    /// Whether the bytes are a view of the checkpoint, not a copy.
    pub(super) fn is_view(&self) -> bool {
        self.is_view
    }
}

/// Allocates `len` zeros; aborts if the system is out of memory, as other allocations do.
pub(super) fn zeroed(len: usize) -> AlignedBuffer {
    AlignedBuffer::zeroed(len).unwrap_or_else(|_| {
        std::alloc::handle_alloc_error(Layout::array::<u8>(len).expect("a length in bytes"))
    })
}

impl From<AlignedBuffer> for Bytes {
    fn from(buffer: AlignedBuffer) -> Bytes {
        let range = 0..buffer.len();
        Bytes { source: Source::Buffer(Arc::new(buffer)), range, is_view: false }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.source[self.range.clone()]
    }
}

/// Reads a file of at most `limit` bytes (configuration, index, tokenizer: files that are parsed, not
/// mapped).
pub(super) fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let (file, len) = open_file(path)?;
    let mut bytes = Vec::new();
    // Reading one byte past the limit detects a file that is too large, even if it grows meanwhile.
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|source| io(path, "read", source))?;
    if bytes.len() as u64 > limit {
        return Err(Error::Checkpoint {
            file: path.to_path_buf(),
            problem: format!("found {len} bytes, expected at most {limit}"),
        });
    }
    Ok(bytes)
}

/// Opens a regular file and returns its length. Checks the type first, because opening a pipe would block.
fn open_file(path: &Path) -> Result<(File, u64)> {
    let metadata = std::fs::metadata(path).map_err(|source| io(path, "open", source))?;
    if !metadata.is_file() {
        let found = if metadata.is_dir() { "a folder" } else { "a device or pipe" };
        return Err(Error::Checkpoint {
            file: path.to_path_buf(),
            problem: format!("found {found}, expected a regular file"),
        });
    }
    let file = File::open(path).map_err(|source| io(path, "open", source))?;
    Ok((file, metadata.len()))
}

fn io(path: &Path, action: &'static str, source: std::io::Error) -> Error {
    Error::Io { path: path.to_path_buf(), action, source }
}
