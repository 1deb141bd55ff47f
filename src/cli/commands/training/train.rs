//! `hornbook train`: trains a model from nothing.

use super::options::{Execution, Options};
use super::{carry_out, resume};
use crate::chat::ChatTemplate;
use crate::checkpoint::ModelShape;
use crate::cli::args::open::open_checkpoint;
use crate::memory;
use crate::tokenizer::{self, Tokenizer};
use crate::train::job::{Folder, Inputs, Texts};
use crate::train::{DocumentReader, Length, Optimizer, Settings, read_texts};
use crate::{Error, Result};
use clap::Args;
use std::borrow::Cow;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

/// Train a model from nothing
///
/// The model begins with random weights, and the tokenizer of another model or a new one. The output folder
/// is a Hugging Face folder with the best model so far, on texts that are held out. A run that was
/// interrupted, or killed, goes on with --resume, to the same weights as one that never stopped, whatever the
/// number of threads.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hornbook generate -n 8 --max-tokens 200 \"Once upon a time\" > tales.txt
  hornbook train --shape 2x64 --context 128 --tokenizer new:300 --data tales.txt -o tiny
  hornbook train --resume tiny                           goes on, if it was interrupted")]
pub struct Train {
    /// Blocks and width, LAYERSxWIDTH or LAYERSxWIDTHxHEADS: 6x256; or the name of a GPT-2: gpt2
    #[arg(long, default_value = "6x256", conflicts_with = "resume")]
    shape: Shape,

    /// The context length in tokens
    #[arg(long, value_name = "N", default_value = "512", conflicts_with = "resume")]
    context: NonZeroUsize,

    /// Tokenizer: new:N for a new one of N tokens, trained on the data; or that of a model
    #[arg(long, value_name = "new:N|MODEL", default_value = "fable", conflicts_with = "resume")]
    tokenizer: String,

    #[command(flatten)]
    options: Options,

    #[command(flatten)]
    execution: Execution,
}

/// The settings of a model that begins with random weights.
fn defaults() -> Settings {
    Settings {
        length: Length::Epochs(1),
        batch_tokens: 8192,
        micro_batch_tokens: 8192,
        optimizer: Optimizer::Muon,
        learning_rate: 2e-3,
        warmup_share: 0.02,
        decay_share: 0.45,
        weight_decay: 0.02,
        average_share: 0.05,
        ..Settings::default()
    }
}

impl Train {
    pub fn run(self) -> Result<ExitCode> {
        if let Some(folder) = &self.execution.resume {
            return resume(folder, &self.execution);
        }
        let (output, force) = self.options.output();
        Folder::check(&output, force)?;
        let plan = self.options.plan(output.display().to_string(), defaults())?;
        let files = self.tokenizer_files(&plan.data)?;
        let tokenizer = Tokenizer::from_files(&files)?.ok_or_else(|| no_tokenizer(&self.tokenizer))?;
        let (context, vocab_size) = (self.context.get(), tokenizer.vocab_size());
        let shape = ModelShape { n_positions: context, vocab_size, ..self.shape.0 };
        // The weights, their gradients and moments, before a folder is there.
        let found = format!("{} blocks of width {}, context {context}", shape.n_layer, shape.n_embd);
        memory::check("--shape", &found, &[shape.n_parameters(), 4, size_of::<f32>()])?;

        let eos = tokenizer.special_tokens().eos.as_ref();
        let end_of_text = tokenizer.token_to_id(eos.map_or("<|endoftext|>", |eos| &eos.text));
        let reader = DocumentReader {
            tokenizer: &tokenizer,
            vocab_size,
            end_of_text,
            prompt_loss_weight: plan.prompt_loss_weight,
            chat_template: &ChatTemplate::transcript,
        };
        let texts = Texts::read(&plan, &reader, context)?;
        let folder = Folder::create(&output)?;
        shape.write_initial(&output, plan.settings.seed, end_of_text, &files)?;
        let checkpoint = open_checkpoint(&plan.model)?;
        carry_out(folder, plan, Inputs { checkpoint, texts }, &self.execution)
    }

    fn tokenizer_files(&self, data: &[PathBuf]) -> Result<Vec<(PathBuf, Cow<'static, [u8]>)>> {
        let Some(size) = self.tokenizer.strip_prefix("new:") else {
            return open_checkpoint(&self.tokenizer)?.tokenizer_files();
        };
        let size = size.parse().map_err(|_| Error::Parameter {
            name: "tokenizer".into(),
            found: format!("'{}'", self.tokenizer),
            expected: "new:N with a number of tokens, as new:4096".into(),
        })?;
        let texts = data.iter().map(|path| read_texts(path)).collect::<Result<Vec<_>>>()?.concat();
        stderr_line!("hornbook: a tokenizer of {size} tokens from {} documents", texts.len());
        let file = tokenizer::train(texts.iter().map(String::as_str), size)?;
        Ok(vec![("tokenizer.json".into(), file.into())])
    }
}

fn no_tokenizer(model: &str) -> Error {
    Error::NoTokenizer {
        model: model.into(),
        problem: "has no tokenizer".into(),
        hint: "expected a model with one, or new:N",
    }
}

/// The shape of the blocks; vocabulary and context are of the run.
#[derive(Clone, Copy, Debug)]
struct Shape(ModelShape);

/// The width of a head, where the number of heads is not given: that of every GPT-2.
const HEAD_DIM: usize = 64;

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if let Ok(shape) = text.parse() {
            return Ok(Self(shape));
        }
        let numbers: Option<Vec<usize>> = text.split('x').map(|number| number.parse().ok()).collect();
        let (n_layer, n_embd, n_head) = match numbers.as_deref() {
            Some(&[layers, width]) => (layers, width, (width / HEAD_DIM).max(1)),
            Some(&[layers, width, heads]) => (layers, width, heads),
            _ => return Err("expected LAYERSxWIDTH, LAYERSxWIDTHxHEADS, or the name of a GPT-2".into()),
        };
        if n_layer == 0 || n_embd == 0 || n_head == 0 || !n_embd.is_multiple_of(n_head) {
            return Err(format!("found {n_embd} numbers for {n_head} heads, expected a multiple"));
        }
        Ok(Self(ModelShape { name: "new", n_layer, n_embd, n_head, n_positions: 0, vocab_size: 0 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_have_heads_of_64_unless_told() {
        let shape = |text: &str| text.parse::<Shape>().map(|Shape(s)| (s.n_layer, s.n_embd, s.n_head));
        assert_eq!(shape("6x256"), Ok((6, 256, 4)));
        assert_eq!(shape("2x48"), Ok((2, 48, 1)));
        assert_eq!(shape("2x48x3"), Ok((2, 48, 3)));
        assert_eq!(shape("gpt2"), Ok((12, 768, 12)));
        for wrong in ["", "6", "6x", "0x64", "6x256x3", "6x100x0", "6x64x1x1"] {
            assert!(shape(wrong).is_err(), "{wrong}");
        }
    }
}
