//! `hornbook perplexity`: how well the model predicts a text.

use super::kv::Kv;
use super::{progress, team, write_line};
use crate::checkpoint::Checkpoint;
use crate::generate::perplexity::{Score, SlidingWindows, score};
use crate::kernels::attention::KvPrecision;
use crate::model::Precision;
use crate::{Error, Hornbook, Result};
use clap::Args;
use serde_json::json;
use std::io::{Read, stdin};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Measure how well the model predicts a text
///
/// A text longer than the context is read in windows, one after the other. With --stride they overlap, each predicting
/// only its last tokens with all the others before them: slower, and nearer to what the model can do. Every token but
/// the first is predicted once. Bits per byte can be compared between models of different vocabularies.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hornbook perplexity story.txt
  hornbook perplexity stories.txt --special              <|endoftext|> separates the stories
  hornbook perplexity story.txt --stride 64              with at least 448 tokens to predict from
  hornbook perplexity story.txt --precision int8 --against f32
  hornbook perplexity story.txt --model mine --against gpt2
  zcat story.txt.gz | hornbook perplexity - --json")]
pub struct Perplexity {
    /// The text; - for standard input
    file: PathBuf,

    /// fable (built in), a checkpoint's folder, or a Hugging Face name in the local cache
    #[arg(short, long, default_value = "fable")]
    model: String,

    /// A precision of this model, or another model of the same vocabulary: how far the predictions are from its own
    #[arg(long, value_name = "PRECISION|MODEL")]
    against: Option<String>,

    /// Read <|endoftext|> and other special tokens in the text as such, not as text
    #[arg(long)]
    special: bool,

    /// Tokens of a window [default: the model's context]
    #[arg(id = "window", long = "context", value_name = "N")] // the setting `context` is another thing
    context: Option<NonZeroUsize>,

    /// Tokens from one window's start to the next [default: the whole window]
    #[arg(long, value_name = "N")]
    stride: Option<NonZeroUsize>,

    /// Convert the weights when loading: f32, f16, bf16, bf16-dot, int8 or int4 [default: as they are stored]
    #[arg(long, value_name = "P")]
    precision: Option<Precision>,

    /// Threads to compute with [default: one for each core]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,

    /// How keys and values are stored [default: f16 with bf16-dot, int8 and int4, else f32]
    #[arg(long, value_enum)]
    kv_precision: Option<Kv>,

    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl Perplexity {
    pub(super) fn run(self) -> Result<ExitCode> {
        let text = read(&self.file)?;
        let hornbook = self.open(&self.model, self.precision)?;
        let other = self.against.as_deref().map(|against| match against.parse() {
            Ok(precision) => self.open(&self.model, Some(precision)),
            Err(_) => self.open(against, None),
        });
        let other = other.transpose()?;
        let tokenizer = hornbook.tokenizer()?;
        let ids = tokenizer.encode(&text, self.special)?;
        // A token that ends a text is no part of it.
        let ends = &hornbook.config().eos_token_ids;
        let of_text = ids.iter().skip(1).filter(|id| !ends.contains(id));
        let bytes: usize = of_text.map(|&id| tokenizer.token_bytes(id).len()).sum();

        let shared = other.iter().chain([&hornbook]).map(|model| model.config().n_positions).min();
        let context = self.context.map_or(shared.unwrap_or_default(), NonZeroUsize::get);
        let windows = SlidingWindows { context, stride: self.stride.map_or(context, NonZeroUsize::get) };
        let bar = progress::bar(ids.len().saturating_sub(1));
        let start = Instant::now();
        let against = other.as_ref().map(Hornbook::model);
        let kv = self.kv_precision.map(KvPrecision::from);
        let score = score(hornbook.model(), against, &ids, windows, kv, |n| bar.inc(n as u64));
        let seconds = start.elapsed().as_secs_f64();
        bar.finish_and_clear();
        let text = self.report(&hornbook, windows, score?, bytes, seconds);
        write_line(&text)?;
        Ok(ExitCode::SUCCESS)
    }

    fn open(&self, name: &str, precision: Option<Precision>) -> Result<Hornbook> {
        Hornbook::with_precision(Checkpoint::open(name)?, team(self.threads)?, precision)
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
             tokens          {:10}   predicted, in windows of {} every {}\n\
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

/// The text of a file, or of standard input.
fn read(file: &Path) -> Result<String> {
    let (bytes, from) = if file == Path::new("-") {
        let mut bytes = vec![];
        (stdin().read_to_end(&mut bytes).map(|_| bytes), Path::new("standard input"))
    } else {
        (std::fs::read(file), file)
    };
    let bytes = bytes.map_err(|source| Error::Io { path: from.into(), action: "read", source })?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::Message(format!("{}: found a byte that is not UTF-8 at {at}, expected text", from.display()))
    })
}
