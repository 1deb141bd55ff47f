//! `--repeat-until`: completions of one seed after the other, until one is as it should be.

use super::batched::{BatchedCompletions, start_engine};
use super::completion_source::CompletionSource;
use super::completion_writer::CompletionWriter;
use super::{Generate, INTERRUPTED, Stats};
use crate::cli::progress;
use crate::engine::CompletionParams;
use crate::generate::{FinishReason, Token};
use crate::{Error, Hornbook, Result};
use regex::Regex;
use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

/// The completion that was found.
struct Found {
    tokens: VecDeque<Token>,
    finish_reason: Option<FinishReason>,
}

impl Generate {
    /// Writes the first attempt, in the order of seeds, whose text matches; many are computed together.
    pub(super) fn repeat_until_match(
        &self,
        pattern: &Regex,
        hornbook: Hornbook,
        prompt: &[u32],
        stats: &mut Stats,
        interrupted: &AtomicBool,
    ) -> Result<ExitCode> {
        let options = self.options();
        if options.sampling.temperature == 0.0 {
            return Err(Error::Parameter {
                name: "--temperature".into(),
                found: "0, which writes the same each time".into(),
                expected: "a number above 0 with --repeat-until".into(),
            });
        }
        hornbook.tokenizer()?;
        let top_logprobs = self.top_logprobs(&hornbook);
        let (first, attempts) = (options.sampling.seed, u64::from(self.attempts));
        let seed = |attempt: u64| first.wrapping_add(attempt);
        let jobs = (0..attempts).map(|attempt| {
            let mut options = options.clone();
            options.sampling.seed = seed(attempt);
            CompletionParams { options, top_logprobs, ..CompletionParams::default() }
        });
        let engine = start_engine(hornbook, options.kv_precision)?;
        let mut writer = CompletionWriter::new(self, engine.hornbook(), prompt, (), stats, interrupted)?;
        let mut all = BatchedCompletions::new(&engine, prompt, jobs);
        let bar = progress::bar(self.attempts as usize);
        let mut tokens = 0;
        for attempt in 0..attempts {
            all.begin()?;
            let mut found = Found { tokens: VecDeque::new(), finish_reason: None };
            while let Some(token) = all.token()? {
                found.tokens.push_back(token);
                if interrupted.load(Ordering::SeqCst) {
                    return Ok(ExitCode::from(INTERRUPTED));
                }
            }
            bar.inc(1);
            tokens += found.tokens.len();
            let text: String = found.tokens.iter().map(|token| &*token.text).collect();
            if pattern.is_match(&text) {
                bar.finish_and_clear();
                found.finish_reason = all.finish_reason();
                drop(all); // the others are given up
                writer.stats.search_finished(tokens);
                let code = writer.write_all(&mut found, seed(attempt), None)?;
                eprintln!(
                    "hornbook: attempt {} of {attempts} matches; --seed {} writes it at once",
                    attempt + 1,
                    seed(attempt)
                );
                return Ok(code);
            }
        }
        bar.finish_and_clear();
        Err(Error::Message(format!(
            "--repeat-until: found no match of '{pattern}' in {attempts} attempts (seeds {first} to {}); \
             --attempts N makes more",
            seed(attempts - 1)
        )))
    }
}

impl CompletionSource for Found {
    fn begin(&mut self) -> Result<()> {
        Ok(())
    }

    fn token(&mut self) -> Result<Option<Token>> {
        Ok(self.tokens.pop_front())
    }

    fn finish_reason(&self) -> Option<FinishReason> {
        self.finish_reason
    }
}

/// Reads a regular expression; what is wrong with one is said in one line.
pub fn parse_pattern(text: &str) -> std::result::Result<Regex, String> {
    Regex::new(text).map_err(|error| {
        let said = error.to_string();
        let reason = said.lines().last().unwrap_or_default();
        format!("not a regular expression: {}", reason.trim_start_matches("error: "))
    })
}

#[cfg(test)]
mod tests {
    use super::parse_pattern;

    #[test]
    fn a_bad_pattern_is_one_line() {
        for (pattern, problem) in
            [("(", "unclosed group"), ("a{2,1}", "invalid repetition"), ("[z-a]", "range")]
        {
            let said = parse_pattern(pattern).unwrap_err();
            assert!(said.lines().count() == 1 && said.contains(problem), "{pattern}: {said}");
        }
        let said = parse_pattern("(a{1000}){1000}").unwrap_err();
        assert!(said.lines().count() == 1 && said.contains("size limit"), "{said}");
        assert!(parse_pattern("^The .*[.!?]$").is_ok());
    }
}
