//! Training a model: `finetune` from one that there is, `train` from nothing.
//!
//! A command reads what it is told into a [`Plan`]; a [`Job`] carries it out in a [`Folder`], and its
//! [`Progress`](progress::Progress) is shown.

mod csv;
mod finetune;
mod options;
mod progress;
mod train;

pub use finetune::Finetune;
pub use train::Train;

use crate::Result;
use crate::cli::args::open::thread_pool;
use crate::train::job::{Event, Folder, Inputs, Job, Observer, Plan};
use csv::Csv;
use options::Execution;
use progress::Progress;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The exit code of a program that Ctrl-C has stopped.
const INTERRUPTED: u8 = 130;

/// Goes on with the run of a folder.
fn resume(folder: &Path, execution: &Execution) -> Result<ExitCode> {
    let (folder, plan) = Folder::open(folder)?;
    let inputs = Inputs::open(&plan)?;
    carry_out(folder, plan, inputs, execution)
}

/// Carries out a run, or what is left of it, until it is finished or interrupted.
fn carry_out(folder: Folder, mut plan: Plan, inputs: Inputs, execution: &Execution) -> Result<ExitCode> {
    for note in &inputs.checkpoint.notes {
        stderr_line!("hornbook: {note}");
    }
    if let Some(precision) = execution.precision {
        plan.precision = precision;
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    let _ = ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed));
    let mut csv = execution.csv.as_deref().map(Csv::create).transpose()?;
    let mut job = Job::new(folder, plan, inputs, thread_pool(execution.threads)?)?;
    let log = job.folder().log_file();
    csv.as_mut().map_or(Ok(()), |csv| csv.push_log(&log))?;
    job.description().iter().for_each(|line| stderr_line!("hornbook: {line}"));

    let progress = Progress::new(job.run().steps(), &log);
    let mut shown = Shown { progress, csv, interrupted };
    let is_finished = job.train(Duration::from_secs(execution.save_every), &mut shown)?;
    shown.finish()?;
    let folder = job.folder().path().display().to_string();
    if !is_finished {
        let step = job.run().trainer().step();
        stderr_line!("hornbook: stopped after step {step}; go on with hornbook train --resume {folder}");
        return Ok(ExitCode::from(INTERRUPTED));
    }
    job.finish()?;
    let model = match job.run().trainer().adapter() {
        Some(_) => format!("--model {} --adapter {folder}", job.plan().model),
        None => format!("--model {folder}"),
    };
    let loss = job.run().best_loss().map_or_else(String::new, |loss| format!(", held out {loss:.3}"));
    stderr_line!("hornbook: wrote {folder}{loss}; try hornbook generate {model} \"…\"");
    Ok(ExitCode::SUCCESS)
}

/// What is shown of a run, and written to a table.
struct Shown {
    progress: Progress,
    csv: Option<Csv>,
    interrupted: Arc<AtomicBool>,
}

impl Observer for Shown {
    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    fn wants_samples(&self) -> bool {
        self.progress.is_drawn()
    }

    fn hear(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Step(report, time) => self.progress.step(report, time),
            Event::Evaluated(evaluation) => self.progress.evaluated(evaluation.loss),
            Event::Sample(text) => self.progress.sample(text),
            Event::Logged(line) => return self.csv.as_mut().map_or(Ok(()), |csv| csv.push(line)),
        }
        Ok(())
    }
}

impl Shown {
    fn finish(&mut self) -> Result<()> {
        self.progress.finish();
        self.csv.as_mut().map_or(Ok(()), Csv::finish)
    }
}
