//! From a prompt to text: the model, the sampler and the tokenizer, joined.
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
pub mod completion;
mod completion_state;
mod context;
mod generation;
pub mod perplexity;
mod prompt_lookup;

pub use beams::{Beam, beam_search};
pub use completion_state::{CompletionState, FinishReason, Plan, Token};
pub use context::ContextPolicy;
pub use generation::Generation;
pub use prompt_lookup::DraftStats;

use crate::checkpoint::{ChatTemplateFiles, Checkpoint, Config, TokenizerFiles};
use crate::kernels::attention::{AttentionKernel, KvPrecision};
use crate::kernels::isa::Isa;
use crate::kernels::thread_pool::ThreadPool;
use crate::model::{Model, Observer, Precision, Session};
use crate::sampling::{SamplingParams, StopMatcher};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// A model ready to write: weights, threads and, where its folder has one, a tokenizer.
pub struct Hornbook {
    name: String,
    model: Model,
    tokenizer: Option<Tokenizer>,
    chat_template_files: ChatTemplateFiles,
    mapped_bytes: usize,
    owned_bytes: usize,
}

/// What to generate, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// How each token is chosen. The model's end-of-text token ends the text, besides the `stop_ids` named here.
    pub sampling: SamplingParams,
    /// The most tokens to write; none means as many as the context has room for, or where it shifts, as many as come.
    pub max_tokens: Option<usize>,
    /// What is done at the end of the context.
    pub context: ContextPolicy,
    /// Texts that end the completion; they are not part of it.
    pub stop: Vec<String>,
    /// How keys and values are stored; none for [`Model::kv_precision`].
    pub kv_precision: Option<KvPrecision>,
}

impl Default for Options {
    /// Temperature 0.8 and top-p 0.95, which suits story-like text: livelier than greedy decoding, which falls into
    /// loops, and without the least likely words.
    fn default() -> Self {
        let sampling = SamplingParams { temperature: 0.8, top_p: 0.95, ..SamplingParams::default() };
        Self {
            sampling,
            max_tokens: Some(200),
            context: ContextPolicy::Stop,
            stop: vec![],
            kv_precision: None,
        }
    }
}

impl Hornbook {
    /// Opens `fable` (built in), a folder, or a name in the local Hugging Face cache, on all cores.
    ///
    /// # Errors
    /// As [`Checkpoint::open`], and [`Error::Tokenizer`] for a tokenizer that is there but broken.
    pub fn open(model: &str) -> Result<Self> {
        Self::new(Checkpoint::open(model)?, ThreadPool::new(0, Isa::choose()?))
    }

    /// A checkpoint on a thread pool.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for a tokenizer that is there but broken.
    pub fn new(checkpoint: Checkpoint, pool: ThreadPool) -> Result<Self> {
        Self::with_precision(checkpoint, pool, None)
    }

    /// A checkpoint on a thread pool, its matrices converted to a precision; none leaves them as they are stored.
    ///
    /// # Errors
    /// As [`Hornbook::new`] and [`Model::with_precision`].
    pub fn with_precision(
        checkpoint: Checkpoint,
        pool: ThreadPool,
        precision: Option<Precision>,
    ) -> Result<Self> {
        let tokenizer = match checkpoint.tokenizer_files()? {
            TokenizerFiles::Json { file, bytes } => Some(Tokenizer::from_json(&file, &bytes)?),
            TokenizerFiles::VocabMerges { vocab, merges } => {
                Some(Tokenizer::from_vocab_merges(&vocab, &merges)?)
            }
            TokenizerFiles::None { .. } => None,
        };
        Ok(Self {
            name: checkpoint.name.clone(),
            tokenizer,
            chat_template_files: checkpoint.chat_template_files(),
            mapped_bytes: checkpoint.mapped_bytes(),
            owned_bytes: checkpoint.owned_bytes(),
            model: Model::with_precision(checkpoint, pool, precision)?,
        })
    }

    /// The same with another way to compute attention, one of [`KERNELS`](crate::kernels::attention::KERNELS) or your
    /// own.
    pub fn with_attention(self, attention: &'static dyn AttentionKernel) -> Self {
        Self { model: self.model.with_attention(attention), ..self }
    }

    /// What the user calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Its shape.
    pub fn config(&self) -> &Config {
        self.model.config()
    }

    /// Bytes of the weights that are used where they lie, and bytes that had to be copied.
    pub fn weight_bytes(&self) -> (usize, usize) {
        (self.mapped_bytes, self.owned_bytes)
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// [`Error::Message`] where the model's folder has none.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.as_ref().ok_or_else(|| {
            Error::Message(format!(
                "model '{}' has no tokenizer (tokenizer.json, or vocab.json and merges.txt); \
                 give token ids instead (--prompt-ids 15,3,7 --output ids)",
                self.name
            ))
        })
    }

    /// The tokenizer, where there is one.
    pub fn try_tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref()
    }

    /// Where the model may say how it was taught to converse.
    pub fn chat_template_files(&self) -> &ChatTemplateFiles {
        &self.chat_template_files
    }

    /// A text's token ids; `<|endoftext|>` and the like are plain text.
    ///
    /// # Errors
    /// As [`Hornbook::tokenizer`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.tokenizer()?.encode(text, false)
    }

    /// Starts a completion of `prompt`. An empty prompt is the model's end-of-text token, after which a text begins.
    ///
    /// # Errors
    /// [`Error::ContextOverflow`], [`Error::TokenId`], and [`Error::Parameter`] for options out of range.
    pub fn generate(&self, prompt: &[u32], options: &Options) -> Result<Generation<'_>> {
        self.generate_observed(prompt, options, ())
    }

    /// The same, with an observer that looks at every pass and may change what it sees.
    ///
    /// # Errors
    /// As [`Hornbook::generate`].
    pub fn generate_observed<O: Observer>(
        &self,
        prompt: &[u32],
        options: &Options,
        see: O,
    ) -> Result<Generation<'_, O>> {
        Generation::new(self, prompt, options, see)
    }

    /// The tokens a text really starts with, checked against the model: those of `prompt`, or where that is empty the
    /// model's end-of-text token.
    ///
    /// # Errors
    /// [`Error::ContextOverflow`], [`Error::TokenId`], and [`Error::Message`] for nothing at all.
    pub fn validate_prompt(&self, prompt: &[u32]) -> Result<Vec<u32>> {
        let (prompt, n_positions) = (self.resolve_prompt(prompt)?, self.config().n_positions);
        match prompt.len() {
            prompt_tokens if prompt_tokens > n_positions => {
                Err(Error::ContextOverflow { prompt_tokens, n_positions })
            }
            _ => Ok(prompt),
        }
    }

    /// The same for a text of any length.
    fn resolve_prompt(&self, prompt: &[u32]) -> Result<Vec<u32>> {
        let config = self.config();
        let first = config.bos_token_id.or(config.eos_token_ids.first().copied());
        let prompt = match (prompt, first) {
            ([], None) => return Err(Error::Message("the prompt is empty".into())),
            ([], Some(first)) => vec![first],
            (given, _) => given.to_vec(),
        };
        let vocab_size = config.vocab_size;
        match prompt.iter().find(|&&id| id as usize >= vocab_size) {
            Some(&id) => Err(Error::TokenId { id, vocab_size }),
            None => Ok(prompt),
        }
    }

    /// Checks a prompt and options against the model: what all completions of the prompt start from.
    ///
    /// # Errors
    /// As [`Hornbook::generate`].
    pub fn plan(&self, prompt: &[u32], options: &Options) -> Result<Plan> {
        let mut sampling = options.sampling.clone();
        // An id the model cannot produce (as in a configuration that never named its own) ends nothing.
        let &Config { n_positions, vocab_size, .. } = self.config();
        sampling
            .stop_ids
            .extend(self.config().eos_token_ids.iter().filter(|&&id| (id as usize) < vocab_size));
        sampling.stop_ids.sort_unstable();
        sampling.stop_ids.dedup();
        sampling.validate(vocab_size)?;
        let prompt = match options.context {
            ContextPolicy::Stop => self.validate_prompt(prompt)?,
            ContextPolicy::Shift => self.resolve_prompt(prompt)?,
        };
        let room = match options.context {
            ContextPolicy::Stop => n_positions - prompt.len(),
            ContextPolicy::Shift => usize::MAX,
        };
        let max_tokens = options.max_tokens.unwrap_or(room).min(room);
        let stop_matcher = StopMatcher::new(options.stop.clone())?;
        Ok(Plan { prompt, sampling, max_tokens, n_positions, stop_matcher })
    }

    fn session(&self, positions: usize, options: &Options) -> Session<'_> {
        Session::new(&self.model, positions, options.kv_precision)
    }
}
