//! Chat as it is answered: a message, or deltas of one, with logprobs in a shape of their own.

use super::answer::{Answer, Reply, text};
use super::draft::{Draft, Piece};
use super::models::Served;
use crate::Token;
use crate::engine::Event;
use crate::generate::FinishReason;
use crate::generate::completion::{Usage, finite_logprob};
use crate::tokenizer::Tokenizer;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// A choice of a whole answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChatChoice {
    index: usize,
    message: Said,
    logprobs: Option<ChatLogprobs>,
    #[schema(value_type = Option<String>)]
    finish_reason: Option<FinishReason>,
}

/// The assistant's message.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Said {
    role: &'static str,
    content: String,
    /// Always null: nothing here refuses to speak.
    refusal: Option<String>,
}

/// A choice of a chunk.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChunkChoice {
    index: usize,
    delta: Delta,
    logprobs: Option<ChatLogprobs>,
    #[schema(value_type = Option<String>)]
    finish_reason: Option<FinishReason>,
}

/// What a message grows by.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
}

/// The logprobs of a message's tokens.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChatLogprobs {
    content: Vec<ChatLogprob>,
    refusal: Option<Vec<ChatLogprob>>,
}

/// A token's logprob, and its alternatives'.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChatLogprob {
    #[serde(flatten)]
    token: NamedLogprob,
    top_logprobs: Vec<NamedLogprob>,
}

/// A token and its logprob.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct NamedLogprob {
    token: String,
    logprob: f32,
    /// The token's bytes, which need not be whole characters.
    bytes: Vec<u8>,
}

impl NamedLogprob {
    fn new(tokenizer: &Tokenizer, id: u32, logprob: f32) -> Self {
        let bytes = tokenizer.token_bytes(id).to_vec();
        Self { token: String::from_utf8_lossy(&bytes).into_owned(), logprob: finite_logprob(logprob), bytes }
    }
}

/// The answer in a conversation.
pub struct Chat {
    /// Id, time and name of a whole answer.
    pub reply: Reply<ChatChoice>,
    /// Those of its chunks.
    pub deltas: Reply<ChunkChoice>,
    /// The model, for its tokenizer.
    pub served: Arc<Served>,
    /// Tokens of the conversation so far.
    pub prompt_tokens: usize,
    /// The choices.
    pub choices: Vec<Speaking>,
    /// Whether logprobs are wanted.
    pub logprobs: bool,
    /// Whether white space at the beginning is left out.
    pub trims: bool,
    /// Whether chunks speak of usage.
    pub usage: bool,
}

/// A choice in the making.
#[derive(Default)]
pub struct Speaking {
    draft: Draft,
    /// The role has been sent.
    begun: bool,
    /// Something that is not white space has been sent.
    spoken: bool,
}

impl Chat {
    /// What is new of a choice, without the white space before it.
    fn piece(&mut self, index: usize) -> Piece {
        let choice = &mut self.choices[index];
        let mut piece = choice.draft.take();
        if self.trims && !choice.spoken {
            piece.text = piece.text.trim_start().to_string();
        }
        choice.spoken |= !piece.text.is_empty();
        piece
    }

    /// Logprobs, where they are wanted. A token that ends the text is not part of what is said.
    fn logprobs(&self, tokens: &[Token]) -> Option<ChatLogprobs> {
        let tokenizer = self.served.hornbook().try_tokenizer().filter(|_| self.logprobs)?;
        let ends = &self.served.config().eos_token_ids;
        let said = tokens.iter().filter(|token| !ends.contains(&token.id));
        let content = said.map(|token| ChatLogprob {
            token: NamedLogprob::new(tokenizer, token.id, token.logprob),
            top_logprobs: token
                .top_logprobs
                .iter()
                .map(|&(id, logprob)| NamedLogprob::new(tokenizer, id, logprob))
                .collect(),
        });
        Some(ChatLogprobs { content: content.collect(), refusal: None })
    }

    fn usage(&self) -> Usage {
        let completion_tokens = self.choices.iter().map(|choice| choice.draft.count()).sum();
        let prompt_tokens = self.prompt_tokens;
        Usage { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
    }

    fn chunk(&self, choice: ChunkChoice) -> String {
        self.deltas.with(vec![choice], self.usage.then_some(None))
    }
}

impl Answer for Chat {
    fn take(&mut self, _: usize, event: Event) {
        let keep = self.logprobs;
        match event {
            Event::Token { choice, token } => self.choices[choice].draft.push(token, keep),
            Event::Finished { choice, reason } => self.choices[choice].draft.finish(reason),
            Event::Prompt(_) | Event::Embedding(_) | Event::Failed(_) => {}
        }
    }

    fn chunks(&mut self, _: usize) -> Vec<String> {
        let mut chunks = vec![];
        for index in 0..self.choices.len() {
            let opening = ChunkChoice { index, delta: Delta::default(), logprobs: None, finish_reason: None };
            if !std::mem::replace(&mut self.choices[index].begun, true) {
                let delta = Delta { role: Some("assistant"), content: Some(String::new()) };
                chunks.push(self.chunk(ChunkChoice { delta, ..opening.clone() }));
            }
            if !self.choices[index].draft.is_ready() {
                continue;
            }
            let piece = self.piece(index);
            let logprobs = self.logprobs(&piece.tokens);
            let has_logprobs = logprobs.as_ref().is_some_and(|logprobs| !logprobs.content.is_empty());
            if !piece.text.is_empty() || has_logprobs {
                let delta = Delta { role: None, content: Some(piece.text) };
                chunks.push(self.chunk(ChunkChoice { delta, logprobs, ..opening.clone() }));
            }
            if piece.reason.is_some() {
                chunks.push(self.chunk(ChunkChoice { finish_reason: piece.reason, ..opening }));
            }
        }
        chunks
    }

    fn usage_chunk(&self) -> String {
        self.deltas.with(vec![], Some(Some(self.usage())))
    }

    fn whole(mut self) -> String {
        self.reply.usage = Some(Some(self.usage()));
        for index in 0..self.choices.len() {
            let piece = self.piece(index);
            let message = Said { role: "assistant", content: piece.text, refusal: None };
            let logprobs = self.logprobs(&piece.tokens);
            self.reply.choices.push(ChatChoice { index, message, logprobs, finish_reason: piece.reason });
        }
        text(&self.reply)
    }
}
