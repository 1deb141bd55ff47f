//! The loop: the model's logits to the writer, the writer's token to the model.

use super::lookup::{Drafted, Lookup};
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
    /// How many of the writer's tokens stand before those of the session.
    forgotten: usize,
    lookup: Option<Lookup>,
}

impl<'h, O: Observer> Generation<'h, O> {
    pub(super) fn new(hornbook: &'h Hornbook, prompt: &[u32], options: &Options, see: O) -> Result<Self> {
        let plan = hornbook.plan(prompt, options)?;
        let writer = plan.writer(0);
        let mut session = Session::observed(hornbook.model(), writer.positions(), options.kv_precision, see);
        let prompt_logits = session.feed(writer.window())?.to_vec();
        let forgotten = writer.forgotten();
        let (top_logprobs, choice, lookup) = (0, 0, None);
        Ok(Self { hornbook, session, plan, top_logprobs, prompt_logits, choice, writer, forgotten, lookup })
    }

    /// Reports the `n` most likely tokens of every step.
    pub fn with_top_logprobs(mut self, n: usize) -> Self {
        self.top_logprobs = n;
        self
    }

    /// Drafts up to `most` tokens from what the text said before, and computes them in one pass: faster where it repeats
    /// itself, and the same tokens and logprobs to the bit. An observer sees drafts that are refused, too.
    pub fn with_prompt_lookup(mut self, most: usize) -> Self {
        self.lookup = (most > 0).then(|| Lookup::new(most));
        self
    }

    /// What came of the drafts, over all completions.
    pub fn drafted(&self) -> Drafted {
        self.lookup.as_ref().map_or_else(Drafted::default, Lookup::drafted)
    }

    /// Starts another completion of the same prompt, which is not computed again unless it was forgotten. The same seed
    /// gives each its own random numbers.
    ///
    /// # Errors
    /// None that the first completion did not have.
    pub fn restart(&mut self) -> Result<()> {
        self.choice += 1;
        self.writer = self.plan.writer(self.choice);
        self.begin_where_the_window_does();
        self.session.truncate(self.writer.window().len());
        if self.session.is_empty() {
            self.session.feed(self.writer.window())?;
        }
        self.lookup.iter_mut().for_each(Lookup::restart);
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

    /// Empties a session that begins elsewhere in the text than the window.
    fn begin_where_the_window_does(&mut self) {
        if self.forgotten != self.writer.forgotten() {
            self.forgotten = self.writer.forgotten();
            self.session.truncate(0);
        }
    }

    fn step(&mut self) -> Result<Token> {
        self.begin_where_the_window_does();
        let Self { session, writer, .. } = self;
        let logits = match &mut self.lookup {
            _ if writer.generated().is_empty() => &self.prompt_logits,
            None => session.feed(&writer.window()[session.len()..])?,
            Some(lookup) => lookup.logits(session, writer)?,
        };
        Ok(writer.step(logits, self.hornbook.try_tokenizer(), self.top_logprobs))
    }
}

impl<O: Observer> Iterator for Generation<'_, O> {
    type Item = Result<Token>;

    fn next(&mut self) -> Option<Result<Token>> {
        self.finish_reason().is_none().then(|| self.step())
    }
}
