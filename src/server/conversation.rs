//! Conversations and their answers: what chat completions and responses have in common.

use super::AppState;
use super::completion_limits::MaxTokens;
use super::error::ApiError;
use super::models::ServedModel;
use super::request_context::RequestContext;
use super::submission::Submission;
use crate::Error;
use crate::chat::{ChatMessage, ChatTemplate};
use crate::engine::{CompletionParams, Request, RequestKind, SubmitError};
use crate::generate::Options;
use serde::Deserialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// Maximum number of alternatives per token.
pub const MAX_TOP_LOGPROBS: usize = 20;
/// Maximum number of messages.
pub const MAX_MESSAGES: usize = 2048;

/// The content of a message: a text, or a list of parts.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a string or a list of parts")]
pub enum Content {
    /// A text.
    Text(String),
    /// A list of parts, which are concatenated.
    Parts(Vec<Part>),
}

/// A part of a message's content.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Part {
    /// Part type, which must be one of text.
    #[serde(rename = "type")]
    kind: String,
    /// The text.
    #[serde(default)]
    text: Option<String>,
}

impl Content {
    /// Returns the text, with parts of these `kinds` concatenated. `name` is the field's path.
    ///
    /// # Errors
    /// 400 for a part of another kind.
    pub fn text(&self, name: &str, kinds: &[&str]) -> Result<String, ApiError> {
        let parts = match self {
            Self::Text(text) => return Ok(text.clone()),
            Self::Parts(parts) => parts,
        };
        if let Some((i, part)) =
            parts.iter().enumerate().find(|(_, part)| !kinds.contains(&part.kind.as_str()))
        {
            let expected = kinds.iter().map(|kind| format!("{kind:?}")).collect::<Vec<_>>().join(" or ");
            let message = format!("found {:?}, expected {expected}", part.kind);
            return Err(ApiError::invalid_param(&format!("{name}[{i}].type"), message));
        }
        Ok(parts.iter().filter_map(|part| part.text.as_deref()).collect())
    }
}

/// A conversation of which the next message is to be generated.
pub struct Conversation {
    /// The messages so far.
    pub messages: Vec<ChatMessage>,
    /// The request field they came from.
    pub param: &'static str,
    /// Whether the oldest turns may be left out if the conversation does not fit the context.
    pub truncate: bool,
}

/// The answers to generate.
pub struct AnswerParams {
    /// Sampling and stopping, without the template's own stop strings.
    pub options: Options,
    /// Maximum number of tokens.
    pub max_tokens: MaxTokens,
    /// Number of answers.
    pub n: usize,
    /// Number of alternatives per token; none without logprobs.
    pub top_logprobs: Option<usize>,
}

/// Answers that the engine has accepted.
pub struct Answers {
    /// The engine's events.
    pub submission: Submission,
    /// Number of prompt tokens.
    pub prompt_tokens: usize,
    /// Whether leading white space of an answer belongs to the template and is trimmed.
    pub trim_start: bool,
}

impl Conversation {
    /// Submits the conversation to the engine, as the prompt that the model's chat template makes of it.
    ///
    /// # Errors
    /// 400 for a conversation that the template refuses or the context cannot hold, 429 for one that the rate
    /// limits or the queue have no room for.
    pub async fn answer(
        self,
        app: &AppState,
        context: &RequestContext,
        served: &Arc<ServedModel>,
        params: AnswerParams,
    ) -> Result<Answers, ApiError> {
        let (param, requested) = (self.param, params.max_tokens.requested);
        let template = Arc::clone(served.template()?);
        let mut options = params.options;
        options.stop.extend_from_slice(template.stop());
        let n_positions = served.config().n_positions;
        // Without max_tokens the completion may fill the context, which must have room for one token.
        let min_completion = requested.unwrap_or(1);
        let (text, prompt) =
            self.prompt(app, served, &template, n_positions.saturating_sub(min_completion)).await?;
        if app.log_prompts {
            context.set_prompt(text);
        }
        let prompt_tokens = prompt.len().max(1);
        if prompt_tokens.saturating_add(min_completion) > n_positions {
            return Err(ApiError::context_length_exceeded(param, n_positions, prompt_tokens, min_completion));
        }
        let default_max_tokens = || served.default_max_tokens(prompt_tokens, n_positions - prompt_tokens);
        let max_tokens = *options.max_tokens.get_or_insert_with(default_max_tokens);
        app.reserve(context, prompt_tokens + params.n * max_tokens).await?;
        let completion = CompletionParams {
            options,
            choices: params.n,
            top_logprobs: params.top_logprobs.unwrap_or(0),
            ..CompletionParams::default()
        };
        let (kind, adapter) = (RequestKind::Complete(completion), served.adapter.clone());
        let requests = vec![Request { prompt, kind, adapter, priority: context.priority }];
        let submission = Submission::start(app, served, requests, param)?;
        context.set_prompt_tokens(prompt_tokens);
        Ok(Answers { submission, prompt_tokens, trim_start: template.trims_answer() })
    }

    /// Applies the chat template, on a blocking thread; returns the prompt as text and as tokens, of at most
    /// `max_tokens` if truncation can achieve that.
    async fn prompt(
        self,
        app: &AppState,
        served: &Arc<ServedModel>,
        template: &Arc<ChatTemplate>,
        max_tokens: usize,
    ) -> Result<(String, Vec<u32>), ApiError> {
        let (served, template) = (Arc::clone(served), Arc::clone(template));
        let Self { mut messages, param, truncate } = self;
        let bytes = messages.iter().map(|message| message.content.len()).sum();
        let work = move || {
            served.tokenizer(param)?;
            if truncate {
                messages =
                    truncated(messages, |messages| match template.apply(messages, served.hornbook()) {
                        Ok((_, ids)) => ids.len() <= max_tokens,
                        Err(error) => !matches!(error, Error::ContextOverflow { .. }),
                    });
            }
            template.apply(&messages, served.hornbook()).map_err(|error| match error {
                Error::Parameter { .. } | Error::ContextOverflow { .. } => {
                    ApiError::from_submit_error(SubmitError::Invalid(error), param)
                }
                error => ApiError::invalid_param(param, error.to_string()),
            })
        };
        app.memory.run(bytes, work).await
    }
}

/// Leaves out as few of the oldest turns as make the conversation fit. System messages stay; what is left
/// begins with a message of the user, since templates may require that.
fn truncated(messages: Vec<ChatMessage>, fits: impl Fn(&[ChatMessage]) -> bool) -> Vec<ChatMessage> {
    if fits(&messages) {
        return messages;
    }
    let (system, turns): (Vec<_>, Vec<_>) = messages.into_iter().partition(ChatMessage::is_system);
    let starts: Vec<usize> = (0..turns.len()).filter(|&i| turns[i].role == "user").collect();
    let from = |start: usize| [&system[..], &turns[start..]].concat();
    let first_fitting = starts.partition_point(|&start| !fits(&from(start)));
    from(starts.get(first_fitting).or(starts.last()).copied().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_turns_are_left_out_and_system_messages_stay() {
        let roles = ["system", "user", "assistant", "user", "assistant", "developer", "user"];
        let messages: Vec<ChatMessage> =
            roles.iter().enumerate().map(|(i, role)| ChatMessage::new(role, i.to_string())).collect();
        let kept = |max: usize| -> String {
            let kept = truncated(messages.clone(), |messages| messages.len() <= max);
            kept.into_iter().map(|message| message.content).collect()
        };
        assert_eq!(kept(7), "0123456");
        assert_eq!(kept(6), "05346");
        assert_eq!(kept(5), "05346");
        assert_eq!([kept(4), kept(3), kept(0)], ["056", "056", "056"]);
        let answer = vec![ChatMessage::new("assistant", "a")];
        assert_eq!(truncated(answer.clone(), |_| false), answer);
    }
}
