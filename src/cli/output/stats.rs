//! `--stats`: timings, tokens per second and memory.

use crate::generate::DraftStats;
use crate::memory::Memory;
use std::fmt;
use std::time::{Duration, Instant};

/// The timings of a run.
#[derive(Debug)]
pub struct Stats {
    start: Instant,
    load_time: Duration,
    first_token_at: Option<Duration>,
    last_token_at: Duration,
    prompt_tokens: usize,
    tokens: usize,
    /// Duration of a beam search or of repeated attempts, which print nothing before they end.
    search_time: Option<Duration>,
    draft_stats: DraftStats,
    draft_model_bytes: Option<usize>,
    memory: Option<Memory>,
}

impl Stats {
    /// Starts the clock.
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
            load_time: Duration::ZERO,
            first_token_at: None,
            last_token_at: Duration::ZERO,
            prompt_tokens: 0,
            tokens: 0,
            search_time: None,
            draft_stats: DraftStats::default(),
            draft_model_bytes: None,
            memory: None,
        }
    }

    /// Records that the model is loaded, and its draft model of this many bytes, if it has one.
    pub fn model_loaded(&mut self, draft_model_bytes: Option<usize>) {
        self.load_time = self.start.elapsed();
        self.draft_model_bytes = draft_model_bytes;
    }

    /// Records the length of the prompt, before its prefill.
    pub fn set_prompt_len(&mut self, tokens: usize) {
        self.prompt_tokens = tokens;
    }

    /// Records the end of a search that generated `tokens` tokens in all.
    pub fn search_finished(&mut self, tokens: usize) {
        self.tokens = tokens;
        self.search_time = Some(self.start.elapsed().saturating_sub(self.load_time));
        self.memory = Memory::now();
    }

    /// Records the end of generation, and the memory while the model is still loaded.
    pub fn generation_finished(&mut self, draft_stats: DraftStats) {
        self.draft_stats = draft_stats;
        self.memory = Memory::now();
    }

    /// Records a generated token.
    pub fn record_token(&mut self) {
        if self.search_time.is_some() {
            return; // counted by `search_finished`
        }
        self.tokens += 1;
        self.last_token_at = self.start.elapsed();
        self.first_token_at.get_or_insert(self.last_token_at);
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        writeln!(f, "load          {:8.1} ms", ms(self.load_time))?;
        if let Some(first) = self.first_token_at {
            let prefill = first.saturating_sub(self.load_time);
            let rate = self.prompt_tokens as f64 / prefill.as_secs_f64();
            writeln!(f, "first token   {:8.1} ms after start", ms(first))?;
            writeln!(
                f,
                "prompt        {:8.1} ms, {} tokens, {rate:.0} tokens/s",
                ms(prefill),
                self.prompt_tokens
            )?;
            if self.tokens > 1 {
                let per_token = (self.last_token_at - first) / (self.tokens - 1) as u32;
                let rate = 1.0 / per_token.as_secs_f64();
                writeln!(
                    f,
                    "per token     {:8.2} ms, {} tokens, {rate:.1} tokens/s",
                    ms(per_token),
                    self.tokens
                )?;
            }
        }
        if let Some(search) = self.search_time {
            writeln!(f, "search        {:8.1} ms, {} tokens", ms(search), self.tokens)?;
        }
        let DraftStats { drafts, drafted_tokens, accepted_tokens: accepted } = self.draft_stats;
        if drafts > 0 {
            writeln!(f, "drafted       {drafted_tokens:8} tokens in {drafts} drafts, {accepted} accepted")?;
        }
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        if let Some(bytes) = self.draft_model_bytes {
            writeln!(f, "draft model   {:8.1} MiB, part of the memory", mib(bytes as u64))?;
        }
        if let Some(Memory { anonymous, file }) = self.memory {
            writeln!(
                f,
                "memory        {:8.1} MiB, plus {:.1} MiB of mapped files",
                mib(anonymous),
                mib(file)
            )?;
        }
        Ok(())
    }
}
