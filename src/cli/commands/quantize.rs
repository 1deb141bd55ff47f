//! `hornbook quantize`: writes a model with quantized weights.

use crate::checkpoint::QuantizeProgress;
use crate::cli::args::open::open_checkpoint;
use crate::cli::args::output_folder::OutputFolder;
use crate::cli::args::values;
use crate::cli::output::progress;
use crate::model::Precision;
use crate::{Error, Result};
use clap::Args;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The arguments of `hornbook quantize`.
#[derive(Args, Debug)]
#[command(about = about(), long_about = format!("{}\n\n{NOTES}", about()), after_help = "Examples:
  hornbook quantize fable --precision int8 -o fable-int8
  hornbook generate --model fable-int8 \"The sea\"
  hornbook quantize fable --precision int4 -o fable-int8 --force
  hornbook quantize gpt2 --precision int8 -o gpt2-int8")]
pub struct Quantize {
    /// Model: fable (built in), a checkpoint folder, or a Hugging Face model in the local cache
    model: String,

    #[arg(
        short,
        long,
        value_parser = values::quantized_precision(),
        help = precisions(|p| format!("{p} ({})", p.format().properties().file_help.unwrap_or_default())),
    )]
    precision: Precision,

    #[command(flatten)]
    output: OutputFolder,
}

impl Quantize {
    pub(super) fn run(self) -> Result<ExitCode> {
        let checkpoint = open_checkpoint(&self.model)?;
        self.output.check(&checkpoint)?;
        let folder = &self.output.output;

        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&interrupted);
        // Without a handler, an interrupt leaves the temporary file behind.
        let _ = ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed));
        let bar = progress::bar(0);
        let bytes = checkpoint.quantize(self.precision, folder, |step| {
            let (message, done, total) = match step {
                QuantizeProgress::Quantized(done, total) => ("matrices quantized", done, total),
                QuantizeProgress::Written(done, total) => ("MB written", done >> 20, total >> 20),
            };
            bar.set_message(message);
            bar.set_length(total as u64);
            bar.set_position(done as u64);
            match interrupted.load(Ordering::Relaxed) {
                true => Err(Error::Message("interrupted; nothing was written".into())),
                false => Ok(()),
            }
        })?;
        bar.finish_and_clear();
        stderr_line!(
            "hornbook: wrote {} in {}, {:.1} MB; the original is {:.1} MB",
            folder.display(),
            self.precision,
            bytes as f64 / 1e6,
            checkpoint.mapped_bytes() as f64 / 1e6
        );
        Ok(ExitCode::SUCCESS)
    }
}

/// The rest of `--help`.
const NOTES: &str = "\
The new folder holds a safetensors file that is memory-mapped, so that it opens at once, whereas --precision \
of other commands quantizes the weights on every load. Tokens and logprobs are the same either way. The file \
is written atomically.";

fn about() -> String {
    format!("Quantize the weights of a model to {}", precisions(|precision| precision.to_string()))
}

fn precisions(describe: impl Fn(Precision) -> String) -> String {
    values::enumerate(Precision::in_files().map(describe), "or")
}
