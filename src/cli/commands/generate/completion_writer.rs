//! Writes completions to standard output, as text, ids or JSON.

use super::before_after::BeforeAfter;
use super::completion_source::CompletionSource;
use super::output::{self, Output};
use super::{Generate, INTERRUPTED, Stats, decode_prompt};
use crate::generate::completion::{Choice, Completion, Logprobs, TextOffsets};
use crate::generate::{ContextPolicy, FinishReason, Options};
use crate::model::{Observer, Session};
use crate::sampling::{LogSoftmax, top_logprobs};
use crate::{Hornbook, Result};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

/// Writes the completions of one prompt.
pub struct CompletionWriter<'a> {
    args: &'a Generate,
    options: Options,
    hornbook: &'a Hornbook,
    /// The user's prompt, which may be empty.
    user_prompt: &'a [u32],
    /// Number of tokens the text starts with, at least one: an empty prompt is replaced by an end-of-text
    /// token.
    prompt_tokens: usize,
    /// The prompt's logprobs, if the prompt is echoed, and the text offsets at its end.
    prompt_logprobs: (Option<Logprobs>, TextOffsets),
    pub stats: &'a mut Stats,
    interrupted: &'a AtomicBool,
    /// Whether the note on the end of the context was printed.
    context_note_printed: bool,
}

impl<'a> CompletionWriter<'a> {
    /// Creates a writer for a validated prompt. `observer` is the one used for generation.
    pub fn new(
        args: &'a Generate,
        hornbook: &'a Hornbook,
        user_prompt: &'a [u32],
        observer: impl Observer,
        stats: &'a mut Stats,
        interrupted: &'a AtomicBool,
    ) -> Result<Self> {
        let options = args.options(hornbook);
        let plan = hornbook.plan(user_prompt, &options)?;
        let prompt_tokens = plan.prompt().len();
        let prompt_logprobs = prompt_logprobs(args, hornbook, user_prompt, &options, observer)?;
        Ok(Self {
            args,
            options,
            hornbook,
            user_prompt,
            prompt_tokens,
            prompt_logprobs,
            stats,
            interrupted,
            context_note_printed: false,
        })
    }

    /// Writes `-n` completions, and the JSON with the seed that reproduces them.
    pub fn write_all(
        &mut self,
        completions: &mut impl CompletionSource,
        seed: u64,
        before_after: Option<BeforeAfter>,
    ) -> Result<ExitCode> {
        let mut output = Output::new(self.hornbook, self.args.output, self.args.json);
        let mut choices = vec![];
        for index in 0..self.args.n.get() {
            completions.start_next()?;
            if index > 0 {
                output.separator()?;
            }
            if let (Some(before_after), false) = (&before_after, self.args.json) {
                before_after.print_before(index, self.args.output);
            }
            choices.push(self.write_one(index, completions, &mut output)?);
            if self.is_interrupted() {
                break;
            }
        }
        self.stats.generation_finished(completions.draft_stats());
        if self.args.json {
            let completion = Completion::new(self.hornbook.name(), choices, self.prompt_tokens, seed);
            output.json(
                &completion,
                before_after.map(|before_after| ("intervention", before_after.to_json(self.hornbook))),
            )?;
        }
        Ok(match self.is_interrupted() {
            true => ExitCode::from(INTERRUPTED),
            false => ExitCode::SUCCESS,
        })
    }

    /// Streams one completion.
    fn write_one(
        &mut self,
        index: usize,
        completions: &mut impl CompletionSource,
        output: &mut Output,
    ) -> Result<Choice> {
        let (mut logprobs, mut offsets) = self.prompt_logprobs.clone();
        let (mut text, mut ids) = (String::new(), vec![]);
        if self.args.echo || output.is_terminal() {
            output.prompt(self.user_prompt)?;
        }
        while let Some(token) = completions.next_token()? {
            self.stats.record_token();
            if let Some(logprobs) = &mut logprobs {
                logprobs.push_token(self.hornbook.try_tokenizer(), &token, &mut offsets);
            }
            output.token(&token)?;
            text += &token.text;
            ids.push(token.id);
            if self.is_interrupted() {
                let rest = completions.finish();
                output.text(&rest)?;
                text += &rest;
                break;
            }
        }
        let (prompt_text, rest) = decode_prompt(self.hornbook, self.user_prompt);
        if self.args.echo && ids.is_empty() {
            output.text(&rest)?;
            text += &rest;
        }
        let finish_reason = completions.finish_reason().unwrap_or(FinishReason::Length);
        output.end(&text, &ids, finish_reason)?;
        if let (Some(logprobs), false) = (&logprobs, self.args.json) {
            output::print_logprobs(logprobs);
        }
        self.print_context_note(ids.len(), finish_reason);
        self.print_cut_note(&text, ids.len(), finish_reason);
        if self.args.echo {
            text = prompt_text + &text;
        }
        Ok(Choice { text, index, logprobs, finish_reason: Some(finish_reason), token_ids: Some(ids) })
    }

    /// Prints a note if a text of the default length was cut off within a sentence.
    fn print_cut_note(&self, text: &str, generated: usize, finish_reason: FinishReason) {
        let Options { max_tokens, sentence_margin, .. } = self.options;
        let limit = max_tokens.unwrap_or(usize::MAX).saturating_add(sentence_margin);
        let is_sentence = text.trim_end().ends_with(['.', '!', '?', '"']);
        if sentence_margin > 0 && generated == limit && finish_reason == FinishReason::Length && !is_sentence
        {
            stderr_line!(
                "hornbook: the text was cut off after {limit} tokens; use --max-tokens for a longer one"
            );
        }
    }

    /// Prints a note, once, if a text reached the end of the context.
    fn print_context_note(&mut self, generated: usize, finish_reason: FinishReason) {
        let (n_positions, len) = (self.hornbook.config().n_positions, self.prompt_tokens + generated);
        let cut = finish_reason == FinishReason::Length
            && len == n_positions + 1 // the last token is predicted, not computed
            && self.options.max_tokens.is_none_or(|max_tokens| generated < max_tokens)
            && !self.is_interrupted();
        let shifted = len > n_positions + 1; // the token after a full context precedes the shift
        let printed = self.context_note_printed;
        self.context_note_printed |= cut || shifted;
        match self.options.context {
            ContextPolicy::Stop if cut && !printed => stderr_line!(
                "hornbook: the text ends at the end of the model's context of {n_positions} tokens; \
                 use --context shift to continue"
            ),
            ContextPolicy::Shift if shifted && !printed => stderr_line!(
                "hornbook: the text exceeded the model's context of {n_positions} tokens; \
                 each time it was full, only the last {} tokens were kept",
                (n_positions / 2).max(1)
            ),
            _ => {}
        }
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }
}

/// Returns the prompt's logprobs, if they are requested and the prompt is echoed, and the text offsets at its
/// end.
fn prompt_logprobs(
    args: &Generate,
    hornbook: &Hornbook,
    prompt: &[u32],
    options: &Options,
    observer: impl Observer,
) -> Result<(Option<Logprobs>, TextOffsets)> {
    let mut offsets = TextOffsets::default();
    let Some(n) = args.logprobs else { return Ok((None, offsets)) };
    let tokenizer = hornbook.try_tokenizer();
    let mut logprobs = Logprobs::default();
    if !args.echo {
        for &id in prompt {
            offsets.push_token(tokenizer, id);
        }
        return Ok((Some(logprobs), offsets));
    }
    let Some(&first) = prompt.first() else { return Ok((Some(logprobs), offsets)) };
    logprobs.push(tokenizer, first, None, &mut offsets);
    let prompt = hornbook.validate_prompt(prompt)?; // all of it has to fit into the context
    let mut session = Session::observed(hornbook.model(), prompt.len(), options.kv_precision, observer);
    session.score(&prompt, |t, logits| {
        if let Some(&next) = prompt.get(t + 1) {
            let logprob = LogSoftmax::new(logits).logprob(logits[next as usize]);
            let scored = Some((logprob, &top_logprobs(logits, n)[..]));
            logprobs.push(tokenizer, next, scored, &mut offsets);
        }
    })?;
    Ok((Some(logprobs), offsets))
}
