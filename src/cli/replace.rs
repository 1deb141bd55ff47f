//! A file in another's place, whole or not at all.

use crate::{Error, Result};
use std::io::Write;
use std::path::Path;

/// Writes a file that appears under its name only when it is complete.
///
/// # Errors
/// [`Error::Io`], and [`Error::Message`] for what is no ordinary file.
pub fn replace(file: &Path, content: &[u8]) -> Result<()> {
    let error = |source| Error::Io { path: file.into(), action: "write", source };
    if file.exists() && !file.is_file() {
        return Err(Error::Message(format!(
            "{}: is no ordinary file, expected one to write",
            file.display()
        )));
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)); // less what the umask takes
    let mut partial = builder.prefix(".hornbook-").suffix(".partial").tempfile_in(folder).map_err(error)?;
    partial.write_all(content).map_err(error)?;
    partial.persist(file).map_err(|failed| error(failed.error))?;
    Ok(())
}
