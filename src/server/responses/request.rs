//! The request.

use super::input::{Input, InputItem, item_message};
use crate::chat::ChatMessage;
use crate::sampling::Overrides;
use crate::server::completion_limits::MaxTokens;
use crate::server::conversation::{MAX_MESSAGES, MAX_TOP_LOGPROBS};
use crate::server::error::ApiError;
use crate::server::json::RequestBody;
use crate::server::metadata;
use crate::server::parameters::{self, Parameters};
use crate::server::ranges::{integer_in_range, out_of_range};
use crate::server::unsupported::{Unsupported, neutral, off};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The value of `include` that asks for logprobs.
const INCLUDE_LOGPROBS: &str = "message.output_text.logprobs";
/// The other values of `include`: there is nothing of their kind to include.
const INCLUDE_NOTHING: [&str; 7] = [
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
];

/// A request for a response. All fields but `input` may be absent or null; unknown fields are ignored.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct ResponsesRequest {
    model: Option<String>,
    /// The conversation so far: the user's text, or messages.
    #[schema(value_type = Vec<InputItem>)]
    input: Option<Input>,
    /// A system message before the input.
    pub(super) instructions: Option<String>,
    /// Maximum number of tokens to generate.
    pub(super) max_output_tokens: Option<i64>,
    /// Number of alternatives per token, 0 to 20; requires `message.output_text.logprobs` in `include`.
    pub(super) top_logprobs: Option<i64>,
    /// What the response is to include: `message.output_text.logprobs` adds each token's logprob, the model's
    /// own, at temperature 1 and without filters.
    include: Option<Vec<String>>,
    /// What becomes of a conversation that does not fit the context: with `disabled`, the default, it is an
    /// error; with `auto` its oldest turns are left out.
    pub(super) truncation: Option<String>,
    /// Up to 16 pairs of texts, which are in the response.
    pub(super) metadata: Option<BTreeMap<String, String>>,
    /// `auto` or `none`. No tool is ever called: `tools` are ignored.
    pub(super) tool_choice: Option<String>,
    #[serde(flatten)]
    pub(super) parameters: Parameters,
    #[serde(flatten)]
    #[schema(ignore)]
    pub(super) sampling: Overrides<i64>,
}

impl RequestBody for ResponsesRequest {
    const FIELDS: &'static [&'static str] = &["input", "tools", "top_logprobs"];
    const UNSUPPORTED: &'static [Unsupported] = &[
        off("previous_response_id").instead("input"),
        off("conversation").instead("input"),
        off("prompt").instead("input"),
        off("store"),
        off("background"),
        off("context_management"),
        neutral("text.format", &[r#"{"type":"text"}"#]),
        neutral("text.verbosity", &["\"medium\""]),
        neutral("n", &["1"]),
        neutral("max_tokens", &[]).instead("max_output_tokens"),
        neutral("max_completion_tokens", &[]).instead("max_output_tokens"),
    ];

    fn validate(value: &Value) -> Result<(), ApiError> {
        parameters::validate(value)
    }
}

impl ResponsesRequest {
    /// Returns the requested model.
    pub(super) fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// Returns the maximum number of tokens.
    pub(super) fn max_tokens(&self) -> Result<MaxTokens, ApiError> {
        MaxTokens::new("max_output_tokens", self.max_output_tokens)
    }

    /// Returns the number of alternatives per token, or `None` without logprobs.
    pub(super) fn top_logprobs(&self) -> Result<Option<usize>, ApiError> {
        let top = integer_in_range("top_logprobs", self.top_logprobs, 0..=MAX_TOP_LOGPROBS)?;
        let include = self.include.as_deref().unwrap_or_default();
        let is_known = |name: &str| name == INCLUDE_LOGPROBS || INCLUDE_NOTHING.contains(&name);
        if let Some(i) = include.iter().position(|name| !is_known(name)) {
            let found = format!("{:?}", include[i]);
            return Err(out_of_range(
                &format!("include[{i}]"),
                found,
                format!("a value of OpenAI's API, such as {INCLUDE_LOGPROBS:?}"),
            ));
        }
        match (include.iter().any(|name| name == INCLUDE_LOGPROBS), top) {
            (true, top) => Ok(Some(top.unwrap_or(0))),
            (false, None | Some(0)) => Ok(None),
            (false, Some(top)) => {
                Err(out_of_range("top_logprobs", top, format!("0 unless {INCLUDE_LOGPROBS:?} is in include")))
            }
        }
    }

    /// Returns whether a conversation that does not fit is truncated.
    pub(super) fn truncates(&self) -> Result<bool, ApiError> {
        match self.truncation.as_deref() {
            None | Some("disabled") => Ok(false),
            Some("auto") => Ok(true),
            Some(other) => Err(out_of_range("truncation", format!("{other:?}"), "\"auto\" or \"disabled\"")),
        }
    }

    /// Returns the metadata.
    pub(super) fn metadata(&self) -> Result<BTreeMap<String, String>, ApiError> {
        metadata::check(self.metadata.as_ref())?;
        Ok(self.metadata.clone().unwrap_or_default())
    }

    /// Returns the conversation, with the instructions before it.
    pub(super) fn messages(&self) -> Result<Vec<ChatMessage>, ApiError> {
        let instructions = self.instructions.iter().map(|text| ChatMessage::new("system", text.clone()));
        let mut messages: Vec<ChatMessage> = instructions.collect();
        match &self.input {
            None => return Err(ApiError::invalid_param("input", "missing, expected a text or messages")),
            Some(Input::Text(text)) => messages.push(ChatMessage::new("user", text.clone())),
            Some(Input::Items(items)) if items.is_empty() || items.len() > MAX_MESSAGES => {
                let found = format!("{} items", items.len());
                return Err(out_of_range("input", found, format!("1 to {MAX_MESSAGES}")));
            }
            Some(Input::Items(items)) => {
                for (i, item) in items.iter().enumerate() {
                    messages.push(item_message(item, &format!("input[{i}]"))?);
                }
            }
        }
        Ok(messages)
    }
}
