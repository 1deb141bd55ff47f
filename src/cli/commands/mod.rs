//! The subcommands, one per file.

mod batch;
mod bench;
mod chat;
mod completions;
mod config;
mod explain;
mod generate;
mod heads;
mod health;
mod inspect;
mod keys;
mod merge;
mod models;
mod perplexity;
mod positions;
mod pull;
mod quantize;
mod serve;
mod tokens;
mod training;

use crate::Result;
use clap::Subcommand;
use std::process::ExitCode;

/// A subcommand with its arguments.
#[derive(Debug, Subcommand)]
pub enum Command {
    Generate(Box<generate::Generate>),
    Chat(Box<chat::Chat>),
    Explain(explain::Explain),
    Heads(heads::Heads),
    Positions(positions::PositionsArgs),
    Tokens(tokens::Tokens),
    Inspect(Box<inspect::Inspect>),
    Perplexity(perplexity::Perplexity),
    Bench(Box<bench::Bench>),
    Finetune(Box<training::Finetune>),
    Train(Box<training::Train>),
    Quantize(quantize::Quantize),
    Merge(merge::Merge),
    Serve(Box<serve::Serve>),
    Keys(keys::Keys),
    Batch(batch::Batch),
    Pull(pull::Pull),
    Models(models::Models),
    Show(models::Show),
    Config(config::Config),
    Health(health::Health),
    Completions(completions::Completions),
    #[command(name = "man")]
    ManPages(completions::ManPages),
}

impl Command {
    /// Runs the subcommand.
    pub fn run(self) -> Result<ExitCode> {
        match self {
            Command::Generate(generate) => generate.run(),
            Command::Chat(chat) => chat.run(),
            Command::Explain(explain) => explain.run(),
            Command::Heads(heads) => heads.run(),
            Command::Positions(positions) => positions.run(),
            Command::Tokens(tokens) => tokens.run(),
            Command::Inspect(inspect) => inspect.run(),
            Command::Perplexity(perplexity) => perplexity.run(),
            Command::Bench(bench) => bench.run(),
            Command::Finetune(finetune) => finetune.run(),
            Command::Train(train) => train.run(),
            Command::Quantize(quantize) => quantize.run(),
            Command::Merge(merge) => merge.run(),
            Command::Serve(serve) => serve.run(),
            Command::Keys(keys) => keys.run(),
            Command::Pull(pull) => pull.run(),
            Command::Models(models) => models.run(),
            Command::Show(show) => show.run(),
            Command::Config(config) => config.run(),
            Command::Health(health) => health.run(),
            Command::Completions(completions) => completions.run(),
            Command::ManPages(pages) => pages.run(),
            Command::Batch(batch) => batch.run(),
        }
    }

    /// Whether it serves to install the program, and works whatever the settings are.
    pub fn is_for_installation(&self) -> bool {
        matches!(self, Command::Completions(_) | Command::ManPages(_))
    }
}
