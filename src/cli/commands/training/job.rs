//! A run from beginning to end: what it needs is opened, then it is trained, measured, logged and saved.

use super::card;
use super::csv::Csv;
use super::folder::{Folder, Plan};
use super::inputs::{Inputs, Texts, n_tokens};
use super::options::Execution;
use super::progress::Progress;
use super::requirements::Requirements;
use super::sample::Sample;
use crate::checkpoint::Checkpoint;
use crate::cli::args::open::thread_pool;
use crate::kernels::thread_pool::ThreadPool;
use crate::train::{Evaluation, Run, Settings, Trainer};
use crate::{Error, Result};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The exit code of a program that Ctrl-C has stopped.
const INTERRUPTED: u8 = 130;
/// The number of evaluations in a short run, and the most steps between two of a long one.
const EVALUATIONS: u32 = 10;
const MAX_STEPS_PER_EVALUATION: u32 = 250;

/// Goes on with the run of a folder.
pub fn resume(folder: &Path, execution: &Execution) -> Result<ExitCode> {
    let (folder, plan) = Folder::open(folder)?;
    let inputs = Inputs::open(&plan)?;
    carry_out(folder, plan, inputs, execution)
}

/// Carries out a run, or what is left of it, until it is finished or interrupted.
pub fn carry_out(folder: Folder, plan: Plan, inputs: Inputs, execution: &Execution) -> Result<ExitCode> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    let _ = ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed));
    let mut job = Job::new(folder, plan, inputs, execution, thread_pool(execution.threads)?)?;
    let save_interval = Duration::from_secs(execution.save_every);
    let finished = job.train(save_interval, || interrupted.load(Ordering::Relaxed))?;
    let shown = job.folder.path().display().to_string();
    if !finished {
        stderr_line!(
            "hornbook: stopped after step {}; go on with hornbook train --resume {shown}",
            job.run.trainer().step()
        );
        return Ok(ExitCode::from(INTERRUPTED));
    }
    job.finish()?;
    let model = match job.run.trainer().adapter() {
        Some(_) => format!("--model {} --adapter {shown}", job.plan.model),
        None => format!("--model {shown}"),
    };
    let loss = job.run.best_loss().map_or_else(String::new, |loss| format!(", held out {loss:.3}"));
    stderr_line!("hornbook: wrote {shown}{loss}; try hornbook generate {model} \"…\"");
    Ok(ExitCode::SUCCESS)
}

/// A run with its folder.
struct Job {
    folder: Folder,
    plan: Plan,
    run: Run,
    checkpoint: Checkpoint,
    /// The names of the held-out texts.
    held_out: Vec<String>,
    log: File,
    csv: Option<Csv>,
    /// The data in a few words, for the model card.
    data: String,
}

impl Job {
    /// Writes down what the run does, or restores the state of a run that goes on, and says what it will do.
    fn new(
        mut folder: Folder,
        mut plan: Plan,
        inputs: Inputs,
        execution: &Execution,
        pool: ThreadPool,
    ) -> Result<Self> {
        let Inputs { checkpoint, texts } = inputs;
        let hash = texts.sha256();
        if plan.data_sha256.as_ref().is_some_and(|expected| *expected != hash) {
            let problem = "found other texts than the run began with, which it needs to go on";
            return Err(Error::invalid_file(&plan.data[0], problem));
        }
        let is_new = plan.data_sha256.is_none();
        if let Some(precision) = execution.precision {
            plan.precision = precision;
        }
        let requirements = Requirements::new(&checkpoint, &plan.settings)?;
        if is_new {
            plan.settings.micro_batch_tokens = requirements.micro_batch_tokens();
        }
        let max_tokens = requirements.max_tokens(plan.settings.micro_batch_tokens);
        requirements.check(max_tokens)?;

        let names = if plan.valid.is_empty() { &plan.data } else { &plan.valid };
        let held_out = names.iter().map(|path| path.display().to_string()).collect();
        let Texts { training, validation } = texts;
        let data = format!(
            "{} sequences of {} tokens; {} tokens held out",
            training.len(),
            n_tokens(&training),
            n_tokens(&validation)
        );
        let mut csv = execution.csv.as_deref().map(Csv::create).transpose()?;
        let Settings { scope, seed, .. } = &plan.settings;
        let trainer = Trainer::with_scope(&checkpoint, pool, max_tokens, scope, *seed)?;
        let mut run = Run::new(trainer, training, validation, plan.settings.clone())?;
        if is_new {
            // A model that is trained from nothing is in the output folder, where better ones replace it.
            if Path::new(&plan.model) == folder.path() {
                run.save(&folder.state())?;
            }
            plan.data_sha256 = Some(hash);
            folder.write_plan(&plan)?;
        } else if folder.state().exists() {
            run.restore(&folder.state())?;
        }
        let log = folder.log(run.trainer().step())?;
        csv.as_mut().map_or(Ok(()), |csv| csv.push_log(&folder.log_file()))?;
        let files: Vec<_> = plan.data.iter().map(|path| path.display().to_string()).collect();
        stderr_line!("hornbook: {}: {}", checkpoint.name, requirements.describe(max_tokens));
        stderr_line!("hornbook: {}: {data}", files.join(", "));
        stderr_line!("hornbook: {}", card::length(&plan.settings, run.steps()));
        Ok(Self { folder, plan, run, checkpoint, held_out, log, csv, data })
    }

    /// Takes all steps that are left. Returns whether it was not interrupted.
    fn train(&mut self, save_interval: Duration, is_interrupted: impl Fn() -> bool) -> Result<bool> {
        let steps = self.run.steps();
        let steps_per_evaluation = steps.div_ceil(EVALUATIONS).min(MAX_STEPS_PER_EVALUATION);
        let mut progress = Progress::new(steps, &self.folder.log_file());
        let sample = if progress.is_drawn() { Sample::new(&self.checkpoint)? } else { None };
        if self.run.trainer().step() == 0 {
            let evaluation = self.run.evaluate()?;
            self.report(evaluation, &mut progress)?;
        }
        let mut saved = Instant::now();
        while !self.run.is_finished() && !is_interrupted() {
            let start = Instant::now();
            let report = self.run.step()?;
            let time = start.elapsed();
            progress.step(&report, time);
            let mut line = json!(report);
            line["tokens_per_second"] = (report.tokens as f64 / time.as_secs_f64()).round().into();
            self.write_log(line)?;
            if report.step.is_multiple_of(steps_per_evaluation) || report.step == steps {
                let evaluation = self.run.evaluate()?;
                if evaluation.as_ref().is_some_and(|evaluation| evaluation.is_best) {
                    self.write_model(self.folder.path())?;
                }
                self.report(evaluation, &mut progress)?;
                if let Some(sample) = &sample {
                    progress.sample(sample.write(&mut self.run)?);
                }
            }
            if saved.elapsed() >= save_interval {
                self.run.save(&self.folder.state())?;
                saved = Instant::now();
            }
        }
        progress.finish();
        if let Some(csv) = &mut self.csv {
            csv.finish()?;
        }
        self.run.save(&self.folder.state())?;
        Ok(self.run.is_finished())
    }

    fn report(&mut self, evaluation: Option<Evaluation>, progress: &mut Progress) -> Result<()> {
        let Some(Evaluation { losses, loss, .. }) = evaluation else { return Ok(()) };
        progress.evaluated(loss);
        let step = self.run.trainer().step();
        let mut line = json!({"step": step, "held_out_loss": loss});
        if let [_, _, ..] = losses[..] {
            line["held_out_losses"] =
                losses.iter().map(|&(source, loss)| (self.held_out[source].clone(), loss)).collect();
        }
        self.write_log(line)
    }

    fn write_log(&mut self, line: Value) -> Result<()> {
        let path = || self.folder.log_file();
        writeln!(self.log, "{line}").map_err(|source| Error::Io { path: path(), action: "write", source })?;
        self.csv.as_mut().map_or(Ok(()), |csv| csv.push(&line))
    }

    /// Writes the model, or the adapter.
    fn write_model(&self, folder: &Path) -> Result<()> {
        if let Some(adapter) = self.run.trainer().adapter() {
            return adapter.write(folder);
        }
        self.checkpoint.write_trained(folder, &self.run.trainer().tensors(), self.plan.precision.dtype())
    }

    /// Writes the best model to the folder: that of an evaluation, or the mean of the last steps. The model
    /// of the last step, if it is another, goes into its folder `last`.
    fn finish(&mut self) -> Result<()> {
        let root = self.folder.path().to_path_buf();
        let last = self.run.evaluate()?; // again, for a run that was killed after its last step
        let last_is_best = last.as_ref().is_none_or(|evaluation| evaluation.is_best);
        if last_is_best {
            self.write_model(&root)?;
        }
        let mut average_is_best = false;
        if self.run.swap_average() {
            average_is_best = self.run.evaluate()?.is_none_or(|evaluation| evaluation.is_best);
            if average_is_best {
                self.write_model(&root)?;
            }
            self.run.swap_average();
        }
        if average_is_best || !last_is_best {
            self.write_model(&root.join("last"))?;
        }
        card::write(&self.folder, &self.plan, &self.checkpoint, &self.run, &self.data)
    }
}
