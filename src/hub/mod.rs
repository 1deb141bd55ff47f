//! The Hugging Face hub: from a model's name to a complete, verified snapshot in the standard cache, which
//! all programs that use the hub share.
//!
//! `hf-hub` implements the hub's addresses and the cache layout, and transfers the bytes. This module selects
//! the files a GPT-2 needs (`model_info`) and verifies them (`download`): a ref is written only when all
//! files of the snapshot have the announced sizes and hashes. Apart from `hornbook health`, nothing else in
//! Hornbook opens a connection.

mod download;
mod errors;
mod model_info;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder};
use hf_hub::{Cache, Repo, RepoType};

use crate::checkpoint::{self, ConfigFile};
use crate::error::{Error, Result};
use download::Downloader;
use errors::ErrorContext;
use model_info::ModelInfo;

/// The revision used when none is given.
pub const DEFAULT_REVISION: &str = "main";

/// The time without data after which a connection is closed, unless `HF_HUB_DOWNLOAD_TIMEOUT` sets another.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// A hub client, configured by the environment: `HF_ENDPOINT`, `HF_HUB_CACHE`, `HF_HOME`, `HF_TOKEN`,
/// `HF_TOKEN_PATH`, `HF_HUB_OFFLINE`, `HF_HUB_DISABLE_IMPLICIT_TOKEN`, `HF_HUB_DOWNLOAD_TIMEOUT`, and
/// `HTTPS_PROXY` and the other proxy variables.
#[derive(Debug)]
pub struct Hub {
    endpoint: String,
    cache: PathBuf,
    offline: bool,
    timeout: Duration,
    has_token: bool,
    api: Api,
    /// The same client without the token.
    anonymous: Api,
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
    /// [`Error::Parameter`] for an invalid variable, [`Error::Message`] if there is no folder for the cache.
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
        let cache = checkpoint::hub_cache_dir().ok_or_else(|| {
            Error::Message("found no home folder for the cache: set HF_HUB_CACHE to a folder".into())
        })?;
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
        let has_token = token.is_some();
        let api = |token| {
            let builder =
                ApiBuilder::from_cache(Cache::new(cache.clone())).with_progress(false).with_token(token);
            let builder = builder.with_user_agent("hornbook", env!("CARGO_PKG_VERSION"));
            let api = builder.with_endpoint(endpoint.clone()).build();
            api.map_err(|error| Error::Message(format!("cannot create the hub client: {error}")))
        };
        Ok(Hub {
            api: api(token)?,
            anonymous: api(None)?,
            offline: is_set("HF_HUB_OFFLINE"),
            has_token,
            timeout,
            endpoint,
            cache,
        })
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
            false => Err(parameter(
                "the model's name",
                format!("'{}'", input.escape_debug()),
                "owner/name as on the hub, or gpt2, gpt2-medium, gpt2-large, gpt2-xl or distilgpt2",
            )),
        }
    }

    /// Downloads the missing files of a revision into the cache and verifies all of them.
    ///
    /// # Errors
    /// [`Error::Message`] for errors of the hub and unsupported models, [`Error::Config`] for a configuration
    /// that is not a GPT-2's, [`Error::Io`] if the cache cannot be written. Partial files are kept, and the
    /// next call resumes them.
    pub fn pull(
        &self,
        repo_id: &str,
        revision: &str,
        mut on_progress: impl FnMut(Progress),
    ) -> Result<Snapshot> {
        if self.offline {
            let problem =
                format!("cannot pull '{repo_id}': HF_HUB_OFFLINE is set, which disables network access");
            return Err(Error::Message(problem));
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
            has_token: self.has_token,
        };
        let repo = |revision: &str| Repo::with_revision(repo_id.into(), RepoType::Model, revision.into());
        let info = ModelInfo::fetch(&self.api.repo(repo(revision)), self.timeout, &context)?;
        let mut files = info.files(&context)?;

        // A redirect may lead to another host: the token is sent only where it is required.
        let api = if info.needs_token() { &self.api } else { &self.anonymous };
        let (cache, at_commit) = (Cache::new(self.cache.clone()), repo(&info.sha));
        let folder = cache.repo(at_commit.clone()).pointer_path(&info.sha);
        let downloader = Downloader { api: api.clone(), repo: at_commit, cache, timeout: self.timeout };
        let (mut present, mut downloaded, mut next) = (0, 0, 0);
        while let Some(file) = files.get(next).cloned() {
            let total = files.iter().map(|file| file.size).sum();
            let on_file_progress =
                |bytes| on_progress(Progress { file: &file.name, present: present + bytes, total });
            downloaded += downloader
                .run(&file, on_file_progress)
                .map_err(|error| context.download_error(&file, error))?;
            present += file.size;
            next += 1;
            let path = folder.join(&file.name);
            match &*file.name {
                model_info::CONFIG => drop(ConfigFile::open(&path)?),
                model_info::INDEX => files.extend(info.shards(&path)?),
                _ => {}
            }
        }
        self.write_ref(&repo(revision), &info.sha)?;
        Ok(Snapshot { folder, bytes: present, downloaded, commit: info.sha })
    }

    /// Points the revision's ref at the commit. `hf-hub` also writes a ref named after each commit, which is
    /// removed.
    fn write_ref(&self, repo: &Repo, commit: &str) -> Result<()> {
        let io_error = |source| Error::Io { path: self.cache.clone(), action: "write a ref in", source };
        let cache = Cache::new(self.cache.clone());
        let refs = self.cache.join(repo.folder_name()).join("refs");
        if repo.revision() != commit {
            cache.repo(repo.clone()).create_ref(commit).map_err(io_error)?;
        }
        let _ = std::fs::remove_file(refs.join(commit)); // harmless if it stays
        Ok(())
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
