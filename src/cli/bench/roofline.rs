//! `hornbook bench roofline`: where the time of a token goes.

mod report;

use crate::bench::{ReadBandwidth, Shape, Step, roofline};
use crate::checkpoint::Checkpoint;
use crate::cli::attention_kernel;
use crate::cli::kv_precision::KvPrecisionArg;
use crate::cli::{progress, thread_pool};
use crate::kernels::attention::{AttentionKernel, KvPrecision};
use crate::model::{Model, Precision};
use crate::replacement::Replacement;
use crate::{Error, Result};
use clap::Args;
use report::Report;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

/// Take a prefill step and a decode step apart, operation by operation
///
/// Each operation, all layers together: its time, the bytes and operations that it cannot do without, the limit that
/// binds it (reading memory or multiply-adds, measured just before and after), what share of that limit it reaches, and
/// its share of the step. Of several repetitions, the one of median length is shown. What passes from one operation to
/// the next stays in the cache, so small operations can beat their limit; eight-bit products can beat that of f32.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hornbook bench roofline
  hornbook bench roofline --shape gpt2 --prompt 512 --depth 1000 --svg roofline.svg
  hornbook bench roofline --model gpt2 --precision int8 --attention split-kv --json")]
pub struct Roofline {
    /// fable (built in), a checkpoint's folder, or a Hugging Face name in the local cache
    #[arg(short, long, default_value = "fable", conflicts_with = "shape")]
    model: String,

    /// Random weights of this shape instead: gpt2, gpt2-medium, gpt2-large or gpt2-xl
    #[arg(long, value_name = "NAME")]
    shape: Option<Shape>,

    /// Convert the weights when loading: f32, f16, bf16, bf16-dot, int8 or int4 [default: as they are stored]
    #[arg(long, value_name = "P")]
    precision: Option<Precision>,

    /// Threads to compute with [default: one for each core]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,

    /// How attention is computed
    #[arg(long, value_name = "NAME", value_parser = attention_kernel::parser(), default_value = "flash")]
    attention: &'static dyn AttentionKernel,

    /// How keys and values are stored [default: f16 with bf16-dot, int8 and int4, else f32]
    #[arg(long, value_name = "PRECISION", value_enum)]
    kv_precision: Option<KvPrecisionArg>,

    /// Tokens of the prefill step [default: 512, or the model's context]
    #[arg(long, value_name = "N")]
    prompt: Option<NonZeroUsize>,

    /// Tokens that are there before the decode step [default: 512, or all but one of the context]
    #[arg(long, value_name = "N")]
    depth: Option<usize>,

    /// Times to take each step
    #[arg(long, value_name = "N", default_value = "15")]
    repeat: NonZeroUsize,

    /// One JSON object
    #[arg(long)]
    json: bool,

    /// Draw the shares as bars, too
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// What is taken where nothing is said.
const TOKENS: usize = 512;

impl Roofline {
    pub(super) fn run(self) -> Result<ExitCode> {
        let checkpoint = match self.shape {
            Some(shape) => shape.random()?,
            None => Checkpoint::open(&self.model)?,
        };
        let name = checkpoint.name.clone();
        let precision = self.precision.map_or_else(|| checkpoint.stored().name(), Precision::name);
        let steps = self.steps(checkpoint.config.n_positions)?;
        let team = thread_pool(self.threads)?;
        let model = Model::with_precision(checkpoint, team, self.precision)?.with_attention(self.attention);
        let memory = ReadBandwidth::new()?;
        let bar = progress::bar(steps.len() * self.repeat.get());
        let kv = self.kv_precision.map_or(model.kv_precision(), KvPrecision::from);
        let mut report = Report::new(name, precision, &model, kv);
        for step in steps {
            bar.set_message(if step.tokens > 1 { "prefill" } else { "decode" });
            report.steps.push(roofline(&model, kv, step, self.repeat.get(), &memory, || bar.inc(1))?);
        }
        bar.finish_and_clear();
        if let Some(file) = &self.svg {
            Replacement::of(file)?.write(report.svg().as_bytes())?;
        }
        report.print(self.json)?;
        Ok(ExitCode::SUCCESS)
    }

    /// The prefill step and the decode step, within the model's context.
    fn steps(&self, context: usize) -> Result<[Step; 2]> {
        let prompt = self.prompt.map_or(TOKENS.min(context), NonZeroUsize::get);
        let depth = self.depth.unwrap_or(TOKENS.min(context.saturating_sub(1)));
        for (name, found, most) in
            [("--prompt", prompt, context), ("--depth", depth, context.saturating_sub(1))]
        {
            if found > most {
                return Err(Error::Parameter {
                    name: name.into(),
                    found: found.to_string(),
                    expected: format!("at most {most}: the model's context is {context} tokens"),
                });
            }
        }
        Ok([Step { tokens: prompt, depth: 0 }, Step { tokens: 1, depth }])
    }
}
