//! Buffer of one choice's tokens and text, independent of the response format.

use crate::Token;
use crate::generate::FinishReason;

/// A choice in progress: the text and tokens not yet sent, and running totals over all tokens.
#[derive(Debug, Default)]
pub struct ChoiceBuffer {
    /// Text not yet sent.
    text: String,
    /// Tokens not yet sent, if ids or logprobs were requested.
    tokens: Vec<Token>,
    /// Number of tokens generated so far.
    token_count: usize,
    logprob_sum: f64,
    finish_reason: Option<FinishReason>,
}

/// The part of a choice generated since the last one was taken.
#[derive(Debug)]
pub struct ChoiceDelta {
    /// The new text.
    pub text: String,
    /// The new tokens, if they were kept.
    pub tokens: Vec<Token>,
    /// Why the choice finished, if it has.
    pub finish_reason: Option<FinishReason>,
}

impl ChoiceBuffer {
    /// Appends a token; `keep` it if ids or logprobs were requested.
    pub fn push(&mut self, token: Token, keep: bool) {
        self.token_count += 1;
        self.logprob_sum += f64::from(token.logprob);
        self.text += &token.text;
        if keep {
            self.tokens.push(token);
        }
    }

    /// Marks the choice as finished.
    pub fn finish(&mut self, reason: FinishReason) {
        self.finish_reason = Some(reason);
    }

    /// Returns whether there is new text or a finish reason. A token without text waits for the rest of its
    /// character.
    pub fn is_ready(&self) -> bool {
        !self.text.is_empty() || self.finish_reason.is_some()
    }

    /// Returns whether there are kept tokens not yet taken.
    pub fn has_tokens(&self) -> bool {
        !self.tokens.is_empty()
    }

    /// Takes everything not yet sent.
    pub fn take(&mut self) -> ChoiceDelta {
        ChoiceDelta {
            text: std::mem::take(&mut self.text),
            tokens: std::mem::take(&mut self.tokens),
            finish_reason: self.finish_reason.take(),
        }
    }

    /// Returns the number of tokens generated so far.
    pub fn token_count(&self) -> usize {
        self.token_count
    }

    /// Returns the mean logprob of the tokens, by which `best_of` ranks choices.
    pub fn mean_logprob(&self) -> f64 {
        self.logprob_sum / self.token_count.max(1) as f64
    }
}
