//! Where a checkpoint's bytes live: a mapped file, the program itself, or the heap.

use std::fs::File;
use std::io::Read;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

use crate::error::{Error, Result};

/// Bytes that tensors are views of; cheap to clone, alive as long as any view.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// A file mapped read-only: the system loads a page when it is first read.
    Map(Arc<Mmap>),
    /// Bytes compiled into the program.
    Static(&'static [u8]),
    /// Bytes of our own.
    Heap(Arc<Vec<u8>>),
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
        }
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
