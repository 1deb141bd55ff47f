//! Who may ask: the keys' file, read anew whenever it changes.
//!
//! ```toml
//! [[key]]
//! name = "alice"
//! sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
//! requests_per_minute = 100
//! tokens_per_minute = 20000
//! models = ["gpt2"]
//! ```
//!
//! It holds hashes alone: whoever reads it cannot use the keys. A limit that is left out is none, and without `models`
//! a key is good for all.

use super::error::ApiError;
use crate::{Error, Result};
use axum::http::{HeaderMap, header};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use subtle::{Choice, ConstantTimeEq};

/// A key's entry.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Whose it is; what logs and messages call it.
    pub name: String,
    /// The SHA-256 of the key, in hexadecimal.
    pub sha256: String,
    /// Requests it may make in a minute.
    pub requests_per_minute: Option<u64>,
    /// Tokens, of prompts and completions, it may use in a minute.
    pub tokens_per_minute: Option<u64>,
    /// The models it may use, by the names they are served or asked for by.
    pub models: Option<Vec<String>>,
}

impl Key {
    /// A key without limits, and without a hash that anything could have.
    pub fn named(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Whether it may use the model called by any of these names.
    pub fn may_use(&self, names: &[&str]) -> bool {
        self.models.as_ref().is_none_or(|models| models.iter().any(|model| names.contains(&model.as_str())))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    #[serde(default)]
    key: Vec<Key>,
}

/// Reads a keys' file.
///
/// # Errors
/// [`Error::Io`], and [`Error::Message`] that names the entry and field that is wrong.
pub fn read(path: &Path) -> Result<Vec<Key>> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Io {
        path: path.into(),
        action: "read",
        source,
    })?;
    parse(path, &text)
}

pub(super) fn parse(path: &Path, text: &str) -> Result<Vec<Key>> {
    let wrong = |problem: String| Error::Message(format!("{}: {problem}", path.display()));
    let file: KeyFile = toml_edit::de::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
        wrong(format!("line {line}: {}", error.message().replace('\n', " ")))
    })?;
    for (i, key) in file.key.iter().enumerate() {
        if key.name.is_empty() || key.name.chars().any(char::is_control) {
            return Err(wrong(format!("key {}: name: found {:?}, expected some text", i + 1, key.name)));
        }
        if file.key[..i].iter().any(|other| other.name == key.name) {
            return Err(wrong(format!("key '{}': found two of that name, expected one", key.name)));
        }
        if key.sha256.len() != 64 || !key.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong(format!(
                "key '{}': sha256: found {:?}, expected 64 hexadecimal digits",
                key.name, key.sha256
            )));
        }
    }
    Ok(file.key)
}

/// The SHA-256 of a key, in hexadecimal.
pub fn hash(key: &str) -> String {
    Sha256::digest(key.as_bytes()).iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}"); // a String takes anything
        hex
    })
}

/// The keys of a file as it is now.
#[derive(Debug)]
pub struct Keyring {
    path: PathBuf,
    loaded: Mutex<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    version: Option<Version>,
    keys: Arc<Vec<Arc<Key>>>,
}

/// What tells one state of a file from another.
#[derive(Debug, PartialEq)]
struct Version {
    modified: Option<SystemTime>,
    bytes: u64,
    /// A file that was put in another's place.
    #[cfg(unix)]
    inode: u64,
}

fn version(path: &Path) -> Option<Version> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Version {
        modified: metadata.modified().ok(),
        bytes: metadata.len(),
        #[cfg(unix)]
        inode: std::os::unix::fs::MetadataExt::ino(&metadata),
    })
}

impl Keyring {
    /// The keys of a file, which must be valid to begin with.
    ///
    /// # Errors
    /// As [`read`].
    pub fn open(path: &Path) -> Result<Self> {
        let version = version(path);
        let keys = Arc::new(read(path)?.into_iter().map(Arc::new).collect());
        Ok(Self { path: path.into(), loaded: Mutex::new(Loaded { version, keys }) })
    }

    /// The keys as the file has them now. While it cannot be read, those it had before.
    fn keys(&self) -> Arc<Vec<Arc<Key>>> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let version = version(&self.path);
        if version != loaded.version {
            loaded.version = version;
            match read(&self.path) {
                Ok(keys) => {
                    tracing::info!(keys = keys.len(), file = %self.path.display(), "keys read");
                    loaded.keys = Arc::new(keys.into_iter().map(Arc::new).collect());
                }
                Err(error) => tracing::error!("{error}; the keys read before stay in force"),
            }
        }
        Arc::clone(&loaded.keys)
    }

    /// Whose key a request carries.
    ///
    /// # Errors
    /// 401 where it carries none or a wrong one.
    pub fn authenticate(&self, headers: &HeaderMap) -> std::result::Result<Arc<Key>, ApiError> {
        let bearer = |value: &str| {
            let (scheme, key) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| key.trim().to_string())
        };
        let given = headers.get(header::AUTHORIZATION).and_then(|value| bearer(value.to_str().ok()?));
        let Some(given) = given.filter(|key| !key.is_empty()) else {
            return Err(ApiError::unauthorized(
                "You didn't provide an API key. Provide it in an Authorization header using Bearer auth \
                 (i.e. Authorization: Bearer YOUR_KEY).",
            ));
        };
        let hash = hash(&given);
        // Every entry is looked at, each in the same time, so that nothing can be learnt from how long it takes.
        let keys = self.keys();
        let mut found = None;
        for key in keys.iter() {
            let same: Choice = key.sha256.to_ascii_lowercase().as_bytes().ct_eq(hash.as_bytes());
            if bool::from(same) {
                found = Some(key);
            }
        }
        found.cloned().ok_or_else(|| ApiError::unauthorized("Incorrect API key provided."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, key: &str, more: &str) -> String {
        format!("[[key]]\nname = \"{name}\"\nsha256 = \"{}\"\n{more}\n", hash(key))
    }

    fn bearer(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        headers
    }

    #[test]
    fn a_file_is_read_with_its_limits() {
        let more = "requests_per_minute = 100\ntokens_per_minute = 5\nmodels = [\"gpt2\"]";
        let keys = parse(Path::new("k"), &(entry("a", "x", more) + &entry("b", "y", ""))).unwrap();
        assert_eq!((keys[0].requests_per_minute, keys[0].tokens_per_minute), (Some(100), Some(5)));
        assert!(
            keys[0].may_use(&["fable", "gpt2"]) && !keys[0].may_use(&["fable"]) && keys[1].may_use(&["z"])
        );
        assert!(parse(Path::new("k"), "").unwrap().is_empty());
        assert_eq!(hash("test"), "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08");
    }

    #[test]
    fn what_is_wrong_in_a_file_is_one_line_that_says_where() {
        let says = |text: &str| parse(Path::new("keys.toml"), text).unwrap_err().to_string();
        assert!(
            says("\n[[key]]\nname = 3").starts_with("keys.toml: line 3: "),
            "{}",
            says("\n[[key]]\nname = 3")
        );
        assert!(says(&entry("a", "x", "rpm = 3")).contains("rpm"));
        assert!(says("[[key]]\nname = \"a\"\nsha256 = \"abc\"").contains("key 'a': sha256: found \"abc\""));
        assert!(says(&(entry("a", "x", "") + &entry("a", "y", ""))).contains("two of that name"));
        assert!(says(&entry("", "x", "")).contains("name: found \"\""));
        for text in ["[[key", "key = 3", "x", "[[key]]\nname = \"a\"", "\u{0}"] {
            assert!(!says(text).contains('\n'), "{}", says(text));
        }
    }

    #[test]
    fn a_changed_file_holds_at_once_and_a_broken_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        std::fs::write(&path, entry("a", "one", "")).unwrap();
        let keyring = Keyring::open(&path).unwrap();
        let name = |header: &str| keyring.authenticate(&bearer(header)).map(|key| key.name.clone());
        assert_eq!(name("Bearer one").unwrap(), "a");
        assert_eq!(name("bearer  one").unwrap(), "a");
        for wrong in ["Bearer two", "Basic one", "one", "Bearer ", "Bearer on"] {
            assert_eq!(name(wrong).unwrap_err().status(), 401, "{wrong}");
        }
        std::fs::write(&path, entry("b", "number two", "")).unwrap();
        assert_eq!(name("Bearer number two").unwrap(), "b");
        assert!(name("Bearer one").is_err());
        std::fs::write(&path, "[[key]").unwrap();
        assert_eq!(name("Bearer number two").unwrap(), "b");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(name("Bearer number two").unwrap(), "b");
    }
}
