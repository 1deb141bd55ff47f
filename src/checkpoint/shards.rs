//! The tensors of a checkpoint, whether one file holds them or several share them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use safetensors::tensor::TensorInfo;

use super::header::read_header;
use super::source::{Source, read_file};
use crate::error::{Error, Result};

pub(super) const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// An index names each tensor once; the largest published ones are a few megabytes.
const MAX_INDEX_BYTES: u64 = 64 << 20;

/// Every tensor of a checkpoint by its full name.
#[derive(Debug)]
pub(super) struct Shards {
    /// The file to blame for a tensor that is nowhere: the only one, or the index.
    pub(super) listing: PathBuf,
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

/// One tensor as its file describes it.
pub(super) struct Stored<'a> {
    pub(super) file: &'a Path,
    pub(super) source: &'a Source,
    /// Where the data section of `source` starts, which `info.data_offsets` count from.
    data_start: usize,
    /// What the file says of itself.
    pub(super) metadata: &'a HashMap<String, String>,
    pub(super) info: &'a TensorInfo,
}

impl Stored<'_> {
    /// Where the tensor's bytes are in `source`.
    pub(super) fn range(&self) -> Range<usize> {
        let (start, end) = self.info.data_offsets;
        self.data_start + start..self.data_start + end
    }
}

/// The `model.safetensors.index.json` that `save_pretrained` writes beside shards.
#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Shards {
    /// Maps `model.safetensors`, or the shards that `model.safetensors.index.json` lists.
    pub(super) fn open(folder: &Path) -> Result<Shards> {
        let (single, index) = (folder.join(SINGLE), folder.join(INDEX));
        // A link whose target is gone is there too: opening it says what is wrong.
        if single.symlink_metadata().is_ok() {
            Shards::single(single.clone(), Source::map(&single)?)
        } else if index.symlink_metadata().is_ok() {
            Shards::listed(folder, &index)
        } else {
            Err(Error::Checkpoint { file: folder.to_path_buf(), problem: absent(folder) })
        }
    }

    /// The tensors of one file.
    pub(super) fn single(path: PathBuf, source: Source) -> Result<Shards> {
        let header = read_header(&path, &source)?;
        let tensors = (header.tensors.into_iter()).map(|(name, info)| (name, (0, info))).collect();
        Ok(Shards {
            listing: path.clone(),
            files: vec![Shard { path, source, data_start: header.data_start, metadata: header.metadata }],
            tensors,
        })
    }

    fn listed(folder: &Path, index: &Path) -> Result<Shards> {
        let weight_map = weight_map(index)?;
        let mut by_file: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
        for (tensor, file) in &weight_map {
            by_file.entry(file).or_default().push(tensor);
        }
        let mut shards = Shards { listing: index.to_path_buf(), files: Vec::new(), tensors: HashMap::new() };
        for (name, placed) in by_file {
            let path = folder.join(name);
            let source = Source::map(&path)?;
            let mut header = read_header(&path, &source)?;
            for tensor in placed {
                let Some(info) = header.tensors.remove(tensor) else {
                    return Err(Error::Tensor {
                        file: path,
                        tensor: tensor.escape_debug().to_string(),
                        found: "no such tensor".into(),
                        expected: format!("it here, where {INDEX} places it"),
                    });
                };
                let place = (shards.files.len(), info);
                shards.tensors.insert(tensor.clone(), place);
            }
            let (data_start, metadata) = (header.data_start, header.metadata);
            shards.files.push(Shard { path, source, data_start, metadata });
        }
        Ok(shards)
    }

    pub(super) fn get(&self, name: &str) -> Option<Stored<'_>> {
        let (file, info) = self.tensors.get(name)?;
        let shard = &self.files[*file];
        let Shard { path: file, source, data_start, metadata } = shard;
        Some(Stored { file, source, data_start: *data_start, metadata, info })
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The size of all files together.
    pub(super) fn bytes(&self) -> usize {
        self.files.iter().map(|shard| shard.source.len()).sum()
    }
}

/// Which file an index places each tensor in. The names are those of files below the index's folder.
fn weight_map(index: &Path) -> Result<BTreeMap<String, String>> {
    let lying = |problem: String| Error::Checkpoint { file: index.to_path_buf(), problem };
    let json = read_file(index, MAX_INDEX_BYTES)?;
    let Index { weight_map } = serde_json::from_slice(&json).map_err(|error| {
        lying(format!(
            "found no index of shards ({}), expected a JSON object with a weight_map of tensor names to file names",
            error.to_string().escape_debug()
        ))
    })?;
    let stays = |name: &str| Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    match weight_map.values().find(|name| name.is_empty() || !stays(name)) {
        Some(name) => {
            Err(lying(format!("found the shard {name:?}, expected the name of a file in this folder")))
        }
        None => Ok(weight_map),
    }
}

/// The files that a `model.safetensors.index.json` names.
///
/// # Errors
/// [`Error::Io`] where it cannot be read, [`Error::Checkpoint`] where it is no such index.
pub fn shard_files(index: &Path) -> Result<BTreeSet<String>> {
    Ok(weight_map(index)?.into_values().collect())
}

/// What to do about a folder without weights that can be read here.
fn absent(folder: &Path) -> String {
    let pickled = ["pytorch_model.bin", "pytorch_model.bin.index.json"];
    match pickled.iter().find(|name| folder.join(name).exists()) {
        Some(name) => format!(
            "found {name}, expected {SINGLE}: PyTorch's pickles can run code and are not read; convert once with \
             python -c \"from transformers import AutoModelForCausalLM as M; import sys; \
             M.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[1])\" {}",
            folder.display()
        ),
        None => format!(
            "found neither {SINGLE} nor {INDEX}, expected the model's weights; where this is the Hugging Face cache, \
             `hornbook pull` with the model's name brings what is missing"
        ),
    }
}
