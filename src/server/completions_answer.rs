//! Completions as they are answered: one object, or chunks of the same shape.

use super::answer::{Answer, Reply, text};
use super::draft::Draft;
use super::models::Served;
use super::prompts::Prompt;
use crate::engine::{Event, ScoredToken};
use crate::generate::completion::{Choice, Logprobs, TextOffsets, Usage};
use std::sync::Arc;

/// The answer to a request for completions.
pub struct Completions {
    /// Id, time and name.
    pub reply: Reply<Choice>,
    /// The model, for its tokenizer.
    pub served: Arc<Served>,
    /// The prompts with their choices.
    pub prompts: Vec<Prompted>,
    /// Choices that are kept of each prompt.
    pub n: usize,
    /// Whether the prompt comes before its completion.
    pub echo: bool,
    /// Whether logprobs are wanted.
    pub logprobs: bool,
    /// Whether token ids are wanted.
    pub token_ids: bool,
    /// Whether chunks speak of usage.
    pub usage: bool,
}

/// A prompt and its choices.
pub struct Prompted {
    prompt: Prompt,
    /// Its tokens' logprobs, where they were asked for.
    scored: Vec<ScoredToken>,
    choices: Vec<InTheMaking>,
}

#[derive(Default)]
struct InTheMaking {
    draft: Draft,
    offsets: TextOffsets,
    /// The first part has been sent, the prompt with it where it is echoed.
    begun: bool,
}

impl From<(Prompt, usize)> for Prompted {
    /// A prompt of which so many choices will be made.
    fn from((prompt, choices): (Prompt, usize)) -> Self {
        Self { prompt, scored: vec![], choices: (0..choices).map(|_| InTheMaking::default()).collect() }
    }
}

impl Completions {
    /// What is new of a choice; `index` is what the client knows it by.
    fn choice(&mut self, prompt: usize, choice: usize, index: usize) -> Choice {
        let Prompted { prompt, scored, choices } = &mut self.prompts[prompt];
        let InTheMaking { draft, offsets, begun } = &mut choices[choice];
        let tokenizer = self.served.hornbook().try_tokenizer().filter(|_| self.logprobs);
        let mut logprobs = tokenizer.map(|_| Logprobs::default());
        let piece = draft.take();
        let mut text = String::new();
        if !std::mem::replace(begun, true) {
            if self.echo {
                text.push_str(&prompt.text);
            }
            match (tokenizer, &mut logprobs) {
                // A prompt that is nothing was read as a token that nobody typed.
                (Some(tokenizer), Some(logprobs)) if self.echo && !prompt.ids.is_empty() => {
                    for token in scored.iter() {
                        let known = token.logprob.map(|logprob| (logprob, token.top_logprobs.as_slice()));
                        logprobs.push(tokenizer, token.id, known, offsets);
                    }
                }
                (Some(tokenizer), _) => {
                    for &id in &prompt.ids {
                        offsets.push(tokenizer.token_bytes(id));
                    }
                }
                (None, _) => {}
            }
        }
        if let (Some(tokenizer), Some(logprobs)) = (tokenizer, &mut logprobs) {
            for token in &piece.tokens {
                logprobs.push_token(tokenizer, token, offsets);
            }
        }
        text.push_str(&piece.text);
        let token_ids = self.token_ids.then(|| piece.tokens.iter().map(|token| token.id).collect());
        Choice { text, index, logprobs, finish_reason: piece.reason, token_ids }
    }

    fn usage(&self) -> Usage {
        let prompt_tokens = self.prompts.iter().map(|prompted| prompted.prompt.tokens()).sum();
        let choices = self.prompts.iter().flat_map(|prompted| &prompted.choices);
        let completion_tokens = choices.map(|choice| choice.draft.count()).sum();
        Usage { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
    }
}

impl Answer for Completions {
    fn take(&mut self, prompt: usize, event: Event) {
        let keep = self.logprobs || self.token_ids;
        let prompted = &mut self.prompts[prompt];
        match event {
            Event::Prompt(scored) => prompted.scored = scored,
            Event::Token { choice, token } => prompted.choices[choice].draft.push(token, keep),
            Event::Finished { choice, reason } => prompted.choices[choice].draft.finish(reason),
            Event::Embedding(_) | Event::Failed(_) => {}
        }
    }

    fn chunks(&mut self, prompt: usize) -> Vec<String> {
        let (echo, token_ids) = (self.echo, self.token_ids);
        let ready = |(_, InTheMaking { draft, begun, .. }): &(usize, &InTheMaking)| {
            draft.is_ready() || (echo && !begun) || (token_ids && draft.has_tokens())
        };
        let ready: Vec<usize> =
            self.prompts[prompt].choices.iter().enumerate().filter(ready).map(|(choice, _)| choice).collect();
        let usage = self.usage.then_some(None);
        let chunk = |choice| {
            let choice = self.choice(prompt, choice, prompt * self.n + choice);
            self.reply.with(vec![choice], usage)
        };
        ready.into_iter().map(chunk).collect()
    }

    fn usage_chunk(&self) -> String {
        self.reply.with(vec![], Some(Some(self.usage())))
    }

    fn whole(mut self) -> String {
        let usage = self.usage();
        for prompt in 0..self.prompts.len() {
            let choices = &self.prompts[prompt].choices;
            let mut kept: Vec<usize> = (0..choices.len()).collect();
            if choices.len() > self.n {
                let mean = |&choice: &usize| choices[choice].draft.mean_logprob();
                kept.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
                kept.truncate(self.n);
            }
            for (j, choice) in kept.into_iter().enumerate() {
                let choice = self.choice(prompt, choice, prompt * self.n + j);
                self.reply.choices.push(choice);
            }
        }
        self.reply.usage = Some(Some(usage));
        text(&self.reply)
    }
}
