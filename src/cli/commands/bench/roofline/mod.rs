//! `hornbook bench roofline`: a per-operation profile of prefill and decode.

mod plot;
mod report;

use super::check_repetitions;
use super::model::BenchModel;
use crate::atomic_file::AtomicFile;
use crate::bench::{ReadBandwidth, Step, roofline};
use crate::cli::args::open::thread_pool;
use crate::cli::args::values;
use crate::cli::args::values::KvPrecisionArg;
use crate::cli::output::progress;
use crate::kernels::attention::{AttentionKernel, KvPrecision};
use crate::model::{Model, Precision};
use crate::{Error, Result};
use clap::Args;
use report::Report;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

/// Profile a prefill step and a decode step by operation
///
/// For each operation, summed over layers: its time, the bytes and FLOPs that it requires, the limit that
/// bounds it (memory bandwidth or FMA throughput, measured just before and after), the percentage of that
/// limit that it reaches, and the percentage of the step that it takes. Of several repetitions, the one with
/// the median duration is shown. Activations stay in the cache between operations, so small operations can
/// exceed their limit; int8 products can exceed that of f32.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hornbook bench roofline
  hornbook bench roofline --shape gpt2 --prompt 512 --depth 1000 --svg roofline.svg
  hornbook bench roofline --model gpt2 --precision int8 --attention split-kv --json")]
pub struct Roofline {
    #[command(flatten)]
    model: BenchModel,

    /// Convert the weights on load [default: as stored]
    #[arg(long, value_name = "P", value_parser = values::precision())]
    precision: Option<Precision>,

    /// Number of threads [default: one per core]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,

    /// Attention kernel
    #[arg(long, value_name = "NAME", value_parser = values::attention_kernel(), default_value = "flash")]
    attention: &'static dyn AttentionKernel,

    #[arg(long, value_name = "PRECISION", value_enum, help = values::kv_precision_help(""))]
    kv_precision: Option<KvPrecisionArg>,

    /// Prompt length of the prefill step in tokens [default: 512, or the model's context]
    #[arg(long, value_name = "N")]
    prompt: Option<NonZeroUsize>,

    /// Context length before the decode step in tokens [default: 512, or the model's context less one]
    #[arg(long, value_name = "N")]
    depth: Option<usize>,

    /// Number of repetitions of each step
    #[arg(long, value_name = "N", default_value = "15")]
    repeat: NonZeroUsize,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    /// Also write a chart: bars of the times, and the roofline, intensity against speed
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// The default prompt and depth in tokens.
const DEFAULT_TOKENS: usize = 512;

impl Roofline {
    pub(super) fn run(self) -> Result<ExitCode> {
        let checkpoint = self.model.open()?;
        let name = checkpoint.name.clone();
        let precision = self.precision.unwrap_or(checkpoint.stored_precision());
        let steps = self.steps(checkpoint.config.n_positions)?;
        let pool = thread_pool(self.threads)?;
        let model = Model::with_precision(checkpoint, pool, self.precision)?.with_attention(self.attention);
        check_repetitions(self.repeat, (16 + 8 * model.config().n_layer) * size_of::<(f64, usize, f64)>())?;
        let memory = ReadBandwidth::new()?;
        let bar = progress::bar(steps.len().saturating_mul(self.repeat.get()));
        let kv = self.kv_precision.map_or(model.kv_precision(), KvPrecision::from);
        let mut report = Report::new(name, precision, &model, kv);
        for step in steps {
            bar.set_message(if step.tokens > 1 { "prefill" } else { "decode" });
            report.steps.push(roofline(&model, kv, step, self.repeat.get(), &memory, || bar.inc(1))?);
        }
        bar.finish_and_clear();
        if let Some(file) = &self.svg {
            AtomicFile::create(file)?.write_and_commit(report.svg().as_bytes())?;
        }
        report.print(self.json)?;
        Ok(ExitCode::SUCCESS)
    }

    /// Returns the prefill step and the decode step.
    fn steps(&self, context: usize) -> Result<[Step; 2]> {
        let prompt = self.prompt.map_or(DEFAULT_TOKENS.min(context), NonZeroUsize::get);
        let depth = self.depth.unwrap_or(DEFAULT_TOKENS.min(context.saturating_sub(1)));
        for (name, value, max) in
            [("--prompt", prompt, context), ("--depth", depth, context.saturating_sub(1))]
        {
            if value > max {
                return Err(Error::Parameter {
                    name: name.into(),
                    found: value.to_string(),
                    expected: format!("at most {max}: the model's context is {context} tokens"),
                });
            }
        }
        Ok([Step { tokens: prompt, depth: 0 }, Step { tokens: 1, depth }])
    }
}
