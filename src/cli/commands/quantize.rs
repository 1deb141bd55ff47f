//! `hornbook quantize`: writes a model with quantized weights.

use crate::checkpoint::QuantizeProgress;
use crate::cli::args::open::{open_checkpoint, thread_pool};
use crate::cli::args::output_folder::OutputFolder;
use crate::cli::args::values;
use crate::cli::output::progress;
use crate::generate::calibration::{Calibration, block_bytes};
use crate::model::Precision;
use crate::{Error, Hornbook, Result, memory, text_file};
use clap::Args;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The arguments of `hornbook quantize`.
#[derive(Args, Debug)]
#[command(about = about(), long_about = format!("{}\n\n{NOTES}", about()), after_help = "Examples:
  hornbook quantize fable --precision int8 -o fable-int8
  hornbook generate --model fable-int8 \"The sea\"
  hornbook quantize fable --precision int4 -o fable-int8 --force
  hornbook generate \"Once upon a time\" -n 20 > tales.txt
  hornbook quantize fable --precision int4 --calibrate tales.txt -o fable-int4
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

    /// With int4: round the weights so that the layers' outputs on this text change least (GPTQ). Any
    /// plain text of the kind that the model is to write; <|endoftext|> separates documents
    #[arg(long, value_name = "FILE")]
    calibrate: Option<PathBuf>,

    /// Number of threads that calibrate [default: one per core]
    #[arg(long, value_name = "N", requires = "calibrate")]
    threads: Option<NonZeroUsize>,

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
        let show = |message, done, total| {
            bar.set_message(message);
            bar.set_length(total as u64);
            bar.set_position(done as u64);
            match interrupted.load(Ordering::Relaxed) {
                true => Err(Error::Message("interrupted; nothing was written".into())),
                false => Ok(()),
            }
        };
        let on_progress = |step| match step {
            QuantizeProgress::Quantized(done, total) => show("matrices quantized", done, total),
            QuantizeProgress::Written(done, total) => show("MB written", done >> 20, total >> 20),
        };
        let bytes = match &self.calibrate {
            None => checkpoint.quantize(self.precision, None, folder, on_progress)?,
            Some(file) => {
                self.check_feedback()?;
                let text = text_file::read(file)?;
                let hornbook =
                    Hornbook::with_precision(checkpoint.clone(), thread_pool(self.threads)?, None)?;
                let ids = hornbook.tokenizer()?.encode(&text, true)?;
                let block = block_bytes(hornbook.model());
                // What is made of a block's sums is as large, and larger while it is made.
                memory::check("--calibrate", "a text for a model of this width", &[4, block])?;
                let blocks_per_pass = memory::available() as usize / 2 / block;
                let mut calibration = Calibration::new(hornbook.model(), &ids, blocks_per_pass)?;
                let mut on_tokens = |done, total| show("tokens computed", done, total);
                let mut feedback = |block| calibration.feedback(block, &mut on_tokens);
                checkpoint.quantize(self.precision, Some(&mut feedback), folder, on_progress)?
            }
        };
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

    fn check_feedback(&self) -> Result<()> {
        let uses_feedback = |precision: &Precision| precision.format().properties().uses_feedback;
        match uses_feedback(&self.precision) {
            true => Ok(()),
            false => Err(Error::Parameter {
                name: "--calibrate".into(),
                found: format!("--precision {}", self.precision),
                expected: values::enumerate(
                    Precision::in_files().filter(uses_feedback).map(|precision| precision.to_string()),
                    "or",
                ),
            }),
        }
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
