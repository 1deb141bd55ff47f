//! Models that draft for another one: a quantized copy of it, or a smaller model with the same vocabulary.

use super::Hornbook;
use crate::checkpoint::Checkpoint;
use crate::model::{KvCache, LogitsWanted, Model, PREFILL_CHUNK, Segment, Workspace, common_prefix_len};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// A model that drafts for another one.
pub struct DraftModel {
    model: Model,
    /// Whether it attends to the keys and values that the other one has computed, being a copy of it.
    shares_cache: bool,
}

impl DraftModel {
    /// A copy of a model.
    pub(super) fn copy(model: Model) -> Self {
        Self { model, shares_cache: true }
    }

    /// The model of a checkpoint: a copy that `hornbook quantize` wrote, or another one.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it has another vocabulary.
    pub(super) fn open(target: &Hornbook, checkpoint: Checkpoint) -> Result<Self> {
        let name = checkpoint.name.clone();
        let differs = |problem: String| Error::Unsupported(format!("the draft model '{name}' {problem}"));
        let (expected, found) = (target.config().vocab_size, checkpoint.config.vocab_size);
        if found != expected {
            let target = target.name();
            let problem =
                format!("has {found} tokens in its vocabulary, expected {expected} as in '{target}'");
            return Err(differs(problem));
        }
        let tokenizer = checkpoint.tokenizer_files().and_then(|files| Tokenizer::from_files(&files));
        if let (Some(expected), Ok(Some(found))) = (target.try_tokenizer(), tokenizer) {
            let differing = (0..target.config().vocab_size as u32)
                .find(|&id| expected.token_bytes(id) != found.token_bytes(id));
            if let Some(id) = differing {
                let [found, expected] = [&found, expected].map(|tokenizer| tokenizer.decode(&[id]));
                let target = target.name();
                return Err(differs(format!(
                    "has another vocabulary: token {id} is {found:?}, expected {expected:?} as in '{target}'"
                )));
            }
        }
        let model = target.model().on_same_threads(checkpoint)?;
        let shares_cache = model.is_quantized_from(target.model());
        Ok(Self { model, shares_cache })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Whether it needs no cache of its own.
    pub fn shares_cache(&self) -> bool {
        self.shares_cache
    }

    /// The number of positions it can compute, for a model with this cache.
    pub(super) fn capacity(&self, cache: &KvCache) -> usize {
        cache.capacity().min(self.model.config().n_positions)
    }
}

/// The cache of a draft model that is no copy of the model, for one sequence.
pub(super) struct DraftCache {
    cache: KvCache,
    /// The tokens in the cache.
    tokens: Vec<u32>,
}

impl DraftCache {
    /// An empty cache of this capacity.
    pub(super) fn new(model: &Model, capacity: usize) -> Self {
        Self { cache: model.kv_cache(capacity, None), tokens: vec![] }
    }

    /// Removes what is not in the text: rejected draft tokens, or all after a context shift. Computes the
    /// text up to its last token, if there is more than a draft to be computed.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub(super) fn catch_up(&mut self, model: &Model, text: &[u32], workspace: &mut Workspace) -> Result<()> {
        let len = common_prefix_len(&self.tokens, text).min(text.len() - 1);
        self.cache.truncate(len);
        self.tokens.truncate(len);
        let missing = &text[len..text.len() - 1];
        let n_prefill = if missing.len() > super::draft_len::MAX_DRAFT_LEN { missing.len() } else { 0 };
        for tokens in missing[..n_prefill].chunks(PREFILL_CHUNK) {
            let segment = Segment { tokens, cache: &mut self.cache, logits: LogitsWanted::None };
            model.forward(&mut [segment], workspace, &mut ())?;
            self.tokens.extend_from_slice(tokens);
        }
        Ok(())
    }

    /// The part of a pass that yields the logits after the text.
    pub(super) fn segment<'a>(&'a mut self, text: &'a [u32]) -> Segment<'a> {
        let tokens = &text[self.tokens.len()..];
        self.tokens.extend_from_slice(tokens);
        Segment { tokens, cache: &mut self.cache, logits: LogitsWanted::Last }
    }
}
