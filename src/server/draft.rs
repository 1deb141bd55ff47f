//! One choice in the making, whatever shape it will be sent in.

use crate::Token;
use crate::generate::FinishReason;

/// A choice: what has come of it since it was last looked at, and what is known of all of it.
#[derive(Debug, Default)]
pub struct Draft {
    /// Text that has not been sent.
    text: String,
    /// Tokens that have not been sent, where someone wants to know of them.
    tokens: Vec<Token>,
    /// Tokens so far.
    count: usize,
    logprobs: f64,
    reason: Option<FinishReason>,
}

/// What has come of a choice.
#[derive(Debug)]
pub struct Piece {
    /// Its text.
    pub text: String,
    /// Its tokens, where they were kept.
    pub tokens: Vec<Token>,
    /// Why the choice ended, where it has.
    pub reason: Option<FinishReason>,
}

impl Draft {
    /// Adds a token; `keep` it where its id or logprob is asked for.
    pub fn push(&mut self, token: Token, keep: bool) {
        self.count += 1;
        self.logprobs += f64::from(token.logprob);
        self.text += &token.text;
        if keep {
            self.tokens.push(token);
        }
    }

    /// Ends it.
    pub fn finish(&mut self, reason: FinishReason) {
        self.reason = Some(reason);
    }

    /// Whether there is something to show. Tokens without text wait for the text they become.
    pub fn is_ready(&self) -> bool {
        !self.text.is_empty() || self.reason.is_some()
    }

    /// Whether tokens were kept that nobody has taken.
    pub fn has_tokens(&self) -> bool {
        !self.tokens.is_empty()
    }

    /// All that has not been taken.
    pub fn take(&mut self) -> Piece {
        Piece {
            text: std::mem::take(&mut self.text),
            tokens: std::mem::take(&mut self.tokens),
            reason: self.reason.take(),
        }
    }

    /// Tokens so far.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The mean logprob of its tokens, by which the best of several is chosen.
    pub fn mean_logprob(&self) -> f64 {
        self.logprobs / self.count.max(1) as f64
    }
}
