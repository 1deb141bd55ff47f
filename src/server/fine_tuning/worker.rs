//! The thread that carries out the jobs of a server, one at a time.

use super::event_log::{self, JobEvent, Level};
use super::folder::{remove_data, remove_run};
use super::job::{FineTuningJob, JobError, Status};
use super::pace::give_way;
use super::service::Jobs;
use super::{Result, TrainingOptions, run, serve};
use crate::Error;
use crate::server::collections::Collections;
use crate::server::models::ModelRegistry;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long a server that stops waits for the end of a step. One that takes longer is taken again by the next
/// server.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// How long a job waits before it looks again whether the disk has room.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// The jobs of a server. Dropping it stops the worker after the step that it takes; the next server with the
/// same store goes on.
pub struct FineTuning {
    jobs: Arc<Jobs>,
    worker: Option<JoinHandle<()>>,
}

impl FineTuning {
    /// Reads the jobs of a store, serves their results, and goes on with what was running.
    ///
    /// # Errors
    /// Those of the store, and [`Error::System`] if the thread cannot be started.
    pub fn start(
        collections: &Collections,
        models: Arc<ModelRegistry>,
        options: TrainingOptions,
    ) -> Result<Self> {
        let jobs = Arc::new(Jobs::open(collections, models, options)?);
        jobs.collection.all().iter().for_each(|entry| serve::serve_again(&jobs, entry));
        let worker_jobs = Arc::clone(&jobs);
        let worker = thread::Builder::new()
            .name("hornbook-training".into())
            .spawn(move || work(&worker_jobs))
            .map_err(|error| Error::system("start the training thread", error))?;
        Ok(Self { jobs, worker: Some(worker) })
    }

    /// The jobs.
    pub fn jobs(&self) -> &Arc<Jobs> {
        &self.jobs
    }

    /// Stops the worker after the step that it takes.
    pub fn stop(&self) {
        self.jobs.shut_down();
    }
}

impl Drop for FineTuning {
    fn drop(&mut self) {
        self.stop();
        if let Some(worker) = self.worker.take().filter(|_| self.jobs.wait_for_worker(MAX_WAIT)) {
            let _ = worker.join(); // panics were caught
        }
    }
}

fn work(jobs: &Jobs) {
    give_way();
    while let Some((entry, stop)) = jobs.next() {
        let result = catch_unwind(AssertUnwindSafe(|| run::run(jobs, &entry, &stop)));
        let panicked = |_| Err(JobError::of_server("the training panicked (this is a bug)".into()));
        match result.unwrap_or_else(panicked) {
            Err(error) if error.is_disk_full() => {
                tell_waiting(jobs, &entry.id, &error);
                jobs.end(&entry.id);
                jobs.wait(RETRY_DELAY);
                continue;
            }
            Err(error) => fail(jobs, &entry.id, error),
            Ok(()) => {}
        }
        let is_in_vain = |job: FineTuningJob| matches!(job.status, Status::Cancelled | Status::Failed);
        if jobs.find(&entry.id).is_some_and(is_in_vain) {
            remove_run(&jobs.folder(&entry.id));
            remove_data(&jobs.folder(&entry.id));
        }
        jobs.end(&entry.id);
    }
}

/// Says, once, that a job waits for room on the disk. It goes on from its last checkpoint.
fn tell_waiting(jobs: &Jobs, id: &str, error: &JobError) {
    const WAITING: &str = "Waiting for room on the disk: ";
    let events = event_log::read(&jobs.folder(id));
    if !events.last().is_some_and(|last| last.message.starts_with(WAITING)) {
        tracing::warn!("{id}: waits for room on the disk: {}", error.message);
        jobs.tell(id, JobEvent::message(Level::Warn, format!("{WAITING}{}", error.message)));
    }
}

fn fail(jobs: &Jobs, id: &str, error: JobError) {
    tracing::warn!("{id}: {}", error.message);
    let event = JobEvent::message(Level::Error, format!("Fine-tune failed: {}", error.message));
    let failed = jobs.change(id, |job| {
        let has_ended = job.status.is_final();
        if !has_ended {
            (job.status, job.error) = (Status::Failed, Some(error));
        }
        !has_ended
    });
    match failed {
        Ok(true) => jobs.tell(id, event),
        Ok(false) => {} // it was cancelled
        Err(error) => {
            tracing::error!("{id}: {error}");
            jobs.give_up(id); // or it would be tried again and again
        }
    }
}
