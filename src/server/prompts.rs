//! Prompts of a request: one or several, as text or as token ids.

use super::AppState;
use super::error::ApiError;
use super::models::ServedModel;
use serde::Deserialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// Maximum number of prompts per request.
pub const MAX_PROMPTS: usize = 2048;

/// OpenAI's default prompt; the only prompt that is parsed as a special token.
const END_OF_TEXT: &str = "<|endoftext|>";

/// The four formats of a prompt field.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "a string, a list of strings, a list of token ids, or a list of lists of token ids"
)]
pub enum Prompts {
    /// `"a"`
    Text(String),
    /// `["a", "b"]`
    Texts(Vec<String>),
    /// `[1, 2]`
    Ids(Vec<u32>),
    /// `[[1, 2], [3]]`
    IdLists(Vec<Vec<u32>>),
}

/// A tokenized prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prompt {
    /// Token ids; empty for the beginning of a text.
    pub ids: Vec<u32>,
    /// The text of its complete characters; empty if the model has no tokenizer.
    pub text: String,
    /// The replacement of a last character that the ids end inside. If tokens follow, they may complete it:
    /// it is part of their text.
    pub incomplete: String,
}

impl Prompt {
    /// Returns the number of tokens computed: an empty prompt becomes one end-of-text token.
    pub fn token_count(&self) -> usize {
        self.ids.len().max(1)
    }
}

impl Prompts {
    /// Returns the number of prompts.
    pub fn count(&self) -> usize {
        match self {
            Self::Text(_) | Self::Ids(_) => 1,
            Self::Texts(texts) => texts.len(),
            Self::IdLists(lists) => lists.len(),
        }
    }

    /// Tokenizes the prompts of the field `param`, on a blocking thread.
    ///
    /// # Errors
    /// 400 for no prompts or too many, for text without a tokenizer, and for token ids outside the
    /// vocabulary.
    pub async fn encode(
        self,
        app: &AppState,
        served: &Arc<ServedModel>,
        param: &'static str,
    ) -> Result<Vec<Prompt>, ApiError> {
        let served = Arc::clone(served);
        let bytes = match &self {
            Self::Text(text) => text.len(),
            Self::Texts(texts) => texts.iter().map(String::len).max().unwrap_or_default(),
            Self::Ids(_) | Self::IdLists(_) => 0,
        };
        app.memory.run(bytes, move || self.encode_all(&served, param)).await
    }

    fn encode_all(self, served: &ServedModel, param: &str) -> Result<Vec<Prompt>, ApiError> {
        let prompts: Vec<Result<Prompt, ApiError>> = match self {
            Self::Text(text) => vec![encode_text(served, text, param)],
            Self::Ids(ids) => vec![check_ids(served, ids, param)],
            Self::Texts(texts) if texts.len() <= MAX_PROMPTS => {
                texts.into_iter().map(|text| encode_text(served, text, param)).collect()
            }
            Self::IdLists(lists) if lists.len() <= MAX_PROMPTS => {
                lists.into_iter().map(|ids| check_ids(served, ids, param)).collect()
            }
            Self::Texts(_) | Self::IdLists(_) => {
                let message = format!("found more than {MAX_PROMPTS} prompts, the maximum");
                return Err(ApiError::invalid_param(param, message));
            }
        };
        match prompts.is_empty() {
            true => Err(ApiError::invalid_param(param, "found an empty list, expected at least one prompt")),
            false => prompts.into_iter().collect(),
        }
    }
}

fn encode_text(served: &ServedModel, text: String, param: &str) -> Result<Prompt, ApiError> {
    let tokenizer = served.tokenizer(param)?;
    let n_positions = served.config().n_positions;
    let min_tokens = tokenizer.min_token_count(&text);
    if min_tokens > n_positions {
        return Err(ApiError::context_length_exceeded(param, n_positions, min_tokens, 0));
    }
    let ids = tokenizer.encode(&text, text == END_OF_TEXT);
    let ids = ids.map_err(|error| ApiError::invalid_param(param, error.to_string()))?;
    Ok(Prompt { ids, text, incomplete: String::new() })
}

fn check_ids(served: &ServedModel, ids: Vec<u32>, param: &str) -> Result<Prompt, ApiError> {
    let vocab_size = served.config().vocab_size;
    if ids.is_empty() {
        return Err(ApiError::invalid_param(param, "found an empty list, expected at least one token id"));
    }
    let n_positions = served.config().n_positions;
    if ids.len() > n_positions {
        return Err(ApiError::context_length_exceeded(param, n_positions, ids.len(), 0));
    }
    if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocab_size) {
        return Err(ApiError::invalid_param(param, crate::Error::TokenId { id, vocab_size }.to_string()));
    }
    let decoded = served.hornbook().try_tokenizer().map(|tokenizer| tokenizer.decode_complete(&ids));
    let (text, incomplete) = decoded.map_or_else(Default::default, |(text, mut rest)| (text, rest.finish()));
    Ok(Prompt { ids, text, incomplete })
}
