//! The prompts of one request on their way through the engine.
//!
//! The first is taken at once or refused. The others follow as there is room, so that a request with a hundred prompts
//! neither fills the queue nor fails halfway. Dropping it cancels all that is left.

use super::error::ApiError;
use super::models::Served;
use super::{App, Phase};
use crate::engine::{Event, Request, SubmitError};
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, SelectAll, unfold};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long to wait for a place in a queue that is full of others' requests.
const RETRY: Duration = Duration::from_millis(20);

/// Prompts, and those of them that are being computed.
pub struct Submission {
    served: Arc<Served>,
    waiting: VecDeque<(usize, Request)>,
    running: SelectAll<BoxStream<'static, (usize, Event)>>,
    /// How many may run together.
    most: usize,
    phase: watch::Receiver<Phase>,
    /// What the API calls the tokens that are sent.
    param: &'static str,
}

impl Submission {
    /// Sends the first prompts.
    ///
    /// # Errors
    /// As the engine refuses the first of them.
    pub fn start(
        app: &App,
        served: &Arc<Served>,
        requests: Vec<Request>,
        param: &'static str,
    ) -> Result<Self, ApiError> {
        let mut submission = Self {
            served: Arc::clone(served),
            waiting: requests.into_iter().enumerate().collect(),
            running: SelectAll::new(),
            most: app.max_concurrency,
            phase: app.phase.clone(),
            param,
        };
        submission.fill().map_err(|refused| ApiError::refused(refused, param))?;
        Ok(submission)
    }

    /// Sends prompts while there is room.
    fn fill(&mut self) -> Result<(), SubmitError> {
        while self.running.len() < self.most
            && let Some((prompt, request)) = self.waiting.front()
        {
            let prompt = *prompt;
            match self.served.engine.submit(request.clone()) {
                Ok(stream) => {
                    self.waiting.pop_front();
                    let events = unfold(stream, |mut stream| async { Some((stream.next().await?, stream)) });
                    self.running.push(events.map(move |event| (prompt, event)).boxed());
                }
                // What runs already makes room when it ends.
                Err(SubmitError::QueueFull) if !self.running.is_empty() => {
                    self.most = self.running.len();
                }
                Err(refused) => return Err(refused),
            }
        }
        Ok(())
    }

    /// The next event and the prompt it belongs to; none after the last.
    ///
    /// # Errors
    /// 503 where the server ends before the request does.
    pub async fn next(&mut self) -> Result<Option<(usize, Event)>, ApiError> {
        loop {
            match self.fill() {
                Ok(()) => {}
                Err(SubmitError::QueueFull) => {
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
                Err(refused) => return Err(ApiError::refused(refused, self.param)),
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
                _ = self.phase.wait_for(|phase| *phase == Phase::Cut) => return Err(ApiError::closing()),
            }
        }
    }
}
