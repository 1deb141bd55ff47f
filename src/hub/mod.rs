//! The Hugging Face hub: from a name to a complete and checked snapshot in the standard cache, which every program that
//! uses the hub shares.
//!
//! `hf-hub` knows the hub's addresses and the cache's layout and moves the bytes. Here is decided which files a GPT-2
//! needs (`listing`), and nothing is believed that was not checked (`transfer`): a name is given to a snapshot only
//! when all of its files have the sizes and hashes that the hub announced. Nothing else in Hornbook opens a connection.

mod download;
mod errors;
mod model_info;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder};
use hf_hub::{Cache, Repo, RepoType};

use crate::checkpoint::{self, Config};
use crate::error::{Error, Result};
use download::Transfer;
use errors::Asked;
use model_info::Listing;

/// The branch that is meant where none is named.
pub const DEFAULT_REVISION: &str = "main";

/// How long nothing may come before the connection is given up, unless `HF_HUB_DOWNLOAD_TIMEOUT` says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// The hub as the environment describes it: `HF_ENDPOINT`, `HF_HUB_CACHE`, `HF_HOME`, `HF_TOKEN`, `HF_TOKEN_PATH`,
/// `HF_HUB_OFFLINE`, `HF_HUB_DISABLE_IMPLICIT_TOKEN`, `HF_HUB_DOWNLOAD_TIMEOUT`, and `HTTPS_PROXY` and its relatives.
#[derive(Debug)]
pub struct Hub {
    endpoint: String,
    cache: PathBuf,
    offline: bool,
    patience: Duration,
    has_token: bool,
    api: Api,
    /// The same without the token.
    anonymous: Api,
}

/// How far a download is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The file that is on its way.
    pub file: &'a str,
    /// Bytes of the whole snapshot that are here, those of earlier runs among them.
    pub done: u64,
    /// Bytes of the whole snapshot.
    pub total: u64,
}

/// A snapshot that is complete.
#[derive(Debug)]
pub struct Snapshot {
    /// Its folder in the cache.
    pub folder: PathBuf,
    /// The size of its files together.
    pub bytes: u64,
    /// The bytes that had to be downloaded.
    pub downloaded: u64,
    /// The commit it is of.
    pub commit: String,
}

impl Hub {
    /// The hub, with what the environment says of it.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a variable that cannot be understood, [`Error::Message`] where there is no place for a
    /// cache.
    pub fn from_env() -> Result<Hub> {
        Hub::with(|name| std::env::var_os(name).filter(|value| !value.is_empty()))
    }

    fn with(variable: impl Fn(&str) -> Option<OsString>) -> Result<Hub> {
        let text = |name| variable(name).map(|value| value.to_string_lossy().into_owned());
        let set = |name| {
            text(name).is_some_and(|value| !["0", "false", "no", "off"].contains(&&*value.to_lowercase()))
        };
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        let endpoint = endpoint.trim_end_matches('/').to_string();
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            return Err(parameter("HF_ENDPOINT", endpoint, "an address such as https://huggingface.co"));
        }
        let cache = checkpoint::hub_cache().ok_or_else(|| {
            Error::Message("there is no home folder to keep models in: set HF_HUB_CACHE to a folder".into())
        })?;
        let patience = match text("HF_HUB_DOWNLOAD_TIMEOUT") {
            None => PATIENCE,
            Some(seconds) => match seconds.parse() {
                Ok(seconds @ 1..) => Duration::from_secs(seconds),
                _ => return Err(parameter("HF_HUB_DOWNLOAD_TIMEOUT", seconds, "a number of seconds")),
            },
        };
        let token = text("HF_TOKEN").map(|token| token.trim().to_string()).or_else(|| {
            let file = variable("HF_TOKEN_PATH").map(PathBuf::from);
            let file = file.or_else(|| Some(checkpoint::hub_home()?.join("token")));
            let token = std::fs::read_to_string(file.filter(|_| !set("HF_HUB_DISABLE_IMPLICIT_TOKEN"))?);
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
            api.map_err(|error| Error::Message(format!("the hub's client cannot be made: {error}")))
        };
        Ok(Hub {
            api: api(token)?,
            anonymous: api(None)?,
            offline: set("HF_HUB_OFFLINE"),
            has_token,
            patience,
            endpoint,
            cache,
        })
    }

    /// Whether `HF_HUB_OFFLINE` forbids every connection.
    pub fn is_offline(&self) -> bool {
        self.offline
    }

    /// The name as the hub has it: `openai-community/gpt2` for `gpt2`, and for the address of its page.
    ///
    /// # Errors
    /// [`Error::Parameter`] for what cannot be a name.
    pub fn full_name(&self, typed: &str) -> Result<String> {
        let name = typed.strip_prefix(&self.endpoint).map_or(typed, |path| path.trim_matches('/'));
        match checkpoint::is_hub_name(name) {
            true => Ok(checkpoint::full_name(name).to_string()),
            false => Err(parameter(
                "the model's name",
                format!("'{}'", typed.escape_debug()),
                "owner/name as on the hub, or gpt2, gpt2-medium, gpt2-large, gpt2-xl or distilgpt2",
            )),
        }
    }

    /// Brings a revision of `name` into the cache, or what is missing of it. Files that are there are checked again.
    ///
    /// # Errors
    /// [`Error::Message`] for what the hub refuses or what cannot run here, [`Error::Config`] for a configuration that
    /// is no GPT-2's, [`Error::Io`] where the cache cannot be written. What was downloaded of a file stays, and the next
    /// call goes on behind it.
    pub fn pull(&self, name: &str, revision: &str, mut watch: impl FnMut(Progress)) -> Result<Snapshot> {
        let asked =
            Asked { name, revision, endpoint: &self.endpoint, cache: &self.cache, token: self.has_token };
        if self.offline {
            let problem =
                format!("'{name}' cannot be pulled: HF_HUB_OFFLINE is set, which forbids every connection");
            return Err(Error::Message(problem));
        }
        let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
        let known = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if !revision.split('/').all(plain) || !revision.chars().all(known) {
            let found = format!("'{}'", revision.escape_debug());
            return Err(parameter("--revision", found, "a branch, a tag or a commit"));
        }
        let repo = |revision: &str| Repo::with_revision(name.into(), RepoType::Model, revision.into());
        let listing = Listing::ask(&self.api.repo(repo(revision)), self.patience, &asked)?;
        let mut files = listing.files(&asked)?;

        // Where nobody is asked who they are, nobody need say so: a redirect may lead to other machines.
        let api = if listing.needs_token() { &self.api } else { &self.anonymous };
        let (cache, at_commit) = (Cache::new(self.cache.clone()), repo(&listing.sha));
        let folder = cache.repo(at_commit.clone()).pointer_path(&listing.sha);
        let transfer = Transfer { api: api.clone(), repo: at_commit, cache, patience: self.patience };
        let (mut done, mut downloaded, mut next) = (0, 0, 0);
        while let Some(file) = files.get(next).cloned() {
            let total = files.iter().map(|file| file.size).sum();
            let told = |here| watch(Progress { file: &file.name, done: done + here, total });
            downloaded += transfer.run(&file, told).map_err(|problem| asked.refuse(&file, problem))?;
            done += file.size;
            next += 1;
            let path = folder.join(&file.name);
            match &*file.name {
                model_info::CONFIG => drop(Config::from_file(&path)?),
                model_info::INDEX => files.extend(listing.shards(&path)?),
                _ => {}
            }
        }
        self.name_snapshot(&repo(revision), &listing.sha)?;
        Ok(Snapshot { folder, bytes: done, downloaded, commit: listing.sha })
    }

    /// Lets the revision's name mean the commit. `hf-hub` has named every commit after itself, which nobody asks for.
    fn name_snapshot(&self, repo: &Repo, commit: &str) -> Result<()> {
        let refused = |source| Error::Io { path: self.cache.clone(), action: "write a name into", source };
        let cached = Cache::new(self.cache.clone());
        let folder = self.cache.join(repo.folder_name()).join("refs");
        if repo.revision() != commit {
            cached.repo(repo.clone()).create_ref(commit).map_err(refused)?;
        }
        let _ = std::fs::remove_file(folder.join(commit)); // a leftover that harms nobody
        Ok(())
    }
}

fn parameter(name: &str, found: String, expected: &str) -> Error {
    Error::Parameter { name: name.into(), found, expected: expected.into() }
}

/// Whether `path` stays within the folder it is joined to.
fn is_plain(path: &str) -> bool {
    let mut parts = Path::new(path).components();
    matches!((parts.next(), parts.next()), (Some(std::path::Component::Normal(_)), None))
        && !path.contains('\\')
}
