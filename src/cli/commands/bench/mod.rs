//! `hornbook bench`: the model's speed, as a fraction of the machine's limits.

mod attention;
mod chart;
mod draft;
mod model;
mod report;
mod roofline;
mod table;
mod train;

use crate::Result;
use crate::bench::{Cost, DECODE_STEPS, LimitSamples, Phase, ReadBandwidth, Summary, measure};
use crate::checkpoint::Config;
use crate::cli::args::open::check_threads;
use crate::cli::args::open::thread_pool;
use crate::cli::args::values;
use crate::cli::args::values::KvPrecisionArg;
use crate::cli::output::progress;
use crate::kernels::attention::KvPrecision;
use crate::kernels::isa::Isa;
use crate::memory;
use crate::model::{KvCache, Model, Precision};
use clap::{Args, Subcommand};
use model::BenchModel;
use report::{Report, Row, ThreadLimits};
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::thread::available_parallelism;

/// Measure tokens per second and compare them with the limits of the machine
///
/// Prefill processes a prompt, decode generates tokens one by one, and batch decodes several sequences
/// together. Decode is bound by memory bandwidth, prefill by FMA throughput. Both limits are measured
/// repeatedly between the other measurements, and the table shows the percentage of each limit that was
/// reached. A model that fits in the cache can exceed the memory bandwidth. Sampling is not included in the
/// times.
#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  hornbook bench                                          the built-in model
  hornbook bench --model gpt2                             a model of your own
  hornbook bench --shape gpt2-xl --precision bf16         any size, without downloading it
  hornbook bench --shape gpt2 --precision f32,int8,int4 --threads 1,2,4
  hornbook bench --shape gpt2 --prompt 32,512 --depth 0,512 --batch 2,4,8 --csv > gpt2.csv
  hornbook bench attention --help                         compare attention kernels
  hornbook bench draft --help                             measure speculative decoding
  hornbook bench roofline --help                          show where the time of a token is spent
  hornbook bench train --help                             measure training"
)]
pub struct Bench {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    model: BenchModel,

    /// Precisions to measure [default: f32 with --shape, otherwise as stored]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = values::precision())]
    precision: Vec<Precision>,

    /// Numbers of threads to measure [default: one per core]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    threads: Vec<NonZeroUsize>,

    /// Prompt lengths for prefill [default: 128,512]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    prompt: Vec<NonZeroUsize>,

    /// Context lengths at which decode starts [default: 32 and 7/8 of the context]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    depth: Vec<usize>,

    /// Batch sizes for decode, at the first depth; 1 skips batching
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "8")]
    batch: Vec<NonZeroUsize>,

    /// Number of repetitions
    #[arg(long, value_name = "N", default_value = "7")]
    repeat: NonZeroUsize,

    #[arg(long, value_name = "PRECISION", value_enum, help = values::kv_precision_help(""))]
    kv_precision: Option<KvPrecisionArg>,

    /// Print one JSON object
    #[arg(long, conflicts_with = "csv")]
    json: bool,

    /// Print CSV, one line per measurement
    #[arg(long)]
    csv: bool,
}

/// A benchmark of a part of the model.
#[derive(Debug, Subcommand)]
enum Command {
    Attention(attention::Attention),
    Draft(draft::Draft),
    Roofline(roofline::Roofline),
    Train(train::Train),
}

impl Bench {
    pub(super) fn run(self) -> Result<ExitCode> {
        match self.command {
            Some(Command::Attention(attention)) => return attention.run(),
            Some(Command::Draft(draft)) => return draft.run(),
            Some(Command::Roofline(roofline)) => return roofline.run(),
            Some(Command::Train(train)) => return train.run(),
            None => {}
        }
        check_repetitions(self.repeat, size_of::<f64>())?;
        let isa = Isa::choose()?;
        let cores = available_parallelism().map_or(1, usize::from);
        let threads = match &self.threads[..] {
            [] => vec![cores],
            given => given.iter().map(|n| n.get()).collect(),
        };
        threads.iter().try_for_each(|&threads| check_threads(threads))?;
        let checkpoint = self.model.open()?;
        let precisions: Vec<Option<Precision>> = match &self.precision[..] {
            [] => vec![None],
            given => given.iter().copied().map(Some).collect(),
        };
        let phases = self.phases(&checkpoint.config);
        let mut report = Report::new(&checkpoint, self.model.is_random(), isa, cores);

        let memory = ReadBandwidth::new()?;
        let mut limits: Vec<LimitSamples> = threads.iter().map(|_| LimitSamples::default()).collect();
        let series = precisions.len() * threads.len() * phases.len();
        let repetitions = series.saturating_mul(self.repeat.get());
        let bar = progress::bar(repetitions);
        for &precision in &precisions {
            let name = precision.unwrap_or(checkpoint.stored_precision());
            for (&threads, limits) in threads.iter().zip(&mut limits) {
                bar.set_message(format!("{name}, loading the model"));
                let pool = thread_pool(NonZeroUsize::new(threads))?;
                let model = Model::with_precision(checkpoint.clone(), pool, precision)?;
                let kv_precision = self.kv_precision.map_or(model.kv_precision(), KvPrecision::from);
                let cost = Cost::new(&model, kv_precision);
                for &phase in &phases {
                    if let Phase::Batch { sequences, depth } = phase {
                        let sizes = KvCache::byte_factors(model.config(), depth + DECODE_STEPS, kv_precision);
                        let sizes = [&sizes[..], &[sequences]].concat();
                        memory::check("--batch", &sequences.to_string(), &sizes)?;
                    }
                    bar.set_message(format!("{name}, {threads} threads, {}", phase.name()));
                    let (repeat, on_repetition) = (self.repeat.get(), || bar.inc(1));
                    let measurement =
                        measure(&model, &cost, kv_precision, phase, repeat, &memory, limits, on_repetition)?;
                    report.results.push(Row { precision: name, kv_precision, threads, measurement });
                }
            }
        }
        bar.finish_and_clear();
        for (&threads, limits) in threads.iter().zip(&limits) {
            report.limits.push(ThreadLimits {
                threads,
                bandwidth: (!limits.bandwidths.is_empty()).then(|| Summary::new(&limits.bandwidths).median),
                peak: (!limits.peaks.is_empty()).then(|| Summary::new(&limits.peaks).median),
            });
        }
        report.print(self.json, self.csv)?;
        Ok(ExitCode::SUCCESS)
    }

    /// Returns the phases to measure, clipped to the model's context.
    fn phases(&self, config: &Config) -> Vec<Phase> {
        let context = config.n_positions;
        let prompts: Vec<usize> = match &self.prompt[..] {
            [] => vec![128.min(context), 512.min(context)],
            given => given.iter().map(|n| clip("--prompt", n.get(), context, context)).collect(),
        };
        let max_depth = context.saturating_sub(DECODE_STEPS);
        let depths: Vec<usize> = match &self.depth[..] {
            [] => vec![32.min(max_depth), (context / 8 * 7).min(max_depth)],
            given => given.iter().map(|&n| clip("--depth", n, max_depth, context)).collect(),
        };
        let prefill = prompts.into_iter().map(|prompt| Phase::Prefill { prompt });
        let decode = depths.iter().map(|&depth| Phase::Decode { depth });
        let batch = self.batch.iter().map(|n| Phase::Batch { sequences: n.get(), depth: depths[0] });
        let batch = batch.filter(|phase| !matches!(phase, Phase::Batch { sequences: 1, .. }));
        let mut phases: Vec<Phase> = vec![];
        for phase in prefill.chain(decode).chain(batch) {
            if !phases.contains(&phase) {
                phases.push(phase); // clipping may have made two equal
            }
        }
        phases
    }
}

/// Checks that the samples of `repeat` repetitions fit into memory, in up to eight series.
fn check_repetitions(repeat: NonZeroUsize, sample_bytes: usize) -> Result<()> {
    memory::check("--repeat", &repeat.to_string(), &[repeat.get(), 8, sample_bytes])
}

/// Returns `n`, clipped to `max` with a note on standard error.
fn clip(option: &str, n: usize, max: usize, context: usize) -> usize {
    if n > max {
        stderr_line!(
            "hornbook: {option} {n} exceeds the model's context of {context} tokens: using {max} instead"
        );
    }
    n.min(max)
}
