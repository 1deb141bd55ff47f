//! A finished completion in the shape of OpenAI's: `text_completion` with choices, logprobs and usage.

use super::{FinishReason, Token};
use crate::tokenizer::{Tokenizer, Utf8Decoder};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};
use utoipa::ToSchema;

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

/// One completion, or what is new of it in a chunk of a stream.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Choice {
    /// Its text.
    pub text: String,
    /// Which of them it is.
    pub index: usize,
    /// Logprobs, where they were asked for.
    pub logprobs: Option<Logprobs>,
    /// Why it ended; null while it goes on.
    #[schema(value_type = Option<String>)]
    pub finish_reason: Option<FinishReason>,
    /// Its tokens, one that ended it included; left out where nobody asked for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_ids: Option<Vec<u32>>,
}

/// Tokens counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens written, over all choices.
    pub completion_tokens: usize,
    /// Both.
    pub total_tokens: usize,
}

/// Logprobs as the completions API has them: four lists, one entry a token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
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

/// A logprob as JSON can hold it: -9999 instead of minus infinity.
pub fn finite_logprob(logprob: f32) -> f32 {
    logprob.max(-9999.0)
}

/// Where each token of a text begins, in characters, as the text is shown: what is no UTF-8 counts as it is replaced.
#[derive(Clone, Debug, Default)]
pub struct TextOffsets {
    characters: Utf8Decoder,
    complete: usize,
}

impl TextOffsets {
    /// Goes on behind a token's bytes and says where they began.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        // A token that continues a character begins behind it.
        let begins = self.complete + self.characters.clone().finish().chars().count();
        self.complete += self.characters.push(bytes).chars().count();
        begins
    }
}

impl Logprobs {
    /// Adds a token; `scored` is its logprob and the most likely tokens, none for the first of a prompt.
    pub fn push(
        &mut self,
        tokenizer: &Tokenizer,
        id: u32,
        scored: Option<(f32, &[(u32, f32)])>,
        offsets: &mut TextOffsets,
    ) {
        self.token_logprobs.push(scored.map(|(logprob, _)| finite_logprob(logprob)));
        self.top_logprobs.push(scored.map(|(logprob, top)| {
            let named = |&(id, logprob): &(u32, f32)| (token_name(tokenizer, id), finite_logprob(logprob));
            top.iter().chain(&[(id, logprob)]).map(named).collect()
        }));
        self.tokens.push(token_name(tokenizer, id));
        self.text_offset.push(offsets.push(tokenizer.token_bytes(id)));
    }

    /// Adds a step of a completion.
    pub fn push_token(&mut self, tokenizer: &Tokenizer, token: &Token, offsets: &mut TextOffsets) {
        self.push(tokenizer, token.id, Some((token.logprob, &token.top_logprobs)), offsets);
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
        let completion_tokens = choices.iter().flat_map(|choice| &choice.token_ids).map(Vec::len).sum();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_where_tokens_begin_in_the_text_that_is_shown() {
        let tokens: [&[u8]; 8] = [b"a", b"\xF0\x9F", b"\x98", b"\x80b", b"\x80", b"\x80c", b"\xE2", b"d"];
        let (mut offsets, mut bytes) = (TextOffsets::default(), vec![]);
        for token in tokens {
            let shown = String::from_utf8_lossy(&bytes).chars().count();
            assert_eq!(offsets.push(token), shown, "{token:x?} behind {bytes:x?}");
            bytes.extend_from_slice(token);
        }
    }

    #[test]
    fn no_logprob_is_more_than_json_can_hold() {
        for (logprob, shown) in [(f32::NEG_INFINITY, -9999.0), (f32::NAN, -9999.0), (-1.5, -1.5)] {
            assert_eq!(finite_logprob(logprob), shown);
        }
    }
}
