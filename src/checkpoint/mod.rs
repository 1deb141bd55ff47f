//! Checkpoints: from a folder of files, or the bytes of `fable` in the program itself, to tensors a model can trust.
//!
//! A checkpoint is a `config.json`, the weights as safetensors (one file, or shards with an index), and usually a
//! tokenizer. The files are mapped, not read: opening a checkpoint costs its header, and a weight is loaded from disk
//! when it is first used. Whatever a file claims is checked here, so that everything behind this module may index
//! without asking. Each file of the module answers one question:
//!
//! - `locate`: which folder does a name mean?
//! - `config`: what does the architecture look like?
//! - `source`: where do the bytes live?
//! - `header`: which tensors does a safetensors file hold, and is it telling the truth?
//! - `shards`: which file holds which tensor?
//! - `tensor`: what is a tensor, and when must it be copied?
//! - `memory`: where does a copy live?
//! - `quantized`: how is a quantized matrix stored?
//! - `weights`: which tensors make a GPT-2?
//! - `parameters`: how many numbers are in which part, and how many bytes are they?
//! - `write`: how does a quantized model become a folder?

mod aligned_buffer;
mod chat_template;
mod config;
mod embedded;
mod header;
mod locate;
mod parameter_counts;
mod quantized;
mod shards;
mod source;
mod tensor;
mod weights;
mod write;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use aligned_buffer::AlignedBuffer;
pub use chat_template::{ChatTemplateFiles, ModelChatTemplate};
pub use config::{Config, PositionEmbedding};
pub use embedded::NAME as DEFAULT_MODEL;
pub use locate::{HUB_ALIASES, cached_models, hf_home_dir, hub_cache_dir, is_repo_id, repo_id};
pub use parameter_counts::ParameterCounts;
pub use shards::shard_files;
pub use tensor::{Dtype, Tensor};
pub use weights::{AttentionWeights, BlockWeights, LayerNormWeights, LinearWeights, MlpWeights, Weights};

pub use write::QuantizeProgress;

use crate::error::{Error, Result};
use shards::Shards;
use source::{Source, read_file};

/// tokenizer.json of a 50 257-token vocabulary is about 2 MB.
const MAX_TOKENIZER_BYTES: u64 = 256 << 20;

/// Cards are read by people.
const MAX_CARD_BYTES: u64 = 1 << 20;

/// What belongs to a model beside its weights.
pub const AUXILIARY_FILES: [&str; 8] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
];

/// A GPT-2 ready to be computed with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Checkpoint {
    /// The architecture.
    pub config: Config,
    /// The weights, every shape as `config` says.
    pub weights: Weights,
    /// What to call the model before a user: its folder's name, its Hugging Face name, or `fable`.
    pub name: String,
    /// Where its files are; none for a model that came from memory.
    pub folder: Option<PathBuf>,
    /// `tokenizer.json` of a model that came from memory.
    tokenizer_json: Option<&'static [u8]>,
    mapped_bytes: usize,
}

/// What a checkpoint's tokenizer can be built from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenizerFiles {
    /// The whole tokenizer in one file.
    Json {
        /// Its path, for messages.
        file: PathBuf,
        /// Its content.
        bytes: Cow<'static, [u8]>,
    },
    /// GPT-2's original pair of files.
    VocabMerges {
        /// `vocab.json`: each token's bytes and id.
        vocab: PathBuf,
        /// `merges.txt`: the pairs to merge, most frequent first.
        merges: PathBuf,
    },
    /// None at all: the model still runs on token ids.
    None {
        /// Where none was found.
        folder: PathBuf,
    },
}

impl Checkpoint {
    /// Opens what a user calls `model`: `fable` (compiled in), a folder, or a Hugging Face name in the local cache
    /// (`gpt2`, `openai-community/gpt2-xl`).
    ///
    /// A name is looked for as a folder first. The cache is at `HF_HUB_CACHE`, `HF_HOME/hub`, or
    /// `huggingface/hub` in `XDG_CACHE_HOME` or `~/.cache`; nothing is downloaded.
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
            // Its folder is named after a commit.
            checkpoint.name = model.to_string();
        }
        Ok(checkpoint)
    }

    /// Opens a folder with `config.json` and `model.safetensors`, or shards and `model.safetensors.index.json`.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be read, [`Error::Config`] for a field of the configuration,
    /// [`Error::Checkpoint`] for a file with a broken structure, [`Error::Tensor`] for a tensor that is missing or is
    /// not what the configuration says.
    pub fn from_folder(folder: &Path) -> Result<Checkpoint> {
        let broken = |problem: String| Error::Checkpoint { file: folder.to_path_buf(), problem };
        let metadata = std::fs::metadata(folder).map_err(|source| Error::Io {
            path: folder.to_path_buf(),
            action: "open",
            source,
        })?;
        if !metadata.is_dir() {
            return Err(broken(
                "found a file, expected the folder that holds config.json and model.safetensors".into(),
            ));
        }
        let config = folder.join("config.json");
        if config.symlink_metadata().is_err() {
            return Err(broken("found no config.json, expected the folder of a GPT-2 checkpoint".into()));
        }
        let config = Config::from_file(&config)?;
        let shards = Shards::open(folder)?;
        // `.` and `..` have no name of their own.
        let full = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
        let name = full.file_name().unwrap_or(full.as_os_str());
        Checkpoint::assemble(config, &shards, name.to_string_lossy().into_owned())
            .map(|checkpoint| checkpoint.in_folder(folder))
    }

    /// The default model, `fable`, compiled into the program and used in place.
    ///
    /// # Errors
    /// As [`Checkpoint::from_bytes`], if the program was built from broken files.
    pub fn embedded() -> Result<Checkpoint> {
        let source = Source::Static(embedded::weights());
        let mut checkpoint = Checkpoint::in_memory(embedded::NAME, embedded::CONFIG, source)?;
        checkpoint.tokenizer_json = Some(embedded::TOKENIZER);
        Ok(checkpoint)
    }

    /// A model from the contents of its `config.json` and `model.safetensors`, without a tokenizer.
    ///
    /// # Errors
    /// As [`Checkpoint::from_folder`], naming the two files by their usual names.
    pub fn from_bytes(config: &[u8], safetensors: Vec<u8>) -> Result<Checkpoint> {
        Checkpoint::in_memory("memory", config, Source::Heap(Arc::new(safetensors)))
    }

    /// The same, of a `model.safetensors` that was made in memory.
    ///
    /// # Errors
    /// As [`Checkpoint::from_bytes`].
    pub fn from_memory(config: &[u8], safetensors: AlignedBuffer) -> Result<Checkpoint> {
        Checkpoint::in_memory("memory", config, Source::Buffer(Arc::new(safetensors)))
    }

    fn in_memory(name: &str, config: &[u8], safetensors: Source) -> Result<Checkpoint> {
        let file = |file: &str| PathBuf::from(format!("{name}/{file}"));
        let config = Config::from_json(&file("config.json"), config)?;
        let shards = Shards::single(file("model.safetensors"), safetensors)?;
        Checkpoint::assemble(config, &shards, name.to_string())
    }

    fn assemble(mut config: Config, shards: &Shards, name: String) -> Result<Checkpoint> {
        let weights = Weights::load(shards, &mut config)?;
        Ok(Checkpoint {
            config,
            weights,
            name,
            folder: None,
            tokenizer_json: None,
            mapped_bytes: shards.bytes(),
        })
    }

    fn in_folder(mut self, folder: &Path) -> Checkpoint {
        self.folder = Some(folder.to_path_buf());
        self
    }

    /// What to build the tokenizer from: `tokenizer.json`, else `vocab.json` with `merges.txt`, else nothing.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Checkpoint`] if `tokenizer.json` is there but cannot be read.
    pub fn tokenizer_files(&self) -> Result<TokenizerFiles> {
        let Some(folder) = &self.folder else {
            let folder = PathBuf::from(&self.name);
            return Ok(match self.tokenizer_json {
                Some(bytes) => {
                    TokenizerFiles::Json { file: folder.join("tokenizer.json"), bytes: Cow::Borrowed(bytes) }
                }
                None => TokenizerFiles::None { folder },
            });
        };
        let file = folder.join("tokenizer.json");
        let (vocab, merges) = (folder.join("vocab.json"), folder.join("merges.txt"));
        Ok(if file.exists() {
            let bytes = Cow::Owned(read_file(&file, MAX_TOKENIZER_BYTES)?);
            TokenizerFiles::Json { file, bytes }
        } else if vocab.exists() && merges.exists() {
            TokenizerFiles::VocabMerges { vocab, merges }
        } else {
            TokenizerFiles::None { folder: folder.clone() }
        })
    }

    /// Where the model may say how it was taught to converse.
    pub fn chat_template_files(&self) -> ChatTemplateFiles {
        match (&self.folder, self.tokenizer_json) {
            (Some(folder), _) => ChatTemplateFiles::Folder(folder.clone()),
            (None, Some(_)) => ChatTemplateFiles::Embedded,
            (None, None) => ChatTemplateFiles::None,
        }
    }

    /// What its makers say of the model, in Markdown; none where they say nothing.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Checkpoint`] where the card is there but cannot be read.
    pub fn card(&self) -> Result<Option<String>> {
        let Some(folder) = &self.folder else {
            return Ok((self.name == embedded::NAME).then(|| embedded::CARD.to_string()));
        };
        let cards = ["README.md", "MODEL_CARD.md"].map(|name| folder.join(name));
        let card = cards.iter().find(|card| card.is_file()).map(|card| read_file(card, MAX_CARD_BYTES));
        Ok(card.transpose()?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The files beside the weights, by name: the configuration and what there is of a tokenizer.
    fn files(&self) -> Result<Vec<NamedFile>> {
        if let (None, Some(tokenizer)) = (&self.folder, self.tokenizer_json) {
            let files = [
                ("config.json", embedded::CONFIG),
                ("generation_config.json", embedded::GENERATION_CONFIG),
                ("tokenizer.json", tokenizer),
                ("chat_template.jinja", embedded::CHAT_TEMPLATE.as_bytes()),
            ];
            return Ok(files.map(|(name, bytes)| (name, Cow::Borrowed(bytes))).into());
        }
        let Some(folder) = &self.folder else {
            return Err(Error::Message(format!(
                "'{}' has no folder to take its configuration from",
                self.name
            )));
        };
        let there = AUXILIARY_FILES.into_iter().filter(|name| folder.join(name).exists());
        there
            .map(|name| Ok((name, Cow::Owned(read_file(&folder.join(name), MAX_TOKENIZER_BYTES)?))))
            .collect()
    }

    /// The precision the matrices were quantized to; none where their numbers are plain.
    pub fn quantized(&self) -> Option<Dtype> {
        let dtype = self.weights.h.first()?.attn.c_attn.weight.dtype();
        (!dtype.is_plain()).then_some(dtype)
    }

    /// The size of the mapped files, or of the bytes the model came from: memory the system can share and reclaim.
    pub fn mapped_bytes(&self) -> usize {
        self.mapped_bytes
    }

    /// The size of the tensors that had to be copied: memory of this process alone.
    pub fn owned_bytes(&self) -> usize {
        self.weights.tensors().map(Tensor::owned_bytes).sum()
    }
}

/// A file's name and what is in it.
type NamedFile = (&'static str, Cow<'static, [u8]>);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::elements::Elements;

    #[test]
    fn fable_is_used_in_place() {
        let fable = Checkpoint::open("fable").unwrap();
        let config = &fable.config;
        assert_eq!((config.n_embd, config.n_layer, config.n_head, config.vocab_size), (256, 6, 4, 4096));
        assert_eq!(embedded::weights().as_ptr() as usize % 64, 0);
        let within = embedded::weights().as_ptr_range();
        let mut vectors = 0;
        for tensor in fable.weights.tensors() {
            match tensor.elements() {
                Elements::F16(numbers) => {
                    assert!(tensor.is_view());
                    assert!(within.contains(&numbers.as_ptr().cast()));
                }
                Elements::F32(numbers) => vectors += numbers.len() * 4,
                Elements::Bf16(_) => panic!("fable is stored as f16"),
            }
        }
        assert_eq!(fable.owned_bytes(), vectors, "only the vectors are widened");
        assert_eq!(fable.mapped_bytes(), embedded::weights().len());
        assert!(matches!(
            fable.tokenizer_files().unwrap(),
            TokenizerFiles::Json { bytes: Cow::Borrowed(_), .. }
        ));
    }
}
