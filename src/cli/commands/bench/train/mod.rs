//! `hornbook bench train`: a training step and its parts.

mod report;

use super::check_repetitions;
use super::model::BenchModel;
use crate::bench::{TrainShape, measure_training};
use crate::cli::args::open::{check_threads, thread_pool};
use crate::cli::output::progress;
use crate::kernels::isa::Isa;
use crate::memory::{self, Memory};
use crate::train::{Activations, Trainer};
use crate::{Error, Result};
use clap::Args;
use report::{Report, Row};
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::thread::available_parallelism;

/// Measure a training step: tokens per second, memory, and the time of each operation
///
/// A step is the forward and backward pass of one micro-batch of random tokens, the norm of the gradient, and
/// AdamW, in f32. FLOPs are those that the formulas require, without what is computed again; the peak FMA
/// throughput is measured before and after every step. The parts are those of the step of median length, each
/// summed over layers; "d" is a gradient. Memory is that of the process after the last step.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hornbook bench train
  hornbook bench train --batch 16 --context 512 --threads 1,2
  hornbook bench train --shape gpt2 --batch 4 --context 512 --csv > train.csv")]
pub struct Train {
    #[command(flatten)]
    model: BenchModel,

    /// Sequences per step
    #[arg(long, value_name = "SEQUENCES", default_value = "4")]
    batch: NonZeroUsize,

    /// Tokens per sequence [default: 512, or the model's context]
    #[arg(long, value_name = "TOKENS")]
    context: Option<NonZeroUsize>,

    /// Numbers of threads to measure [default: one per core]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    threads: Vec<NonZeroUsize>,

    /// Number of repetitions
    #[arg(long, value_name = "N", default_value = "5")]
    repeat: NonZeroUsize,

    /// Print one JSON object
    #[arg(long, conflicts_with = "csv")]
    json: bool,

    /// Print CSV, one line per part of the step
    #[arg(long)]
    csv: bool,
}

/// The default context in tokens.
const DEFAULT_CONTEXT: usize = 512;

impl Train {
    pub(super) fn run(self) -> Result<ExitCode> {
        check_repetitions(self.repeat, 1 << 10)?;
        let isa = Isa::choose()?;
        let cores = available_parallelism().map_or(1, usize::from);
        let threads: Vec<usize> = match &self.threads[..] {
            [] => vec![cores],
            given => given.iter().map(|n| n.get()).collect(),
        };
        threads.iter().try_for_each(|&threads| check_threads(threads))?;
        let bar = progress::bar(threads.len().saturating_mul(self.repeat.get()));
        let mut report = Report::new(isa, cores);
        for threads in threads {
            bar.set_message("loading the model");
            // Dropped before the steps, whose memory is measured.
            let checkpoint = self.model.open()?;
            let config = checkpoint.config.clone();
            let shape = self.train_shape(config.n_positions)?;
            let bytes = Activations::bytes_per_token(&config).saturating_mul(shape.context);
            memory::check("--batch", &shape.sequences.to_string(), &[bytes, shape.sequences])?;
            report.set_model(&checkpoint, self.model.is_random());
            let pool = || thread_pool(NonZeroUsize::new(threads));
            let mut trainer = Trainer::new(&checkpoint, pool()?, shape.tokens())?;
            drop(checkpoint);
            bar.set_message(format!("{threads} threads"));
            let measurement =
                measure_training(&mut trainer, &pool()?, shape, self.repeat.get(), || bar.inc(1))?;
            let memory_bytes = Memory::now().map(|memory| memory.anonymous);
            report.rows.push(Row { threads, measurement, memory_bytes });
        }
        bar.finish_and_clear();
        report.print(self.json, self.csv)?;
        Ok(ExitCode::SUCCESS)
    }

    fn train_shape(&self, n_positions: usize) -> Result<TrainShape> {
        let context = self.context.map_or(DEFAULT_CONTEXT.min(n_positions), NonZeroUsize::get);
        if context > n_positions {
            return Err(Error::Parameter {
                name: "--context".into(),
                found: context.to_string(),
                expected: format!("at most {n_positions}: the model's context"),
            });
        }
        Ok(TrainShape { sequences: self.batch.get(), context })
    }
}
