//! `hornbook generate`: a prompt in, text out.

mod args;
mod beams;
mod changed;
mod output;

pub use args::Generate;

use super::stats::Stats;
use super::{is_closed_pipe, prompt};
use crate::generate::completion::{Choice, Completion, Logprobs, Offsets};
use crate::generate::{FinishReason, Generation, Options};
use crate::model::{Observer, Session};
use crate::sampling::{LogSoftmax, top_logprobs};
use crate::{Hornbook, Result};
use changed::Changed;
use output::Output;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The exit code of a program ended by Ctrl-C.
const INTERRUPTED: u8 = 130;

impl Generate {
    pub(super) fn run(self) -> Result<ExitCode> {
        let mut stats = Stats::start();
        let Some(prompt) = self.prompt.read()? else {
            eprint!("{}", prompt::what_to_type("generate", "a prompt to continue"));
            return Ok(ExitCode::from(2));
        };
        let hornbook = self.model.open()?;
        stats.loaded();
        let prompt = prompt.ids(&hornbook)?;
        if self.output.is_text() {
            hornbook.tokenizer()?;
        }
        stats.prompt(prompt.len());
        let outcome = match self.beams {
            Some(_) => self.search(&hornbook, &prompt, &mut stats),
            None => self.sample(&hornbook, &prompt, &mut stats),
        };
        let code = match outcome {
            Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS, // as for `| head`
            outcome => outcome?,
        };
        if self.stats {
            eprint!("{stats}");
        }
        Ok(code)
    }

    /// Samples `n` completions, one after the other.
    fn sample(&self, hornbook: &Hornbook, prompt: &[u32], stats: &mut Stats) -> Result<ExitCode> {
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&interrupted);
        // The first Ctrl-C ends the text, the second the program. Where no handler can be set, every one does.
        let _ = ctrlc::set_handler(move || {
            if flag.swap(true, Ordering::SeqCst) {
                std::process::exit(i32::from(INTERRUPTED));
            }
        });
        let options = self.options();
        let (plain, flag) = (hornbook.generate(prompt, &options)?, &interrupted);
        let Some(changes) = self.changes.ready(hornbook, prompt)? else {
            let echoed = self.echoed(hornbook, plain.prompt(), ())?;
            return self.write_all(hornbook, prompt, plain, echoed, None, stats, flag);
        };
        let generation = hornbook.generate_observed(prompt, &options, changes.clone())?;
        let echoed = self.echoed(hornbook, plain.prompt(), changes)?;
        let changed = Changed::new(self, hornbook, plain, &generation, flag)?;
        self.write_all(hornbook, prompt, generation, echoed, Some(changed), stats, flag)
    }

    /// Writes `n` completions of what was `given`, which may be nothing, and the JSON.
    #[allow(clippy::too_many_arguments)]
    fn write_all<O: Observer>(
        &self,
        hornbook: &Hornbook,
        given: &[u32],
        generation: Generation<O>,
        (echoed, start): (Option<Logprobs>, Offsets),
        changed: Option<Changed>,
        stats: &mut Stats,
        interrupted: &AtomicBool,
    ) -> Result<ExitCode> {
        let mut generation = generation
            .with_top_logprobs(self.logprobs.unwrap_or(0))
            .with_prompt_lookup(self.prompt_lookup.map_or(0, usize::from));
        let mut output = Output::new(hornbook, self.output, self.json);
        let mut choices = vec![];
        for index in 0..self.n.get() {
            if index > 0 {
                generation.restart()?;
                output.separator()?;
            }
            if let (Some(changed), false) = (&changed, self.json) {
                changed.show_before(index, self.output);
            }
            if self.echo {
                output.prompt(given)?;
            }
            let mut logprobs = echoed.clone();
            let text = self.write(
                hornbook,
                &mut generation,
                &mut output,
                &mut logprobs,
                start.clone(),
                stats,
                interrupted,
            )?;
            if let (Some(logprobs), false) = (&logprobs, self.json) {
                output::logprob_table(logprobs);
            }
            choices.push(Choice {
                text: if self.echo { decode(hornbook, given) + &text } else { text },
                index,
                logprobs,
                finish_reason: generation.finish_reason().or(Some(FinishReason::Length)),
                token_ids: Some(generation.generated().to_vec()),
            });
            if interrupted.load(Ordering::SeqCst) {
                break;
            }
        }
        stats.drafted(generation.drafted());
        if self.json {
            let prompt_tokens = generation.prompt().len();
            let completion =
                Completion::new(hornbook.name(), choices, prompt_tokens, self.options().sampling.seed);
            output.json(&completion, changed.map(|changed| ("ablation", changed.json(hornbook))))?;
        }
        Ok(match interrupted.load(Ordering::SeqCst) {
            true => ExitCode::from(INTERRUPTED),
            false => ExitCode::SUCCESS,
        })
    }

    /// Writes one completion as it comes, and returns its text.
    #[allow(clippy::too_many_arguments)]
    fn write<O: Observer>(
        &self,
        hornbook: &Hornbook,
        generation: &mut Generation<O>,
        output: &mut Output,
        logprobs: &mut Option<Logprobs>,
        mut offsets: Offsets,
        stats: &mut Stats,
        interrupted: &AtomicBool,
    ) -> Result<String> {
        let mut text = String::new();
        while let Some(token) = generation.next() {
            let token = token?;
            stats.token();
            if let (Some(logprobs), Some(tokenizer)) = (logprobs.as_mut(), hornbook.try_tokenizer()) {
                logprobs.push_token(tokenizer, &token, &mut offsets);
            }
            output.token(&token)?;
            text += &token.text;
            if interrupted.load(Ordering::SeqCst) {
                let rest = generation.finish();
                output.text(&rest)?;
                text += &rest;
                break;
            }
        }
        output.end(&text)?;
        Ok(text)
    }

    /// The prompt's part of the logprobs, where both are wanted, and where the completion begins.
    fn echoed<O: Observer>(
        &self,
        hornbook: &Hornbook,
        prompt: &[u32],
        see: O,
    ) -> Result<(Option<Logprobs>, Offsets)> {
        let mut offsets = Offsets::default();
        let Some(n) = self.logprobs else { return Ok((None, offsets)) };
        let tokenizer = hornbook.tokenizer()?;
        let mut logprobs = Logprobs::default();
        if !self.echo {
            for &id in prompt {
                offsets.push(tokenizer.token_bytes(id));
            }
            return Ok((Some(logprobs), offsets));
        }
        logprobs.push(tokenizer, prompt[0], None, &mut offsets);
        let Options { kv_precision, .. } = self.options();
        let mut session = Session::observed(hornbook.model(), prompt.len(), kv_precision, see);
        session.score(prompt, |t, logits| {
            if let Some(&next) = prompt.get(t + 1) {
                let logprob = LogSoftmax::of(logits).at(logits[next as usize]);
                let scored = Some((logprob, &top_logprobs(logits, n)[..]));
                logprobs.push(tokenizer, next, scored, &mut offsets);
            }
        })?;
        Ok((Some(logprobs), offsets))
    }
}

/// The text of tokens; empty without a tokenizer.
fn decode(hornbook: &Hornbook, ids: &[u32]) -> String {
    hornbook.try_tokenizer().map_or_else(String::new, |tokenizer| tokenizer.decode(ids))
}
