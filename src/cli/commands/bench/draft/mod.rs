//! `hornbook bench draft`: decode with and without drafts.

mod report;

use super::model::BenchModel;
use super::{check_repetitions, clip};
use crate::bench::measure_drafts;
use crate::cli::args::draft::with_draft;
use crate::cli::args::open::thread_pool;
use crate::cli::args::values;
use crate::cli::output::progress;
use crate::generate::Options;
use crate::model::Precision;
use crate::sampling::SamplingParams;
use crate::{Hornbook, Result};
use clap::Args;
use clap::builder::RangedI64ValueParser;
use report::{Report, Row};
use std::num::NonZeroUsize;
use std::process::ExitCode;

/// Measure speculative decoding: what drafts by a quantized copy of the model, or by another model, save
///
/// Each repetition writes a text without and with drafts (`hornbook generate --draft`), the same tokens, and
/// the speedup is the median of their ratios. Drafts pay for a model that is larger than the caches, as often
/// as they are accepted; random weights (--shape) accept next to nothing.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hornbook bench draft
  hornbook bench draft --model gpt2 --precision f32,bf16 --temperature 0,0.8,1
  hornbook bench draft --shape gpt2 --draft int4 --temperature 1 --csv > draft.csv")]
pub struct Draft {
    #[command(flatten)]
    model: BenchModel,

    /// Precisions of the model to measure [default: f32 with --shape, otherwise as stored]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = values::precision())]
    precision: Vec<Precision>,

    /// Draft models to measure: precisions of a copy of the model, or other models
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "int4,int8")]
    draft: Vec<String>,

    /// Temperatures to measure
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "0,0.8")]
    temperature: Vec<f32>,

    /// The prompt
    #[arg(long, value_name = "TEXT", default_value = "Once upon a time", conflicts_with = "shape")]
    prompt: String,

    /// Tokens per text
    #[arg(
        long,
        value_name = "N",
        default_value = "200",
        value_parser = RangedI64ValueParser::<usize>::new().range(2..)
    )]
    max_tokens: usize,

    /// Number of threads [default: one per core]
    #[arg(long)]
    threads: Option<NonZeroUsize>,

    /// Number of repetitions
    #[arg(long, value_name = "N", default_value = "5")]
    repeat: NonZeroUsize,

    /// Print one JSON object
    #[arg(long, conflicts_with = "csv")]
    json: bool,

    /// Print CSV, one line per measurement
    #[arg(long)]
    csv: bool,
}

/// The prompt of a model without a tokenizer.
const PROMPT_IDS: [u32; 4] = [1, 2, 3, 4];

impl Draft {
    pub(super) fn run(self) -> Result<ExitCode> {
        check_repetitions(self.repeat, size_of::<f64>())?;
        let checkpoint = self.model.open()?;
        let precisions: Vec<Option<Precision>> = match &self.precision[..] {
            [] => vec![None],
            given => given.iter().copied().map(Some).collect(),
        };
        let series = precisions.len() * self.draft.len() * self.temperature.len();
        let bar = progress::bar(series.saturating_mul(self.repeat.get()));
        let mut report = Report::new(&checkpoint, self.model.is_random());
        for &precision in &precisions {
            let name = precision.unwrap_or(checkpoint.stored_precision());
            for draft in &self.draft {
                bar.set_message(format!("{name}, {draft} drafts, loading the model"));
                let pool = thread_pool(self.threads)?;
                let hornbook = Hornbook::with_precision(checkpoint.clone(), pool, precision)?;
                let hornbook = with_draft(hornbook, draft)?;
                let prompt = match self.model.is_random() {
                    true => PROMPT_IDS.to_vec(),
                    false => hornbook.encode(&self.prompt)?,
                };
                let context = hornbook.config().n_positions;
                let max_tokens = match context.saturating_sub(prompt.len()) {
                    0..2 => self.max_tokens, // the prompt is too long, which the first text will say
                    room => clip("--max-tokens", self.max_tokens, room, context),
                };
                for &temperature in &self.temperature {
                    bar.set_message(format!("{name}, {draft} drafts, temperature {temperature}"));
                    let sampling = SamplingParams { temperature, ..Options::default().sampling };
                    let options = Options { sampling, max_tokens: Some(max_tokens), ..Options::default() };
                    let measurement =
                        measure_drafts(&hornbook, &prompt, &options, self.repeat.get(), || bar.inc(1))?;
                    report.rows.push(Row {
                        precision: name,
                        draft: draft.clone(),
                        temperature,
                        threads: hornbook.model().pool().threads(),
                        draft_model_bytes: hornbook
                            .draft_model()
                            .map_or(0, |draft| draft.model().pass_bytes()),
                        measurement,
                    });
                }
            }
        }
        bar.finish_and_clear();
        report.print(self.json, self.csv)?;
        Ok(ExitCode::SUCCESS)
    }
}
