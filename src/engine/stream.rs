//! What comes of a request, as it comes.

use crate::{Error, FinishReason, Token};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Something that has come of a request.
#[derive(Debug)]
pub enum Event {
    /// The prompt's tokens, where they were to be scored: once, before any token of a completion.
    Prompt(Vec<ScoredToken>),
    /// A completion has grown by a token.
    Token {
        /// Which completion, counted from 0.
        choice: usize,
        /// The token, its text as [`Generation`](crate::Generation) gives it: whole characters, stop strings cut off,
        /// and what was held back with the last.
        token: Token,
    },
    /// A completion has ended.
    Finished {
        /// Which completion.
        choice: usize,
        /// Why.
        reason: FinishReason,
    },
    /// The embedding, `[n_embd]`.
    Embedding(Vec<f32>),
    /// The engine failed; nothing more will come.
    Failed(Error),
}

/// A token of the prompt and how likely the model thought it.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredToken {
    /// The token.
    pub id: u32,
    /// Its logprob after those before it; none for the first.
    pub logprob: Option<f32>,
    /// The likeliest tokens in its place with their logprobs, as many as were asked for; none for the first.
    pub top_logprobs: Vec<(u32, f32)>,
}

/// A request's events in their order. Dropping it cancels the request wherever it is: waiting, or being computed.
///
/// It never makes the engine wait. A reader who is slow finds the events of a whole request here, of which there are no
/// more than `choices · (max_tokens + 1) + 1`.
#[derive(Debug)]
pub struct Stream(UnboundedReceiver<Event>);

impl Stream {
    /// The next event; none after the last.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }

    /// The next event; none after the last. Not for asynchronous code, whose thread it would block.
    ///
    /// # Panics
    /// Within a `tokio` runtime.
    pub fn blocking_next(&mut self) -> Option<Event> {
        self.0.blocking_recv()
    }
}

/// Where a request's events go.
pub(super) type Events = UnboundedSender<Event>;

/// A stream and its other end.
pub(super) fn stream() -> (Events, Stream) {
    let (events, received) = unbounded_channel();
    (events, Stream(received))
}
