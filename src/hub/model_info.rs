//! The hub's `model_info` answer: the files of a repository, and the selection a GPT-2 needs.

use std::path::Path;

use serde::Deserialize;

use super::client::{Client, is_hex};
use super::errors::{ErrorContext, hub_error};
use super::is_file_name;
use crate::checkpoint;
use crate::error::Result;

pub(super) const CONFIG: &str = "config.json";
pub(super) const SINGLE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// The model card.
const CARD: &str = "README.md";
/// Weight files of PyTorch, TensorFlow and JAX, which are not supported.
const UNSUPPORTED_WEIGHTS: [&str; 6] = [
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "model.pt",
    "tf_model.h5",
    "flax_model.msgpack",
    "model.ckpt",
];

/// A commit of a repository: the fields used here of the hub's answer.
#[derive(Debug, Deserialize)]
pub(super) struct ModelInfo {
    /// The commit.
    pub(super) sha: String,
    siblings: Vec<Sibling>,
    #[serde(default)]
    private: bool,
    /// `false`, or the access policy (`"auto"`, `"manual"`).
    #[serde(default)]
    gated: serde_json::Value,
    #[serde(default)]
    config: Option<HubConfig>,
}

#[derive(Debug, Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Clone, Debug, Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

/// The hub's excerpt of the repository's `config.json`.
#[derive(Debug, Deserialize)]
struct HubConfig {
    model_type: Option<String>,
}

/// A file of a repository on the hub.
#[derive(Clone, Debug)]
pub(super) struct RemoteFile {
    pub(super) name: String,
    /// The size; the file lists of some mirrors have none.
    pub(super) size: Option<u64>,
    /// The SHA-256 of a file in LFS storage; the hub announces none for others.
    pub(super) sha256: Option<String>,
}

impl ModelInfo {
    /// Fetches the information from the hub.
    pub(super) fn fetch(client: &Client, url: &str, context: &ErrorContext) -> Result<ModelInfo> {
        let request = client.get(url).query("blobs", "true");
        let request = request.config().timeout_global(Some(context.timeout)).build();
        let response = request.call().and_then(|mut response| response.body_mut().read_json::<ModelInfo>());
        let info = response.map_err(|error| context.request_error(&error))?;
        let lfs_files = info.siblings.iter().filter_map(|sibling| sibling.lfs.as_ref());
        let mut hashes = lfs_files.filter_map(|lfs| lfs.sha256.as_ref());
        if !is_hex(&info.sha, 40) || !hashes.all(|hash| is_hex(hash, 64)) {
            return Err(context.unexpected_response("its file list has malformed hashes"));
        }
        Ok(info)
    }

    /// Whether downloading requires authentication: the repository is private or gated.
    pub(super) fn needs_token(&self) -> bool {
        self.private || !matches!(self.gated, serde_json::Value::Bool(false) | serde_json::Value::Null)
    }

    /// Returns the files a GPT-2 needs, the configuration first and the weights last; shards are listed in
    /// the index.
    pub(super) fn files(&self, context: &ErrorContext) -> Result<Vec<RemoteFile>> {
        let has = |name: &str| self.siblings.iter().any(|sibling| sibling.rfilename == name);
        let model_type = self.config.as_ref().and_then(|config| config.model_type.as_deref());
        if let Some(model_type) = model_type.filter(|name| *name != "gpt2") {
            let problem = format!(
                "found a model of type '{}', expected 'gpt2', the only supported architecture",
                model_type.escape_debug()
            );
            return Err(context.unsupported(&problem));
        }
        if !has(CONFIG) {
            return Err(context.unsupported("found no config.json, expected the configuration of a GPT-2"));
        }
        let weights = [SINGLE, INDEX].into_iter().find(|name| has(name));
        let Some(weights) = weights else {
            let unsupported = UNSUPPORTED_WEIGHTS.into_iter().find(|name| has(name));
            let problem = match unsupported {
                None => format!("found neither {SINGLE} nor {INDEX}, expected the model's weights"),
                Some(found) => format!(
                    "found {found}, expected {SINGLE}: only safetensors are supported, because pickles can \
                     run arbitrary code; convert the model at \
                     https://huggingface.co/spaces/safetensors/convert, or use --revision refs/pr/N to pull \
                     the conversion's pull request"
                ),
            };
            return Err(context.unsupported(&problem));
        };
        let optional = checkpoint::AUXILIARY_FILES.into_iter().filter(|name| *name != CONFIG).chain([CARD]);
        let names = [CONFIG].into_iter().chain(optional.filter(|name| has(name))).chain([weights]);
        names.map(|name| self.remote_file(name)).collect()
    }

    /// Returns the shards listed in an index.
    pub(super) fn shards(&self, index: &Path) -> Result<Vec<RemoteFile>> {
        checkpoint::shard_files(index)?.iter().map(|name| self.remote_file(name)).collect()
    }

    fn remote_file(&self, name: &str) -> Result<RemoteFile> {
        let sibling = self.siblings.iter().find(|sibling| sibling.rfilename == name && is_file_name(name));
        let Some(sibling) = sibling else {
            return Err(hub_error(format!(
                "{}: found no such file in the repository, expected one of the model's files",
                name.escape_debug()
            )));
        };
        let lfs = sibling.lfs.as_ref();
        Ok(RemoteFile {
            name: name.into(),
            size: lfs.and_then(|lfs| lfs.size).or(sibling.size),
            sha256: lfs.and_then(|lfs| Some(lfs.sha256.as_ref()?.to_lowercase())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_and_gated_repositories_need_a_token() {
        let needs = |more: &str| {
            let text = format!(r#"{{"sha": "a", "siblings": [] {more}}}"#);
            serde_json::from_str::<ModelInfo>(&text).unwrap().needs_token()
        };
        for open in ["", r#", "private": false"#, r#", "gated": false"#, r#", "gated": null"#] {
            assert!(!needs(open), "{open}");
        }
        for closed in [r#", "private": true"#, r#", "gated": "auto""#, r#", "gated": "manual""#] {
            assert!(needs(closed), "{closed}");
        }
    }
}
