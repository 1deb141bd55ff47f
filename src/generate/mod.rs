//! Text generation: the model, the sampler and the tokenizer together.
//!
//! ```
//! use hornbook::{Hornbook, Options};
//! # fn main() -> hornbook::Result<()> {
//! let hornbook = Hornbook::open("fable")?;
//! let prompt = hornbook.encode("Once upon a time")?;
//! for token in hornbook.generate(&prompt, &Options { max_tokens: Some(20), ..Options::default() })? {
//!     print!("{}", token?.text);
//! }
//! # Ok(())
//! # }
//! ```

mod beams;
pub mod calibration;
pub mod completion;
mod completion_state;
mod context;
mod draft_len;
mod draft_model;
mod drafter;
mod generation;
mod options;
pub mod perplexity;
mod prompt_lookup;
mod sentence;
mod sequence_draft;
mod speculation;

pub use beams::{Beam, beam_search, beam_search_unless};
pub use completion_state::{CompletionState, FinishReason, Plan, Token};
pub use context::ContextPolicy;
pub use draft_model::DraftModel;
#[cfg(feature = "server")]
pub(crate) use drafter::{DraftSequence, Drafter};
pub use generation::Generation;
pub use options::Options;
pub use prompt_lookup::DEFAULT_MAX_DRAFT_LEN;
#[cfg(feature = "server")]
pub(crate) use sequence_draft::SequenceDraft;
pub use speculation::DraftStats;
pub(crate) use speculation::Speculation;

use crate::checkpoint::adapter::Adapter;
use crate::checkpoint::{ChatTemplateFiles, Checkpoint, Config, GENERATION_CONFIG, GenerationConfig};
use crate::kernels::attention::AttentionKernel;
use crate::kernels::isa::Isa;
use crate::kernels::thread_pool::ThreadPool;
use crate::model::{Model, Observer, Precision, Session};
use crate::sampling::{SamplingParams, StopMatcher};
use crate::tokenizer::{SpecialToken, Tokenizer};
use crate::{Error, Result};
use std::path::Path;

/// A model ready for generation: weights, threads and, if its folder has one, a tokenizer.
pub struct Hornbook {
    name: String,
    model: Model,
    draft_model: Option<DraftModel>,
    /// The tokenizer, or the reason why there is none.
    tokenizer: std::result::Result<Tokenizer, String>,
    bos_token: String,
    eos_token: String,
    stop_ids: Vec<u32>,
    generation_config: GenerationConfig,
    chat_template_files: ChatTemplateFiles,
    mapped_bytes: usize,
    owned_bytes: usize,
}

impl Hornbook {
    /// Opens `fable` (built in), a folder, or a name in the local Hugging Face cache, with a thread per core.
    ///
    /// # Errors
    /// As [`Checkpoint::open`]. A tokenizer that cannot be used is an error of [`Hornbook::tokenizer`] alone.
    pub fn open(model: &str) -> Result<Self> {
        Self::new(Checkpoint::open(model)?, ThreadPool::new(0, Isa::choose()?))
    }

    /// Loads a checkpoint, to run on a thread pool.
    ///
    /// # Errors
    /// As [`Hornbook::with_precision`].
    pub fn new(checkpoint: Checkpoint, pool: ThreadPool) -> Result<Self> {
        Self::with_precision(checkpoint, pool, None)
    }

    /// Loads a checkpoint and converts its weight matrices to `precision`; none keeps them as stored.
    ///
    /// # Errors
    /// As [`Model::with_precision`].
    pub fn with_precision(
        mut checkpoint: Checkpoint,
        pool: ThreadPool,
        precision: Option<Precision>,
    ) -> Result<Self> {
        let tokenizer = checkpoint.tokenizer_files().and_then(|files| Tokenizer::from_files(&files));
        let tokenizer = match tokenizer {
            Ok(Some(tokenizer)) => Ok(tokenizer),
            Ok(None) => Err("has no tokenizer (tokenizer.json, or vocab.json and merges.txt)".to_string()),
            Err(error) => Err(format!("has no usable tokenizer: {error}")),
        };
        // Without a tokenizer their names have no ids.
        let special = tokenizer.as_ref().ok().map(Tokenizer::special_tokens);
        let bos = special.and_then(|special| special.bos.as_ref());
        let eos = special.and_then(|special| special.eos.as_ref());
        let generation_config = checkpoint.generation_config()?;
        let mut defaults = SamplingParams::default();
        generation_config.sampling.apply(&mut defaults);
        defaults.validate(checkpoint.config.vocab_size).map_err(|error| {
            let folder = checkpoint.folder.as_deref().unwrap_or(Path::new(&checkpoint.name));
            Error::Checkpoint { file: folder.join(GENERATION_CONFIG), problem: error.to_string() }
        })?;
        let config = &mut checkpoint.config;
        let in_vocabulary = |id: &u32| (*id as usize) < config.vocab_size;
        let id = |token: Option<&SpecialToken>| {
            tokenizer.as_ref().ok()?.token_to_id(&token?.text).filter(in_vocabulary)
        };
        let (bos_id, eos_id) = (id(bos), id(eos));
        let mut stop_ids = generation_config.eos_token_id.as_ref().unwrap_or(&config.eos_token_ids).clone();
        stop_ids.extend(eos_id);
        // Ids outside the vocabulary, as in a config.json with default ids, are ignored.
        stop_ids.retain(in_vocabulary);
        config.bos_token_id = bos_id.or(config.bos_token_id);
        config.eos_token_ids =
            eos_id.map_or_else(|| std::mem::take(&mut config.eos_token_ids), |id| vec![id]);
        let text = |token: Option<&SpecialToken>, id: Option<u32>| {
            let decoded = || Some(tokenizer.as_ref().ok()?.decode(&[id?]));
            token.map(|token| token.text.clone()).or_else(decoded).unwrap_or_default()
        };
        let bos_token = text(bos, config.bos_token_id);
        let eos_token = text(eos, config.eos_token_ids.first().copied());
        Ok(Self {
            name: checkpoint.name.clone(),
            bos_token,
            eos_token,
            stop_ids,
            generation_config,
            tokenizer,
            chat_template_files: checkpoint.chat_template_files(),
            mapped_bytes: checkpoint.mapped_bytes(),
            owned_bytes: checkpoint.owned_bytes(),
            model: Model::with_precision(checkpoint, pool, precision)?,
            draft_model: None,
        })
    }

    /// Drafts what [`Hornbook::generate`] writes with a copy of the model that is quantized to `precision`:
    /// mostly faster, with bit-identical tokens and logprobs. Where it does not pay, drafting stops.
    ///
    /// # Errors
    /// As [`Model::draft_model`].
    pub fn with_draft(self, precision: Precision) -> Result<Self> {
        Ok(Self { draft_model: Some(DraftModel::copy(self.model.draft_model(precision)?)), ..self })
    }

    /// As [`Hornbook::with_draft`], by the model of a checkpoint: one that `hornbook quantize` wrote from
    /// this model, or a smaller one with the same vocabulary, which has a KV cache of its own.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it has another vocabulary.
    pub fn with_draft_model(self, checkpoint: Checkpoint) -> Result<Self> {
        Ok(Self { draft_model: Some(DraftModel::open(&self, checkpoint)?), ..self })
    }

    /// The model that drafts, if there is one.
    pub fn draft_model(&self) -> Option<&DraftModel> {
        self.draft_model.as_ref()
    }

    /// Replaces the attention kernel, with one of [`KERNELS`](crate::kernels::attention::KERNELS) or your
    /// own.
    pub fn with_attention(self, attention: &'static dyn AttentionKernel) -> Self {
        Self { model: self.model.with_attention(attention), ..self }
    }

    /// Makes an adapter that of all texts.
    ///
    /// # Errors
    /// As [`Model::adapter`].
    pub fn with_adapter(self, adapter: &Adapter) -> Result<Self> {
        Ok(Self { model: self.model.with_adapter(adapter)?, ..self })
    }

    /// The model's name, as given by the user.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The model's configuration.
    pub fn config(&self) -> &Config {
        self.model.config()
    }

    /// Bytes of weights used in place from the memory map, and bytes of copied or converted weights.
    pub fn weight_bytes(&self) -> (usize, usize) {
        (self.mapped_bytes, self.owned_bytes)
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`] if the model's folder has none, or one that cannot be used.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer_or("give token ids instead (--prompt-ids 15,3,7 --output ids)")
    }

    /// The tokenizer, or an error that ends with `hint`.
    ///
    /// # Errors
    /// As [`Hornbook::tokenizer`].
    pub fn tokenizer_or(&self, hint: &'static str) -> Result<&Tokenizer> {
        let tokenizer = self.tokenizer.as_ref();
        tokenizer.map_err(|problem| Error::NoTokenizer {
            model: self.name.clone(),
            problem: problem.clone(),
            hint,
        })
    }

    /// The tokenizer, if there is one that can be used.
    pub fn try_tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref().ok()
    }

    /// The special token that begins a text, as it stands in a text: the one that `tokenizer_config.json`,
    /// `special_tokens_map.json` or `config.json` names first; empty if none does.
    pub fn bos_token(&self) -> &str {
        &self.bos_token
    }

    /// The special token that ends a text, found as [`Hornbook::bos_token`] is.
    pub fn eos_token(&self) -> &str {
        &self.eos_token
    }

    /// The ids that end a text: those of `generation_config.json`, else of `config.json`, and the one of
    /// [`Hornbook::eos_token`].
    pub fn stop_ids(&self) -> &[u32] {
        &self.stop_ids
    }

    /// The model's own defaults of generation, from its `generation_config.json`.
    pub fn generation_config(&self) -> &GenerationConfig {
        &self.generation_config
    }

    /// The default options, with the model's own defaults where it has any.
    pub fn default_options(&self) -> Options {
        let Options { sampling, max_tokens, .. } = Options::default();
        Options {
            sampling: self.default_sampling(sampling),
            max_tokens: self.generation_config.max_new_tokens.or(max_tokens),
            ..Options::default()
        }
    }

    /// The model's own defaults of sampling; where it has none, those of `fallback`.
    pub fn default_sampling(&self, mut fallback: SamplingParams) -> SamplingParams {
        self.generation_config.sampling.apply(&mut fallback);
        fallback
    }

    /// The files that may contain the model's chat template.
    pub fn chat_template_files(&self) -> &ChatTemplateFiles {
        &self.chat_template_files
    }

    /// Returns a text's token ids; special tokens such as `<|endoftext|>` are encoded as plain text.
    ///
    /// # Errors
    /// As [`Hornbook::tokenizer`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.tokenizer()?.encode(text, false)
    }

    /// Starts a completion of `prompt`. An empty prompt stands for the model's end-of-text token, after which
    /// a text begins.
    ///
    /// # Errors
    /// [`Error::ContextOverflow`], [`Error::TokenId`], and [`Error::Parameter`] for options out of range.
    pub fn generate(&self, prompt: &[u32], options: &Options) -> Result<Generation<'_>> {
        self.generate_observed(prompt, options, ())
    }

    /// Starts a completion with an observer, which sees every forward pass and may change its activations.
    ///
    /// # Errors
    /// As [`Hornbook::generate`].
    pub fn generate_observed<O: Observer>(
        &self,
        prompt: &[u32],
        options: &Options,
        observer: O,
    ) -> Result<Generation<'_, O>> {
        Generation::new(self, prompt, options, observer)
    }

    /// Returns the validated tokens of `prompt`, or the model's end-of-text token if it is empty.
    ///
    /// # Errors
    /// [`Error::ContextOverflow`], [`Error::TokenId`], and [`Error::Prompt`] for an empty prompt without
    /// such a token.
    pub fn validate_prompt(&self, prompt: &[u32]) -> Result<Vec<u32>> {
        let (prompt, n_positions) = (self.resolve_prompt(prompt)?, self.config().n_positions);
        match prompt.len() {
            prompt_tokens if prompt_tokens > n_positions => {
                Err(Error::ContextOverflow { prompt_tokens, n_positions })
            }
            _ => Ok(prompt),
        }
    }

    /// As [`Hornbook::validate_prompt`], for a prompt of any length.
    fn resolve_prompt(&self, prompt: &[u32]) -> Result<Vec<u32>> {
        let config = self.config();
        let first = config.bos_token_id.or(config.eos_token_ids.first().copied());
        let prompt = match (prompt, first) {
            ([], None) => return Err(Error::Prompt("the prompt is empty".into())),
            ([], Some(first)) => vec![first],
            (prompt, _) => prompt.to_vec(),
        };
        let vocab_size = config.vocab_size;
        match prompt.iter().find(|&&id| id as usize >= vocab_size) {
            Some(&id) => Err(Error::TokenId { id, vocab_size }),
            None => Ok(prompt),
        }
    }

    /// Validates a prompt and options against the model, for any number of completions.
    ///
    /// # Errors
    /// As [`Hornbook::generate`].
    pub fn plan(&self, prompt: &[u32], options: &Options) -> Result<Plan> {
        let mut sampling = options.sampling.clone();
        let &Config { n_positions, vocab_size, .. } = self.config();
        sampling.stop_ids.extend(&self.stop_ids);
        sampling.stop_ids.sort_unstable();
        sampling.stop_ids.dedup();
        sampling.validate(vocab_size)?;
        let prompt = match options.context {
            ContextPolicy::Stop => self.validate_prompt(prompt)?,
            ContextPolicy::Shift => self.resolve_prompt(prompt)?,
        };
        let room = match options.context {
            // A full context still predicts one token, which is not computed.
            ContextPolicy::Stop => n_positions - prompt.len() + 1,
            ContextPolicy::Shift => usize::MAX,
        };
        let sentence_from = options.max_tokens.unwrap_or(room).min(room);
        let margin = match self.tokenizer {
            Ok(_) if sentence_from > 0 => options.sentence_margin,
            _ => 0,
        };
        let max_tokens = sentence_from.saturating_add(margin).min(room);
        let stop_matcher = StopMatcher::new(options.stop.clone())?;
        Ok(Plan { prompt, sampling, sentence_from, max_tokens, n_positions, stop_matcher })
    }

    fn session(&self, positions: usize, options: &Options) -> Session<'_> {
        Session::new(&self.model, positions, options.kv_precision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A folder with fable's weights, configuration and tokenizer, and these files.
    fn folder_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let fable = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/fable");
        for name in ["config.json", "tokenizer.json", "model.safetensors"] {
            fs::copy(fable.join(name), folder.path().join(name)).unwrap();
        }
        for (name, content) in files {
            fs::write(folder.path().join(name), content).unwrap();
        }
        folder
    }

    fn open(files: &[(&str, &str)]) -> Hornbook {
        let folder = folder_with(files);
        Hornbook::open(folder.path().to_str().unwrap()).unwrap()
    }

    #[test]
    fn bos_and_eos_come_from_first_file_that_names_each() {
        let config_json = open(&[]);
        let end_of_text = config_json.tokenizer().unwrap().decode(&[4095]);
        assert_eq!((config_json.bos_token(), config_json.eos_token()), (&*end_of_text, &*end_of_text));
        assert_eq!(config_json.stop_ids(), [4095]);

        let tokenizer_config =
            ("tokenizer_config.json", r#"{"bos_token": null, "eos_token": {"content": "B"}}"#);
        let special_tokens_map = ("special_tokens_map.json", r#"{"bos_token": "A", "eos_token": "C"}"#);
        let hornbook = open(&[tokenizer_config, special_tokens_map]);
        let id = |token: &str| hornbook.tokenizer().unwrap().token_to_id(token).unwrap();
        assert_eq!((hornbook.bos_token(), hornbook.eos_token()), ("A", "B"));
        assert_eq!(hornbook.config().bos_token_id, Some(id("A")));
        assert_eq!(hornbook.config().eos_token_ids, [id("B")]);
        assert_eq!(hornbook.stop_ids(), [4095, id("B")]);
        assert_eq!(hornbook.validate_prompt(&[]).unwrap(), [id("A")]);
    }

    #[test]
    fn eos_ids_of_generation_config_end_the_text() {
        let prompt = [72, 73, 74];
        let sampling = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
        let greedy = Options { sampling, max_tokens: Some(3), ..Options::default() };
        let ids = |hornbook: &Hornbook| -> Vec<u32> {
            hornbook.generate(&prompt, &greedy).unwrap().map(|token| token.unwrap().id).collect()
        };
        let all = ids(&open(&[]));
        assert_eq!(all.len(), 3);
        let list = format!(r#"{{"eos_token_id": [4094, {}, 99999]}}"#, all[0]);
        let hornbook = open(&[("generation_config.json", &list)]);
        assert_eq!(hornbook.stop_ids(), [4094, all[0]], "in place of config.json's");
        assert_eq!(ids(&hornbook), all[..1]);
    }

    #[test]
    fn defaults_of_generation_config_replace_the_programs() {
        let json = r#"{"temperature": 0.5, "top_k": 3, "top_p": null, "repetition_penalty": 1.2,
                       "max_new_tokens": 7, "do_sample": true}"#;
        let hornbook = open(&[("generation_config.json", json)]);
        let Options { sampling, max_tokens, .. } = hornbook.default_options();
        assert_eq!((sampling.temperature, sampling.top_k, sampling.top_p), (0.5, 3, 0.95));
        assert_eq!((sampling.repetition_penalty, max_tokens), (1.2, Some(7)));
        assert_eq!(hornbook.default_sampling(SamplingParams::default()).top_p, 1.0);

        let folder = folder_with(&[("generation_config.json", r#"{"top_p": 2}"#)]);
        let error = Hornbook::open(folder.path().to_str().unwrap()).map(drop).unwrap_err().to_string();
        let expected = "generation_config.json: top_p: found 2, expected a number from 0 to 1";
        assert!(error.ends_with(expected), "{error}");
    }
}
