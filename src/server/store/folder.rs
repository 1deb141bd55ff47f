//! Folders: made private, measured, and synchronized with the disk.

use crate::{Error, Result};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::path::Path;

fn error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { path: path.into(), action, source }
}

/// Creates a folder that only its owner can read, and those above it, unless it exists.
///
/// # Errors
/// [`Error::Io`]
pub(super) fn create(path: &Path) -> Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(path).map_err(error(path, "create"))
}

/// Calls `visit` with every file below a folder.
fn for_each_file(folder: &Path, visit: &mut impl FnMut(&Path) -> Result<()>) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(error(folder, "read"))? {
        let path = entry.map_err(error(folder, "read"))?.path();
        // What is removed meanwhile is no file.
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => for_each_file(&path, visit)?,
            Ok(metadata) if metadata.is_file() => visit(&path)?,
            _ => {}
        }
    }
    Ok(())
}

/// Returns the size of all files below a folder in bytes.
///
/// # Errors
/// [`Error::Io`]
pub(super) fn size(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for_each_file(folder, &mut |path| {
        bytes += fs::metadata(path).map_or(0, |metadata| metadata.len());
        Ok(())
    })?;
    Ok(bytes)
}

/// Synchronizes all files below a folder with the disk, and the folder.
///
/// # Errors
/// [`Error::Io`]
pub(super) fn sync_all(folder: &Path) -> Result<()> {
    for_each_file(folder, &mut |path| {
        // Windows synchronizes only what is open for writing.
        let file = OpenOptions::new().write(true).open(path);
        file.and_then(|file| file.sync_all()).map_err(error(path, "synchronize"))
    })?;
    sync_entries(folder);
    Ok(())
}

/// Synchronizes the entries of a folder with the disk, where the system can.
pub(super) fn sync_entries(folder: &Path) {
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

/// Removes the temporary files that a kill left in a folder.
pub(super) fn remove_partial_files(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(".hornbook-") && name.ends_with(".partial") {
            let _ = fs::remove_file(entry.path());
        }
    }
}
