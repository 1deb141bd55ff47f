//! Changing the keys' file: entries come and go, everything else in it stays as it was written, comments too.

use super::keys::{Key, hash, parse, read};
use crate::atomic_file::AtomicFile;
use crate::{Error, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::io::ErrorKind;
use std::path::Path;
use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, value};

/// What every key begins with, so that one is known when seen.
const PREFIX: &str = "sk-hornbook-";

/// Makes a key and adds its entry to the file, which need not be there yet. `entry` has everything but the hash. The key
/// is nowhere but in the answer.
///
/// # Errors
/// [`Error::Message`] for a name that is taken or a file that cannot be understood, [`Error::Io`] where it cannot be
/// read or written.
pub fn add(path: &Path, entry: &Key) -> Result<String> {
    let mut document = open(path)?;
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)
        .map_err(|error| Error::Message(format!("the system gives no random numbers: {error}")))?;
    let key = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(secret));

    let mut table = Table::new();
    table["name"] = value(&entry.name);
    table["sha256"] = value(hash(&key));
    for (field, limit) in
        [("requests_per_minute", entry.requests_per_minute), ("tokens_per_minute", entry.tokens_per_minute)]
    {
        if let Some(limit) = limit {
            table[field] = value(i64::try_from(limit).unwrap_or(i64::MAX));
        }
    }
    if let Some(models) = &entry.models {
        table["models"] = value(models.iter().collect::<Array>());
    }
    let keys = document.entry("key").or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    let Some(keys) = keys.as_array_of_tables_mut() else {
        return Err(Error::Message(format!(
            "{}: key: expected entries that begin with [[key]]",
            path.display()
        )));
    };
    keys.push(table);
    write(path, &document)?;
    Ok(key)
}

/// Removes an entry.
///
/// # Errors
/// As [`add`], and where there is no such entry.
pub fn remove(path: &Path, name: &str) -> Result<()> {
    read(path)?;
    let mut document = open(path)?;
    let keys = document.get_mut("key").and_then(Item::as_array_of_tables_mut);
    let found = keys.and_then(|keys| {
        let named = |table: &Table| table.get("name").and_then(Item::as_str) == Some(name);
        let at = keys.iter().position(named)?;
        keys.remove(at);
        Some(())
    });
    if found.is_none() {
        return Err(Error::Message(format!("{}: no key is called '{name}'", path.display())));
    }
    write(path, &document)
}

/// The file as it is written; nothing where there is none.
fn open(path: &Path) -> Result<DocumentMut> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        text => text.map_err(|source| Error::Io { path: path.into(), action: "read", source })?,
    };
    parse(path, &text)?;
    text.parse().map_err(|error| Error::Message(format!("{}: {error}", path.display())))
}

/// Puts the new file in the old one's place, whole or not at all, and only if a server would take it.
fn write(path: &Path, document: &DocumentMut) -> Result<()> {
    let text = document.to_string();
    parse(path, &text)?;
    AtomicFile::create_private(path)?.write_and_commit(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_and_go_and_comments_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let alice = Key { requests_per_minute: Some(100), ..Key::named("alice") };
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

        let taken = add(&path, &Key::named("bob")).unwrap_err().to_string();
        assert!(taken.contains("'bob': found two"), "{taken}");
        remove(&path, "bob").unwrap();
        assert!(remove(&path, "bob").unwrap_err().to_string().ends_with("no key is called 'bob'"));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# ours\n") && read(&path).unwrap().len() == 1, "{text}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    #[cfg(unix)]
    fn only_the_owner_reads_a_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        add(&path, &Key::named("a")).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_cannot_be_understood_is_left_alone() {
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
