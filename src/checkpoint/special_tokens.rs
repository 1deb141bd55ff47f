//! The special tokens that begin and end a text, as a model's tokenizer files name them.

use super::chat_template::{MAX_BYTES, TOKENIZER_CONFIG, parse_json};
use super::{Checkpoint, read_file};
use crate::error::Result;
use serde::Deserialize;

const SPECIAL_TOKENS_MAP: &str = "special_tokens_map.json";

/// A special token and the file that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecialToken {
    /// The token as it stands in a text: `<|endoftext|>`.
    pub text: String,
    /// The name of the file.
    pub file: &'static str,
}

/// The special tokens that begin and end a text, each from the first file that names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// The token that begins a text.
    pub bos: Option<SpecialToken>,
    /// The token that ends a text.
    pub eos: Option<SpecialToken>,
}

/// The two fields of either file; others are ignored.
#[derive(Deserialize)]
struct Fields {
    bos_token: Option<Token>,
    eos_token: Option<Token>,
}

/// A token's text, or an object that contains it.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a string or an object with content")]
enum Token {
    Text(String),
    Object { content: String },
}

impl Checkpoint {
    /// The special tokens, each from `tokenizer_config.json`, else from `special_tokens_map.json`. A token
    /// that neither names is in `config`, by its id.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) and [`Error::Checkpoint`](crate::Error::Checkpoint) for a file that
    /// exists and is unreadable or invalid.
    pub fn special_tokens(&self) -> Result<SpecialTokens> {
        let mut tokens = SpecialTokens::default();
        let Some(folder) = &self.folder else {
            return Ok(tokens); // fable's are in its config.json
        };
        for file in [TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP] {
            let path = folder.join(file);
            if !path.exists() {
                continue;
            }
            let Fields { bos_token, eos_token } = parse_json(&path, &read_file(&path, MAX_BYTES)?)?;
            let named = |token: Option<Token>| match token? {
                Token::Text(text) | Token::Object { content: text } => Some(SpecialToken { text, file }),
            };
            tokens.bos = tokens.bos.or(named(bos_token));
            tokens.eos = tokens.eos.or(named(eos_token));
        }
        Ok(tokens)
    }
}
