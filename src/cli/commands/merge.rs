//! `hornbook merge`: writes a model with a LoRA adapter merged into its weights.

use crate::checkpoint::adapter::Adapter;
use crate::cli::args::open::open_checkpoint;
use crate::cli::args::output_folder::OutputFolder;
use crate::cli::args::values;
use crate::model::Precision;
use crate::{Error, Result};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

/// Merge a LoRA adapter into its model
///
/// The new folder is an ordinary model, with the tokenizer and the chat template, which transformers opens as
/// well. A merged model computes the same as the model with --adapter, up to rounding, and a little faster;
/// unmerged, an adapter takes a few megabytes, and a server shares one model between many.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  echo \"Dear Anna, the garden is green.<|endoftext|>Dear Tom, the dog sleeps.\" > letters.txt
  hornbook finetune --data letters.txt --lora 4 -o my-adapter
  hornbook merge fable my-adapter -o merged
  hornbook generate --model ./merged \"Dear Anna,\"          fable with my-adapter
  hornbook merge fable my-adapter -o merged --precision bf16 --force")]
pub struct Merge {
    /// Model: fable (built in), a checkpoint folder, or a Hugging Face model in the local cache
    model: String,

    /// LoRA adapter for the model: a folder in peft's format
    adapter: PathBuf,

    #[command(flatten)]
    output: OutputFolder,

    /// Precision of the weights: f32, f16 or bf16 [default: the model's own]
    #[arg(long, value_name = "P", value_parser = values::precision())]
    precision: Option<Precision>,
}

impl Merge {
    pub(super) fn run(self) -> Result<ExitCode> {
        let checkpoint = open_checkpoint(&self.model)?;
        let folder = &self.output.output;
        self.output.check(&checkpoint)?;
        if folder.exists() && !folder.is_dir() {
            return Err(Error::invalid_file(folder, "is not a folder, expected one to write the model to"));
        }
        let adapter = Adapter::open(&self.adapter, &checkpoint.config)?;
        let bytes = checkpoint.write_merged(&adapter, self.precision, folder)?;
        stderr_line!("hornbook: wrote {}, {:.1} MB", folder.display(), bytes as f64 / 1e6);
        Ok(ExitCode::SUCCESS)
    }
}
