//! API keys: the keyring, reloaded whenever the key file changes.
//!
//! ```toml
//! [[key]]
//! name = "alice"
//! sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
//! requests_per_minute = 100
//! tokens_per_minute = 20000
//! max_jobs = 2
//! models = ["gpt2"]
//! ```
//!
//! The file contains hashes, not keys. A missing limit means unlimited (of jobs, that of the server), and
//! without `models` a key may use all models.

use super::error::ApiError;
use crate::{Error, Result, text_file};
use axum::http::{HeaderMap, header};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use subtle::{Choice, ConstantTimeEq};

/// An entry of the key file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Name of the key, shown in logs and messages.
    pub name: String,
    /// SHA-256 of the key, in hexadecimal.
    pub sha256: String,
    /// Limit of requests per minute.
    pub requests_per_minute: Option<u64>,
    /// Limit of prompt and completion tokens per minute.
    pub tokens_per_minute: Option<u64>,
    /// Limit of fine-tuning jobs that have not ended.
    pub max_jobs: Option<u64>,
    /// Models the key may use, by name or alias.
    pub models: Option<Vec<String>>,
}

impl Key {
    /// Creates an entry without limits, with an empty hash that matches no key.
    pub fn named(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    #[serde(default)]
    key: Vec<Key>,
}

/// Reads and validates a key file.
///
/// # Errors
/// [`Error::Io`], or [`Error::InvalidFile`] that names the invalid entry and field.
pub fn read(path: &Path) -> Result<Vec<Key>> {
    parse(path, &text_file::read_file(path)?)
}

pub(super) fn parse(path: &Path, text: &str) -> Result<Vec<Key>> {
    let invalid = |problem: String| Error::invalid_file(path, problem);
    let file: KeyFile = toml_edit::de::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
        Error::InvalidFile {
            file: path.into(),
            line: Some(line),
            problem: error.message().replace('\n', " "),
        }
    })?;
    for (i, key) in file.key.iter().enumerate() {
        if key.name.is_empty() || key.name.chars().any(char::is_control) {
            return Err(invalid(format!(
                "key {}: name: found {:?}, expected a non-empty name without control characters",
                i + 1,
                key.name
            )));
        }
        if file.key[..i].iter().any(|other| other.name == key.name) {
            return Err(invalid(format!("key '{}': found two keys with this name, expected one", key.name)));
        }
        if key.sha256.len() != 64 || !key.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(invalid(format!(
                "key '{}': sha256: found {:?}, expected 64 hexadecimal digits",
                key.name, key.sha256
            )));
        }
    }
    Ok(file.key)
}

/// Returns the SHA-256 of a key, in hexadecimal.
pub fn hash(key: &str) -> String {
    Sha256::digest(key.as_bytes()).iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}"); // writing to a String cannot fail
        hex
    })
}

/// The keys of a key file, reloaded when the file changes.
#[derive(Debug)]
pub struct Keyring {
    path: PathBuf,
    cache: Mutex<KeyCache>,
}

#[derive(Debug)]
struct KeyCache {
    version: Option<FileVersion>,
    keys: Arc<Vec<Arc<Key>>>,
}

/// Metadata by which a change of the file is detected.
#[derive(Debug, PartialEq)]
struct FileVersion {
    modified: Option<SystemTime>,
    bytes: u64,
    /// Changes when the file is replaced.
    #[cfg(unix)]
    inode: u64,
}

fn file_version(path: &Path) -> Option<FileVersion> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(FileVersion {
        modified: metadata.modified().ok(),
        bytes: metadata.len(),
        #[cfg(unix)]
        inode: std::os::unix::fs::MetadataExt::ino(&metadata),
    })
}

impl Keyring {
    /// Opens a key file, which must be valid.
    ///
    /// # Errors
    /// As [`read`].
    pub fn open(path: &Path) -> Result<Self> {
        let version = file_version(path);
        let keys = Arc::new(read(path)?.into_iter().map(Arc::new).collect());
        Ok(Self { path: path.into(), cache: Mutex::new(KeyCache { version, keys }) })
    }

    /// Returns the current keys. While the file is unreadable or invalid, the last valid ones stay in use.
    fn keys(&self) -> Arc<Vec<Arc<Key>>> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let version = file_version(&self.path);
        if version != cache.version {
            cache.version = version;
            match read(&self.path) {
                Ok(keys) => {
                    tracing::info!(keys = keys.len(), file = %self.path.display(), "key file reloaded");
                    cache.keys = Arc::new(keys.into_iter().map(Arc::new).collect());
                }
                Err(error) => tracing::error!("{error}; keeping the keys loaded before"),
            }
        }
        Arc::clone(&cache.keys)
    }

    /// Returns the key of a name, for a request that is made on its behalf.
    ///
    /// # Errors
    /// 401 if it has been removed.
    pub fn find(&self, name: &str) -> std::result::Result<Arc<Key>, ApiError> {
        let keys = self.keys();
        let key = keys.iter().find(|key| key.name == name).cloned();
        key.ok_or_else(|| ApiError::unauthorized(format!("There is no API key named {name:?} any more.")))
    }

    /// Authenticates a request by its bearer token.
    ///
    /// # Errors
    /// 401 for a missing or unknown key.
    pub fn authenticate(&self, headers: &HeaderMap) -> std::result::Result<Arc<Key>, ApiError> {
        let bearer = |value: &str| {
            let (scheme, key) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| key.trim().to_string())
        };
        let provided = headers.get(header::AUTHORIZATION).and_then(|value| bearer(value.to_str().ok()?));
        let Some(provided) = provided.filter(|key| !key.is_empty()) else {
            return Err(ApiError::unauthorized(
                "You didn't provide an API key. Provide it in an Authorization header using Bearer auth \
                 (i.e. Authorization: Bearer YOUR_KEY).",
            ));
        };
        let hash = hash(&provided);
        // Constant-time comparison with every entry, so that the timing reveals nothing about the hashes.
        let keys = self.keys();
        let mut matched = None;
        for key in keys.iter() {
            let is_equal: Choice = key.sha256.to_ascii_lowercase().as_bytes().ct_eq(hash.as_bytes());
            if bool::from(is_equal) {
                matched = Some(key);
            }
        }
        matched.cloned().ok_or_else(|| ApiError::unauthorized("Incorrect API key provided."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, key: &str, extra: &str) -> String {
        format!("[[key]]\nname = \"{name}\"\nsha256 = \"{}\"\n{extra}\n", hash(key))
    }

    fn bearer(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        headers
    }

    #[test]
    fn key_file_entries_have_limits_and_models() {
        let extra = "requests_per_minute = 100\ntokens_per_minute = 5\nmodels = [\"gpt2\"]";
        let keys = parse(Path::new("k"), &(entry("a", "x", extra) + &entry("b", "y", ""))).unwrap();
        assert_eq!((keys[0].requests_per_minute, keys[0].tokens_per_minute), (Some(100), Some(5)));
        assert_eq!((&keys[0].models, &keys[1].models), (&Some(vec!["gpt2".into()]), &None));
        assert!(parse(Path::new("k"), "").unwrap().is_empty());
        assert_eq!(hash("test"), "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08");
    }

    #[test]
    fn invalid_key_file_is_one_line_error_with_location() {
        let error = |text: &str| parse(Path::new("keys.toml"), text).unwrap_err().to_string();
        assert!(
            error("\n[[key]]\nname = 3").starts_with("keys.toml: line 3: "),
            "{}",
            error("\n[[key]]\nname = 3")
        );
        assert!(error(&entry("a", "x", "rpm = 3")).contains("rpm"));
        assert!(error("[[key]]\nname = \"a\"\nsha256 = \"abc\"").contains("key 'a': sha256: found \"abc\""));
        assert!(error(&(entry("a", "x", "") + &entry("a", "y", ""))).contains("two keys with this name"));
        assert!(error(&entry("", "x", "")).contains("name: found \"\""));
        for text in ["[[key", "key = 3", "x", "[[key]]\nname = \"a\"", "\u{0}"] {
            assert!(!error(text).contains('\n'), "{}", error(text));
        }
    }

    #[test]
    fn changed_key_file_is_reloaded_and_invalid_one_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        std::fs::write(&path, entry("a", "one", "")).unwrap();
        let keyring = Keyring::open(&path).unwrap();
        let authenticated_name =
            |header: &str| keyring.authenticate(&bearer(header)).map(|key| key.name.clone());
        assert_eq!(authenticated_name("Bearer one").unwrap(), "a");
        assert_eq!(authenticated_name("bearer  one").unwrap(), "a");
        for wrong in ["Bearer two", "Basic one", "one", "Bearer ", "Bearer on"] {
            assert_eq!(authenticated_name(wrong).unwrap_err().status(), 401, "{wrong}");
        }
        std::fs::write(&path, entry("b", "number two", "")).unwrap();
        assert_eq!(authenticated_name("Bearer number two").unwrap(), "b");
        assert!(authenticated_name("Bearer one").is_err());
        std::fs::write(&path, "[[key]").unwrap();
        assert_eq!(authenticated_name("Bearer number two").unwrap(), "b");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(authenticated_name("Bearer number two").unwrap(), "b");
    }
}
