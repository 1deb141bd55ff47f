//! Atomic file replacement: readers see the old content or the new, never a part of it.

use crate::{Error, Result};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tempfile::{Builder, NamedTempFile};

/// A temporary file that is renamed to its target when it is committed, and removed when it is dropped
/// uncommitted.
///
/// An existing target stays in place until the commit, and its permissions are kept. A symbolic link stays a
/// link: the file it points to is replaced.
#[derive(Debug)]
pub(crate) struct AtomicFile {
    target: PathBuf,
    temp_file: NamedTempFile,
}

impl AtomicFile {
    /// Starts replacing `file`. A new file gets mode 0666 less the umask.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::InvalidFile`] if `file` exists and is not a regular file.
    pub(crate) fn create(file: &Path) -> Result<Self> {
        Self::with_mode(file, 0o666)
    }

    /// Starts replacing `file`. A new file is readable and writable by its owner alone.
    ///
    /// # Errors
    /// As [`AtomicFile::create`].
    pub(crate) fn create_private(file: &Path) -> Result<Self> {
        Self::with_mode(file, 0o600)
    }

    fn with_mode(file: &Path, mode: u32) -> Result<Self> {
        if file.exists() && !file.is_file() {
            return Err(Error::invalid_file(file, "is not a regular file, so it cannot be replaced"));
        }
        let target = file.canonicalize().unwrap_or_else(|_| file.to_path_buf());
        let temp_file = create_temp_file(&target, mode).map_err(|source| write_error(file, source))?;
        Ok(Self { target, temp_file })
    }

    /// The temporary file to write the content to.
    pub(crate) fn file(&self) -> &File {
        self.temp_file.as_file()
    }

    /// Syncs the content to disk and renames the file to its target.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub(crate) fn commit(self) -> Result<()> {
        let Self { target, temp_file } = self;
        let renamed = temp_file.as_file().sync_all().and_then(|()| Ok(temp_file.persist(&target)?));
        renamed.map(drop).map_err(|source| write_error(&target, source))
    }

    /// Writes the whole content and commits it.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub(crate) fn write_and_commit(self, content: &[u8]) -> Result<()> {
        self.file().write_all(content).map_err(|source| write_error(&self.target, source))?;
        self.commit()
    }
}

/// Creates a temporary file in the target's directory, with the target's permissions if it exists, else with
/// `mode` less the umask.
fn create_temp_file(target: &Path, mode: u32) -> io::Result<NamedTempFile> {
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let permissions = std::fs::metadata(target).ok().map(|target| target.permissions());
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, if permissions.is_some() { 0o600 } else { mode });
    #[cfg(not(unix))]
    let _ = mode;
    // `make_in` rather than `tempfile_in`, whose errors name the temporary file.
    let temp_file =
        Builder::new().prefix(".hornbook-").suffix(".partial").make_in(folder, |path| options.open(path))?;
    if let Some(permissions) = permissions {
        temp_file.as_file().set_permissions(permissions)?;
    }
    Ok(temp_file)
}

fn write_error(file: &Path, source: io::Error) -> Error {
    Error::Io { path: file.into(), action: "write", source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{read, read_dir, write};

    #[test]
    fn target_is_unchanged_until_commit() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        write(&file, "old").unwrap();
        let uncommitted = AtomicFile::create(&file).unwrap();
        uncommitted.file().write_all(b"half").unwrap();
        assert_eq!(read(&file).unwrap(), b"old");
        drop(uncommitted);
        AtomicFile::create(&file).unwrap().write_and_commit(b"new").unwrap();
        assert_eq!(read(&file).unwrap(), b"new");
        assert_eq!(read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left behind");
    }

    #[test]
    fn unwritable_target_error_names_given_path() {
        let folder = tempfile::tempdir().unwrap();
        let error = AtomicFile::create(folder.path()).unwrap_err().to_string();
        assert!(error.ends_with(": is not a regular file, so it cannot be replaced"), "{error}");
        let error = AtomicFile::create(Path::new("/no/folder/file")).unwrap_err().to_string();
        assert!(
            error.starts_with("/no/folder/file: cannot write: ") && !error.contains("partial"),
            "{error}"
        );
    }

    #[test]
    #[cfg(unix)]
    fn commit_keeps_permissions_and_symlinks() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let mode = |file: &Path| file.metadata().unwrap().permissions().mode() & 0o777;
        write(folder.path().join("usual"), "").unwrap();
        AtomicFile::create(&file).unwrap().write_and_commit(b"all").unwrap();
        assert_eq!(mode(&file), mode(&folder.path().join("usual")));
        for expected in [0o640, 0o666, 0o600] {
            std::fs::set_permissions(&file, PermissionsExt::from_mode(expected)).unwrap();
            AtomicFile::create(&file).unwrap().write_and_commit(b"some").unwrap();
            assert_eq!(mode(&file), expected);
        }
        let private = folder.path().join("private");
        AtomicFile::create_private(&private).unwrap().write_and_commit(b"mine").unwrap();
        assert_eq!(mode(&private), 0o600);
        let link = folder.path().join("link");
        symlink("file", &link).unwrap();
        AtomicFile::create(&link).unwrap().write_and_commit(b"through").unwrap();
        assert!(link.is_symlink() && read(&file).unwrap() == b"through");
    }
}
