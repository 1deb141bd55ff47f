//! `hornbook finetune`: trains a model further on texts of one's own.

use super::options::{Execution, Options};
use super::{carry_out, resume};
use crate::checkpoint::adapter::{AdapterConfig, Modules, Target};
use crate::train::job::{Folder, Inputs};
use crate::train::{Scope, Settings};
use crate::{Error, Result};
use clap::Args;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::str::FromStr;

/// Train a model further on texts of your own
///
/// All weights are trained, unless --lora or --last-layers says otherwise. A twentieth of the texts is held
/// out, to measure the model on what it has not seen. The result is a Hugging Face folder. A run that was
/// interrupted, or killed, goes on with --resume, to the same weights as one that never stopped, whatever the
/// number of threads.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  echo \"Dear Anna, the garden is green.<|endoftext|>Dear Tom, the dog sleeps.\" > letters.txt
  hornbook finetune --data letters.txt -o my-model
  hornbook generate --model my-model \"Dear Anna,\"
  hornbook finetune --resume my-model                    goes on, if it was interrupted
  hornbook finetune --data letters.txt -o my-model --force --epochs 1 --batch 512
  hornbook finetune --data letters.txt -o my-adapter --lora 8
  hornbook generate --adapter my-adapter \"Dear Anna,\"")]
pub struct Finetune {
    /// Model: fable (built in), a checkpoint folder, or a Hugging Face model in the local cache
    #[arg(short, long, default_value = "fable", conflicts_with = "resume")]
    model: String,

    /// Train a LoRA adapter of rank R beside the model, which stays as it is; ALPHA / R scales it
    /// [default ALPHA: 2 R]
    #[arg(long, value_name = "R[:ALPHA]", conflicts_with_all = ["resume", "last_layers", "precision"],
          help_heading = "Training")]
    lora: Option<Rank>,

    /// The linear layers that the adapter changes, by the ends of their names: c_attn, attn.c_proj, c_fc,
    /// mlp.c_proj; or all-linear [default: c_attn]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "lora", help_heading = "Training")]
    lora_targets: Vec<String>,

    /// Train the last K blocks alone
    #[arg(long, value_name = "K", conflicts_with = "resume", help_heading = "Training")]
    last_layers: Option<NonZeroUsize>,

    #[command(flatten)]
    options: Options,

    #[command(flatten)]
    execution: Execution,
}

impl Finetune {
    pub fn run(self) -> Result<ExitCode> {
        if let Some(folder) = &self.execution.resume {
            return resume(folder, &self.execution);
        }
        let (output, force) = self.options.output();
        Folder::check(&output, force)?;
        let plan = self.options.plan(self.model.clone(), self.defaults()?)?;
        let inputs = Inputs::open(&plan)?;
        // What is wrong leaves no folder behind.
        plan.settings.scope.sizes(&inputs.checkpoint.config)?;
        carry_out(Folder::create(&output)?, plan, inputs, &self.execution)
    }

    fn defaults(&self) -> Result<Settings> {
        let defaults = Settings::default();
        Ok(match (self.lora, self.last_layers) {
            (Some(Rank { r, alpha }), _) => {
                let target_modules = match &self.lora_targets[..] {
                    [] => Modules::gpt2_default(),
                    [all] if all == "all-linear" => Modules::Expression(all.clone()),
                    names => {
                        names.iter().try_for_each(|name| check_target(name))?;
                        Modules::Names(names.to_vec())
                    }
                };
                let lora = AdapterConfig {
                    base_model_name_or_path: Some(self.model.clone()),
                    r,
                    lora_alpha: alpha,
                    target_modules: Some(target_modules),
                    ..AdapterConfig::default()
                };
                let scope = Scope::Lora(Box::new(lora));
                Settings { scope, learning_rate: LORA_LEARNING_RATE, ..defaults }
            }
            (None, Some(n)) => Settings { scope: Scope::LastLayers(n.get()), ..defaults },
            (None, None) => defaults,
        })
    }
}

/// Checks that a name is that of a linear layer, for no layer with a wrong name would be trained.
fn check_target(name: &str) -> Result<()> {
    let names = Some(Modules::Names(vec![name.into()]));
    let named = AdapterConfig { target_modules: names, ..AdapterConfig::default() };
    match Target::ALL.into_iter().any(|target| named.is_target(0, target)) {
        true => Ok(()),
        false => Err(Error::Parameter {
            name: "--lora-targets".into(),
            found: name.into(),
            expected: format!("all-linear, or some of {}", Target::ALL.map(Target::name).join(", ")),
        }),
    }
}

/// An adapter learns with about ten times the rate of all weights (Schulman et al. 2025, "LoRA Without
/// Regret").
const LORA_LEARNING_RATE: f32 = 3e-3;

/// The rank of an adapter, and what scales it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rank {
    r: usize,
    alpha: f64,
}

impl FromStr for Rank {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let (r, alpha) = text.split_once(':').map_or((text, None), |(r, alpha)| (r, Some(alpha)));
        let r = r.parse().ok().filter(|r| *r > 0);
        let alpha = alpha.map_or(r.map(|r| 2.0 * r as f64), |alpha| alpha.parse().ok());
        let alpha = alpha.filter(|alpha| alpha.is_finite() && *alpha > 0.0);
        r.zip(alpha)
            .map(|(r, alpha)| Self { r, alpha })
            .ok_or("expected a rank, as 8, or RANK:ALPHA, as 8:16")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alpha_is_twice_the_rank_unless_told() {
        assert_eq!("8".parse(), Ok(Rank { r: 8, alpha: 16.0 }));
        assert_eq!("4:6.5".parse(), Ok(Rank { r: 4, alpha: 6.5 }));
        assert!(["", "0", "x", "8:", "8:0", "8:nan", "-1"].iter().all(|text| text.parse::<Rank>().is_err()));
    }
}
