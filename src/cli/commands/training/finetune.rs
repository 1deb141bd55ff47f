//! `hornbook finetune`: trains a model further on texts of one's own.

use super::folder::{Folder, Plan};
use super::job::{Inputs, Job};
use crate::Result;
use crate::cli::args::open::thread_pool;
use crate::train::Settings;
use clap::Args;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The exit code of a program that Ctrl-C has stopped.
const INTERRUPTED: u8 = 130;

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
    #[arg(short, long, default_value = "fable")]
    model: String,

    /// Texts: a file, a folder of .txt files, or .jsonl with {"text"} or {"prompt", "completion"} on every
    /// line
    #[arg(long, value_name = "FILE", required_unless_present = "resume")]
    data: Option<PathBuf>,

    /// Texts to measure the model on, instead of a part of the data
    #[arg(long, value_name = "FILE")]
    valid: Option<PathBuf>,

    /// Output folder
    #[arg(short, long, value_name = "DIR", required_unless_present = "resume")]
    output: Option<PathBuf>,

    /// Go on with the run of this output folder
    #[arg(long, value_name = "DIR", conflicts_with_all = ["data", "valid", "output", "model", "force"])]
    resume: Option<PathBuf>,

    /// Overwrite an existing model
    #[arg(long)]
    force: bool,

    /// How often the texts are read
    #[arg(long, value_name = "N", default_value = "3", help_heading = "Training")]
    epochs: NonZeroUsize,

    /// Tokens per step
    #[arg(long, value_name = "N", default_value = "4096", help_heading = "Training")]
    batch: NonZeroUsize,

    /// The learning rate between warm-up and decay
    #[arg(long, value_name = "LR", default_value_t = 3e-4, help_heading = "Training")]
    learning_rate: f32,

    /// The weight decay of matrices and tables
    #[arg(long, value_name = "W", default_value_t = 0.1, help_heading = "Training")]
    weight_decay: f32,

    /// How much predicting a token of a prompt counts, beside one of a completion
    #[arg(long, value_name = "W", default_value_t = 0.01, help_heading = "Training")]
    prompt_loss_weight: f32,

    /// Seed of the data's order
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Training")]
    seed: u64,

    /// Seconds between two saved states: what a run that is killed loses at most
    #[arg(long, value_name = "SECONDS", default_value_t = 60, help_heading = "Execution")]
    save_every: u64,

    /// Number of threads [default: one per core]
    #[arg(long, value_name = "N", help_heading = "Execution")]
    threads: Option<NonZeroUsize>,
}

impl Finetune {
    pub fn run(self) -> Result<ExitCode> {
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&interrupted);
        let _ = ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed));

        let (folder, plan, inputs) = match (&self.resume, &self.data, &self.output) {
            (None, Some(data), Some(output)) => {
                Folder::check(output, self.force)?;
                let plan = self.plan(data);
                let inputs = Inputs::read(&plan)?;
                (Folder::create(output)?, plan, inputs)
            }
            (resume, ..) => {
                let (folder, plan) = Folder::open(resume.as_deref().unwrap_or(Path::new("")))?;
                let inputs = Inputs::read(&plan)?;
                (folder, plan, inputs)
            }
        };
        let mut job = Job::new(folder, plan, inputs, thread_pool(self.threads)?)?;
        let finished =
            job.train(Duration::from_secs(self.save_every), || interrupted.load(Ordering::Relaxed))?;
        let shown = job.folder.path().display().to_string();
        if !finished {
            stderr_line!(
                "hornbook: stopped after step {}; go on with hornbook finetune --resume {shown}",
                job.run.trainer().step()
            );
            return Ok(ExitCode::from(INTERRUPTED));
        }
        job.write_model()?;
        stderr_line!("hornbook: wrote {shown}; try hornbook generate --model {shown} \"…\"");
        Ok(ExitCode::SUCCESS)
    }

    fn plan(&self, data: &Path) -> Plan {
        let settings = Settings {
            batch_tokens: self.batch.get(),
            epochs: self.epochs.get() as u64,
            learning_rate: self.learning_rate,
            weight_decay: self.weight_decay,
            seed: self.seed,
            ..Settings::default()
        };
        Plan {
            model: self.model.clone(),
            data: data.into(),
            valid: self.valid.clone(),
            prompt_loss_weight: self.prompt_loss_weight,
            settings,
            data_sha256: None,
        }
    }
}
