//! Model and engine arguments shared by `serve` and `batch`.

use crate::cli::args::draft::DraftArgs;
use crate::cli::args::model::ExecutionArgs;
use crate::cli::args::values;
use crate::engine::{EngineOptions, FairLock, MAX_CONCURRENCY};
use crate::server::ServerOptions;
use crate::{Hornbook, Result};
use clap::Args;
use clap::builder::RangedI64ValueParser;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Models, aliases and engine options.
#[derive(Args, Debug)]
pub struct EngineArgs {
    /// Model: fable (built in), a checkpoint folder, or a Hugging Face model in the local cache (repeatable)
    #[arg(short, long, default_value = "fable")]
    model: Vec<String>,

    /// LoRA adapter of the model, in peft's format, served beside it under a name of its own (repeatable)
    #[arg(long, value_name = "NAME=DIR", value_parser = parse_adapter)]
    adapter: Vec<(String, PathBuf)>,

    /// Additional name of a model, e.g. text-davinci-002=gpt2 (repeatable); a single model accepts any name
    #[arg(long, value_name = "NAME=MODEL", value_parser = parse_alias)]
    alias: Vec<(String, String)>,

    /// Maximum number of sequences in a batch
    #[arg(long, value_name = "N", default_value_t = EngineOptions::default().max_concurrency,
        value_parser = RangedI64ValueParser::<usize>::new().range(1..=MAX_CONCURRENCY as i64),
        help_heading = "Scheduling")]
    pub max_concurrency: usize,

    /// Size of the prefix cache, which reuses the KV cache of earlier requests, e.g. 256MiB; 0 disables
    #[arg(long, value_name = "BYTES", default_value = "256MiB", value_parser = values::byte_size,
        help_heading = "Scheduling")]
    prefix_cache: usize,

    /// Maximum number of prompt tokens processed between two decode steps; four times as many while
    /// there is no other request
    #[arg(long, value_name = "N", default_value_t = EngineOptions::default().prefill_chunk,
        value_parser = parse_positive, help_heading = "Scheduling")]
    prefill_chunk: usize,

    /// Jinja chat template, as in Hugging Face tokenizers [default: the model's own, or a transcript]
    #[arg(long, value_name = "FILE", help_heading = "Chat")]
    chat_template: Option<PathBuf>,

    #[command(flatten)]
    draft: DraftArgs,

    #[command(flatten)]
    execution: ExecutionArgs,
}

impl EngineArgs {
    /// Loads the models.
    pub fn open(&self) -> Result<Vec<Hornbook>> {
        let open = |model: &String| self.draft.apply(self.execution.open(model)?);
        self.model.iter().map(open).collect()
    }

    /// Returns server options with these arguments and a queue of `queue` sequences; the rest are defaults.
    pub fn options(&self, queue: usize) -> ServerOptions {
        ServerOptions {
            adapters: self.adapter.clone(),
            aliases: self.alias.clone(),
            chat_template: self.chat_template.clone(),
            engine: EngineOptions {
                max_concurrency: self.max_concurrency,
                queue,
                prefix_cache_bytes: self.prefix_cache,
                prefill_chunk: self.prefill_chunk,
                kv_precision: self.execution.kv_precision.map(Into::into),
                fair_lock: FairLock::default(),
            },
            ..ServerOptions::default()
        }
    }
}

fn parse_alias(text: &str) -> std::result::Result<(String, String), String> {
    split_pair(text).ok_or_else(|| "expected NAME=MODEL, e.g. text-davinci-002=gpt2".into())
}

fn parse_adapter(text: &str) -> std::result::Result<(String, PathBuf), String> {
    let pair = split_pair(text).map(|(name, folder)| (name, folder.into()));
    pair.ok_or_else(|| "expected NAME=DIR, e.g. letters=./letters-adapter".into())
}

fn split_pair(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    (!name.is_empty() && !value.is_empty()).then(|| (name.into(), value.into()))
}

fn parse_positive(text: &str) -> std::result::Result<usize, String> {
    let value = text.parse::<NonZeroUsize>().map_err(|_| "expected an integer of at least 1")?;
    Ok(value.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alias_is_split_at_the_first_equals_sign() {
        assert_eq!(parse_alias("a=b=c"), Ok(("a".into(), "b=c".into())));
        for invalid in ["", "a", "a=", "=b"] {
            assert!(parse_alias(invalid).is_err(), "{invalid}");
        }
    }
}
