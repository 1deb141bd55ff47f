//! One sequence, its KV cache and the model.

use super::{KvCache, LogitsWanted, Model, Observer, Segment, Workspace};
use crate::Result;
use crate::kernels::attention::KvPrecision;
use crate::kernels::rows::Rows;

/// Prompt tokens per pass: the activations of 256 take 8 MiB for GPT-2 small, and larger chunks are no
/// faster.
pub(crate) const PREFILL_CHUNK: usize = 256;
/// Prompt tokens per pass with quantized activations: these take at most half the space, and AMX needs twice
/// as many tokens per read of the weights to be efficient.
const PREFILL_CHUNK_QUANTIZED: usize = 512;
/// Tokens per pass if all logits are requested: a row of logits is far larger than a row of activations.
const SCORE_CHUNK: usize = 32;

/// A growing sequence with its KV cache, so that each token is computed only once, and an observer of every
/// pass.
pub struct Session<'m, O = ()> {
    model: &'m Model,
    cache: KvCache,
    workspace: Workspace,
    observer: O,
}

impl<'m> Session<'m> {
    /// Creates an empty sequence with room for `capacity` tokens. The default precision of the KV cache is
    /// [`Model::kv_precision`].
    pub fn new(model: &'m Model, capacity: usize, precision: impl Into<Option<KvPrecision>>) -> Self {
        Self::observed(model, capacity, precision, ())
    }
}

impl<'m, O: Observer> Session<'m, O> {
    /// Creates an empty sequence with an observer of every pass.
    pub fn observed(
        model: &'m Model,
        capacity: usize,
        precision: impl Into<Option<KvPrecision>>,
        observer: O,
    ) -> Self {
        Self { model, cache: model.kv_cache(capacity, precision), workspace: Workspace::new(), observer }
    }

    /// The observer.
    pub fn observer(&mut self) -> &mut O {
        &mut self.observer
    }

    /// Ends the sequence and returns the observer.
    pub fn into_observer(self) -> O {
        self.observer
    }

    /// The model.
    pub fn model(&self) -> &'m Model {
        self.model
    }

    /// The number of tokens so far.
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Whether the sequence is empty.
    pub fn is_empty(&self) -> bool {
        self.cache.is_empty()
    }

    /// Drops all but the first `len` tokens.
    pub fn truncate(&mut self, len: usize) {
        self.cache.truncate(len);
    }

    /// The KV cache.
    pub fn cache(&self) -> &KvCache {
        &self.cache
    }

    /// The KV cache, for a draft model that reads the keys and values of this one and adds its own, to be
    /// dropped again.
    pub(crate) fn cache_mut(&mut self) -> &mut KvCache {
        &mut self.cache
    }

    /// Appends at least one token and returns the last one's logits, `[vocab_size]`.
    ///
    /// # Errors
    /// As [`Model::forward`] and [`Model::check_finite`].
    pub fn feed(&mut self, tokens: &[u32]) -> Result<&[f32]> {
        let quantized = self.model.quantizes_activations();
        let chunk = if quantized { PREFILL_CHUNK_QUANTIZED } else { PREFILL_CHUNK };
        let (first, last) = tokens.split_at(tokens.len().saturating_sub(1) / chunk * chunk);
        for tokens in first.chunks(chunk) {
            self.pass(tokens, LogitsWanted::None)?;
        }
        self.pass(last, LogitsWanted::Last)?;
        Ok(self.workspace.logits().row(0))
    }

    /// Appends a few tokens in one pass and returns all their logits, `[n_tokens, vocab_size]`.
    ///
    /// # Errors
    /// As [`Session::feed`].
    pub fn feed_all(&mut self, tokens: &[u32]) -> Result<Rows<'_>> {
        self.pass(tokens, LogitsWanted::All)?;
        Ok(self.logits())
    }

    /// The logits of the last pass, `[n_logits, vocab_size]`.
    pub fn logits(&self) -> Rows<'_> {
        self.workspace.logits()
    }

    /// Appends tokens and calls `each` with every token's index among them and its logits, `[vocab_size]`.
    ///
    /// # Errors
    /// As [`Session::feed`].
    pub fn score(&mut self, tokens: &[u32], mut each: impl FnMut(usize, &[f32])) -> Result<()> {
        for (chunk, tokens) in tokens.chunks(SCORE_CHUNK).enumerate() {
            let logits = self.feed_all(tokens)?;
            for t in 0..tokens.len() {
                each(chunk * SCORE_CHUNK + t, logits.row(t));
            }
        }
        Ok(())
    }

    fn pass(&mut self, tokens: &[u32], logits: LogitsWanted) -> Result<()> {
        let segment = Segment { tokens, cache: &mut self.cache, logits };
        self.model.forward(&mut [segment], &mut self.workspace, &mut self.observer)?;
        self.model.check_finite(self.workspace.logits(), &self.cache)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::kernels::isa::Isa;
    use crate::kernels::thread_pool::ThreadPool;

    #[test]
    fn chunked_prompt_has_same_bits_as_single_pass() {
        let model = Model::new(Checkpoint::embedded().unwrap(), ThreadPool::new(2, Isa::available()[0]));
        for n in [PREFILL_CHUNK, PREFILL_CHUNK + 1, PREFILL_CHUNK + 44] {
            let ids: Vec<u32> = (0..n as u32).map(|i| i * 37 % model.config().vocab_size as u32).collect();
            let mut single_pass = Session::new(&model, n, None);
            single_pass.pass(&ids, LogitsWanted::Last).unwrap();
            let mut chunked = Session::new(&model, n, None);
            assert_eq!(chunked.feed(&ids).unwrap(), single_pass.logits().row(0), "{n} tokens");
            assert_eq!(chunked.len(), n);
        }
    }
}
