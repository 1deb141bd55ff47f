//! The Hugging Face hub: from a model's name to a complete, verified snapshot in the standard cache, which
//! all programs that use the hub share.
//!
//! This module selects the files a GPT-2 needs (`model_info`), downloads and verifies them (`download`): a
//! ref is written only when all files of the snapshot have the announced sizes and hashes. The cache has the
//! layout of `huggingface_hub`. Apart from `hornbook health`, nothing else in Hornbook opens a connection.

mod client;
mod download;
mod errors;
mod model_info;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::checkpoint::{self, ConfigFile};
use crate::error::{Error, Result};
use client::Client;
use download::Downloader;
use errors::{ErrorContext, hub_error};
use model_info::ModelInfo;

/// The revision used when none is given.
pub const DEFAULT_REVISION: &str = "main";

/// The time without data after which a connection is closed, unless `HF_HUB_DOWNLOAD_TIMEOUT` sets another.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// The way to a model without a connection.
const BY_HAND: &str = "pull it on a computer with network access, copy the folder that `hornbook pull` \
                       prints (`cp -rL`: it holds links), and pass the copy with --model FOLDER";

/// A hub client, configured by the environment: `HF_ENDPOINT`, `HF_HUB_CACHE`, `HF_HOME`, `HF_TOKEN`,
/// `HF_TOKEN_PATH`, `HF_HUB_OFFLINE`, `HF_HUB_DISABLE_IMPLICIT_TOKEN`, `HF_HUB_DOWNLOAD_TIMEOUT`, and
/// `HTTPS_PROXY` and the other proxy variables.
#[derive(Debug)]
pub struct Hub {
    endpoint: String,
    cache: PathBuf,
    offline: bool,
    timeout: Duration,
    client: Client,
}

/// The progress of a download.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The file being downloaded.
    pub file: &'a str,
    /// Bytes of the snapshot that are present, including those of earlier runs.
    pub present: u64,
    /// Bytes of the complete snapshot.
    pub total: u64,
}

/// A complete snapshot.
#[derive(Debug)]
pub struct Snapshot {
    /// Its folder in the cache.
    pub folder: PathBuf,
    /// The total size of its files.
    pub bytes: u64,
    /// The number of bytes downloaded.
    pub downloaded: u64,
    /// Its commit.
    pub commit: String,
}

impl Hub {
    /// Creates a client from the environment variables.
    ///
    /// # Errors
    /// [`Error::Parameter`] for an invalid variable, [`Error::Hub`] if there is no folder for the cache.
    pub fn from_env() -> Result<Hub> {
        Hub::from_variables(|name| std::env::var_os(name).filter(|value| !value.is_empty()))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Result<Hub> {
        let text = |name| variable(name).map(|value| value.to_string_lossy().into_owned());
        let is_set = |name| {
            text(name).is_some_and(|value| !["0", "false", "no", "off"].contains(&&*value.to_lowercase()))
        };
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        let endpoint = endpoint.trim_end_matches('/').to_string();
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            return Err(parameter("HF_ENDPOINT", endpoint, "an address such as https://huggingface.co"));
        }
        let cache = checkpoint::hub_cache_dir()
            .ok_or_else(|| hub_error("found no home folder for the cache: set HF_HUB_CACHE to a folder"))?;
        let timeout = match text("HF_HUB_DOWNLOAD_TIMEOUT") {
            None => DEFAULT_TIMEOUT,
            Some(seconds) => match seconds.parse() {
                Ok(seconds @ 1..) => Duration::from_secs(seconds),
                _ => return Err(parameter("HF_HUB_DOWNLOAD_TIMEOUT", seconds, "a number of seconds")),
            },
        };
        let token = text("HF_TOKEN").map(|token| token.trim().to_string()).or_else(|| {
            let file = variable("HF_TOKEN_PATH").map(PathBuf::from);
            let file = file.or_else(|| Some(checkpoint::hf_home_dir()?.join("token")));
            let token = std::fs::read_to_string(file.filter(|_| !is_set("HF_HUB_DISABLE_IMPLICIT_TOKEN"))?);
            token.ok().map(|token| token.trim().to_string()).filter(|token| !token.is_empty())
        });
        if token.as_ref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(parameter(
                "HF_TOKEN",
                "spaces or control characters".into(),
                "a token such as hf_...",
            ));
        }
        let client = Client::new(token, timeout);
        Ok(Hub { client, offline: is_set("HF_HUB_OFFLINE"), timeout, endpoint, cache })
    }

    /// Whether `HF_HUB_OFFLINE` disables network access.
    pub fn is_offline(&self) -> bool {
        self.offline
    }

    /// Returns the repository id: `openai-community/gpt2` for `gpt2` and for the address of its page.
    ///
    /// # Errors
    /// [`Error::Parameter`] for an invalid name.
    pub fn repo_id(&self, input: &str) -> Result<String> {
        let name = input.strip_prefix(&self.endpoint).map_or(input, |path| path.trim_matches('/'));
        match checkpoint::is_repo_id(name) {
            true => Ok(checkpoint::repo_id(name).to_string()),
            false => {
                let short_names: Vec<&str> =
                    checkpoint::HUB_ALIASES.iter().map(|(short, _)| *short).collect();
                let expected = format!("owner/name as on the hub, or one of {}", short_names.join(", "));
                Err(parameter("the model's name", format!("'{}'", input.escape_debug()), &expected))
            }
        }
    }

    /// Downloads the missing files of a revision into the cache and verifies all of them.
    ///
    /// # Errors
    /// [`Error::Hub`], [`Error::Unsupported`] for another kind of model, [`Error::Config`] for a
    /// configuration that is not a GPT-2's, [`Error::Io`] if the cache cannot be written. Partial files are
    /// kept, and the next call resumes them.
    pub fn pull(
        &self,
        repo_id: &str,
        revision: &str,
        mut on_progress: impl FnMut(Progress),
    ) -> Result<Snapshot> {
        if self.offline {
            return Err(hub_error(format!(
                "cannot pull '{repo_id}': HF_HUB_OFFLINE is set, which disables network access; unset it, or \
                 {BY_HAND}"
            )));
        }
        let is_component = |component: &str| !component.is_empty() && component != "." && component != "..";
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if !revision.split('/').all(is_component) || !revision.chars().all(is_allowed) {
            let found = format!("'{}'", revision.escape_debug());
            return Err(parameter("--revision", found, "a branch, a tag or a commit"));
        }
        let context = ErrorContext {
            repo_id,
            revision,
            endpoint: &self.endpoint,
            cache: &self.cache,
            has_token: self.client.has_token(),
            timeout: self.timeout,
        };
        let (endpoint, escaped) = (&self.endpoint, revision.replace('/', "%2F"));
        let url = format!("{endpoint}/api/models/{repo_id}/revision/{escaped}");
        let info = ModelInfo::fetch(&self.client, &url, &context)?;
        let mut files = info.files(&context)?;

        let repository = self.cache.join(format!("models--{}", repo_id.replace('/', "--")));
        let folder = repository.join("snapshots").join(&info.sha);
        let downloader = Downloader {
            // A redirect may lead to another host: the token is sent only where it is required.
            client: if info.needs_token() { self.client.clone() } else { self.client.anonymous() },
            url: format!("{endpoint}/{repo_id}/resolve/{}", info.sha),
            commit: info.sha.clone(),
            folder: repository.clone(),
        };
        let (mut present, mut downloaded, mut next) = (0, 0, 0);
        while next < files.len() {
            let total = files.iter().filter_map(|file| file.size).sum();
            let file = &mut files[next];
            let name = file.name.clone();
            let on_file_progress =
                |bytes| on_progress(Progress { file: &name, present: present + bytes, total });
            downloaded += downloader
                .run(file, on_file_progress)
                .map_err(|error| context.download_error(&name, error))?;
            present += file.size.unwrap_or(0);
            next += 1;
            let path = folder.join(&name);
            match &*name {
                model_info::CONFIG => drop(ConfigFile::open(&path)?),
                model_info::INDEX => files.extend(info.shards(&path)?),
                _ => {}
            }
        }
        self.write_ref(&repository, revision, &info.sha)?;
        Ok(Snapshot { folder, bytes: present, downloaded, commit: info.sha })
    }

    /// Points the revision's ref at the commit.
    fn write_ref(&self, repository: &Path, revision: &str, commit: &str) -> Result<()> {
        if revision == commit {
            return Ok(());
        }
        let path = repository.join("refs").join(revision); // a revision may have slashes
        let written = std::fs::create_dir_all(path.parent().expect("refs"));
        let written = written.and_then(|()| std::fs::write(&path, commit));
        written.map_err(|source| Error::Io { path, action: "write", source })
    }
}

fn parameter(name: &str, found: String, expected: &str) -> Error {
    Error::Parameter { name: name.into(), found, expected: expected.into() }
}

/// Whether `path` is a single file name, which stays within the folder it is joined to.
fn is_file_name(path: &str) -> bool {
    let mut components = Path::new(path).components();
    matches!((components.next(), components.next()), (Some(std::path::Component::Normal(_)), None))
        && !path.contains('\\')
}
