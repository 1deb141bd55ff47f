//! Submission of one request's prompts to the engine.
//!
//! The first prompt is accepted or rejected immediately, except that one of low priority waits for room in
//! the queue. The others follow as the queue has room, so that a request with many prompts neither fills the
//! queue nor fails halfway. Dropping a submission cancels all its prompts.

use super::error::ApiError;
use super::models::ServedModel;
use super::{AppState, Phase};
use crate::engine::{Event, Priority, Request, SubmitError};
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, SelectAll, unfold};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Interval between attempts to submit while the queue is full of other requests.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// The waiting and running prompts of a request.
pub struct Submission {
    served: Arc<ServedModel>,
    waiting: VecDeque<(usize, Request)>,
    running: SelectAll<BoxStream<'static, (usize, Event)>>,
    /// Maximum number of prompts running at once.
    max_running: usize,
    phase: watch::Receiver<Phase>,
    /// The request field the prompts came from.
    param: &'static str,
}

impl Submission {
    /// Submits the first prompts.
    ///
    /// # Errors
    /// The engine's rejection of the first prompt.
    pub fn start(
        app: &AppState,
        served: &Arc<ServedModel>,
        requests: Vec<Request>,
        param: &'static str,
    ) -> Result<Self, ApiError> {
        let mut submission = Self {
            served: Arc::clone(served),
            waiting: requests.into_iter().enumerate().collect(),
            running: SelectAll::new(),
            max_running: app.max_concurrency,
            phase: app.phase.clone(),
            param,
        };
        let can_wait = submission.waiting.front().is_some_and(|(_, first)| first.priority == Priority::Low);
        match submission.submit_waiting() {
            Err(SubmitError::QueueFull) if !can_wait => {
                Err(ApiError::queue_full(served.engine.retry_delay()))
            }
            Err(error) if !matches!(error, SubmitError::QueueFull) => {
                Err(ApiError::from_submit_error(error, param))
            }
            _ => Ok(submission),
        }
    }

    /// Submits waiting prompts while there is room.
    fn submit_waiting(&mut self) -> Result<(), SubmitError> {
        while self.running.len() < self.max_running
            && let Some((prompt, request)) = self.waiting.front()
        {
            let prompt = *prompt;
            match self.served.engine.submit(request.clone()) {
                Ok(stream) => {
                    self.waiting.pop_front();
                    let events = unfold(stream, |mut stream| async { Some((stream.next().await?, stream)) });
                    self.running.push(events.map(move |event| (prompt, event)).boxed());
                }
                // A running prompt makes room when it finishes.
                Err(SubmitError::QueueFull) if !self.running.is_empty() => {
                    self.max_running = self.running.len();
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Returns the next event with the index of its prompt, or `None` after the last.
    ///
    /// # Errors
    /// 503 if the server aborts the request at shutdown.
    pub async fn next(&mut self) -> Result<Option<(usize, Event)>, ApiError> {
        loop {
            match self.submit_waiting() {
                Ok(()) => {}
                Err(SubmitError::QueueFull) => {
                    tokio::time::sleep(RETRY_INTERVAL).await;
                    continue;
                }
                Err(error) => return Err(ApiError::from_submit_error(error, self.param)),
            }
            if self.running.is_empty() {
                return Ok(None);
            }
            tokio::select! {
                next = self.running.next() => {
                    if next.is_some() {
                        return Ok(next);
                    }
                }
                _ = self.phase.wait_for(|phase| *phase == Phase::Aborting) => {
                    return Err(ApiError::shutting_down());
                }
            }
        }
    }
}
