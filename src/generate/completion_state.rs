//! The state of one completion: samples a token from logits, decodes it to text, and checks the stopping
//! criteria. It is independent of where the logits come from: a session of one sequence, or the engine's
//! batch.

use super::context::ContextWindow;
use super::sentence::ends_with_sentence;
use crate::sampling::{Sampler, SamplingParams, StopMatcher, top_logprobs};
use crate::tokenizer::{Tokenizer, Utf8Decoder};

/// A generated token.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Token id.
    pub id: u32,
    /// Text that is final with this token. Incomplete characters and possible stop strings are held back, so
    /// it may be empty; the last token brings the rest, and the concatenation is the completion. If the
    /// prompt ends inside a character, that character is part of the completion. Empty without a tokenizer.
    pub text: String,
    /// The token's logprob in the model's unmodified distribution (temperature 1, no filters).
    pub logprob: f32,
    /// The most likely tokens with their logprobs, as many as requested.
    pub top_logprobs: Vec<(u32, f32)>,
}

/// The reason a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// A stop string or an end-of-text token.
    Stop,
    /// `max_tokens` or the end of the context.
    Length,
}

impl FinishReason {
    /// The OpenAI API's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
        }
    }
}

/// A prompt with its options, validated against a model: the common start of its completions.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) prompt: Vec<u32>,
    pub(super) sampling: SamplingParams,
    /// Number of tokens from which on the completion ends with a sentence; `max_tokens` if only there.
    pub(super) sentence_from: usize,
    pub(super) max_tokens: usize,
    /// The model's context.
    pub(super) n_positions: usize,
    /// In its initial state.
    pub(super) stop_matcher: StopMatcher,
}

impl Plan {
    /// The prompt's tokens, at least one.
    pub fn prompt(&self) -> &[u32] {
        &self.prompt
    }

    /// Starts a completion. Each `stream` of a seed is a separate sequence of random numbers.
    pub fn start_completion(&self, stream: u64) -> CompletionState {
        let mut tokens = Vec::with_capacity(self.prompt.len() + self.max_tokens.min(self.n_positions));
        tokens.extend_from_slice(&self.prompt);
        CompletionState {
            sampler: Sampler::new(self.sampling.clone(), stream),
            stop_matcher: self.stop_matcher.clone(),
            utf8: Utf8Decoder::new(),
            tokens,
            prompt_len: self.prompt.len(),
            sentence_from: self.sentence_from,
            text: String::new(),
            max_tokens: self.max_tokens,
            n_positions: self.n_positions,
            window: ContextWindow::new(self.n_positions, self.prompt.len()),
            finish_reason: (self.max_tokens == 0).then_some(FinishReason::Length),
        }
    }
}

/// The state of one completion.
#[derive(Clone, Debug)]
pub struct CompletionState {
    sampler: Sampler,
    stop_matcher: StopMatcher,
    utf8: Utf8Decoder,
    /// Tokens of the prompt and the completion.
    tokens: Vec<u32>,
    prompt_len: usize,
    sentence_from: usize,
    /// The text so far, if it may end with a sentence.
    text: String,
    max_tokens: usize,
    n_positions: usize,
    window: ContextWindow,
    finish_reason: Option<FinishReason>,
}

impl CompletionState {
    /// The tokens of the prompt and of the completion so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The tokens in the model's context: all, or the last ones after a context shift. After each step they
    /// are those before plus one, or a new window to be computed from its start.
    pub fn window(&self) -> &[u32] {
        &self.tokens[self.window.start..]
    }

    /// Number of tokens discarded by context shifts.
    pub fn discarded(&self) -> usize {
        self.window.start
    }

    /// Maximum positions of the KV cache. The last token's own keys and values are not needed.
    pub fn max_positions(&self) -> usize {
        self.prompt_len.saturating_add(self.max_tokens.saturating_sub(1)).min(self.n_positions)
    }

    /// The prompt's tokens.
    pub fn prompt(&self) -> &[u32] {
        &self.tokens[..self.prompt_len]
    }

    /// The completion's tokens so far, including an end-of-text token.
    pub fn generated(&self) -> &[u32] {
        &self.tokens[self.prompt_len..]
    }

    /// What chooses its tokens.
    pub(super) fn sampler(&self) -> &Sampler {
        &self.sampler
    }

    /// The finish reason; none while the completion is in progress.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish_reason
    }

    /// Samples the next token from the last token's logits, `[vocab_size]`, and reports the `n_top_logprobs`
    /// most likely tokens. The completion must not have ended.
    pub fn step(&mut self, logits: &[f32], tokenizer: Option<&Tokenizer>, n_top_logprobs: usize) -> Token {
        let (prompt, generated) = self.tokens.split_at(self.prompt_len);
        let sampled = self.sampler.sample(logits, prompt, generated);
        let top_logprobs = top_logprobs(logits, n_top_logprobs);
        if let (Some(tokenizer), true) = (tokenizer, self.tokens.len() == self.prompt_len) {
            self.utf8 = tokenizer.decode_complete(&self.tokens).1;
        }
        self.tokens.push(sampled.id);

        let is_stop_id = self.sampler.params().stop_ids.contains(&sampled.id);
        let mut text = String::new();
        if let (Some(tokenizer), false) = (tokenizer, is_stop_id) {
            let decoded = self.utf8.push(tokenizer.token_bytes(sampled.id));
            if self.sentence_from < self.max_tokens {
                self.text += &decoded;
            }
            text = self.stop_matcher.push(&decoded);
        }
        if is_stop_id || self.stop_matcher.stopped() {
            self.finish_reason = Some(FinishReason::Stop);
        } else if self.generated().len() == self.max_tokens || self.ends_with_sentence() {
            self.finish_reason = Some(FinishReason::Length);
        }
        match self.finish_reason {
            Some(_) => text += &self.finish(),
            None => self.window.shift_to_fit(self.tokens.len()),
        }
        Token { id: sampled.id, text, logprob: sampled.logprob, top_logprobs }
    }

    /// Whether the completion is long enough and ends with a sentence: within an open quotation, only
    /// beyond the first third of the margin.
    fn ends_with_sentence(&self) -> bool {
        let margin = self.max_tokens - self.sentence_from;
        let beyond = self.generated().len().checked_sub(self.sentence_from);
        margin > 0 && beyond.is_some_and(|beyond| ends_with_sentence(&self.text, 3 * beyond < margin))
    }

    /// Ends the completion here and returns the held-back text, which may complete a stop string.
    pub fn finish(&mut self) -> String {
        let text = self.stop_matcher.push(&self.utf8.finish());
        if self.stop_matcher.stopped() {
            self.finish_reason = Some(FinishReason::Stop);
        }
        self.finish_reason.get_or_insert(FinishReason::Length);
        text + &self.stop_matcher.finish()
    }
}
