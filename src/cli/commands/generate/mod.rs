//! `hornbook generate`: text from a prompt.

mod args;
mod batched;
mod beams;
mod before_after;
mod completion_source;
mod completion_writer;
mod output;
mod repeat_until;

use args::ContextFullArg;
pub use args::Generate;

use crate::cli::INTERRUPTED;
use crate::cli::args::prompt;
use crate::cli::output::stats::Stats;
use crate::cli::output::stdout::is_closed_pipe;
use crate::engine::CompletionParams;
use crate::generate::Generation;
use crate::model::Observer;
use crate::{Error, Hornbook, Result};
use batched::{BatchedCompletions, start_engine};
use before_after::BeforeAfter;
use completion_source::SequentialCompletions;
use completion_writer::CompletionWriter;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The largest `-n` that is not taken for a length, which it is in other programs.
const MAX_PLAUSIBLE_N: usize = 16;

impl Generate {
    pub(super) fn run(self) -> Result<ExitCode> {
        let mut stats = Stats::start();
        let Some(prompt) = self.prompt.read()? else {
            stderr_text!("{}", prompt::missing_input_hint("generate", "a prompt"));
            return Ok(ExitCode::from(2));
        };
        if self.n.get() > MAX_PLAUSIBLE_N && self.sampling.max_tokens.is_none() {
            stderr_line!(
                "hornbook: -n {n} asks for {n} texts; for a text of {n} tokens use --max-tokens {n}",
                n = self.n
            );
        }
        let hornbook = self.draft.apply(self.model.open()?)?;
        stats.model_loaded(hornbook.draft_model().map(|draft| draft.model().pass_bytes()));
        let prompt = prompt.ids(&hornbook)?;
        if self.output.is_text() {
            hornbook.tokenizer()?;
        }
        stats.set_prompt_len(prompt.len());
        let outcome = match self.beams {
            Some(_) => self.search(&hornbook, &prompt, &mut stats),
            None => self.sample(hornbook, &prompt, &mut stats),
        };
        let code = match outcome {
            Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS, // as in `| head`
            outcome => outcome?,
        };
        if self.stats {
            stderr_text!("{stats}");
        }
        Ok(code)
    }

    /// Samples the completions: as a batch, or one after the other if parts of the model are changed or
    /// tokens drafted.
    fn sample(&self, hornbook: Hornbook, prompt: &[u32], stats: &mut Stats) -> Result<ExitCode> {
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&interrupted);
        // The first Ctrl-C ends the text, the second the program; without a handler, the first ends the
        // program.
        let _ = ctrlc::set_handler(move || {
            if flag.swap(true, Ordering::SeqCst) {
                std::process::exit(i32::from(INTERRUPTED));
            }
        });
        let (options, interrupted) = (self.options(&hornbook), &*interrupted);
        let seed = options.sampling.seed;
        hornbook.plan(prompt, &options).map_err(|error| self.suggest_context_shift(error))?;
        if let Some(pattern) = &self.repeat_until {
            return self.repeat_until_match(pattern, hornbook, prompt, stats, interrupted);
        }
        if let Some(interventions) = self.interventions.build(&hornbook, prompt)? {
            let unmodified = hornbook.generate(prompt, &options)?;
            let generation = hornbook.generate_observed(prompt, &options, interventions.clone())?;
            let mut writer =
                CompletionWriter::new(self, &hornbook, prompt, interventions, stats, interrupted)?;
            let before_after = BeforeAfter::new(self, &hornbook, unmodified, &generation, interrupted)?;
            return writer.write_all(
                &mut SequentialCompletions::new(self.configure(&hornbook, generation)),
                seed,
                Some(before_after),
            );
        }
        if self.n.get() > 1 && self.prompt_lookup.is_none() {
            let top_logprobs = self.top_logprobs(&hornbook);
            let params = (0..self.n.get() as u64).map(|first_stream| {
                let options = options.clone();
                CompletionParams { options, first_stream, top_logprobs, ..CompletionParams::default() }
            });
            let engine = start_engine(hornbook, options.kv_precision)?;
            let mut writer = CompletionWriter::new(self, engine.hornbook(), prompt, (), stats, interrupted)?;
            return writer.write_all(&mut BatchedCompletions::new(&engine, prompt, params), seed, None);
        }
        let mut writer = CompletionWriter::new(self, &hornbook, prompt, (), stats, interrupted)?;
        let generation = hornbook.generate(prompt, &options)?;
        writer.write_all(&mut SequentialCompletions::new(self.configure(&hornbook, generation)), seed, None)
    }

    /// Applies `--logprobs` and `--prompt-lookup` to a generation.
    fn configure<'h, O: Observer>(
        &self,
        hornbook: &Hornbook,
        generation: Generation<'h, O>,
    ) -> Generation<'h, O> {
        let generation = generation.with_top_logprobs(self.top_logprobs(hornbook));
        match self.prompt_lookup {
            Some(max_draft_len) => generation.with_prompt_lookup(max_draft_len.into()),
            None => generation,
        }
    }

    /// Number of alternatives to report for each token.
    fn top_logprobs(&self, hornbook: &Hornbook) -> usize {
        self.logprobs.unwrap_or(0).min(hornbook.config().vocab_size)
    }

    /// Adds a hint to the error for a prompt that is too long.
    fn suggest_context_shift(&self, error: Error) -> Error {
        match (&error, self.context) {
            (Error::ContextOverflow { .. }, ContextFullArg::Stop) => {
                Error::Message(format!("{error}; use --context shift to continue from its end"))
            }
            _ => error,
        }
    }
}

/// Decodes a prompt's complete characters, and the replacement of an incomplete last one, which is not part
/// of a completion without tokens; both empty without a tokenizer.
fn decode_prompt(hornbook: &Hornbook, ids: &[u32]) -> (String, String) {
    let decoded = hornbook.try_tokenizer().map(|tokenizer| tokenizer.decode_complete(ids));
    decoded.map_or_else(Default::default, |(text, mut rest)| (text, rest.finish()))
}
