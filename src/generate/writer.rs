//! One completion being written: logits to a token, the token to text, and when it is over. Where the logits come from
//! is not its concern: one sequence after the other, or many sequences at once.

use super::context::Window;
use crate::sampling::{Sampler, SamplingParams, StopMatcher, top_logprobs};
use crate::tokenizer::{Tokenizer, Utf8Stream};

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

/// A prompt and what is to be made of it, checked against the model.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) prompt: Vec<u32>,
    pub(super) sampling: SamplingParams,
    pub(super) max_tokens: usize,
    /// The model's.
    pub(super) n_positions: usize,
    /// At the beginning of a text.
    pub(super) stopper: StopMatcher,
}

impl Plan {
    /// The prompt's tokens, at least one.
    pub fn prompt(&self) -> &[u32] {
        &self.prompt
    }

    /// Begins a completion. Each `stream` of the same seed has random numbers of its own.
    pub fn writer(&self, stream: u64) -> Writer {
        let mut tokens = Vec::with_capacity(self.prompt.len() + self.max_tokens.min(self.n_positions));
        tokens.extend_from_slice(&self.prompt);
        Writer {
            sampler: Sampler::new(self.sampling.clone(), stream),
            stopper: self.stopper.clone(),
            characters: Utf8Stream::new(),
            tokens,
            prompt: self.prompt.len(),
            max_tokens: self.max_tokens,
            n_positions: self.n_positions,
            window: Window::new(self.n_positions, self.prompt.len()),
            finish_reason: (self.max_tokens == 0).then_some(FinishReason::Length),
        }
    }
}

/// Writes one completion.
#[derive(Clone, Debug)]
pub struct Writer {
    sampler: Sampler,
    stopper: StopMatcher,
    characters: Utf8Stream,
    /// The prompt's and the completion's.
    tokens: Vec<u32>,
    /// How many of them are the prompt's.
    prompt: usize,
    max_tokens: usize,
    n_positions: usize,
    window: Window,
    finish_reason: Option<FinishReason>,
}

impl Writer {
    /// The tokens of the prompt and of the completion so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// What the model is to have before it: the tokens, or where they outgrew its context, the last of them. That is a
    /// token more than before after each step, or a beginning to be computed anew.
    pub fn window(&self) -> &[u32] {
        &self.tokens[self.window.start..]
    }

    /// How many tokens the model is to forget.
    pub fn forgotten(&self) -> usize {
        self.window.start
    }

    /// Positions it fills at most. The last token's own keys and values are not needed.
    pub fn positions(&self) -> usize {
        self.prompt.saturating_add(self.max_tokens.saturating_sub(1)).min(self.n_positions)
    }

    /// The prompt's tokens.
    pub fn prompt(&self) -> &[u32] {
        &self.tokens[..self.prompt]
    }

    /// The completion's tokens so far, one that ended it included.
    pub fn generated(&self) -> &[u32] {
        &self.tokens[self.prompt..]
    }

    /// Why it ended; none while it goes on.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish_reason
    }

    /// Writes the token that follows, given the logits behind the last one, `[vocab_size]`, and reports the
    /// `alternatives` most likely. The completion must not have ended.
    pub fn step(&mut self, logits: &[f32], tokenizer: Option<&Tokenizer>, alternatives: usize) -> Token {
        let (prompt, generated) = self.tokens.split_at(self.prompt);
        let sampled = self.sampler.sample(logits, prompt, generated);
        let top_logprobs = top_logprobs(logits, alternatives);
        self.tokens.push(sampled.id);

        let ends = self.sampler.params().stop_ids.contains(&sampled.id);
        let mut text = String::new();
        if let (Some(tokenizer), false) = (tokenizer, ends) {
            text = self.stopper.push(&self.characters.push(tokenizer.token_bytes(sampled.id)));
        }
        if ends || self.stopper.stopped() {
            self.finish_reason = Some(FinishReason::Stop);
        } else if self.generated().len() == self.max_tokens {
            self.finish_reason = Some(FinishReason::Length);
        }
        match self.finish_reason {
            Some(_) => text += &self.finish(),
            None => self.window.reach(self.tokens.len()),
        }
        Token { id: sampled.id, text, logprob: sampled.logprob, top_logprobs }
    }

    /// Ends the completion here and returns the text that was held back.
    pub fn finish(&mut self) -> String {
        self.finish_reason.get_or_insert(FinishReason::Length);
        let rest = self.characters.finish();
        self.stopper.push(&rest) + &self.stopper.finish()
    }
}
