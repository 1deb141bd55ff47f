//! Completion responses: one object, or chunks of the same shape.

use super::choice_buffer::ChoiceBuffer;
use super::json::to_json;
use super::models::ServedModel;
use super::prompts::Prompt;
use super::response::{CompletionResponse, ResponseBuilder, closing_events, data_event};
use crate::engine::{Event, ScoredToken};
use crate::generate::completion::{Choice, Logprobs, TextOffsets, Usage};
use axum::response::sse;
use std::sync::Arc;

/// Builder of a completion response.
pub struct CompletionsResponseBuilder {
    /// The response, and the template of its chunks.
    pub response: CompletionResponse<Choice>,
    /// The model, for its tokenizer.
    pub served: Arc<ServedModel>,
    /// The prompts with their choices in progress.
    pub prompts: Vec<PromptChoices>,
    /// Number of choices returned per prompt.
    pub n: usize,
    /// Whether the prompt is returned before its completion.
    pub echo: bool,
    /// Whether logprobs were requested.
    pub include_logprobs: bool,
    /// Whether token ids were requested.
    pub include_token_ids: bool,
    /// Whether usage was requested for the stream.
    pub include_usage: bool,
}

/// A prompt with its choices in progress.
pub struct PromptChoices {
    prompt: Prompt,
    /// The prompt tokens' logprobs, if requested.
    scored: Vec<ScoredToken>,
    choices: Vec<ChoiceState>,
}

/// State of a choice in progress.
#[derive(Default)]
struct ChoiceState {
    buffer: ChoiceBuffer,
    offsets: TextOffsets,
    /// The first chunk, which contains an echoed prompt, has been sent.
    started: bool,
}

impl From<(Prompt, usize)> for PromptChoices {
    /// Creates the state of a prompt with this number of choices.
    fn from((prompt, choices): (Prompt, usize)) -> Self {
        Self { prompt, scored: vec![], choices: (0..choices).map(|_| ChoiceState::default()).collect() }
    }
}

impl CompletionsResponseBuilder {
    /// Takes the new part of a choice; `index` is its number in the response.
    fn take_choice(&mut self, prompt: usize, choice: usize, index: usize) -> Choice {
        let PromptChoices { prompt, scored, choices } = &mut self.prompts[prompt];
        let ChoiceState { buffer, offsets, started } = &mut choices[choice];
        let tokenizer = self.served.hornbook().try_tokenizer();
        let mut logprobs = self.include_logprobs.then(Logprobs::default);
        let delta = buffer.take();
        let mut text = String::new();
        let is_first = !std::mem::replace(started, true);
        if is_first && self.echo {
            text.push_str(&prompt.text);
        }
        if let Some(logprobs) = &mut logprobs {
            // An empty prompt was replaced by the end-of-text token, which is not echoed.
            if is_first && self.echo && !prompt.ids.is_empty() {
                for token in scored.iter() {
                    let logprob = token.logprob.map(|logprob| (logprob, token.top_logprobs.as_slice()));
                    logprobs.push(tokenizer, token.id, logprob, offsets);
                }
            } else if is_first {
                for &id in &prompt.ids {
                    offsets.push_token(tokenizer, id);
                }
            }
            for token in &delta.tokens {
                logprobs.push_token(tokenizer, token, offsets);
            }
        }
        text.push_str(&delta.text);
        if self.echo && delta.finish_reason.is_some() && buffer.token_count() == 0 {
            text.push_str(&prompt.incomplete);
        }
        let token_ids = self.include_token_ids.then(|| delta.tokens.iter().map(|token| token.id).collect());
        Choice { text, index, logprobs, finish_reason: delta.finish_reason, token_ids }
    }

    fn usage(&self) -> Usage {
        let prompt_tokens =
            self.prompts.iter().map(|prompt_choices| prompt_choices.prompt.token_count()).sum();
        let choices = self.prompts.iter().flat_map(|prompt_choices| &prompt_choices.choices);
        let completion_tokens = choices.map(|choice| choice.buffer.token_count()).sum();
        Usage { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
    }
}

impl ResponseBuilder for CompletionsResponseBuilder {
    fn push_event(&mut self, prompt: usize, event: Event) {
        let keep = self.include_logprobs || self.include_token_ids;
        let prompt_choices = &mut self.prompts[prompt];
        match event {
            Event::Prompt(scored) => prompt_choices.scored = scored,
            Event::Token { choice, token } => prompt_choices.choices[choice].buffer.push(token, keep),
            Event::Finished { choice, reason } => prompt_choices.choices[choice].buffer.finish(reason),
            Event::Embedding(_) | Event::Failed(_) => {}
        }
    }

    fn chunks(&mut self, prompt: usize) -> Vec<sse::Event> {
        let (echo, token_ids) = (self.echo, self.include_token_ids);
        let ready = |(_, ChoiceState { buffer, started, .. }): &(usize, &ChoiceState)| {
            buffer.is_ready() || (echo && !started) || (token_ids && buffer.has_tokens())
        };
        let ready: Vec<usize> =
            self.prompts[prompt].choices.iter().enumerate().filter(ready).map(|(choice, _)| choice).collect();
        let usage = self.include_usage.then_some(None);
        let chunk = |choice| {
            let choice = self.take_choice(prompt, choice, prompt * self.n + choice);
            data_event(self.response.chunk_json(vec![choice], usage))
        };
        ready.into_iter().map(chunk).collect()
    }

    fn closing(&mut self) -> Vec<sse::Event> {
        let usage_chunk = || self.response.chunk_json(vec![], Some(Some(self.usage())));
        closing_events(self.include_usage.then(usage_chunk))
    }

    fn into_body(mut self) -> String {
        let usage = self.usage();
        for prompt in 0..self.prompts.len() {
            let choices = &self.prompts[prompt].choices;
            let mut best: Vec<usize> = (0..choices.len()).collect();
            if choices.len() > self.n {
                let mean_logprob = |&choice: &usize| choices[choice].buffer.mean_logprob();
                best.sort_by(|a, b| mean_logprob(b).total_cmp(&mean_logprob(a)));
                best.truncate(self.n);
            }
            for (j, choice) in best.into_iter().enumerate() {
                let choice = self.take_choice(prompt, choice, prompt * self.n + j);
                self.response.choices.push(choice);
            }
        }
        self.response.usage = Some(Some(usage));
        to_json(&self.response)
    }
}
