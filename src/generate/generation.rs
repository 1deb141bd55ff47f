//! The generation loop: the model computes logits, the completion state turns them into a token, which goes
//! back to the model.

use super::speculation::Speculation;
use super::{CompletionState, DraftStats, FinishReason, Hornbook, Options, Plan, Token};
use crate::Result;
use crate::model::{Observer, Session};

/// A completion in progress: an iterator of tokens. An end-of-text token, or an error, is its last.
pub struct Generation<'h, O = ()> {
    hornbook: &'h Hornbook,
    session: Session<'h, O>,
    plan: Plan,
    top_logprobs: usize,
    /// The logits of the prompt's last token, kept for further completions of the prompt.
    prompt_logits: Vec<f32>,
    choice: u64,
    state: CompletionState,
    /// Number of the completion's tokens that are before the first of the session.
    session_start: usize,
    speculation: Speculation<'h>,
}

impl<'h, O: Observer> Generation<'h, O> {
    pub(super) fn new(
        hornbook: &'h Hornbook,
        prompt: &[u32],
        options: &Options,
        observer: O,
    ) -> Result<Self> {
        let plan = hornbook.plan(prompt, options)?;
        let state = plan.start_completion(0);
        let (positions, precision) = (state.max_positions(), options.kv_precision);
        let mut session = Session::observed(hornbook.model(), positions, precision, observer);
        let prompt_logits = session.feed(state.window())?.to_vec();
        Ok(Self {
            hornbook,
            session,
            plan,
            top_logprobs: 0,
            prompt_logits,
            choice: 0,
            session_start: state.discarded(),
            state,
            speculation: Speculation::new(hornbook),
        })
    }

    /// Reports the `n` most likely tokens of every step.
    pub fn with_top_logprobs(mut self, n: usize) -> Self {
        self.top_logprobs = n;
        self
    }

    /// Enables prompt-lookup decoding with drafts of up to `max_draft_len` tokens: faster for repetitive
    /// text, with bit-identical tokens and logprobs. An observer also sees rejected draft tokens.
    pub fn with_prompt_lookup(mut self, max_draft_len: usize) -> Self {
        self.speculation.look_up(max_draft_len);
        self
    }

    /// Makes a draft model ([`Hornbook::with_draft`]) draft `len` tokens each time, in place of as many as
    /// pay: to measure what it is worth.
    pub fn with_draft_len(mut self, len: usize) -> Self {
        self.speculation.fix_draft_len(len);
        self
    }

    /// Draft statistics of all completions.
    pub fn draft_stats(&self) -> DraftStats {
        self.speculation.stats()
    }

    /// Starts another completion of the same prompt, which is not computed again unless a context shift
    /// discarded it. Each completion of a seed has its own random number stream.
    ///
    /// # Errors
    /// None that the first completion did not have.
    pub fn restart(&mut self) -> Result<()> {
        self.choice += 1;
        self.state = self.plan.start_completion(self.choice);
        self.apply_context_shift();
        self.session.truncate(self.state.window().len());
        if self.session.is_empty() {
            self.session.feed(self.state.window())?;
        }
        self.speculation.restart();
        Ok(())
    }

    /// The observer.
    pub fn observer(&mut self) -> &mut O {
        self.session.observer()
    }

    /// The prompt's tokens.
    pub fn prompt(&self) -> &[u32] {
        self.plan.prompt()
    }

    /// The logits of the prompt's last token, `[vocab_size]`, from which the first token is sampled.
    pub fn prompt_logits(&self) -> &[f32] {
        &self.prompt_logits
    }

    /// The completion's tokens so far, including an end-of-text token.
    pub fn generated(&self) -> &[u32] {
        self.state.generated()
    }

    /// The finish reason; none while the completion is in progress.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.state.finish_reason()
    }

    /// Ends the completion here and returns the held-back text.
    pub fn finish(&mut self) -> String {
        self.state.finish()
    }

    /// Empties the session if its first token is not that of the context window.
    fn apply_context_shift(&mut self) {
        if self.session_start != self.state.discarded() {
            self.session_start = self.state.discarded();
            self.session.truncate(0);
        }
    }

    fn step(&mut self) -> Result<Token> {
        self.apply_context_shift();
        let Self { session, state, speculation, .. } = self;
        let logits = match state.generated().is_empty() {
            true => &self.prompt_logits,
            false => speculation.logits(session, state)?,
        };
        Ok(state.step(logits, self.hornbook.try_tokenizer(), self.top_logprobs))
    }
}

impl<O: Observer> Iterator for Generation<'_, O> {
    type Item = Result<Token>;

    fn next(&mut self) -> Option<Result<Token>> {
        let token = self.finish_reason().is_none().then(|| self.step())?;
        if token.is_err() {
            self.state.finish(); // nothing follows an error
        }
        Some(token)
    }
}
