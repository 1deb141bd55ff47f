//! CompletionSource on their way to standard output, or into the JSON.

use super::before_after::BeforeAfter;
use super::completion_source::CompletionSource;
use super::output::{self, Output};
use super::{Generate, INTERRUPTED, Stats, decode};
use crate::generate::completion::{Choice, Completion, Logprobs, TextOffsets};
use crate::generate::{ContextPolicy, FinishReason, Options};
use crate::model::{Observer, Session};
use crate::sampling::{LogSoftmax, top_logprobs};
use crate::{Hornbook, Result};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

/// What all completions of a prompt have in common.
pub struct CompletionWriter<'a> {
    args: &'a Generate,
    options: Options,
    hornbook: &'a Hornbook,
    /// What was given as a prompt, which may be nothing.
    given: &'a [u32],
    /// Tokens of what the text begins with, at least one.
    prompt_tokens: usize,
    /// The prompt's part of the logprobs, where both are wanted, and where the completion begins.
    echoed: (Option<Logprobs>, TextOffsets),
    pub stats: &'a mut Stats,
    interrupted: &'a AtomicBool,
    /// Whether it was said what the end of the context meant.
    context_told: bool,
}

impl<'a> CompletionWriter<'a> {
    /// For a prompt that the model, as `see` changes it, was found able to continue.
    pub fn new(
        args: &'a Generate,
        hornbook: &'a Hornbook,
        given: &'a [u32],
        see: impl Observer,
        stats: &'a mut Stats,
        interrupted: &'a AtomicBool,
    ) -> Result<Self> {
        let options = args.options();
        let plan = hornbook.plan(given, &options)?;
        let prompt_tokens = plan.prompt().len();
        let echoed = echoed(args, hornbook, plan.prompt(), &options, see)?;
        Ok(Self {
            args,
            options,
            hornbook,
            given,
            prompt_tokens,
            echoed,
            stats,
            interrupted,
            context_told: false,
        })
    }

    /// Writes as many completions as were asked for, and the JSON with the seed that gives them again.
    pub fn write_all(
        &mut self,
        completions: &mut impl CompletionSource,
        seed: u64,
        before_after: Option<BeforeAfter>,
    ) -> Result<ExitCode> {
        let mut output = Output::new(self.hornbook, self.args.output, self.args.json);
        let mut choices = vec![];
        for index in 0..self.args.n.get() {
            completions.begin()?;
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
                before_after.map(|before_after| ("intervention", before_after.json(self.hornbook))),
            )?;
        }
        Ok(match self.is_interrupted() {
            true => ExitCode::from(INTERRUPTED),
            false => ExitCode::SUCCESS,
        })
    }

    /// Writes one completion as it comes.
    fn write_one(
        &mut self,
        index: usize,
        completions: &mut impl CompletionSource,
        output: &mut Output,
    ) -> Result<Choice> {
        let (mut logprobs, mut offsets) = self.echoed.clone();
        let (mut text, mut ids) = (String::new(), vec![]);
        if self.args.echo {
            output.prompt(self.given)?;
        }
        while let Some(token) = completions.token()? {
            self.stats.record_token();
            if let (Some(logprobs), Some(tokenizer)) = (&mut logprobs, self.hornbook.try_tokenizer()) {
                logprobs.push_token(tokenizer, &token, &mut offsets);
            }
            output.token(&token)?;
            text += &token.text;
            ids.push(token.id);
            if self.is_interrupted() {
                let rest = completions.end();
                output.text(&rest)?;
                text += &rest;
                break;
            }
        }
        output.end(&text)?;
        if let (Some(logprobs), false) = (&logprobs, self.args.json) {
            output::print_logprobs(logprobs);
        }
        let finish_reason = completions.finish_reason().unwrap_or(FinishReason::Length);
        self.tell_of_context(ids.len(), finish_reason);
        if self.args.echo {
            text = decode(self.hornbook, self.given) + &text;
        }
        Ok(Choice { text, index, logprobs, finish_reason: Some(finish_reason), token_ids: Some(ids) })
    }

    /// Says once what became of a text that reached the end of the context.
    fn tell_of_context(&mut self, written: usize, finish_reason: FinishReason) {
        let (n_positions, len) = (self.hornbook.config().n_positions, self.prompt_tokens + written);
        let cut = finish_reason == FinishReason::Length
            && len == n_positions
            && self.options.max_tokens.is_none_or(|wanted| written < wanted)
            && !self.is_interrupted();
        let shifted = len > n_positions + 1; // a token more is written before anything is forgotten
        let told = self.context_told;
        self.context_told |= cut || shifted;
        match self.options.context {
            ContextPolicy::Stop if cut && !told => eprintln!(
                "hornbook: the text ends where the model's context of {n_positions} tokens does; \
                 --context shift goes on"
            ),
            ContextPolicy::Shift if shifted && !told => eprintln!(
                "hornbook: the text outgrew the model's context of {n_positions} tokens; each time that was full, \
                 it went on from the last {} alone",
                (n_positions / 2).max(1)
            ),
            _ => {}
        }
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }
}

/// The prompt's part of the logprobs, where both are wanted, and where the completion begins.
fn echoed(
    args: &Generate,
    hornbook: &Hornbook,
    prompt: &[u32],
    options: &Options,
    see: impl Observer,
) -> Result<(Option<Logprobs>, TextOffsets)> {
    let mut offsets = TextOffsets::default();
    let Some(n) = args.logprobs else { return Ok((None, offsets)) };
    let tokenizer = hornbook.tokenizer()?;
    let mut logprobs = Logprobs::default();
    if !args.echo {
        for &id in prompt {
            offsets.push(tokenizer.token_bytes(id));
        }
        return Ok((Some(logprobs), offsets));
    }
    logprobs.push(tokenizer, prompt[0], None, &mut offsets);
    let prompt = hornbook.validate_prompt(prompt)?; // with nothing forgotten
    let mut session = Session::observed(hornbook.model(), prompt.len(), options.kv_precision, see);
    session.score(&prompt, |t, logits| {
        if let Some(&next) = prompt.get(t + 1) {
            let logprob = LogSoftmax::new(logits).logprob(logits[next as usize]);
            let scored = Some((logprob, &top_logprobs(logits, n)[..]));
            logprobs.push(tokenizer, next, scored, &mut offsets);
        }
    })?;
    Ok((Some(logprobs), offsets))
}
