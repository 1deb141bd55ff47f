//! `--stats`: how long it took and what it used.

use super::memory::Memory;
use crate::generate::DraftStats;
use std::fmt;
use std::time::{Duration, Instant};

/// A run's clock.
#[derive(Debug)]
pub struct Stats {
    start: Instant,
    loaded: Duration,
    first_token: Option<Duration>,
    last_token: Duration,
    prompt_tokens: usize,
    tokens: usize,
    /// Beam search and repeated attempts write nothing before they are over.
    search: Option<Duration>,
    draft_stats: DraftStats,
    memory: Option<Memory>,
}

impl Stats {
    /// Starts the clock.
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
            loaded: Duration::ZERO,
            first_token: None,
            last_token: Duration::ZERO,
            prompt_tokens: 0,
            tokens: 0,
            search: None,
            draft_stats: DraftStats::default(),
            memory: None,
        }
    }

    /// The model is ready.
    pub fn loaded(&mut self) {
        self.loaded = self.start.elapsed();
    }

    /// A prompt of so many tokens is about to be read.
    pub fn prompt(&mut self, tokens: usize) {
        self.prompt_tokens = tokens;
    }

    /// A search is over, which found texts of so many tokens in all.
    pub fn searched(&mut self, tokens: usize) {
        self.tokens = tokens;
        self.search = Some(self.start.elapsed().saturating_sub(self.loaded));
        self.memory = Memory::now();
    }

    /// All is written, and the model still there. What came of the drafts.
    pub fn written(&mut self, draft_stats: DraftStats) {
        self.draft_stats = draft_stats;
        self.memory = Memory::now();
    }

    /// A token was written.
    pub fn token(&mut self) {
        if self.search.is_some() {
            return; // and found before
        }
        self.tokens += 1;
        self.last_token = self.start.elapsed();
        self.first_token.get_or_insert(self.last_token);
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        writeln!(f, "load          {:8.1} ms", ms(self.loaded))?;
        if let Some(first) = self.first_token {
            let prefill = first.saturating_sub(self.loaded);
            let rate = self.prompt_tokens as f64 / prefill.as_secs_f64();
            writeln!(f, "first token   {:8.1} ms after start", ms(first))?;
            writeln!(
                f,
                "prompt        {:8.1} ms, {} tokens, {rate:.0} tokens/s",
                ms(prefill),
                self.prompt_tokens
            )?;
            if self.tokens > 1 {
                let each = (self.last_token - first) / (self.tokens - 1) as u32;
                let rate = 1.0 / each.as_secs_f64();
                writeln!(f, "per token     {:8.2} ms, {} tokens, {rate:.1} tokens/s", ms(each), self.tokens)?;
            }
        }
        if let Some(search) = self.search {
            writeln!(f, "search        {:8.1} ms, {} tokens", ms(search), self.tokens)?;
        }
        let DraftStats { drafts, drafted_tokens, accepted_tokens } = self.draft_stats;
        if drafts > 0 {
            let passes = self.tokens.saturating_sub(1 + accepted_tokens);
            writeln!(
                f,
                "drafted       {drafted_tokens:8} tokens in {drafts} of {passes} passes, {accepted_tokens} were written"
            )?;
        }
        if let Some(Memory { anonymous, file }) = self.memory {
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            writeln!(
                f,
                "memory        {:8.1} MiB, and {:.1} MiB of mapped files",
                mib(anonymous),
                mib(file)
            )?;
        }
        Ok(())
    }
}
