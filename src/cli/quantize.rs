//! `hornbook quantize`: a model with rounded weights, written once.

use super::progress;
use crate::checkpoint::{Checkpoint, Step};
use crate::model::Precision;
use crate::{Error, Result};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Write a model with its weights rounded to eight or four bits
///
/// The new folder holds ordinary safetensors, which are used where they lie in the file: it opens at once, where
/// --precision rounds the weights each time a model is loaded. Tokens and logprobs are the same either way. The file
/// appears under its name only when it is complete.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hornbook quantize gpt2 --precision int8 -o gpt2-int8
  hornbook generate --model gpt2-int8 \"The sea\"
  hornbook quantize ./my-gpt2 --precision int4 -o ./my-gpt2-int4 --force")]
pub struct Quantize {
    /// fable (built in), a checkpoint's folder, or a Hugging Face name in the local cache
    model: String,

    /// int8 (eight bits a weight) or int4 (four, the head eight)
    #[arg(short, long)]
    precision: Precision,

    /// The folder to write
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,

    /// Replace a model that is there already
    #[arg(long)]
    force: bool,
}

impl Quantize {
    pub(super) fn run(self) -> Result<ExitCode> {
        if !matches!(self.precision, Precision::Int8 | Precision::Int4) {
            return Err(Error::Parameter {
                name: "--precision".into(),
                found: self.precision.to_string(),
                expected: "int8 or int4".into(),
            });
        }
        let checkpoint = Checkpoint::open(&self.model)?;
        self.refuse_to_overwrite(&checkpoint)?;

        let interrupted = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&interrupted);
        // Without a handler an interrupt leaves an unfinished file behind, under a name that says so.
        let _ = ctrlc::set_handler(move || seen.store(true, Ordering::Relaxed));
        let bar = progress::bar(0);
        let bytes = checkpoint.quantize(self.precision.dtype(), &self.output, |step| {
            let (message, done, of) = match step {
                Step::Quantized(done, of) => ("matrices quantized", done, of),
                Step::Written(done, of) => ("MB written", done >> 20, of >> 20),
            };
            bar.set_message(message);
            bar.set_length(of as u64);
            bar.set_position(done as u64);
            match interrupted.load(Ordering::Relaxed) {
                true => Err(Error::Message("interrupted; nothing was written".into())),
                false => Ok(()),
            }
        })?;
        bar.finish_and_clear();
        eprintln!(
            "hornbook: {} in {} is {:.1} MB, {:.1} MB before",
            self.output.display(),
            self.precision,
            bytes as f64 / 1e6,
            checkpoint.mapped_bytes() as f64 / 1e6
        );
        Ok(ExitCode::SUCCESS)
    }

    fn refuse_to_overwrite(&self, checkpoint: &Checkpoint) -> Result<()> {
        let same = |folder: &PathBuf| {
            folder.canonicalize().ok().is_some_and(|f| Some(f) == self.output.canonicalize().ok())
        };
        let problem = if checkpoint.folder.as_ref().is_some_and(same) {
            "this is the model's own folder, expected another"
        } else if !self.force
            && ["model.safetensors", "model.safetensors.index.json", "config.json"]
                .iter()
                .any(|name| self.output.join(name).exists())
        {
            "found a model, expected an empty or new folder; --force replaces it"
        } else {
            return Ok(());
        };
        Err(Error::Checkpoint { file: self.output.clone(), problem: problem.into() })
    }
}
