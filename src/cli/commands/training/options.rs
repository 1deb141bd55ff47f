//! The options that `finetune` and `train` share.

use crate::train::job::{Plan, StoredPrecision};
use crate::train::{Decay, Length, Optimizer, Settings, Stage};
use crate::{Error, Result};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgGroup, Args};
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

/// What is trained on, and how.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("length").args(["epochs", "tokens"]))]
pub struct Options {
    /// Texts: a file, a folder of .txt and .jsonl files, .jsonl with {"text"}, {"prompt", "completion"} or
    /// {"messages"} on every line, or .bin with tokens; may be repeated
    #[arg(long, value_name = "FILE", required_unless_present = "resume", conflicts_with = "resume")]
    data: Vec<PathBuf>,

    /// Texts to measure the model on, instead of a part of the data; may be repeated
    #[arg(long, conflicts_with = "resume", value_name = "FILE")]
    valid: Vec<PathBuf>,

    /// Output folder
    #[arg(short, long, value_name = "DIR", required_unless_present = "resume", conflicts_with = "resume")]
    output: Option<PathBuf>,

    /// Overwrite an existing model
    #[arg(long, conflicts_with = "resume")]
    force: bool,

    /// How often the texts are read [default: 3 by finetune, 1 by train]
    #[arg(long, conflicts_with = "resume", value_name = "N", help_heading = "Training")]
    epochs: Option<NonZeroU64>,

    /// How many tokens are read, instead of --epochs: 200M, 500k
    #[arg(long, conflicts_with = "resume", value_name = "N", value_parser = parse_count,
          help_heading = "Training")]
    tokens: Option<NonZeroU64>,

    /// A part of the run with its own mixture of the --data files, in their order; may be repeated
    ///
    /// `--stage 0.6:3,1 --stage 0.4:1,1` reads three tokens of the first file for each of the second in the
    /// first 60 % of the run, and as many of both in the rest. Without it, files are read in proportion to
    /// their size.
    #[arg(long, conflicts_with = "resume", value_name = "SHARE:MIXTURE", value_parser = parse_stage,
          help_heading = "Training")]
    stage: Vec<Stage>,

    /// Tokens per step [default: 4096 by finetune, 8192 by train]
    #[arg(long, conflicts_with = "resume", value_name = "N", help_heading = "Training")]
    batch: Option<NonZeroUsize>,

    /// What moves the weights: adamw, or muon for the blocks' matrices and adamw for the rest [default: adamw
    /// by finetune, muon by train]
    #[arg(long, conflicts_with = "resume", value_name = "NAME", value_parser = optimizer_parser(),
          help_heading = "Training")]
    optimizer: Option<Optimizer>,

    /// AdamW's highest learning rate [default: 0.0003 by finetune, 0.002 by train]
    #[arg(long, conflicts_with = "resume", value_name = "LR", help_heading = "Training")]
    learning_rate: Option<f32>,

    /// Muon's highest learning rate
    #[arg(
        long,
        conflicts_with = "resume",
        value_name = "LR",
        default_value_t = 0.02,
        help_heading = "Training"
    )]
    muon_learning_rate: f32,

    /// How the learning rate falls: wsd (linearly to 0, after a plateau), or cosine (to a tenth)
    #[arg(long, conflicts_with = "resume", value_name = "NAME", default_value = "wsd",
          value_parser = decay_parser(), help_heading = "Training")]
    schedule: Decay,

    /// The weight decay of matrices and tables [default: 0.1 by finetune, 0.02 by train]
    #[arg(long, conflicts_with = "resume", value_name = "W", help_heading = "Training")]
    weight_decay: Option<f32>,

    /// The part of the steps, the last ones, whose weights are averaged; the mean is the result if it
    /// predicts what is held out better [default: 0 by finetune, 0.05 by train]
    #[arg(long, conflicts_with = "resume", value_name = "SHARE", help_heading = "Training")]
    average: Option<f64>,

    /// How much predicting a token of a prompt counts, beside one of a completion
    #[arg(
        long,
        conflicts_with = "resume",
        value_name = "W",
        default_value_t = 0.01,
        help_heading = "Training"
    )]
    prompt_loss_weight: f32,

    /// Seed of the data's order, and of the first weights
    #[arg(long, conflicts_with = "resume", value_name = "N", default_value_t = 0, help_heading = "Training")]
    seed: u64,
}

impl Options {
    /// The output folder, and whether it may be overwritten.
    pub fn output(&self) -> (PathBuf, bool) {
        (self.output.clone().unwrap_or_default(), self.force)
    }

    /// What a run does with a model, where an option that is not given is as in `defaults`.
    ///
    /// # Errors
    /// [`Error::Parameter`] for one out of range.
    pub fn plan(&self, model: String, defaults: Settings) -> Result<Plan> {
        let epochs = self.epochs.map(|epochs| Length::Epochs(epochs.get()));
        let tokens = self.tokens.map(|tokens| Length::Tokens(tokens.get()));
        let batch_tokens = self.batch.map_or(defaults.batch_tokens, NonZeroUsize::get);
        let settings = Settings {
            length: epochs.or(tokens).unwrap_or(defaults.length),
            stages: self.stage.clone(),
            batch_tokens,
            micro_batch_tokens: batch_tokens, // or less, if there is not the memory
            optimizer: self.optimizer.unwrap_or(defaults.optimizer),
            learning_rate: self.learning_rate.unwrap_or(defaults.learning_rate),
            muon_learning_rate: self.muon_learning_rate,
            decay: self.schedule,
            weight_decay: self.weight_decay.unwrap_or(defaults.weight_decay),
            average_share: self.average.unwrap_or(defaults.average_share),
            seed: self.seed,
            ..defaults
        };
        settings.validate(self.data.len())?;
        if !(self.prompt_loss_weight >= 0.0 && self.prompt_loss_weight.is_finite()) {
            return Err(Error::Parameter {
                name: "prompt_loss_weight".into(),
                found: self.prompt_loss_weight.to_string(),
                expected: "a non-negative number".into(),
            });
        }
        Ok(Plan {
            model,
            data: self.data.clone(),
            valid: self.valid.clone(),
            prompt_loss_weight: self.prompt_loss_weight,
            settings,
            precision: StoredPrecision::default(),
            data_sha256: None,
        })
    }
}

/// How a run is carried out: the weights that it finds do not depend on it.
#[derive(Args, Debug)]
pub struct Execution {
    /// Go on with the run of this output folder
    #[arg(long, value_name = "DIR")]
    pub resume: Option<PathBuf>,

    /// Seconds between two saved states: what a run that is killed loses at most
    #[arg(long, value_name = "SECONDS", default_value_t = 60, help_heading = "Execution")]
    pub save_every: u64,

    /// Precision of the result's weights in their file [default: f32]
    #[arg(long, value_name = "NAME", value_parser = precision_parser(), help_heading = "Execution")]
    pub precision: Option<StoredPrecision>,

    /// A table of all steps: losses, learning rate, gradient norm, tokens per second
    #[arg(long, value_name = "FILE", help_heading = "Execution")]
    pub csv: Option<PathBuf>,

    /// Number of threads [default: one per core]
    #[arg(long, value_name = "N", help_heading = "Execution")]
    pub threads: Option<NonZeroUsize>,
}

fn optimizer_parser() -> impl TypedValueParser<Value = Optimizer> {
    PossibleValuesParser::new(["adamw", "muon"]).map(|name| match name.as_str() {
        "muon" => Optimizer::Muon,
        _ => Optimizer::AdamW,
    })
}

fn decay_parser() -> impl TypedValueParser<Value = Decay> {
    PossibleValuesParser::new(["wsd", "cosine"]).map(|name| match name.as_str() {
        "cosine" => Decay::Cosine,
        _ => Decay::Wsd,
    })
}

fn precision_parser() -> impl TypedValueParser<Value = StoredPrecision> {
    PossibleValuesParser::new(["f32", "f16", "bf16"]).map(|name| match name.as_str() {
        "f16" => StoredPrecision::F16,
        "bf16" => StoredPrecision::Bf16,
        _ => StoredPrecision::F32,
    })
}

fn parse_count(text: &str) -> std::result::Result<NonZeroU64, String> {
    let (digits, factor) = match text.trim_end_matches(['k', 'K', 'm', 'M', 'b', 'B']) {
        digits if digits.len() == text.len() => (digits, 1.0),
        digits => match &text[digits.len()..] {
            "k" | "K" => (digits, 1e3),
            "m" | "M" => (digits, 1e6),
            "b" | "B" => (digits, 1e9),
            _ => (text, 1.0), // no number
        },
    };
    let count = digits.parse::<f64>().ok().map(|count| (count * factor) as u64);
    count.and_then(NonZeroU64::new).ok_or_else(|| "expected a number of tokens, as 500k or 200M".into())
}

fn parse_stage(text: &str) -> std::result::Result<Stage, String> {
    let parse = |text: &str| text.trim().parse::<f64>().ok();
    let stage = text.split_once(':').and_then(|(share, mixture)| {
        let mixture = mixture.split(',').map(parse).collect::<Option<Vec<f64>>>()?;
        Some(Stage { share: parse(share)?, mixture })
    });
    stage.ok_or_else(|| "expected SHARE:MIXTURE, as 0.6:3,1".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_suffixes() {
        let count = |text| parse_count(text).map(NonZeroU64::get).ok();
        assert_eq!(
            ["7", "500k", "1.5M", "2B", "0", "M", "3x", "5MM"].map(count),
            [Some(7), Some(500_000), Some(1_500_000), Some(2_000_000_000), None, None, None, None]
        );
    }

    #[test]
    fn stages_have_a_share_and_a_mixture() {
        assert_eq!(parse_stage("0.6:3,1"), Ok(Stage { share: 0.6, mixture: vec![3.0, 1.0] }));
        assert!(["", "1", "1:", "x:1", "1:2,x"].iter().all(|text| parse_stage(text).is_err()));
    }
}
