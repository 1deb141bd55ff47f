//! `--repeat-until`: completions of consecutive seeds until one matches a pattern.

use super::batched::{BatchedCompletions, start_engine};
use super::completion_source::CompletionSource;
use super::completion_writer::CompletionWriter;
use super::{Generate, INTERRUPTED, Stats};
use crate::cli::output::progress;
use crate::engine::CompletionParams;
use crate::generate::{FinishReason, Token};
use crate::{Error, Hornbook, Result};
use regex::Regex;
use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

/// A finished completion, replayed as a source.
struct FinishedCompletion {
    tokens: VecDeque<Token>,
    finish_reason: Option<FinishReason>,
}

impl Generate {
    /// Writes the first completion, in order of seeds, whose text matches. The attempts are computed in
    /// batches.
    pub(super) fn repeat_until_match(
        &self,
        pattern: &Regex,
        hornbook: Hornbook,
        prompt: &[u32],
        stats: &mut Stats,
        interrupted: &AtomicBool,
    ) -> Result<ExitCode> {
        let options = self.options(&hornbook);
        if options.sampling.temperature == 0.0 {
            return Err(Error::Parameter {
                name: "--temperature".into(),
                found: "0, which repeats the same completion".into(),
                expected: "a number above 0 with --repeat-until".into(),
            });
        }
        hornbook.tokenizer()?;
        let top_logprobs = self.top_logprobs(&hornbook);
        let (first, attempts) = (options.sampling.seed, u64::from(self.attempts));
        let seed = |attempt: u64| first.wrapping_add(attempt);
        let params = (0..attempts).map(|attempt| {
            let mut options = options.clone();
            options.sampling.seed = seed(attempt);
            CompletionParams { options, top_logprobs, ..CompletionParams::default() }
        });
        let engine = start_engine(hornbook, options.kv_precision)?;
        let mut writer = CompletionWriter::new(self, engine.hornbook(), prompt, (), stats, interrupted)?;
        let mut completions = BatchedCompletions::new(&engine, prompt, params);
        let bar = progress::bar(self.attempts as usize);
        let mut tokens = 0;
        for attempt in 0..attempts {
            completions.start_next()?;
            let mut completion = FinishedCompletion { tokens: VecDeque::new(), finish_reason: None };
            while let Some(token) = completions.next_token()? {
                completion.tokens.push_back(token);
                if interrupted.load(Ordering::SeqCst) {
                    return Ok(ExitCode::from(INTERRUPTED));
                }
            }
            bar.inc(1);
            tokens += completion.tokens.len();
            let text: String = completion.tokens.iter().map(|token| &*token.text).collect();
            if pattern.is_match(&text) {
                bar.finish_and_clear();
                completion.finish_reason = completions.finish_reason();
                drop(completions); // cancels the others
                writer.stats.search_finished(tokens);
                let code = writer.write_all(&mut completion, seed(attempt), None)?;
                stderr_line!(
                    "hornbook: attempt {} of {attempts} matches; use --seed {} to reproduce it directly",
                    attempt + 1,
                    seed(attempt)
                );
                return Ok(code);
            }
        }
        bar.finish_and_clear();
        Err(Error::Message(format!(
            "--repeat-until: no match of '{pattern}' in {attempts} attempts (seeds {first} to {}); \
             use --attempts N for more",
            seed(attempts - 1)
        )))
    }
}

impl CompletionSource for FinishedCompletion {
    fn start_next(&mut self) -> Result<()> {
        Ok(())
    }

    fn next_token(&mut self) -> Result<Option<Token>> {
        Ok(self.tokens.pop_front())
    }

    fn finish_reason(&self) -> Option<FinishReason> {
        self.finish_reason
    }
}

/// Parses a regular expression, with a one-line error.
pub fn parse_pattern(text: &str) -> std::result::Result<Regex, String> {
    Regex::new(text).map_err(|error| {
        let message = error.to_string();
        let reason = message.lines().last().unwrap_or_default();
        format!("invalid regular expression: {}", reason.trim_start_matches("error: "))
    })
}

#[cfg(test)]
mod tests {
    use super::parse_pattern;

    #[test]
    fn invalid_pattern_is_one_line_error() {
        for (pattern, problem) in
            [("(", "unclosed group"), ("a{2,1}", "invalid repetition"), ("[z-a]", "range")]
        {
            let error = parse_pattern(pattern).unwrap_err();
            assert!(error.lines().count() == 1 && error.contains(problem), "{pattern}: {error}");
        }
        let error = parse_pattern("(a{1000}){1000}").unwrap_err();
        assert!(error.lines().count() == 1 && error.contains("size limit"), "{error}");
        assert!(parse_pattern("^The .*[.!?]$").is_ok());
    }
}
