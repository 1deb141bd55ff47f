//! The jobs of a server: what the worker and the requests share.

use super::event_log::{self, JobEvent};
use super::job::{FineTuningJob, Status, job_id};
use super::pace::Pace;
use super::progress::Progress;
use super::{Result, TrainingOptions};
use crate::server::collections::Collections;
use crate::server::error::ApiError;
use crate::server::files::Files;
use crate::server::models::ModelRegistry;
use crate::server::store::{Collection, Entry, unix_time};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// What the worker and the requests share.
pub struct Jobs {
    /// All jobs.
    pub collection: Collection<FineTuningJob>,
    /// The files that they read and write.
    pub files: Files,
    /// The models that they begin with, and their results.
    pub models: Arc<ModelRegistry>,
    /// How results are served, and what clients may do.
    pub options: TrainingOptions,
    /// How training gives way to requests.
    pub pace: Pace,
    work: Mutex<Work>,
    /// Notified when there may be a job to do.
    wake: Condvar,
    /// Counts the events of all jobs.
    changes: watch::Sender<u64>,
    /// How far the worker is.
    pub progress: Progress,
}

/// What the worker does.
#[derive(Default)]
struct Work {
    /// The job that it has, and a flag that stops it.
    current: Option<(String, Arc<AtomicBool>)>,
    given_up: HashSet<String>,
    shutdown: bool,
}

impl Jobs {
    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the jobs of a store.
    ///
    /// # Errors
    /// Those of the store.
    pub fn open(
        collections: &Collections,
        models: Arc<ModelRegistry>,
        options: TrainingOptions,
    ) -> Result<Self> {
        Ok(Self {
            collection: Collection::open(&collections.store)?,
            files: collections.files.clone(),
            pace: Pace { share: options.train_share, models: Arc::clone(&models) },
            models,
            options,
            work: Mutex::default(),
            wake: Condvar::new(),
            changes: watch::Sender::new(0),
            progress: Progress::default(),
        })
    }

    /// Waits for the next job: one that a server before has begun, or the one that has waited longest. With
    /// it comes a flag that stops it; none once the server stops.
    pub fn next(&self) -> Option<(Arc<Entry<FineTuningJob>>, Arc<AtomicBool>)> {
        let mut work = self.lock();
        loop {
            if work.shutdown {
                return None;
            }
            let can_run = |entry: &Arc<Entry<FineTuningJob>>| {
                let status = entry.value.status;
                (status.is_active() || status == Status::Queued) && !work.given_up.contains(&entry.id)
            };
            let waiting = self.collection.all().into_iter().filter(can_run);
            // `false` comes first, and among equals the oldest.
            if let Some(entry) = waiting.min_by_key(|entry| !entry.value.status.is_active()) {
                let stop = Arc::new(AtomicBool::new(false));
                work.current = Some((entry.id.clone(), Arc::clone(&stop)));
                return Some((entry, stop));
            }
            work = self.wake.wait(work).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The worker has the job no more.
    pub fn end(&self, id: &str) {
        self.progress.end();
        self.lock().current.take_if(|(current, _)| current == id);
        self.wake.notify_all();
        self.notify();
    }

    /// Waits for the end of the step that the worker takes. Returns whether it came in time.
    pub fn wait_for_worker(&self, max: Duration) -> bool {
        let has_job = |work: &mut Work| work.current.is_some();
        let waited = self.wake.wait_timeout_while(self.lock(), max, has_job);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Waits so long, or until the server stops.
    pub fn wait(&self, delay: Duration) {
        drop(self.wake.wait_timeout_while(self.lock(), delay, |work| !work.shutdown));
    }

    /// Leaves a job to the next server: this one does not serve its model, or cannot write what became of it.
    pub fn give_up(&self, id: &str) {
        self.lock().given_up.insert(id.into());
    }

    /// Stops a job after the step that it takes, if the worker has it. Returns whether it has.
    pub fn stop_if_current(&self, id: &str) -> bool {
        let work = self.lock();
        let current = work.current.as_ref().filter(|(current, _)| current == id);
        current.inspect(|(_, stop)| stop.store(true, Ordering::Relaxed)).is_some()
    }

    /// Lets the worker end, after the step that it takes.
    pub fn shut_down(&self) {
        let mut work = self.lock();
        work.shutdown = true;
        if let Some((_, stop)) = &work.current {
            stop.store(true, Ordering::Relaxed);
        }
        self.wake.notify_all();
    }

    /// Whether the worker has a job.
    pub fn is_current(&self, id: &str) -> bool {
        self.lock().current.as_ref().is_some_and(|(current, _)| current == id)
    }

    /// Lets the worker look for a job.
    pub fn wake(&self) {
        drop(self.lock());
        self.wake.notify_all();
    }

    /// A job's folder.
    pub fn folder(&self, id: &str) -> PathBuf {
        self.collection.folder(id)
    }

    /// A job as it is now.
    pub fn find(&self, id: &str) -> Option<FineTuningJob> {
        self.collection.find(id).map(|entry| entry.value.clone())
    }

    /// The job of an owner by either of its ids.
    ///
    /// # Errors
    /// 404 if there is none.
    pub fn get(&self, owner: &str, id: &str) -> Result<Arc<Entry<FineTuningJob>>, ApiError> {
        let job = self.collection.get(owner, &job_id(id));
        job.ok_or_else(|| ApiError::no_such_object("fine-tuning job", id))
    }

    /// Changes a job, and returns what `change` does; the default if there is no such job.
    ///
    /// # Errors
    /// Those of the store.
    pub fn change<T: Default>(&self, id: &str, change: impl FnOnce(&mut FineTuningJob) -> T) -> Result<T> {
        let changed = self.collection.update(id, |job| {
            let before = job.status;
            let changed = change(job);
            if job.status != before {
                job.updated_at = unix_time();
            }
            changed
        })?;
        self.notify();
        Ok(changed.unwrap_or_default())
    }

    /// The number of unfinished jobs before one.
    pub fn queue_number(&self, id: &str) -> usize {
        let jobs = self.collection.all();
        let before = jobs.iter().take_while(|entry| entry.id != id);
        before.filter(|entry| !entry.value.status.is_final() && entry.value.status != Status::Paused).count()
    }

    /// Adds an event to a job's. One that cannot be written is lost.
    pub fn tell(&self, id: &str, event: JobEvent) {
        if let Err(error) = event_log::append(&self.folder(id), &event) {
            tracing::warn!("{id}: {error}");
        }
        self.notify();
    }

    fn notify(&self) {
        self.changes.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Hears of every event of any job.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
