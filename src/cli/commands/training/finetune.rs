//! `hornbook finetune`: trains a model further on texts of one's own.

use super::folder::Folder;
use super::inputs::Inputs;
use super::job::carry_out;
use super::options::{Execution, Options};
use crate::Result;
use crate::train::Settings;
use clap::Args;
use std::process::ExitCode;

/// Train a model further on texts of your own
///
/// All weights are trained. A twentieth of the texts is held out, to measure the model on what it has not
/// seen. The result is a Hugging Face folder. A run that was interrupted, or killed, goes on with
/// --resume, to the same weights as one that never stopped, whatever the number of threads.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  echo \"Dear Anna, the garden is green.<|endoftext|>Dear Tom, the dog sleeps.\" > letters.txt
  hornbook finetune --data letters.txt -o my-model
  hornbook generate --model my-model \"Dear Anna,\"
  hornbook finetune --resume my-model                    goes on, if it was interrupted
  hornbook finetune --data letters.txt -o my-model --force --epochs 1 --batch 512")]
pub struct Finetune {
    /// Model: fable (built in), a checkpoint folder, or a Hugging Face model in the local cache
    #[arg(short, long, default_value = "fable", conflicts_with = "resume")]
    model: String,

    #[command(flatten)]
    options: Options,

    #[command(flatten)]
    execution: Execution,
}

impl Finetune {
    pub fn run(self) -> Result<ExitCode> {
        let (folder, plan, inputs) = match &self.execution.resume {
            Some(resume) => {
                let (folder, plan) = Folder::open(resume)?;
                let inputs = Inputs::open(&plan)?;
                (folder, plan, inputs)
            }
            None => {
                let (output, force) = self.options.output();
                Folder::check(&output, force)?;
                let plan = self.options.plan(self.model, Settings::default())?;
                let inputs = Inputs::open(&plan)?;
                (Folder::create(&output)?, plan, inputs)
            }
        };
        carry_out(folder, plan, inputs, &self.execution)
    }
}
