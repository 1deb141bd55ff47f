//! A file in another's place, whole or not at all.

use crate::{Error, Result};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tempfile::{Builder, NamedTempFile};

/// A file that gets its name only when it is complete; dropped before, nothing is left of it.
///
/// What is there under the name stays until then, and hands on its permissions. A link stays one: replaced is the file
/// it leads to.
#[derive(Debug)]
pub(crate) struct Replacement {
    target: PathBuf,
    partial: NamedTempFile,
}

impl Replacement {
    /// Of a file, or a new one that everybody may read whom the umask lets.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Message`] for what is no ordinary file.
    pub(crate) fn of(file: &Path) -> Result<Self> {
        Self::with_mode(file, 0o666)
    }

    /// Of a file, or a new one for its owner's eyes alone.
    ///
    /// # Errors
    /// As [`Replacement::of`].
    pub(crate) fn secret(file: &Path) -> Result<Self> {
        Self::with_mode(file, 0o600)
    }

    fn with_mode(file: &Path, mode: u32) -> Result<Self> {
        if file.exists() && !file.is_file() {
            return Err(Error::Message(format!(
                "{}: is no ordinary file, expected one to write",
                file.display()
            )));
        }
        let target = file.canonicalize().unwrap_or_else(|_| file.to_path_buf());
        let partial = create(&target, mode).map_err(|source| failed(file, source))?;
        Ok(Self { target, partial })
    }

    /// Where the content goes.
    pub(crate) fn file(&self) -> &File {
        self.partial.as_file()
    }

    /// Gives it its name, at once, when all of it is on the disk.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub(crate) fn finish(self) -> Result<()> {
        let Self { target, partial } = self;
        let named = partial.as_file().sync_all().and_then(|()| Ok(partial.persist(&target)?));
        named.map(drop).map_err(|source| failed(&target, source))
    }

    /// The whole of it in one step.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub(crate) fn write(self, content: &[u8]) -> Result<()> {
        self.file().write_all(content).map_err(|source| failed(&self.target, source))?;
        self.finish()
    }
}

/// A file beside the one it is to replace, with the permissions of that, or else with `mode` less what the umask takes.
fn create(target: &Path, mode: u32) -> io::Result<NamedTempFile> {
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let old = std::fs::metadata(target).ok().map(|old| old.permissions());
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, if old.is_some() { 0o600 } else { mode });
    #[cfg(not(unix))]
    let _ = mode;
    // Opened here, because the crate's own way names the file of its choice in its errors.
    let partial =
        Builder::new().prefix(".hornbook-").suffix(".partial").make_in(folder, |path| options.open(path))?;
    if let Some(old) = old {
        partial.as_file().set_permissions(old)?;
    }
    Ok(partial)
}

fn failed(file: &Path, source: io::Error) -> Error {
    Error::Io { path: file.into(), action: "write", source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{read, read_dir, write};

    #[test]
    fn the_old_file_stays_until_the_new_one_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        write(&file, "old").unwrap();
        let half = Replacement::of(&file).unwrap();
        half.file().write_all(b"half").unwrap();
        assert_eq!(read(&file).unwrap(), b"old");
        drop(half);
        Replacement::of(&file).unwrap().write(b"new").unwrap();
        assert_eq!(read(&file).unwrap(), b"new");
        assert_eq!(read_dir(folder.path()).unwrap().count(), 1, "nothing else is left behind");
    }

    #[test]
    fn what_cannot_be_written_is_named_as_it_was_given() {
        let folder = tempfile::tempdir().unwrap();
        let error = Replacement::of(folder.path()).unwrap_err().to_string();
        assert!(error.ends_with("is no ordinary file, expected one to write"), "{error}");
        let error = Replacement::of(Path::new("/no/folder/file")).unwrap_err().to_string();
        assert!(
            error.starts_with("/no/folder/file: cannot write: ") && !error.contains("partial"),
            "{error}"
        );
    }

    #[test]
    #[cfg(unix)]
    fn permissions_and_links_stay() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let mode = |file: &Path| file.metadata().unwrap().permissions().mode() & 0o777;
        write(folder.path().join("usual"), "").unwrap();
        Replacement::of(&file).unwrap().write(b"all").unwrap();
        assert_eq!(mode(&file), mode(&folder.path().join("usual")));
        for kept in [0o640, 0o666, 0o600] {
            std::fs::set_permissions(&file, PermissionsExt::from_mode(kept)).unwrap();
            Replacement::of(&file).unwrap().write(b"some").unwrap();
            assert_eq!(mode(&file), kept);
        }
        let secret = folder.path().join("secret");
        Replacement::secret(&secret).unwrap().write(b"mine").unwrap();
        assert_eq!(mode(&secret), 0o600);
        let link = folder.path().join("link");
        symlink("file", &link).unwrap();
        Replacement::of(&link).unwrap().write(b"through").unwrap();
        assert!(link.is_symlink() && read(&file).unwrap() == b"through");
    }
}
