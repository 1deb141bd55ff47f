//! `hornbook perplexity`: perplexity of a model on a text.

use crate::cli::args::open::open_hornbook;
use crate::cli::args::open::thread_pool;
use crate::cli::args::open::with_adapter;
use crate::cli::args::values;
use crate::cli::args::values::KvPrecisionArg;
use crate::cli::output::progress;
use crate::cli::output::stdout::write_line;
use crate::generate::perplexity::{Score, SlidingWindows, score};
use crate::kernels::attention::KvPrecision;
use crate::model::Precision;
use crate::{Hornbook, Result, text_file};
use clap::Args;
use serde_json::json;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Measure the perplexity of a model on a text
///
/// A text longer than the context is evaluated in consecutive windows. With --stride the windows overlap, and
/// each scores only its last tokens, with the others as context: slower, but closer to the true perplexity.
/// Every token but the first is scored once. Bits per byte are comparable between models with different
/// vocabularies.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  echo \"Once upon a time there was a king.<|endoftext|>Once there was a fox.\" > story.txt
  hornbook perplexity story.txt
  hornbook perplexity story.txt --special                the stories are separated by <|endoftext|>
  hornbook perplexity story.txt --stride 64              at least 448 tokens of context (of 512)
  hornbook perplexity story.txt --precision int8 --against f32
  hornbook perplexity story.txt --model gpt2 --against distilgpt2
  hornbook perplexity story.txt --adapter my-adapter --against fable    what the adapter changes
  echo \"Once upon a time\" | hornbook perplexity - --json")]
pub struct Perplexity {
    /// File with the text; - for standard input
    file: PathBuf,

    /// Model: fable (built in), a checkpoint folder, or a Hugging Face model in the local cache
    #[arg(short, long, default_value = "fable")]
    model: String,

    /// LoRA adapter for the model: a folder in peft's format
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,

    /// Also report the KL divergence from this reference: the same model in another precision, or another
    /// model with the same vocabulary, without --adapter
    #[arg(long, value_name = "PRECISION|MODEL")]
    against: Option<String>,

    /// Parse <|endoftext|> and other special tokens in the text
    #[arg(long)]
    special: bool,

    /// Window size in tokens [default: the model's context]
    #[arg(id = "window", long = "context", value_name = "N")] // not the setting `context`
    context: Option<NonZeroUsize>,

    /// Distance between window starts in tokens [default: the window size]
    #[arg(long, value_name = "N")]
    stride: Option<NonZeroUsize>,

    /// Convert the weights on load [default: as stored]
    #[arg(long, value_name = "P", value_parser = values::precision())]
    precision: Option<Precision>,

    /// Number of threads [default: one per core]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,

    #[arg(long, value_enum, help = values::kv_precision_help(""))]
    kv_precision: Option<KvPrecisionArg>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Perplexity {
    pub(super) fn run(self) -> Result<ExitCode> {
        let text = text_file::read(&self.file)?;
        let adapter = self.adapter.as_deref();
        let hornbook = with_adapter(self.open(&self.model, self.precision)?, adapter)?;
        let reference = self.against.as_deref().map(|against| match against.parse() {
            Ok(precision) => with_adapter(self.open(&self.model, Some(precision))?, adapter),
            Err(_) => self.open(against, None),
        });
        let reference = reference.transpose()?;
        let tokenizer = hornbook.tokenizer()?;
        let ids = tokenizer.encode(&text, self.special)?;
        // End-of-text tokens contribute no bytes.
        let eos_ids = &hornbook.config().eos_token_ids;
        let text_ids = ids.iter().skip(1).filter(|id| !eos_ids.contains(id));
        let bytes: usize = text_ids.map(|&id| tokenizer.token_bytes(id).len()).sum();

        let models = reference.iter().chain([&hornbook]);
        let max_context = models.map(|model| model.config().n_positions).min();
        let context = self.context.map_or(max_context.unwrap_or_default(), NonZeroUsize::get);
        let windows = SlidingWindows { context, stride: self.stride.map_or(context, NonZeroUsize::get) };
        let bar = progress::bar(ids.len().saturating_sub(1));
        let start = Instant::now();
        let against = reference.as_ref().map(Hornbook::model);
        let kv_precision = self.kv_precision.map(KvPrecision::from);
        let score = score(hornbook.model(), against, &ids, windows, kv_precision, |n| bar.inc(n as u64));
        let seconds = start.elapsed().as_secs_f64();
        bar.finish_and_clear();
        write_line(&self.report(&hornbook, windows, score?, bytes, seconds))?;
        Ok(ExitCode::SUCCESS)
    }

    fn open(&self, name: &str, precision: Option<Precision>) -> Result<Hornbook> {
        open_hornbook(name, thread_pool(self.threads)?, precision)
    }

    fn report(
        &self,
        hornbook: &Hornbook,
        windows: SlidingWindows,
        score: Score,
        bytes: usize,
        seconds: f64,
    ) -> String {
        let (loss, perplexity) = (score.loss(), score.perplexity());
        let bits_per_byte = (bytes > 0).then(|| score.bits_per_byte(bytes));
        let speed = score.tokens as f64 / seconds;
        let against = self.against.as_ref().zip(score.divergence);
        if self.json {
            let against = against.map(|(model, d)| {
                json!({"model": model, "kl_divergence": d.kl, "top1_agreement": d.top1_agreement})
            });
            let report = json!({
                "model": hornbook.name(),
                "context": windows.context,
                "stride": windows.stride,
                "tokens": score.tokens,
                "bytes": bytes,
                "perplexity": perplexity,
                "nats_per_token": loss,
                "bits_per_byte": bits_per_byte,
                "tokens_per_second": speed,
                "against": against,
            });
            return format!("{report:#}");
        }
        let mut text = format!(
            "perplexity      {perplexity:10.4}\n\
             nats per token  {loss:10.4}\n\
             bits per byte   {}\n\
             tokens          {:10}   scored, in windows of {} with stride {}\n\
             bytes           {bytes:10}\n\
             tokens/s        {speed:10.1}",
            bits_per_byte.map_or_else(|| format!("{:>10}", "-"), |bits| format!("{bits:10.4}")),
            score.tokens,
            windows.context,
            windows.stride,
        );
        if let Some((model, divergence)) = against {
            text += &format!(
                "\nKL divergence   {:10.3e}   nats per token, from {model}\n\
                 top-1 agreement {:10.4}",
                divergence.kl, divergence.top1_agreement
            );
        }
        text
    }
}
