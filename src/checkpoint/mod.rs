//! Checkpoints: loads and validates model files, from a folder or from the `fable` model compiled into the
//! program.
//!
//! A checkpoint is a `config.json`, the weights as safetensors (one file, or shards with an index), and
//! usually a tokenizer. Weights are memory-mapped: opening a checkpoint reads only the header, and a weight
//! is loaded from disk when it is first used. All claims of a file are validated here, so that the other
//! modules can index without checks.
//!
//! - `locate`: resolves a model name to a folder.
//! - `config`: parses the architecture's hyperparameters.
//! - `config_fields`: reads its fields.
//! - `source`: stores the bytes, mapped or owned.
//! - `foreign`: names weights in other formats.
//! - `header`: parses and validates safetensors headers.
//! - `shards`: finds the file of each tensor.
//! - `tensor`: views or copies tensors, and converts them between precisions.
//! - `finite`: finds values that are not finite numbers.
//! - `aligned_buffer`: allocates aligned memory for owned tensors.
//! - `quantized`: stores quantized matrices.
//! - `weights`: collects the tensors of a GPT-2 by name.
//! - `parameter_counts`: counts parameters and bytes.
//! - `json_file`: reads JSON objects.
//! - `chat_template`: reads the chat template.
//! - `generation_config`: reads the model's defaults of generation.
//! - `embedded`: contains `fable`.
//! - `random`: models with random weights.
//! - `trained`: writes a model with other weights.
//! - `merge`: merges an adapter into a model.
//! - `write`: writes a quantized checkpoint.
//! - [`adapter`]: reads and writes LoRA adapters.

pub mod adapter;
mod aligned_buffer;
mod chat_template;
mod config;
mod config_fields;
mod embedded;
mod finite;
mod foreign;
mod generation_config;
mod header;
mod json_file;
mod locate;
mod merge;
mod parameter_counts;
mod quantized;
mod random;
mod shards;
mod source;
mod tensor;
mod trained;
mod weights;
mod write;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use aligned_buffer::AlignedBuffer;
pub use chat_template::{ChatTemplateFiles, ModelChatTemplate};
pub use config::{Config, ConfigFile, PositionEmbedding};
pub use embedded::NAME as DEFAULT_MODEL;
pub use generation_config::{GENERATION_CONFIG, GenerationConfig};
pub use locate::{HUB_ALIASES, cached_models, hf_home_dir, hub_cache_dir, is_repo_id, repo_id};
pub use parameter_counts::ParameterCounts;
pub use random::{GPT2_SHAPES, ModelShape};
pub use shards::shard_files;
pub use tensor::Tensor;
pub use trained::{F32Tensor, write_f32_tensors};
pub use weights::{AttentionWeights, BlockWeights, LayerNormWeights, LinearWeights, MlpWeights, Weights};

pub use write::{BlockFeedback, QuantizeProgress};

use crate::error::{Error, Result};
use crate::kernels::formats::Precision;
use crate::text_file::without_bom;
use serde_json::{Map, Value};
use shards::{SINGLE_FILE, Shards};
use source::{Source, read_file};

/// The largest tokenizer file read; the `tokenizer.json` of a vocabulary of 50,257 tokens has about 2 MB.
const MAX_TOKENIZER_BYTES: u64 = 256 << 20;

/// The largest model card read.
const MAX_CARD_BYTES: u64 = 1 << 20;

/// The files of a model other than its weights.
pub const AUXILIARY_FILES: [&str; 9] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
];

/// A validated GPT-2 checkpoint.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Checkpoint {
    /// The architecture.
    pub config: Config,
    /// The weights, with shapes that match `config`.
    pub weights: Weights,
    /// The model's name for users: its folder's name, its repository id, or `fable`.
    pub name: String,
    /// The folder of its files; none for a model loaded from memory.
    pub folder: Option<PathBuf>,
    /// One-line notes for the user on files that disagree with each other.
    pub notes: Vec<String>,
    /// The `tokenizer.json` of a model loaded from memory.
    tokenizer_json: Option<&'static [u8]>,
    mapped_bytes: usize,
}

impl Checkpoint {
    /// Opens a model by name: `fable` (compiled in), a folder, or a repository id in the local Hugging Face
    /// cache (`gpt2`, `openai-community/gpt2-xl`).
    ///
    /// Folders take precedence. The cache is `HF_HUB_CACHE`, `HF_HOME/hub`, or `huggingface/hub` in
    /// `XDG_CACHE_HOME` or `~/.cache`; nothing is downloaded.
    ///
    /// # Errors
    /// [`Error::ModelNotFound`] if there is no such model, else as [`Checkpoint::from_folder`].
    pub fn open(model: &str) -> Result<Checkpoint> {
        if model == embedded::NAME {
            return Checkpoint::embedded();
        }
        let folder = locate::locate(model)?;
        let mut checkpoint = Checkpoint::from_folder(&folder)?;
        if folder != Path::new(model) {
            // The snapshot folder is named after its commit.
            checkpoint.name = model.to_string();
        }
        Ok(checkpoint)
    }

    /// Opens a folder with `config.json` and `model.safetensors`, or shards and
    /// `model.safetensors.index.json`.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be read, [`Error::Config`] for an invalid field of the
    /// configuration, [`Error::Checkpoint`] for a file with an invalid structure, [`Error::Tensor`] for a
    /// tensor that is missing or does not match the configuration.
    pub fn from_folder(folder: &Path) -> Result<Checkpoint> {
        let invalid = |problem: String| Error::Checkpoint { file: folder.to_path_buf(), problem };
        let metadata = std::fs::metadata(folder).map_err(|source| Error::Io {
            path: folder.to_path_buf(),
            action: "open",
            source,
        })?;
        if !metadata.is_dir() {
            return Err(invalid(foreign::file_as_model(folder)));
        }
        let config = folder.join("config.json");
        if config.symlink_metadata().is_err() {
            return Err(invalid(match foreign::largest_in(folder) {
                Some((name, way_out)) => {
                    format!("found {name}, expected config.json and model.safetensors: {way_out}")
                }
                None => "found no config.json, expected the folder of a GPT-2 checkpoint".into(),
            }));
        }
        let config = ConfigFile::open(&config)?;
        let shards = Shards::open(folder)?;
        // Canonicalized, since `.` and `..` have no file name.
        let path = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
        let name = path.file_name().unwrap_or(path.as_os_str());
        Checkpoint::assemble(config, &shards, name.to_string_lossy().into_owned())
            .map(|checkpoint| checkpoint.with_folder(folder))
    }

    /// The default model, `fable`, compiled into the program and used in place.
    ///
    /// # Errors
    /// As [`Checkpoint::from_bytes`], if the program was built from invalid files.
    pub fn embedded() -> Result<Checkpoint> {
        let source = Source::Static(embedded::weights());
        let mut checkpoint = Checkpoint::in_memory(embedded::NAME, embedded::CONFIG, source)?;
        checkpoint.tokenizer_json = Some(embedded::TOKENIZER);
        Ok(checkpoint)
    }

    /// A model from the content of its `config.json` and `model.safetensors`, without a tokenizer.
    ///
    /// # Errors
    /// As [`Checkpoint::from_folder`], with the two files named as usual.
    pub fn from_bytes(config: &[u8], safetensors: Vec<u8>) -> Result<Checkpoint> {
        Checkpoint::in_memory("memory", config, Source::Heap(Arc::new(safetensors)))
    }

    /// A model from the content of its `config.json` and a `model.safetensors` built in an [`AlignedBuffer`].
    ///
    /// # Errors
    /// As [`Checkpoint::from_bytes`].
    pub fn from_memory(config: &[u8], safetensors: AlignedBuffer) -> Result<Checkpoint> {
        Checkpoint::in_memory("memory", config, Source::Buffer(Arc::new(safetensors)))
    }

    fn in_memory(name: &str, config: &[u8], safetensors: Source) -> Result<Checkpoint> {
        let file = |file: &str| PathBuf::from(format!("{name}/{file}"));
        let config = ConfigFile::from_json(&file("config.json"), config)?;
        let shards = Shards::single(file("model.safetensors"), safetensors)?;
        Checkpoint::assemble(config, &shards, name.to_string())
    }

    fn assemble(config: ConfigFile, shards: &Shards, name: String) -> Result<Checkpoint> {
        let mut notes = vec![];
        let (config, weights) = Weights::load(shards, config, &mut notes)?;
        Ok(Checkpoint {
            config,
            weights,
            name,
            notes,
            folder: None,
            tokenizer_json: None,
            mapped_bytes: shards.bytes(),
        })
    }

    fn with_folder(mut self, folder: &Path) -> Checkpoint {
        self.folder = Some(folder.to_path_buf());
        self
    }

    /// The tokenizer's files that exist, with their content: `tokenizer.json`, or else `vocab.json`,
    /// `merges.txt` and `added_tokens.json`; and with either, `tokenizer_config.json` and
    /// `special_tokens_map.json`.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Checkpoint`] if a file exists but cannot be read.
    pub fn tokenizer_files(&self) -> Result<Vec<(PathBuf, Cow<'static, [u8]>)>> {
        let Some(folder) = &self.folder else {
            let file = |bytes| (Path::new(&self.name).join("tokenizer.json"), Cow::Borrowed(bytes));
            return Ok(self.tokenizer_json.map(file).into_iter().collect());
        };
        let vocabulary: &[&str] = match folder.join("tokenizer.json").exists() {
            true => &["tokenizer.json"],
            false => &["vocab.json", "merges.txt", "added_tokens.json"],
        };
        let names = vocabulary.iter().chain(&["tokenizer_config.json", "special_tokens_map.json"]);
        let existing = names.map(|name| folder.join(name)).filter(|file| file.exists());
        existing
            .map(|file| {
                let bytes = read_file(&file, MAX_TOKENIZER_BYTES)?;
                Ok((file, Cow::Owned(bytes)))
            })
            .collect()
    }

    /// The location of the model's chat template.
    pub fn chat_template_files(&self) -> ChatTemplateFiles {
        match (&self.folder, self.tokenizer_json) {
            (Some(folder), _) => ChatTemplateFiles::Folder(folder.clone()),
            (None, Some(_)) => ChatTemplateFiles::Embedded,
            (None, None) => ChatTemplateFiles::None,
        }
    }

    /// The model card in Markdown; none if there is none.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Checkpoint`] if the card exists but cannot be read.
    pub fn card(&self) -> Result<Option<String>> {
        let Some(folder) = &self.folder else {
            return Ok((self.name == embedded::NAME).then(|| embedded::CARD.to_string()));
        };
        let cards = ["README.md", "MODEL_CARD.md"].map(|name| folder.join(name));
        let card = cards.iter().find(|card| card.is_file()).map(|card| read_file(card, MAX_CARD_BYTES));
        let text =
            |bytes: Vec<u8>| String::from_utf8_lossy(without_bom(&bytes).unwrap_or(&bytes)).into_owned();
        Ok(card.transpose()?.map(text))
    }

    /// The files other than the weights: the configuration and any tokenizer files.
    fn auxiliary_files(&self) -> Result<Vec<NamedFile>> {
        if let (None, Some(tokenizer)) = (&self.folder, self.tokenizer_json) {
            let files = [
                ("config.json", embedded::CONFIG),
                ("generation_config.json", embedded::GENERATION_CONFIG),
                ("tokenizer.json", tokenizer),
                ("chat_template.jinja", embedded::CHAT_TEMPLATE.as_bytes()),
            ];
            let config = self.with_tying(Path::new(files[0].0), embedded::CONFIG.to_vec())?;
            let mut files = files.map(|(name, bytes)| (name, Cow::Borrowed(bytes)));
            files[0].1 = Cow::Owned(config);
            return Ok(files.into());
        }
        let Some(folder) = &self.folder else {
            return Err(Error::Unsupported(format!(
                "'{}' was loaded from memory and has no configuration files to copy",
                self.name
            )));
        };
        let existing = AUXILIARY_FILES.into_iter().filter(|name| folder.join(name).exists());
        existing
            .map(|name| {
                let path = folder.join(name);
                let bytes = read_file(&path, MAX_TOKENIZER_BYTES)?;
                let bytes = if name == "config.json" { self.with_tying(&path, bytes)? } else { bytes };
                Ok((name, Cow::Owned(bytes)))
            })
            .collect()
    }

    /// A `config.json` that says what the tensors decided: those of a quantized file do not show it.
    fn with_tying(&self, path: &Path, json: Vec<u8>) -> Result<Vec<u8>> {
        const FIELD: &str = "tie_word_embeddings";
        let tied = self.config.tie_word_embeddings;
        let mut config: Map<String, Value> = json_file::parse(path, &json)?;
        if config.get(FIELD).is_none_or(|said| said == true) == tied {
            return Ok(json);
        }
        config.insert(FIELD.into(), tied.into());
        Ok(format!("{:#}\n", Value::Object(config)).into_bytes())
    }

    /// The precision the matrices are quantized to; none if they are not quantized.
    pub fn quantized_precision(&self) -> Option<Precision> {
        let precision = self.weights.h.first()?.attn.c_attn.weight.precision();
        precision.is_quantized().then_some(precision)
    }

    /// The size in bytes of the mapped files, or of the model's bytes in memory: shareable and reclaimable by
    /// the system.
    pub fn mapped_bytes(&self) -> usize {
        self.mapped_bytes
    }

    /// The size in bytes of the tensors that had to be copied, in private memory.
    pub fn owned_bytes(&self) -> usize {
        self.weights.tensors().map(Tensor::owned_bytes).sum()
    }
}

/// A file's name and content.
type NamedFile = (&'static str, Cow<'static, [u8]>);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::elements::Elements;

    #[test]
    fn fable_tensors_are_views() {
        let fable = Checkpoint::open("fable").unwrap();
        let config = &fable.config;
        assert_eq!((config.n_embd, config.n_layer, config.n_head, config.vocab_size), (256, 6, 4, 4096));
        assert_eq!(embedded::weights().as_ptr() as usize % 64, 0);
        let range = embedded::weights().as_ptr_range();
        let mut vector_bytes = 0;
        for tensor in fable.weights.tensors() {
            match tensor.elements() {
                Elements::F16(elements) => {
                    assert!(tensor.is_view());
                    assert!(range.contains(&elements.as_ptr().cast()));
                }
                Elements::F32(elements) => vector_bytes += elements.len() * 4,
                Elements::Bf16(_) => panic!("fable is stored as f16"),
            }
        }
        assert_eq!(fable.owned_bytes(), vector_bytes, "only the vectors are converted to f32");
        assert_eq!(fable.mapped_bytes(), embedded::weights().len());
        assert!(matches!(fable.tokenizer_files().unwrap()[..], [(_, Cow::Borrowed(_))]));
    }
}
