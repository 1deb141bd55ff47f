//! The tensors of a checkpoint, in one safetensors file or in several shards with an index.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use safetensors::tensor::TensorInfo;

use super::header::read_header;
use super::source::{Source, read_file};
use super::{foreign, json_file};
use crate::error::{Error, Result};

pub(super) const SINGLE_FILE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The largest index read; published ones have at most a few megabytes.
const MAX_INDEX_BYTES: u64 = 64 << 20;

/// The tensors of a checkpoint by name.
#[derive(Debug)]
pub(super) struct Shards {
    /// The file named in errors about a missing tensor: the single file, or the index.
    pub(super) index_path: PathBuf,
    files: Vec<Shard>,
    tensors: HashMap<String, (usize, TensorInfo)>,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    source: Source,
    data_start: usize,
    metadata: HashMap<String, String>,
}

/// A tensor's entry in its file.
pub(super) struct TensorEntry<'a> {
    pub(super) file: &'a Path,
    pub(super) source: &'a Source,
    /// The offset of the data section in `source`, to which `info.data_offsets` are relative.
    data_start: usize,
    /// The file's `__metadata__`.
    pub(super) metadata: &'a HashMap<String, String>,
    pub(super) info: &'a TensorInfo,
}

impl TensorEntry<'_> {
    /// The range of the tensor's bytes in `source`.
    pub(super) fn range(&self) -> Range<usize> {
        let (start, end) = self.info.data_offsets;
        self.data_start + start..self.data_start + end
    }
}

/// The content of `model.safetensors.index.json`, which `save_pretrained` writes with the shards.
#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Shards {
    /// Memory-maps `model.safetensors`, or the shards listed in `model.safetensors.index.json`.
    pub(super) fn open(folder: &Path) -> Result<Shards> {
        let (single, index) = (folder.join(SINGLE_FILE), folder.join(INDEX));
        // A dangling symbolic link counts as present, so that opening it reports the problem.
        if single.symlink_metadata().is_ok() {
            Shards::single(single.clone(), Source::map(&single)?)
        } else if index.symlink_metadata().is_ok() {
            Shards::from_index(folder, &index)
        } else {
            Err(Error::Checkpoint { file: folder.to_path_buf(), problem: missing_weights(folder) })
        }
    }

    /// The tensors of one file.
    pub(super) fn single(path: PathBuf, source: Source) -> Result<Shards> {
        let header = read_header(&path, &source)?;
        let tensors = (header.tensors.into_iter()).map(|(name, info)| (name, (0, info))).collect();
        Ok(Shards {
            index_path: path.clone(),
            files: vec![Shard { path, source, data_start: header.data_start, metadata: header.metadata }],
            tensors,
        })
    }

    fn from_index(folder: &Path, index: &Path) -> Result<Shards> {
        let weight_map = read_weight_map(index)?;
        let mut by_file: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
        for (tensor, file) in &weight_map {
            by_file.entry(file).or_default().push(tensor);
        }
        let mut shards =
            Shards { index_path: index.to_path_buf(), files: Vec::new(), tensors: HashMap::new() };
        for (name, tensors) in by_file {
            let path = folder.join(name);
            let source = Source::map(&path)?;
            let mut header = read_header(&path, &source)?;
            for tensor in tensors {
                let Some(info) = header.tensors.remove(tensor) else {
                    return Err(Error::Tensor {
                        file: path,
                        tensor: tensor.escape_debug().to_string(),
                        found: "no such tensor".into(),
                        expected: format!("the tensor in this file, as listed in {INDEX}"),
                    });
                };
                shards.tensors.insert(tensor.clone(), (shards.files.len(), info));
            }
            let (data_start, metadata) = (header.data_start, header.metadata);
            shards.files.push(Shard { path, source, data_start, metadata });
        }
        Ok(shards)
    }

    pub(super) fn get(&self, name: &str) -> Option<TensorEntry<'_>> {
        let (file, info) = self.tensors.get(name)?;
        let shard = &self.files[*file];
        let Shard { path: file, source, data_start, metadata } = shard;
        Some(TensorEntry { file, source, data_start: *data_start, metadata, info })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The total size of all files, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.files.iter().map(|shard| shard.source.len()).sum()
    }
}

/// Reads the tensor-to-file map of an index and checks that every file is within the index's folder.
fn read_weight_map(index: &Path) -> Result<BTreeMap<String, String>> {
    let invalid_index = |problem: String| Error::Checkpoint { file: index.to_path_buf(), problem };
    let Index { weight_map } = json_file::parse(index, &read_file(index, MAX_INDEX_BYTES)?)?;
    let is_within_folder =
        |name: &str| Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    match weight_map.values().find(|name| name.is_empty() || !is_within_folder(name)) {
        Some(name) => {
            Err(invalid_index(format!("found shard {name:?}, expected the name of a file in this folder")))
        }
        None => Ok(weight_map),
    }
}

/// The shard files listed in a `model.safetensors.index.json`.
///
/// # Errors
/// [`Error::Io`] if it cannot be read, [`Error::Checkpoint`] if it is not a valid index.
pub fn shard_files(index: &Path) -> Result<BTreeSet<String>> {
    Ok(read_weight_map(index)?.into_values().collect())
}

/// The error message for a folder without readable weights, with the next step.
fn missing_weights(folder: &Path) -> String {
    match foreign::largest_in(folder) {
        Some((name, way_out)) => format!("found {name}, expected {SINGLE_FILE}: {way_out}"),
        None => format!(
            "found neither {SINGLE_FILE} nor {INDEX}, expected the model's weights; in the Hugging Face \
             cache, run `hornbook pull` with the model's name to download the missing files"
        ),
    }
}
