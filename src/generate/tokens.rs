//! The loop: logits to a token, the token to the model, its text to the reader.

use super::{Hornbook, Options};
use crate::Result;
use crate::model::Session;
use crate::sampling::{Sampler, SamplingParams, StopMatcher, top_logprobs};
use crate::tokenizer::Utf8Stream;

/// One step of a completion.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// The token.
    pub id: u32,
    /// The text that may be shown now. It may be empty, while a character or what may be a stop string is incomplete,
    /// and the last token brings what was held back; all together are the completion. Empty without a tokenizer.
    pub text: String,
    /// The token's logprob in the model's own distribution (temperature 1, nothing filtered).
    pub logprob: f32,
    /// The most likely tokens with their logprobs, as many as were asked for.
    pub top_logprobs: Vec<(u32, f32)>,
}

/// Why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// A stop string, or a token that ends a text.
    Stop,
    /// `max_tokens`, or the end of the context.
    Length,
}

impl FinishReason {
    /// As the OpenAI API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
        }
    }
}

/// A completion in the making: an iterator of tokens. A token that ends the text is its last.
pub struct Generation<'h> {
    hornbook: &'h Hornbook,
    session: Session<'h>,
    sampling: SamplingParams,
    max_tokens: usize,
    stop: Vec<String>,
    top_logprobs: usize,
    prompt: Vec<u32>,
    /// The logits after the prompt, kept for other completions of it.
    prompt_logits: Vec<f32>,
    choice: u64,
    sampler: Sampler,
    stopper: StopMatcher,
    characters: Utf8Stream,
    generated: Vec<u32>,
    finish_reason: Option<FinishReason>,
}

impl<'h> Generation<'h> {
    pub(super) fn new(hornbook: &'h Hornbook, prompt: &[u32], options: &Options) -> Result<Self> {
        let mut bos = [0];
        let prompt = hornbook.start(prompt, &mut bos)?;
        let (sampling, max_tokens) = hornbook.check(prompt, options)?;
        let stopper = StopMatcher::new(options.stop.clone())?;
        // The last token's own keys and values are never needed.
        let mut session = hornbook.session(prompt.len() + max_tokens.saturating_sub(1), options);
        let prompt_logits = session.feed(prompt)?.to_vec();
        Ok(Self {
            hornbook,
            session,
            sampler: Sampler::new(sampling.clone(), 0),
            sampling,
            stopper,
            max_tokens,
            stop: options.stop.clone(),
            top_logprobs: 0,
            prompt: prompt.to_vec(),
            prompt_logits,
            choice: 0,
            characters: Utf8Stream::new(),
            generated: Vec::with_capacity(max_tokens),
            finish_reason: (max_tokens == 0).then_some(FinishReason::Length),
        })
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
        self.session.truncate(self.prompt.len());
        self.sampler = Sampler::new(self.sampling.clone(), self.choice);
        self.stopper = StopMatcher::new(self.stop.clone())?;
        self.characters = Utf8Stream::new();
        self.generated.clear();
        self.finish_reason = (self.max_tokens == 0).then_some(FinishReason::Length);
        Ok(())
    }

    /// The prompt's tokens.
    pub fn prompt(&self) -> &[u32] {
        &self.prompt
    }

    /// The completion's tokens so far, one that ended it included.
    pub fn generated(&self) -> &[u32] {
        &self.generated
    }

    /// Why it ended; none while it goes on.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish_reason
    }

    /// Ends the completion here and returns the text that was held back.
    pub fn finish(&mut self) -> String {
        self.finish_reason.get_or_insert(FinishReason::Length);
        let rest = self.characters.finish();
        self.stopper.push(&rest) + &self.stopper.finish()
    }

    fn step(&mut self) -> Result<Token> {
        let logits = match self.generated.last() {
            None => &self.prompt_logits,
            Some(&last) => self.session.feed(&[last])?,
        };
        let sampled = self.sampler.sample(logits, &self.prompt, &self.generated);
        let top_logprobs = top_logprobs(logits, self.top_logprobs);
        self.generated.push(sampled.id);

        let ends = self.sampling.stop_ids.contains(&sampled.id);
        let mut text = String::new();
        if let (Some(tokenizer), false) = (self.hornbook.try_tokenizer(), ends) {
            text = self.stopper.push(&self.characters.push(tokenizer.token_bytes(sampled.id)));
        }
        if ends || self.stopper.stopped() {
            self.finish_reason = Some(FinishReason::Stop);
        } else if self.generated.len() == self.max_tokens {
            self.finish_reason = Some(FinishReason::Length);
        }
        if self.finish_reason.is_some() {
            text += &self.finish();
        }
        Ok(Token { id: sampled.id, text, logprob: sampled.logprob, top_logprobs })
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<Token>;

    fn next(&mut self) -> Option<Result<Token>> {
        self.finish_reason.is_none().then(|| self.step())
    }
}
