//! One sequence and the model it grows in.

use super::{KvCache, Model, Observer, Scratch, Segment, Wanted};
use crate::Result;
use crate::kernels::attention::KvPrecision;
use crate::kernels::rows::Rows;

/// Tokens of a prompt that go through the model together: these take 8 MiB for GPT-2 small, and no more time than twice
/// as many.
const PREFILL: usize = 256;
/// The same where inputs are rounded: copies of them are half as large or less, and where AMX multiplies them, twice as
/// many tokens are worth it for each reading of the weights.
const PREFILL_ROUNDED: usize = 512;
/// The same where every token's logits are wanted, which are far larger than the token.
const SCORE: usize = 32;

/// A sequence that tokens are added to, each computed once; and who looks on while they are.
pub struct Session<'m, O = ()> {
    model: &'m Model,
    cache: KvCache,
    scratch: Scratch,
    see: O,
}

impl<'m> Session<'m> {
    /// An empty sequence with room for `positions` tokens. Where no precision is asked for, its keys and values are
    /// stored in [`Model::kv_precision`].
    pub fn new(model: &'m Model, positions: usize, precision: impl Into<Option<KvPrecision>>) -> Self {
        Self::observed(model, positions, precision, ())
    }
}

impl<'m, O: Observer> Session<'m, O> {
    /// The same, with an observer of every pass.
    pub fn observed(
        model: &'m Model,
        positions: usize,
        precision: impl Into<Option<KvPrecision>>,
        see: O,
    ) -> Self {
        let precision = precision.into().unwrap_or(model.kv_precision());
        let cache = KvCache::new(model.config(), positions, precision);
        Self { model, cache, scratch: Scratch::new(), see }
    }

    /// Who looks on.
    pub fn observer(&mut self) -> &mut O {
        &mut self.see
    }

    /// The model.
    pub fn model(&self) -> &'m Model {
        self.model
    }

    /// Tokens so far.
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.cache.is_empty()
    }

    /// Forgets all but the first `len` tokens.
    pub fn truncate(&mut self, len: usize) {
        self.cache.truncate(len);
    }

    /// Its keys and values.
    pub fn cache(&self) -> &KvCache {
        &self.cache
    }

    /// Adds tokens, at least one, and returns the last one's logits, `[vocab_size]`.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn feed(&mut self, tokens: &[u32]) -> Result<&[f32]> {
        let together = if self.model.rounds_inputs() { PREFILL_ROUNDED } else { PREFILL };
        let (head, last) = tokens.split_at(tokens.len().saturating_sub(1) / together * together);
        for tokens in head.chunks(together) {
            self.pass(tokens, Wanted::None)?;
        }
        self.pass(last, Wanted::Last)?;
        Ok(self.scratch.logits().row(0))
    }

    /// Adds a few tokens in one pass and returns every one's logits, `[n_tokens, vocab_size]`.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn feed_all(&mut self, tokens: &[u32]) -> Result<Rows<'_>> {
        self.pass(tokens, Wanted::All)?;
        Ok(self.logits())
    }

    /// The logits of the last pass, `[n_wanted, vocab_size]`.
    pub fn logits(&self) -> Rows<'_> {
        self.scratch.logits()
    }

    /// Adds tokens and shows every one's logits, with its index among them.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn score(&mut self, tokens: &[u32], mut each: impl FnMut(usize, &[f32])) -> Result<()> {
        for (chunk, tokens) in tokens.chunks(SCORE).enumerate() {
            let logits = self.feed_all(tokens)?;
            for t in 0..tokens.len() {
                each(chunk * SCORE + t, logits.row(t));
            }
        }
        Ok(())
    }

    fn pass(&mut self, tokens: &[u32], wanted: Wanted) -> Result<()> {
        let segment = Segment { tokens, cache: &mut self.cache, wanted };
        self.model.forward(&mut [segment], &mut self.scratch, &mut self.see)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::kernels::isa::Isa;
    use crate::kernels::thread_pool::ThreadPool;

    #[test]
    fn a_long_prompt_has_the_bits_of_a_single_pass() {
        let model = Model::new(Checkpoint::embedded().unwrap(), ThreadPool::new(2, Isa::available()[0]));
        for n in [PREFILL, PREFILL + 1, PREFILL + 44] {
            let ids: Vec<u32> = (0..n as u32).map(|i| i * 37 % model.config().vocab_size as u32).collect();
            let mut whole = Session::new(&model, n, None);
            whole.pass(&ids, Wanted::Last).unwrap();
            let mut fed = Session::new(&model, n, None);
            assert_eq!(fed.feed(&ids).unwrap(), whole.logits().row(0), "{n} tokens");
            assert_eq!(fed.len(), n);
        }
    }
}
