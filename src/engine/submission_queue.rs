//! The submission queue: a bounded number of requests, from any thread, for the engine thread.

use super::sequence::Task;
use super::stream::{EventSender, channel};
use super::{EventStream, Statistics, SubmitError};
use std::mem::take;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A submitted request.
pub(super) struct Submission {
    pub(super) tasks: Vec<Task>,
    pub(super) events: EventSender,
    pub(super) permit: Permit,
}

/// The queue, its limits, and the statistics published last.
pub(super) struct SubmissionQueue {
    batch_slots: usize,
    /// Sequences that may wait.
    capacity: usize,
    state: Mutex<State>,
    /// Notified of a submission and of a stop.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    closed: bool,
    stopped: bool,
    /// Requests that hold a permit.
    active_requests: usize,
    /// Sequences of those requests that cannot start yet.
    queued_sequences: usize,
    submissions: Vec<Submission>,
    statistics: Statistics,
}

/// Counts an accepted request against the queue's limits until it is dropped.
pub(super) struct Permit {
    queue: Arc<SubmissionQueue>,
    /// The request's sequences in the queue, until it starts; 0 if it did not have to wait.
    queued_sequences: usize,
}

impl SubmissionQueue {
    /// An empty queue of `capacity` waiting sequences in front of `batch_slots` slots.
    pub(super) fn new(batch_slots: usize, capacity: usize) -> Self {
        Self { batch_slots, capacity, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Submits all sequences of a request, or none.
    pub(super) fn submit(self: &Arc<Self>, tasks: Vec<Task>) -> Result<EventStream, SubmitError> {
        let mut state = self.state();
        if state.closed {
            return Err(SubmitError::Closed);
        }
        // While there are fewer requests than slots, each gets a slot in the next step, however many
        // sequences it has: see `batch_slots`. Only requests beyond that wait for others to end.
        let queued_sequences = if state.active_requests < self.batch_slots { 0 } else { tasks.len() };
        if queued_sequences > 0 && state.queued_sequences + queued_sequences > self.capacity {
            return Err(SubmitError::QueueFull);
        }
        state.active_requests += 1;
        state.queued_sequences += queued_sequences;
        let permit = Permit { queue: Arc::clone(self), queued_sequences };
        let (events, stream) = channel();
        state.submissions.push(Submission { tasks, events, permit });
        self.changed.notify_one();
        Ok(stream)
    }

    /// Takes all new submissions, in order of arrival; `None` once the engine is stopped. With `wait` it
    /// sleeps until there is a submission.
    pub(super) fn drain(&self, wait: bool) -> Option<Vec<Submission>> {
        let mut state = self.state();
        while wait && state.submissions.is_empty() && !state.stopped {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        (!state.stopped).then(|| take(&mut state.submissions))
    }

    /// Rejects submissions from now on.
    pub(super) fn close(&self) {
        self.state().closed = true;
    }

    /// Closes the queue and ends the engine before its next step.
    pub(super) fn stop(&self) {
        let mut state = self.state();
        (state.closed, state.stopped) = (true, true);
        self.changed.notify_one();
    }

    /// Closes the queue and takes the submissions that are still in it.
    pub(super) fn shutdown(&self) -> Vec<Submission> {
        let mut state = self.state();
        state.closed = true;
        take(&mut state.submissions)
    }

    /// The statistics published last, with new submissions counted as waiting.
    pub(super) fn statistics(&self) -> Statistics {
        let state = self.state();
        let mut statistics = state.statistics.clone();
        statistics.waiting +=
            state.submissions.iter().map(|submission| submission.tasks.len()).sum::<usize>();
        statistics
    }

    /// Publishes statistics.
    pub(super) fn publish(&self, statistics: &Statistics) {
        self.state().statistics.clone_from(statistics);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Frees the request's place in the queue: it has its first batch slot.
    pub(super) fn leave_queue(&mut self) {
        self.queue.state().queued_sequences -= take(&mut self.queued_sequences);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.active_requests -= 1;
        state.queued_sequences -= self.queued_sequences;
    }
}
