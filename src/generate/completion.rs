//! A finished completion in the shape of OpenAI's: `text_completion` with choices, logprobs and usage.

use super::{FinishReason, Token};
use crate::tokenizer::Tokenizer;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// The whole answer.
#[derive(Clone, Debug, Serialize)]
pub struct Completion {
    /// `cmpl-` and something not used before.
    pub id: String,
    /// `text_completion`
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The model's name.
    pub model: String,
    /// The completions.
    pub choices: Vec<Choice>,
    /// What it cost.
    pub usage: Usage,
    /// The seed that gives the same completions again.
    pub seed: u64,
}

/// One completion.
#[derive(Clone, Debug, Serialize)]
pub struct Choice {
    /// Its text.
    pub text: String,
    /// Which of them it is.
    pub index: usize,
    /// Logprobs, where they were asked for.
    pub logprobs: Option<Logprobs>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Its tokens, one that ended it included.
    pub token_ids: Vec<u32>,
}

/// Tokens counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens written, over all choices.
    pub completion_tokens: usize,
    /// Both.
    pub total_tokens: usize,
}

/// Logprobs as the completions API has them: four lists, one entry a token.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Logprobs {
    /// The tokens' texts; `bytes:\xNN` where a token is only part of a character.
    pub tokens: Vec<String>,
    /// Their logprobs; null for the first token of a prompt, which nothing predicts.
    pub token_logprobs: Vec<Option<f32>>,
    /// The most likely tokens at that place, and the token itself.
    pub top_logprobs: Vec<Option<BTreeMap<String, f32>>>,
    /// Where the token begins, in characters from the start of the prompt.
    pub text_offset: Vec<usize>,
}

/// What JSON has instead of minus infinity.
const LOWEST_LOGPROB: f32 = -9999.0;

impl Logprobs {
    /// Adds a token that begins at character `offset`; `scored` is its logprob and the most likely tokens, none for the
    /// first of a prompt. Returns where the next begins.
    pub fn push(
        &mut self,
        tokenizer: &Tokenizer,
        id: u32,
        scored: Option<(f32, &[(u32, f32)])>,
        offset: usize,
    ) -> usize {
        let name = token_name(tokenizer, id);
        self.token_logprobs.push(scored.map(|(logprob, _)| logprob.max(LOWEST_LOGPROB)));
        self.top_logprobs.push(scored.map(|(logprob, top)| {
            let named =
                |&(id, logprob): &(u32, f32)| (token_name(tokenizer, id), logprob.max(LOWEST_LOGPROB));
            top.iter().chain(&[(id, logprob)]).map(named).collect()
        }));
        self.tokens.push(name);
        self.text_offset.push(offset);
        // A byte inside a character begins none.
        let begins = |&&byte: &&u8| byte & 0xc0 != 0x80;
        offset + tokenizer.token_bytes(id).iter().filter(begins).count()
    }

    /// Adds a step of a completion.
    pub fn push_token(&mut self, tokenizer: &Tokenizer, token: &Token, offset: usize) -> usize {
        self.push(tokenizer, token.id, Some((token.logprob, &token.top_logprobs)), offset)
    }
}

/// A token's text, or its bytes where they are no text.
pub fn token_name(tokenizer: &Tokenizer, id: u32) -> String {
    let bytes = tokenizer.token_bytes(id);
    match str::from_utf8(bytes) {
        Ok(text) => text.to_string(),
        Err(_) => bytes.iter().fold("bytes:".into(), |name, byte| format!("{name}\\x{byte:02x}")),
    }
}

impl Completion {
    /// An answer of `choices`, made now.
    pub fn new(model: &str, choices: Vec<Choice>, prompt_tokens: usize, seed: u64) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let completion_tokens = choices.iter().map(|choice| choice.token_ids.len()).sum();
        Self {
            id: format!("cmpl-{:x}{:x}", now.as_nanos(), std::process::id()),
            object: "text_completion",
            created: now.as_secs(),
            model: model.to_string(),
            choices,
            usage: Usage {
                prompt_tokens,
                completion_tokens,
                total_tokens: prompt_tokens + completion_tokens,
            },
            seed,
        }
    }
}

impl Serialize for FinishReason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
