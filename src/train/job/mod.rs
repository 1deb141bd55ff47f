//! A run from beginning to end, in a folder: what it needs is opened, then it is trained, measured, logged
//! and saved. An [`Observer`] hears what happens, and can stop it.

mod card;
mod folder;
mod inputs;
mod requirements;
mod sample;

pub use folder::{Folder, Plan, StoredPrecision};
pub use inputs::{Inputs, Texts};

use super::{Evaluation, Run, Settings, StepReport, Trainer};
use crate::checkpoint::Checkpoint;
use crate::kernels::thread_pool::ThreadPool;
use crate::{Error, Result};
use inputs::n_tokens;
use requirements::Requirements;
use sample::Sample;
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// The number of evaluations in a short run, and the most steps between two of a long one.
const EVALUATIONS: u32 = 10;
const MAX_STEPS_PER_EVALUATION: u32 = 250;

/// What happens in a run.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step was taken, in this time.
    Step(&'a StepReport, Duration),
    /// What is held out was measured.
    Evaluated(&'a Evaluation),
    /// The model has written a text.
    Sample(String),
    /// A line was added to the log.
    Logged(&'a Value),
}

/// Who hears of a run.
pub trait Observer {
    /// Whether the run is to stop after the step that it takes.
    fn is_interrupted(&self) -> bool {
        false
    }

    /// Called after each part of the work with the time that it took: a run that others wait for may pause.
    fn pause(&self, _work: Duration) {}

    /// Whether the model is to write a text after each evaluation.
    fn wants_samples(&self) -> bool {
        false
    }

    /// Hears of an event.
    ///
    /// # Errors
    /// Any, which end the run.
    fn hear(&mut self, event: Event) -> Result<()>;
}

/// A run with its folder.
pub struct Job {
    folder: Folder,
    plan: Plan,
    run: Run,
    checkpoint: Checkpoint,
    /// The names of the held-out texts.
    held_out: Vec<String>,
    log: File,
    /// The data in a few words, for the model card.
    data: String,
    /// What the run will do.
    description: Vec<String>,
}

impl Job {
    /// Writes down what the run does, or restores the state of a run that goes on.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] for other texts than the run began with, [`Error::Parameter`] for more memory
    /// than there is and for settings out of range, [`Error::Io`].
    pub fn new(mut folder: Folder, mut plan: Plan, inputs: Inputs, pool: ThreadPool) -> Result<Self> {
        let Inputs { checkpoint, texts } = inputs;
        let hash = texts.sha256();
        if plan.data_sha256.as_ref().is_some_and(|expected| *expected != hash) {
            let problem = "found other texts than the run began with, which it needs to go on";
            return Err(Error::invalid_file(&plan.data[0], problem));
        }
        let is_new = plan.data_sha256.is_none();
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
        let files: Vec<_> = plan.data.iter().map(|path| path.display().to_string()).collect();
        let description = vec![
            format!("{}: {}", checkpoint.name, requirements.describe(max_tokens)),
            format!("{}: {data}", files.join(", ")),
            card::length(&plan.settings, run.steps()),
        ];
        Ok(Self { folder, plan, run, checkpoint, held_out, log, data, description })
    }

    /// What the run will do, in a few lines.
    pub fn description(&self) -> &[String] {
        &self.description
    }

    /// The folder.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The run.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// Takes all steps that are left, and saves the state every `save_interval`. Returns whether it was not
    /// interrupted; then [`Job::finish`] is due.
    ///
    /// # Errors
    /// Those of [`Run::step`], of the files, and of the observer. The state that was saved last remains.
    pub fn train(&mut self, save_interval: Duration, observer: &mut dyn Observer) -> Result<bool> {
        let steps = self.run.steps();
        let steps_per_evaluation = steps.div_ceil(EVALUATIONS).min(MAX_STEPS_PER_EVALUATION);
        let sample = if observer.wants_samples() { Sample::new(&self.checkpoint)? } else { None };
        if self.run.trainer().step() == 0 {
            let evaluation = self.run.evaluate(&mut |work| observer.pause(work))?;
            self.report(evaluation, observer)?;
        }
        let mut saved = Instant::now();
        while !self.run.is_finished() && !observer.is_interrupted() {
            let start = Instant::now();
            let report = self.run.step(&mut |work| observer.pause(work))?;
            let time = start.elapsed();
            observer.hear(Event::Step(&report, time))?;
            let mut line = json!(report);
            line["tokens_per_second"] = (report.tokens as f64 / time.as_secs_f64()).round().into();
            self.write_log(line, observer)?;
            if report.step.is_multiple_of(steps_per_evaluation) || report.step == steps {
                let evaluation = self.run.evaluate(&mut |work| observer.pause(work))?;
                if evaluation.as_ref().is_some_and(|evaluation| evaluation.is_best) {
                    self.write_model(self.folder.path())?;
                }
                self.report(evaluation, observer)?;
                if let Some(sample) = &sample {
                    let text = sample.write(&mut self.run, &mut |work| observer.pause(work))?;
                    observer.hear(Event::Sample(text))?;
                }
            }
            if saved.elapsed() >= save_interval {
                self.run.save(&self.folder.state())?;
                saved = Instant::now();
            }
        }
        self.run.save(&self.folder.state())?;
        Ok(self.run.is_finished())
    }

    fn report(&mut self, evaluation: Option<Evaluation>, observer: &mut dyn Observer) -> Result<()> {
        let Some(evaluation) = evaluation else { return Ok(()) };
        observer.hear(Event::Evaluated(&evaluation))?;
        let Evaluation { losses, loss, accuracy, .. } = evaluation;
        let step = self.run.trainer().step();
        let mut line = json!({"step": step, "held_out_loss": loss, "held_out_accuracy": accuracy});
        if let [_, _, ..] = losses[..] {
            line["held_out_losses"] =
                losses.iter().map(|&(source, loss)| (self.held_out[source].clone(), loss)).collect();
        }
        self.write_log(line, observer)
    }

    fn write_log(&mut self, line: Value, observer: &mut dyn Observer) -> Result<()> {
        let path = || self.folder.log_file();
        writeln!(self.log, "{line}").map_err(|source| Error::Io { path: path(), action: "write", source })?;
        observer.hear(Event::Logged(&line))
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
    ///
    /// # Errors
    /// Those of the files.
    pub fn finish(&mut self) -> Result<()> {
        let root = self.folder.path().to_path_buf();
        let last = self.run.evaluate(&mut |_| ())?; // again, for a run that was killed after its last step
        let last_is_best = last.as_ref().is_none_or(|evaluation| evaluation.is_best);
        if last_is_best {
            self.write_model(&root)?;
        }
        let mut average_is_best = false;
        if self.run.swap_average() {
            average_is_best = self.run.evaluate(&mut |_| ())?.is_none_or(|evaluation| evaluation.is_best);
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
