//! A job from its data to its result.

use super::Result;
use super::event_log::{self, JobEvent, Level};
use super::folder::{TRAINING, VALIDATION, remove_data, run_folder};
use super::hyperparameters::{Hyperparameters, Method};
use super::job::{FineTuningJob, JobError, Status, model_name};
use super::results;
use super::serve;
use super::service::Jobs;
use crate::kernels::thread_pool::ThreadPool;
use crate::server::files::purpose;
use crate::server::models::ServedModel;
use crate::server::store::Entry;
use crate::train::job::{Event, Folder, Inputs, Job, Observer, Plan, StoredPrecision};
use crate::train::{Evaluation, Length, StepReport};
use serde_json::json;
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The name of the table of losses.
const RESULT: &str = "compiled_results.csv";
/// The measurements that a job tells at most, beside those of what is held out.
const MAX_METRICS: u32 = 100;

/// Carries out a job, or what is left of it, until it is finished or stopped.
///
/// # Errors
/// Why the job has failed.
pub fn run(jobs: &Jobs, entry: &Entry<FineTuningJob>, stop: &AtomicBool) -> Result<(), JobError> {
    let folder = jobs.folder(&entry.id);
    let Some(base) = serve::base(&jobs.models, &entry.value.model) else {
        tracing::warn!("{}: waits for a server of {}", entry.id, entry.value.model);
        jobs.give_up(&entry.id);
        return Ok(());
    };
    begin(jobs, entry)?;
    let mut job = open(jobs, entry, &base, &folder)?;
    let mut heard = Heard::new(jobs, entry, stop, &job, &folder);
    jobs.progress.begin(job.run().trainer().step(), job.run().steps());
    let save_interval = match entry.value.method {
        Method::Lora => Duration::from_secs(2),
        Method::Full => Duration::from_secs(60),
    };
    if !job.train(save_interval, &mut heard)? {
        return Ok(()); // stopped
    }
    job.finish()?;
    let state = job.folder().state();
    drop(job);
    finish(jobs, entry, &base, &folder)?;
    let _ = fs::remove_file(state);
    remove_data(&folder);
    Ok(())
}

/// Says that a job has begun, unless it goes on.
fn begin(jobs: &Jobs, entry: &Entry<FineTuningJob>) -> Result<(), JobError> {
    let is_new = jobs.change(&entry.id, |job| {
        let is_queued = job.status == Status::Queued;
        if is_queued {
            job.status = if job.steps.is_some() { Status::Running } else { Status::ValidatingFiles };
        }
        is_queued && job.steps.is_none()
    });
    if is_new? {
        jobs.tell(&entry.id, JobEvent::message(Level::Info, "Validating training file"));
    }
    Ok(())
}

/// Reads the data, and prepares the run, or restores it.
fn open(
    jobs: &Jobs,
    entry: &Entry<FineTuningJob>,
    base: &ServedModel,
    folder: &Path,
) -> Result<Job, JobError> {
    let run_folder = run_folder(folder);
    // Started by this thread, whose low priority its threads have, too.
    let pool = base.hornbook().model().pool();
    let pool = ThreadPool::new(pool.threads(), pool.isa());
    let (model, job) = (base.hornbook().name(), &entry.value);
    let (run, hyperparameters) = match Folder::open(&run_folder) {
        Ok((run, plan)) => {
            let inputs = read(&plan, folder)?;
            let hyperparameters = job.hyperparameters.resolved(inputs.texts.training().len());
            (Job::new(run, plan, inputs, pool)?, hyperparameters)
        }
        // There is none yet, or a kill has cut its plan off.
        Err(_) => {
            let validation = folder.join(VALIDATION);
            let mut plan = Plan {
                model: model.into(),
                data: vec![folder.join(TRAINING)],
                valid: if validation.exists() { vec![validation] } else { vec![] },
                prompt_loss_weight: job.hyperparameters.prompt_loss_weight,
                settings: job.hyperparameters.settings(job.method, model, job.seed, 1.0),
                precision: StoredPrecision::default(),
                data_sha256: None,
            };
            let inputs = read(&plan, folder)?;
            let training = inputs.texts.training();
            let tokens_per_example = training.n_tokens(0) as f64 / training.len().max(1) as f64;
            let hyperparameters = job.hyperparameters.resolved(training.len());
            plan.settings = hyperparameters.settings(job.method, model, job.seed, tokens_per_example);
            (Job::new(Folder::create(&run_folder)?, plan, inputs, pool)?, hyperparameters)
        }
    };
    let steps = run.run().steps();
    let is_new = jobs.change(&entry.id, |job| {
        if job.status == Status::ValidatingFiles {
            job.status = Status::Running;
        }
        job.hyperparameters = hyperparameters;
        job.steps.replace(steps).is_none()
    });
    if is_new? {
        let command = Hyperparameters::command(&run.plan().settings, model);
        let same = format!("{steps} steps; the same model comes from {command}");
        jobs.tell(&entry.id, JobEvent::message(Level::Info, "Fine-tune started"));
        jobs.tell(&entry.id, JobEvent::message(Level::Info, same));
    }
    Ok(run)
}

/// Reads the data; what is wrong with it is an error of the job's files.
fn read(plan: &Plan, folder: &Path) -> Result<Inputs, JobError> {
    Inputs::open(plan).map_err(|error| {
        let of = |name: &str| error.file().is_some_and(|file| file == folder.join(name));
        let (code, param) = match (of(TRAINING), of(VALIDATION)) {
            (true, _) => ("invalid_training_file", "training_file"),
            (_, true) => ("invalid_validation_file", "validation_file"),
            _ => return error.into(),
        };
        JobError { code: code.into(), message: error.without_path(), param: Some(param.into()) }
    })
}

/// Writes the table, and serves the result.
fn finish(
    jobs: &Jobs,
    entry: &Entry<FineTuningJob>,
    base: &ServedModel,
    folder: &Path,
) -> Result<(), JobError> {
    let id = &entry.id;
    let measurements = results::measurements(&run_folder(folder));
    if jobs.find(id).is_some_and(|job| job.result_file.is_none()) {
        let table = results::table(&measurements);
        let result = jobs.files.draft(&entry.owner).and_then(|mut draft| {
            draft.write(table.as_bytes())?;
            draft.finish(RESULT, purpose::FINE_TUNE_RESULTS, None)
        });
        let file = result?.id.clone();
        jobs.change(id, |job| job.result_file = Some(file.clone()))?;
        jobs.tell(id, JobEvent::message(Level::Info, format!("Uploaded result file: {file}")));
    }
    let name = model_name(entry);
    serve::serve(jobs, entry, base, &name)?;
    let is_done = jobs.change(id, |job| {
        let is_done = !job.status.is_final();
        if is_done {
            job.status = Status::Succeeded;
            job.fine_tuned_model = Some(name.clone());
            job.trained_tokens = Some(measurements.iter().map(|row| row.tokens).sum());
        }
        is_done
    });
    if !is_done? {
        serve::remove(jobs, &name); // it was cancelled meanwhile
        return Ok(());
    }
    jobs.tell(id, JobEvent::message(Level::Info, format!("Uploaded model: {name}")));
    jobs.tell(id, JobEvent::message(Level::Info, "Fine-tune succeeded"));
    Ok(())
}

/// What the clients hear of a run.
struct Heard<'a> {
    jobs: &'a Jobs,
    id: &'a str,
    stop: &'a AtomicBool,
    steps: u32,
    epochs: u64,
    /// What was told before the server was stopped or killed, after which some steps are taken again.
    told: HashSet<String>,
    step: Option<StepReport>,
}

impl<'a> Heard<'a> {
    fn new(
        jobs: &'a Jobs,
        entry: &'a Entry<FineTuningJob>,
        stop: &'a AtomicBool,
        job: &Job,
        folder: &Path,
    ) -> Self {
        let epochs = match job.plan().settings.length {
            Length::Epochs(n) => n,
            Length::Tokens(_) => 1,
        };
        let told = event_log::read(folder).into_iter().map(|event| event.message).collect();
        Self { jobs, id: &entry.id, stop, steps: job.run().steps(), epochs, told, step: None }
    }

    fn tell(&self, event: JobEvent) {
        if !self.told.contains(&event.message) {
            self.jobs.tell(self.id, event);
        }
    }

    /// Tells the losses after a step.
    fn tell_losses(&self, evaluation: Option<&Evaluation>) {
        let Some(StepReport { step, loss, accuracy, .. }) = self.step else { return };
        let mut data = json!({"step": step, "total_steps": self.steps, "train_loss": loss,
            "train_mean_token_accuracy": accuracy});
        let mut message = format!("Step {step}/{}: training loss={loss:.2}", self.steps);
        if let Some(evaluation) = evaluation {
            data["valid_loss"] = evaluation.loss.into();
            data["valid_mean_token_accuracy"] = evaluation.accuracy.into();
            message += &format!(", validation loss={:.2}", evaluation.loss);
        }
        self.tell(JobEvent::metrics(message, data));
    }
}

impl Observer for Heard<'_> {
    fn is_interrupted(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn pause(&self, work: Duration) {
        self.jobs.pace.pause(work, self.stop);
    }

    fn wants_samples(&self) -> bool {
        true
    }

    fn hear(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Step(report, _) => {
                self.jobs.progress.count(report.step, report.tokens);
                self.step = Some(*report);
                if report.step.is_multiple_of(self.steps.div_ceil(MAX_METRICS)) {
                    self.tell_losses(None);
                }
                let epoch = |step: u32| u64::from(step) * self.epochs / u64::from(self.steps.max(1));
                let (before, epoch) = (epoch(report.step - 1), epoch(report.step));
                if epoch > before {
                    let message = format!("Completed epoch {epoch}/{}", self.epochs);
                    self.tell(JobEvent::message(Level::Info, message));
                }
            }
            Event::Evaluated(evaluation) => self.tell_losses(Some(evaluation)),
            Event::Sample(text) => {
                let step = self.step.map_or(0, |report| report.step);
                self.tell(JobEvent::sample(step, text));
            }
            Event::Logged(_) => {}
        }
        Ok(())
    }
}
