//! The events of a request, streamed to the submitter.

use crate::{Error, FinishReason, Token};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// A partial result of a request.
#[derive(Debug)]
pub enum Event {
    /// The scored tokens of the prompt, if scoring was requested: once, before any token of a completion.
    Prompt(Vec<ScoredToken>),
    /// The next token of a completion.
    Token {
        /// Index of the completion, counted from 0.
        choice: usize,
        /// The token. Its text is as in [`Generation`](crate::Generation): whole characters, stop strings
        /// removed, and held-back text with the last token.
        token: Token,
    },
    /// A completion has ended.
    Finished {
        /// Index of the completion.
        choice: usize,
        /// Finish reason.
        reason: FinishReason,
    },
    /// The embedding, `[n_embd]`.
    Embedding(Vec<f32>),
    /// The engine or this request failed; no event follows.
    Failed(Error),
}

/// A token of the prompt with its logprob.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredToken {
    /// Token id.
    pub id: u32,
    /// The token's logprob given the tokens before it; none for the first.
    pub logprob: Option<f32>,
    /// The most likely tokens at this position with their logprobs, as many as requested; none for the first.
    pub top_logprobs: Vec<(u32, f32)>,
}

/// A request's events, in order. Dropping it cancels the request, whether waiting or running.
///
/// The engine never blocks on a slow reader: the stream buffers all events of the request, at most
/// `choices · (max_tokens + 1) + 1`.
#[derive(Debug)]
pub struct EventStream(UnboundedReceiver<Event>);

impl EventStream {
    /// Returns the next event; none after the last.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }

    /// Returns the next event; none after the last. Blocks the thread, so it is not for asynchronous code.
    ///
    /// # Panics
    /// Within a `tokio` runtime.
    pub fn blocking_next(&mut self) -> Option<Event> {
        self.0.blocking_recv()
    }
}

/// The engine's end of an [`EventStream`].
pub(super) type EventSender = UnboundedSender<Event>;

/// Creates a stream and the sender of its events.
pub(super) fn channel() -> (EventSender, EventStream) {
    let (events, received) = unbounded_channel();
    (events, EventStream(received))
}
