//! Editing the key file: adding and removing entries while preserving comments and formatting.

use super::keys::{Key, hash, parse, read};
use crate::atomic_file::AtomicFile;
use crate::{Error, Result, text_file};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::io::ErrorKind;
use std::path::Path;
use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, TomlError, value};

/// Prefix of every key, which makes leaked keys easy to find.
const PREFIX: &str = "sk-hornbook-";

/// Creates a key and adds its entry to the file, which is created if needed. `entry` has everything but the
/// hash. The key itself is only returned, never stored.
///
/// # Errors
/// [`Error::InvalidFile`], also for a duplicate name, [`Error::Io`] if it cannot be read or written.
pub fn add(path: &Path, entry: &Key) -> Result<String> {
    let mut document = open(path)?;
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| Error::system("get random bytes from the system", error))?;
    let key = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(secret));

    let mut table = Table::new();
    table["name"] = value(&entry.name);
    table["sha256"] = value(hash(&key));
    for (field, limit) in [
        ("requests_per_minute", entry.requests_per_minute),
        ("tokens_per_minute", entry.tokens_per_minute),
        ("max_jobs", entry.max_jobs),
    ] {
        if let Some(limit) = limit {
            table[field] = value(i64::try_from(limit).unwrap_or(i64::MAX));
        }
    }
    if let Some(models) = &entry.models {
        table["models"] = value(models.iter().collect::<Array>());
    }
    let keys = document.entry("key").or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    let Some(keys) = keys.as_array_of_tables_mut() else {
        return Err(Error::invalid_file(path, "key: expected an array of tables, [[key]]"));
    };
    keys.push(table);
    write(path, &document)?;
    Ok(key)
}

/// Removes a key's entry.
///
/// # Errors
/// As [`add`], and [`Error::KeyNotFound`] if there is no such entry.
pub fn remove(path: &Path, name: &str) -> Result<()> {
    read(path)?;
    let mut document = open(path)?;
    let keys = document.get_mut("key").and_then(Item::as_array_of_tables_mut);
    let removed = keys.and_then(|keys| {
        let has_name = |table: &Table| table.get("name").and_then(Item::as_str) == Some(name);
        let index = keys.iter().position(has_name)?;
        keys.remove(index);
        Some(())
    });
    if removed.is_none() {
        return Err(Error::KeyNotFound { file: path.into(), name: name.into() });
    }
    write(path, &document)
}

/// Reads and validates the file; an empty document if it does not exist.
fn open(path: &Path) -> Result<DocumentMut> {
    let text = match text_file::read_file(path) {
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => String::new(),
        text => text?,
    };
    parse(path, &text)?;
    text.parse().map_err(|error: TomlError| Error::invalid_file(path, error.to_string()))
}

/// Replaces the file atomically, after validating the new content.
fn write(path: &Path, document: &DocumentMut) -> Result<()> {
    let text = document.to_string();
    parse(path, &text)?;
    AtomicFile::create_private(path)?.write_and_commit(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_and_removing_keys_preserves_comments() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let alice = Key { requests_per_minute: Some(100), max_jobs: Some(2), ..Key::named("alice") };
        let bob = Key {
            tokens_per_minute: Some(5),
            models: Some(vec!["gpt2".into(), "fable".into()]),
            ..Key::named("bob")
        };
        let key = add(&path, &alice).unwrap();
        assert!(key.starts_with(PREFIX) && key.len() == PREFIX.len() + 43, "{key}");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&key));
        std::fs::write(&path, format!("# ours\n{text}# alice pays\n")).unwrap();
        assert_ne!(add(&path, &bob).unwrap(), key);
        let keys = read(&path).unwrap();
        assert_eq!(keys[0], Key { sha256: hash(&key), ..alice });
        assert_eq!((&keys[1].models, keys[1].tokens_per_minute), (&bob.models, Some(5)));

        let duplicate = add(&path, &Key::named("bob")).unwrap_err().to_string();
        assert!(duplicate.contains("'bob': found two"), "{duplicate}");
        remove(&path, "bob").unwrap();
        assert!(remove(&path, "bob").unwrap_err().to_string().ends_with("no key named 'bob'"));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# ours\n") && read(&path).unwrap().len() == 1, "{text}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    #[cfg(unix)]
    fn new_key_file_is_readable_by_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        add(&path, &Key::named("a")).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn invalid_key_file_is_not_modified() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        for text in ["key = 3", "[[key]", "other = 1"] {
            std::fs::write(&path, text).unwrap();
            assert!(add(&path, &Key::named("a")).is_err());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        assert!(remove(&folder.path().join("none"), "a").unwrap_err().to_string().contains("cannot read"));
    }
}
