//! The thread that all batches are computed on: it shares its turns between them, and its requests have low
//! priority in the engine.

use super::Batches;
use super::answers::Answers;
use super::context::BatchContext;
use super::object::{BatchProblem, Status, StoredBatch};
use super::results::{self, End};
use super::validation::{check, problem};
use crate::server::collections::Collections;
use crate::server::store::{Entry, unix_time};
use crate::server::{AppState, Phase};
use crate::{Error, Result};
use axum::Router;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::collections::HashSet;
use std::fs;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::sleep;

/// Batches whose requests are answered at the same time; each has files open.
const MAX_ACTIVE: usize = 8;
/// Pause after a problem with the disk, such as a full one.
const RETRY_DELAY: Duration = Duration::from_secs(10);

/// The running thread. Dropping it stops it; what is not answered by then is left to the next.
pub struct BatchWorker {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl BatchWorker {
    /// Starts the thread of a server with a store, and goes on with all batches that are not at their end.
    ///
    /// # Errors
    /// [`Error::System`] if there can be no thread.
    pub fn start(app: &Arc<AppState>, collections: &Arc<Collections>, router: Router) -> Result<Self> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (app, collections) = (Arc::clone(app), Arc::clone(collections));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(1)
            .enable_time()
            .build()
            .map_err(|error| Error::system("start the batches' runtime", error))?;
        let work = move || {
            let mut phase = app.phase.clone();
            let context = BatchContext::new(app, collections, router);
            let worker = Worker { context, active: Semaphore::new(MAX_ACTIVE) };
            runtime.block_on(async {
                tokio::select! {
                    () = worker.run() => {}
                    _ = stopped => {}
                    _ = phase.wait_for(|phase| *phase != Phase::Serving) => {}
                }
            });
        };
        let thread = Builder::new().name("hornbook-batches".into()).spawn(work);
        let thread = thread.map_err(|error| Error::system("start the batches' thread", error))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for BatchWorker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The work on all batches.
struct Worker {
    context: BatchContext,
    active: Semaphore,
}

impl Worker {
    fn batches(&self) -> &Batches {
        &self.context.collections.batches
    }

    /// Works on all batches, those that are created meanwhile too.
    async fn run(&self) {
        let (mut started, mut running) = (HashSet::new(), FuturesUnordered::new());
        let mut changes = self.batches().changes.subscribe();
        loop {
            for batch in self.batches().collection().all() {
                if !started.insert(batch.id.clone()) {
                    continue;
                }
                if batch.value.status.is_final() {
                    let _ = fs::remove_file(self.batches().responses_path(&batch.id)); // if a kill left it
                } else {
                    running.push(self.process(batch.id.clone()));
                }
            }
            tokio::select! {
                _ = changes.changed() => {}
                Some(()) = running.next(), if !running.is_empty() => {}
            }
        }
    }

    /// Brings a batch to its end. A full disk makes it wait.
    async fn process(&self, id: String) {
        while let Err(error) = self.advance(&id).await {
            tracing::error!(batch = id, "{error}; trying again in {} s", RETRY_DELAY.as_secs());
            sleep(RETRY_DELAY).await;
        }
        self.batches().running().remove(&id);
    }

    async fn advance(&self, id: &str) -> Result<()> {
        let Some(batch) = self.context.find(id) else { return Ok(()) };
        if batch.value.status == Status::Validating {
            self.validate(&batch)?;
        }
        let end = match self.context.find(id).map(|batch| batch.value.status) {
            Some(Status::InProgress) => {
                let turn = tokio::select! {
                    turn = self.active.acquire() => Ok(turn),
                    end = self.ended(id) => Err(end),
                };
                match turn {
                    Ok(_turn) => self.answer(id).await?,
                    Err(end) => end,
                }
            }
            Some(Status::Cancelling) => End::Cancelled,
            Some(Status::Finalizing) => End::Completed,
            _ => return Ok(()),
        };
        results::write(&self.context, id, end)
    }

    /// Answers the requests of a batch that are not answered yet.
    async fn answer(&self, id: &str) -> Result<End> {
        let Some(batch) = self.context.find(id) else { return Ok(End::Cancelled) };
        let Some(mut answers) = Answers::open(&self.context, &batch)? else {
            self.fail(id, vec![problem("input_file_deleted", "the input file has been deleted".into())])?;
            return Ok(End::Failed);
        };
        let end = tokio::select! {
            end = self.ended(id) => end,
            answered = answers.run(&self.context) => answered.map(|()| End::Completed)?,
        };
        answers.sync()?;
        Ok(end)
    }

    fn validate(&self, batch: &Entry<StoredBatch>) -> Result<()> {
        let files = &self.context.collections.files;
        let checked = match files.get(&batch.owner, &batch.value.input_file_id) {
            Some(file) => check(&batch.value, &files.path(&file), self.context.max_line_bytes())?,
            None => Err(vec![problem("input_file_deleted", "the input file has been deleted".into())]),
        };
        match checked {
            Ok(total) => {
                self.batches().update(&batch.id, |batch| {
                    batch.request_counts.total = total;
                    if batch.status == Status::Validating {
                        batch.status = Status::InProgress;
                        batch.times.in_progress_at = Some(unix_time());
                    }
                })?;
                Ok(())
            }
            Err(problems) => self.fail(&batch.id, problems),
        }
    }

    fn fail(&self, id: &str, problems: Vec<BatchProblem>) -> Result<()> {
        self.batches().update(id, |batch| {
            batch.status = Status::Failed;
            batch.problems = problems;
            batch.times.failed_at = Some(unix_time());
        })?;
        Ok(())
    }

    /// Waits until a batch is cancelled, deleted, or its time is over.
    async fn ended(&self, id: &str) -> End {
        let mut changes = self.batches().changes.subscribe();
        loop {
            let Some(batch) = self.context.find(id) else { return End::Cancelled };
            if batch.value.status != Status::InProgress {
                return End::Cancelled;
            }
            let expires_at = batch.value.times.expires_at.unwrap_or(u64::MAX);
            let left = Duration::from_secs(expires_at.saturating_sub(unix_time()));
            if left.is_zero() {
                return End::Expired;
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = sleep(left.min(Duration::from_secs(3600))) => {}
            }
        }
    }
}
