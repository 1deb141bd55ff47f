//! Completions as OpenAI's API returns them: `text_completion` with choices, logprobs and usage.

use super::{FinishReason, Token};
use crate::tokenizer::{Tokenizer, Utf8Decoder};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// A `text_completion` object.
#[derive(Clone, Debug, Serialize)]
pub struct Completion {
    /// `cmpl-` and a unique suffix.
    pub id: String,
    /// `text_completion`
    pub object: &'static str,
    /// Unix time in seconds.
    pub created: u64,
    /// The model's name.
    pub model: String,
    /// The completions.
    pub choices: Vec<Choice>,
    /// Token counts.
    pub usage: Usage,
    /// The seed that reproduces the completions.
    pub seed: u64,
}

/// One completion, or its increment in a streamed chunk.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Choice {
    /// The text.
    pub text: String,
    /// Index among the choices.
    pub index: usize,
    /// Logprobs, if requested.
    pub logprobs: Option<Logprobs>,
    /// Finish reason; null while in progress.
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub finish_reason: Option<FinishReason>,
    /// The tokens, including an end-of-text token; omitted if not requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_ids: Option<Vec<u32>>,
}

/// Token counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Usage {
    /// Prompt tokens.
    pub prompt_tokens: usize,
    /// Generated tokens of all choices.
    pub completion_tokens: usize,
    /// The sum of both.
    pub total_tokens: usize,
}

/// Logprobs in the completions API's format: four lists with an entry per token.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Logprobs {
    /// The tokens' texts; `bytes:\xNN` for a token that is not valid UTF-8 by itself, and `token_id:15`
    /// without a tokenizer.
    pub tokens: Vec<String>,
    /// The tokens' logprobs; null for the first token of a prompt, which has no context.
    pub token_logprobs: Vec<Option<f32>>,
    /// The most likely tokens at each position, and the token itself.
    pub top_logprobs: Vec<Option<BTreeMap<String, f32>>>,
    /// Start of each token, in characters from the start of the prompt; 0 without a tokenizer.
    pub text_offset: Vec<usize>,
}

/// Returns a logprob as JSON can represent it: -9999 for minus infinity, as in OpenAI's API.
pub fn finite_logprob(logprob: f32) -> f32 {
    if logprob == f32::NEG_INFINITY { -9999.0 } else { logprob }
}

/// Computes each token's start in the decoded text, in characters, with invalid UTF-8 counted as its
/// replacement.
#[derive(Clone, Debug, Default)]
pub struct TextOffsets {
    utf8: Utf8Decoder,
    n_complete: usize,
}

impl TextOffsets {
    /// Appends a token and returns its start.
    pub fn push_token(&mut self, tokenizer: Option<&Tokenizer>, id: u32) -> usize {
        self.push(tokenizer.map_or(&[], |tokenizer| tokenizer.token_bytes(id)))
    }

    fn push(&mut self, bytes: &[u8]) -> usize {
        // A token in the middle of a character starts after it.
        let start = self.n_complete + self.utf8.clone().finish().chars().count();
        self.n_complete += self.utf8.push(bytes).chars().count();
        start
    }
}

impl Logprobs {
    /// Appends a token; `scored` is its logprob and the most likely tokens, none for the first of a prompt.
    pub fn push(
        &mut self,
        tokenizer: Option<&Tokenizer>,
        id: u32,
        scored: Option<(f32, &[(u32, f32)])>,
        offsets: &mut TextOffsets,
    ) {
        self.token_logprobs.push(scored.map(|(logprob, _)| finite_logprob(logprob)));
        self.top_logprobs.push(scored.map(|(logprob, top)| {
            let entry = |&(id, logprob): &(u32, f32)| (token_name(tokenizer, id), finite_logprob(logprob));
            top.iter().chain(&[(id, logprob)]).map(entry).collect()
        }));
        self.tokens.push(token_name(tokenizer, id));
        self.text_offset.push(offsets.push_token(tokenizer, id));
    }

    /// Appends a generated token.
    pub fn push_token(&mut self, tokenizer: Option<&Tokenizer>, token: &Token, offsets: &mut TextOffsets) {
        self.push(tokenizer, token.id, Some((token.logprob, &token.top_logprobs)), offsets);
    }
}

/// Returns a token's text, its bytes if they are not valid UTF-8, or its id without a tokenizer.
pub fn token_name(tokenizer: Option<&Tokenizer>, id: u32) -> String {
    let Some(tokenizer) = tokenizer else { return format!("token_id:{id}") };
    let bytes = tokenizer.token_bytes(id);
    match str::from_utf8(bytes) {
        Ok(text) => text.to_string(),
        Err(_) => bytes.iter().fold("bytes:".into(), |name, byte| format!("{name}\\x{byte:02x}")),
    }
}

impl Completion {
    /// Creates a completion of `choices` with the current time.
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
    fn text_offset_is_token_start_in_decoded_text() {
        let tokens: [&[u8]; 8] = [b"a", b"\xF0\x9F", b"\x98", b"\x80b", b"\x80", b"\x80c", b"\xE2", b"d"];
        let (mut offsets, mut bytes) = (TextOffsets::default(), vec![]);
        for token in tokens {
            let start = String::from_utf8_lossy(&bytes).chars().count();
            assert_eq!(offsets.push(token), start, "{token:x?} after {bytes:x?}");
            bytes.extend_from_slice(token);
        }
    }

    #[test]
    fn only_a_logprob_of_minus_infinity_is_written_as_minus_9999() {
        for (logprob, written) in [(f32::NEG_INFINITY, -9999.0), (-20_000.5, -20_000.5), (-1.5, -1.5)] {
            assert_eq!(finite_logprob(logprob), written);
        }
    }
}
