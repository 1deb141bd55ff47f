//! What a repository on the hub holds, and which of it a GPT-2 needs.

use std::path::Path;
use std::time::Duration;

use hf_hub::api::sync::ApiRepo;
use serde::Deserialize;

use super::errors::Asked;
use super::is_plain;
use crate::checkpoint;
use crate::error::{Error, Result};

pub(super) const CONFIG: &str = "config.json";
pub(super) const SINGLE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// The model's card.
const CARD: &str = "README.md";
/// What PyTorch, TensorFlow and JAX write, none of which is read here.
const OTHER_WEIGHTS: [&str; 6] = [
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "model.pt",
    "tf_model.h5",
    "flax_model.msgpack",
    "model.ckpt",
];

/// A commit of a repository: the hub's answer, as far as it matters here.
#[derive(Debug, Deserialize)]
pub(super) struct Listing {
    /// The commit.
    pub(super) sha: String,
    siblings: Vec<Sibling>,
    #[serde(default)]
    private: bool,
    /// `false`, or how access is granted.
    #[serde(default)]
    gated: serde_json::Value,
    #[serde(default)]
    config: Option<Described>,
}

#[derive(Debug, Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Clone, Debug, Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

/// What the hub has read in the repository's `config.json`.
#[derive(Debug, Deserialize)]
struct Described {
    model_type: Option<String>,
}

/// A file on the hub.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    pub(super) name: String,
    pub(super) size: u64,
    /// Its SHA-256, where the hub keeps the file as a large one.
    pub(super) sha256: Option<String>,
}

impl Listing {
    /// Asks the hub.
    pub(super) fn ask(repo: &ApiRepo, patience: Duration, asked: &Asked) -> Result<Listing> {
        let request = repo.info_request().query("blobs", "true");
        let request = request.config().timeout_global(Some(patience)).build();
        let answer = request.call().and_then(|mut answer| answer.body_mut().read_json::<Listing>());
        let listing = answer.map_err(|error| asked.refuse_listing(&error))?;
        let hex =
            |text: &str, digits: usize| text.len() == digits && text.bytes().all(|c| c.is_ascii_hexdigit());
        let hashes = listing.siblings.iter().filter_map(|sibling| sibling.lfs.as_ref());
        if !hex(&listing.sha, 40) || !hashes.into_iter().all(|lfs| hex(&lfs.sha256, 64)) {
            return Err(asked.no_hub("its list of files has hashes that are none"));
        }
        Ok(listing)
    }

    /// Whether only some may download.
    pub(super) fn needs_token(&self) -> bool {
        self.private || !matches!(self.gated, serde_json::Value::Bool(false) | serde_json::Value::Null)
    }

    /// What a GPT-2 needs of it, the configuration first and the weights last; shards are in the index, not here.
    pub(super) fn files(&self, asked: &Asked) -> Result<Vec<Remote>> {
        let has = |name: &str| self.siblings.iter().any(|sibling| sibling.rfilename == name);
        let model_type = self.config.as_ref().and_then(|config| config.model_type.as_deref());
        if let Some(other) = model_type.filter(|name| *name != "gpt2") {
            let problem = format!(
                "found a model of type '{}', expected gpt2, the one that runs here",
                other.escape_debug()
            );
            return Err(asked.cannot_run(&problem));
        }
        if !has(CONFIG) {
            return Err(asked.cannot_run("found no config.json, expected the configuration of a GPT-2"));
        }
        let weights = [SINGLE, INDEX].into_iter().find(|name| has(name));
        let Some(weights) = weights else {
            let other = OTHER_WEIGHTS.into_iter().find(|name| has(name));
            let problem = match other {
                None => format!("found neither {SINGLE} nor {INDEX}, expected the model's weights"),
                Some(other) => format!(
                    "found {other}, expected {SINGLE}: only safetensors are read, since pickles can run code; \
                     https://huggingface.co/spaces/safetensors/convert makes them, and --revision refs/pr/N takes them \
                     from its pull request"
                ),
            };
            return Err(asked.cannot_run(&problem));
        };
        let rest = checkpoint::FILES.into_iter().filter(|name| *name != CONFIG).chain([CARD]);
        let names = [CONFIG].into_iter().chain(rest.filter(|name| has(name))).chain([weights]);
        names.map(|name| self.remote(name)).collect()
    }

    /// The shards an index names.
    pub(super) fn shards(&self, index: &Path) -> Result<Vec<Remote>> {
        checkpoint::shards_of(index)?.iter().map(|name| self.remote(name)).collect()
    }

    fn remote(&self, name: &str) -> Result<Remote> {
        let found = self.siblings.iter().find(|sibling| sibling.rfilename == name && is_plain(name));
        let size = found.and_then(|found| found.lfs.as_ref().map(|lfs| lfs.size).or(found.size));
        let (Some(found), Some(size)) = (found, size) else {
            return Err(Error::Message(format!(
                "{}: found no such file with a size on the hub, expected one of the model's",
                name.escape_debug()
            )));
        };
        Ok(Remote {
            name: name.into(),
            size,
            sha256: found.lfs.as_ref().map(|lfs| lfs.sha256.to_lowercase()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_download_is_read_from_the_listing() {
        let needs = |more: &str| {
            let text = format!(r#"{{"sha": "a", "siblings": [] {more}}}"#);
            serde_json::from_str::<Listing>(&text).unwrap().needs_token()
        };
        for open in ["", r#", "private": false"#, r#", "gated": false"#, r#", "gated": null"#] {
            assert!(!needs(open), "{open}");
        }
        for closed in [r#", "private": true"#, r#", "gated": "auto""#, r#", "gated": "manual""#] {
            assert!(needs(closed), "{closed}");
        }
    }
}
