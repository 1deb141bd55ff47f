//! What a request gives the model to read: one text or several, as text or as token ids.

use super::error::ApiError;
use super::models::Served;
use serde::Deserialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// The most prompts of one request.
pub const MAX_PROMPTS: usize = 2048;

/// The one special token that is known by name: OpenAI's default prompt, after which a text begins.
const END_OF_TEXT: &str = "<|endoftext|>";

/// The four shapes.
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

/// One of them, as the model reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// Its tokens; none at all is the beginning of a text.
    pub ids: Vec<u32>,
    /// Its text; empty where the model has no tokenizer.
    pub text: String,
}

impl Prompt {
    /// How many tokens the model reads: it reads one where there is none.
    pub fn tokens(&self) -> usize {
        self.ids.len().max(1)
    }
}

impl Prompts {
    /// The prompts of field `param`, on a thread that may take its time.
    ///
    /// # Errors
    /// 400 for no prompt or too many, for text without a tokenizer, and for ids the model lacks.
    pub async fn read(self, served: &Arc<Served>, param: &'static str) -> Result<Vec<Prompt>, ApiError> {
        let served = Arc::clone(served);
        let read = tokio::task::spawn_blocking(move || self.read_all(&served, param));
        read.await.unwrap_or_else(|error| Err(ApiError::internal(error.to_string())))
    }

    fn read_all(self, served: &Served, param: &str) -> Result<Vec<Prompt>, ApiError> {
        let prompts: Vec<Result<Prompt, ApiError>> = match self {
            Self::Text(text) => vec![encode(served, text, param)],
            Self::Ids(ids) => vec![check(served, ids, param)],
            Self::Texts(texts) if texts.len() <= MAX_PROMPTS => {
                texts.into_iter().map(|text| encode(served, text, param)).collect()
            }
            Self::IdLists(lists) if lists.len() <= MAX_PROMPTS => {
                lists.into_iter().map(|ids| check(served, ids, param)).collect()
            }
            Self::Texts(_) | Self::IdLists(_) => {
                let message = format!("found more than {MAX_PROMPTS} of them, expected fewer");
                return Err(ApiError::param(param, message));
            }
        };
        match prompts.is_empty() {
            true => Err(ApiError::param(param, "found an empty list, expected at least one")),
            false => prompts.into_iter().collect(),
        }
    }
}

fn encode(served: &Served, text: String, param: &str) -> Result<Prompt, ApiError> {
    let tokenizer = served.tokenizer(param)?;
    let ids = tokenizer.encode(&text, text == END_OF_TEXT);
    let ids = ids.map_err(|error| ApiError::param(param, error.to_string()))?;
    Ok(Prompt { ids, text })
}

fn check(served: &Served, ids: Vec<u32>, param: &str) -> Result<Prompt, ApiError> {
    let vocab_size = served.config().vocab_size;
    if ids.is_empty() {
        return Err(ApiError::param(param, "found an empty list, expected at least one token id"));
    }
    if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocab_size) {
        return Err(ApiError::param(param, crate::Error::TokenId { id, vocab_size }.to_string()));
    }
    let text = served.hornbook().try_tokenizer().map_or_else(String::new, |t| t.decode(&ids));
    Ok(Prompt { ids, text })
}
