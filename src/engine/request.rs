//! What can be asked of the engine.

use super::sequence::{Choice, Embedding, Task};
use crate::{Error, Hornbook, Options, Result};

/// The most completions of a prompt that one request may ask for, as in OpenAI's API.
pub const MAX_CHOICES: usize = 128;

/// A prompt and what is to be made of it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its tokens. None at all stands for the model's end-of-text token, after which a text begins.
    pub prompt: Vec<u32>,
    /// What is wanted.
    pub kind: Kind,
}

/// What a request wants.
#[derive(Clone, Debug)]
pub enum Kind {
    /// The prompt continued, scored, or both.
    Complete(Completion),
    /// The mean of the prompt's final hidden states, behind the last layer norm: `[n_embd]`.
    Embed,
}

/// How a prompt is continued.
#[derive(Clone, Debug)]
pub struct Completion {
    /// How tokens are chosen and when a completion ends. With `max_tokens` 0 nothing is written. More than the context
    /// has room for are cut down to that, as [`Hornbook::generate`] does. Its `kv_precision` has no say: see
    /// [`EngineOptions`](super::EngineOptions).
    pub options: Options,
    /// Completions of the prompt, 1 to [`MAX_CHOICES`]. The prompt is computed once.
    pub choices: usize,
    /// Which of the seed's random numbers the first choice uses; the others use those that follow. Prompts that are sent
    /// together start at different ones, so that equal prompts are not continued alike.
    pub first_stream: u64,
    /// The likeliest tokens reported with every token, at most the vocabulary.
    pub top_logprobs: usize,
    /// Report the prompt's tokens too, each with its logprob, in one [`Event::Prompt`](super::Event::Prompt).
    pub score_prompt: bool,
}

impl Default for Completion {
    /// One completion, nothing reported.
    fn default() -> Self {
        let options = Options::default();
        Self { options, choices: 1, first_stream: 0, top_logprobs: 0, score_prompt: false }
    }
}

/// Why a request was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Too many wait already; later there may be room.
    #[error("too many requests are waiting already")]
    QueueFull,
    /// The engine was closed.
    #[error("the engine takes no more requests")]
    Closed,
    /// It can never be done.
    #[error(transparent)]
    Invalid(#[from] Error),
}

impl Request {
    /// Its sequences, checked against the model.
    pub(super) fn tasks(&self, hornbook: &Hornbook) -> Result<Vec<Task>> {
        let completion = match &self.kind {
            Kind::Complete(completion) => completion,
            Kind::Embed => {
                let tokens = hornbook.prompt(&self.prompt)?;
                return Ok(vec![Task::Embed(Embedding::new(tokens, hornbook.config().n_embd))]);
            }
        };
        let within = |name: &str, found: usize, least: usize, most: usize| match found {
            n if (least..=most).contains(&n) => Ok(()),
            n => Err(Error::Parameter {
                name: name.into(),
                found: n.to_string(),
                expected: format!("a whole number from {least} to {most}"),
            }),
        };
        within("choices", completion.choices, 1, MAX_CHOICES)?;
        within("top_logprobs", completion.top_logprobs, 0, hornbook.config().vocab_size)?;
        let plan = hornbook.plan(&self.prompt, &completion.options)?;
        if completion.score_prompt {
            hornbook.prompt(plan.prompt())?; // whole: what is forgotten cannot be scored
        }
        let choice = |i| {
            let writer = plan.writer(completion.first_stream.wrapping_add(i as u64));
            let score_prompt = completion.score_prompt && i == 0;
            Task::Write(Box::new(Choice::new(i, writer, completion.top_logprobs, score_prompt)))
        };
        Ok((0..completion.choices).map(choice).collect())
    }
}
