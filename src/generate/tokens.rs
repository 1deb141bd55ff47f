//! The loop: the model's logits to the writer, the writer's token to the model.

use super::{FinishReason, Hornbook, Options, Plan, Token, Writer};
use crate::Result;
use crate::model::{Observer, Session};

/// A completion in the making: an iterator of tokens. A token that ends the text is its last.
pub struct Generation<'h, O = ()> {
    hornbook: &'h Hornbook,
    session: Session<'h, O>,
    plan: Plan,
    top_logprobs: usize,
    /// The logits after the prompt, kept for other completions of it.
    prompt_logits: Vec<f32>,
    choice: u64,
    writer: Writer,
}

impl<'h, O: Observer> Generation<'h, O> {
    pub(super) fn new(hornbook: &'h Hornbook, prompt: &[u32], options: &Options, see: O) -> Result<Self> {
        let plan = hornbook.plan(prompt, options)?;
        let writer = plan.writer(0);
        let mut session = Session::observed(hornbook.model(), writer.positions(), options.kv_precision, see);
        let prompt_logits = session.feed(plan.prompt())?.to_vec();
        Ok(Self { hornbook, session, plan, top_logprobs: 0, prompt_logits, choice: 0, writer })
    }

    /// Reports the `n` most likely tokens of every step.
    pub fn with_top_logprobs(mut self, n: usize) -> Self {
        self.top_logprobs = n;
        self
    }

    /// Starts another completion of the same prompt, which is not computed again. The same seed gives each its own
    /// random numbers.
    ///
    /// # Errors
    /// None that the first completion did not have.
    pub fn restart(&mut self) -> Result<()> {
        self.choice += 1;
        self.session.truncate(self.plan.prompt().len());
        self.writer = self.plan.writer(self.choice);
        Ok(())
    }

    /// The prompt's tokens.
    pub fn prompt(&self) -> &[u32] {
        self.plan.prompt()
    }

    /// The logits behind the prompt, `[vocab_size]`, which the first token is chosen by.
    pub fn prompt_logits(&self) -> &[f32] {
        &self.prompt_logits
    }

    /// The completion's tokens so far, one that ended it included.
    pub fn generated(&self) -> &[u32] {
        self.writer.generated()
    }

    /// Why it ended; none while it goes on.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.writer.finish_reason()
    }

    /// Ends the completion here and returns the text that was held back.
    pub fn finish(&mut self) -> String {
        self.writer.finish()
    }

    fn step(&mut self) -> Result<Token> {
        let logits = match self.writer.generated().last() {
            None => &self.prompt_logits,
            Some(&last) => self.session.feed(&[last])?,
        };
        Ok(self.writer.step(logits, self.hornbook.try_tokenizer(), self.top_logprobs))
    }
}

impl<O: Observer> Iterator for Generation<'_, O> {
    type Item = Result<Token>;

    fn next(&mut self) -> Option<Result<Token>> {
        self.finish_reason().is_none().then(|| self.step())
    }
}
