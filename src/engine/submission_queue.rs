//! The submission queue: a bounded number of requests, from any thread, for the engine thread; and what the
//! engine thread tells of its work.

use super::profile::Recording;
use super::sequence::Task;
use super::stream::{EventSender, channel};
use super::{EventStream, Priority, Statistics, SubmitError};
use crate::model::AdapterWeights;
use std::mem::take;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A submitted request.
pub(super) struct Submission {
    pub(super) tasks: Vec<Task>,
    /// The adapter of all of them.
    pub(super) adapter: Option<Arc<AdapterWeights>>,
    pub(super) priority: Priority,
    pub(super) events: EventSender,
    pub(super) permit: Permit,
}

/// The queue, its limits, the statistics published last, and what is recorded of the latest completion.
pub(super) struct SubmissionQueue {
    batch_slots: usize,
    /// Sequences that may wait.
    capacity: usize,
    state: Mutex<State>,
    /// Notified of a submission and of a stop.
    changed: Condvar,
    recording: Mutex<Option<Recording>>,
}

#[derive(Default)]
struct State {
    closed: bool,
    stopped: bool,
    /// The requests of each priority.
    loads: [Load; 2],
    submissions: Vec<Submission>,
    statistics: Statistics,
    /// While all slots are taken: the start of a period, and the number of requests finished since then.
    busy: Option<(Instant, u32)>,
    /// Mean time between two finished requests before that period.
    previous_spacing: Option<Duration>,
    /// The latest time that [`SubmissionQueue::retry_delay`] has given.
    last_retry: Option<Instant>,
}

/// The accepted requests of one priority.
#[derive(Clone, Copy, Default)]
struct Load {
    /// Requests that hold a permit.
    active_requests: usize,
    /// Sequences of those requests that cannot start yet.
    queued_sequences: usize,
}

/// Maximum delay: clients ignore longer ones.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(60);
const HALF_MAX_NANOS: u64 = 30_000_000_000;
/// Delay while a slot is free.
const DEFAULT_RETRY_DELAY: Duration = Duration::from_secs(1);
/// Time between two finished requests while none has finished.
const DEFAULT_SPACING: Duration = Duration::from_millis(50);
/// Requests finished in a period, after which the next one begins.
const PERIOD: u32 = 64;
/// Retries are planned for this many times the mean time between two finished requests: clients retry a few
/// times only, and those that come too early use up one.
const RETRY_SPACING: f64 = 1.5;

impl State {
    /// Returns the requests that one of this priority does not overtake.
    fn load_ahead(&self, priority: Priority) -> Load {
        self.loads[..=priority as usize].iter().fold(Load::default(), |sum, load| Load {
            active_requests: sum.active_requests + load.active_requests,
            queued_sequences: sum.queued_sequences + load.queued_sequences,
        })
    }

    /// Returns whether there are at least as many requests as slots.
    fn is_busy(&self, batch_slots: usize) -> bool {
        self.loads.iter().map(|load| load.active_requests).sum::<usize>() >= batch_slots
    }

    /// Returns the mean time between two finished requests, of which `batch_slots` may finish at once.
    fn spacing(&self, now: Instant, batch_slots: usize) -> Duration {
        let previous = self.previous_spacing.unwrap_or(DEFAULT_SPACING);
        let weight = batch_slots as u32;
        match self.busy {
            Some((since, finished)) => {
                ((now - since) + previous.saturating_mul(weight)) / (finished + weight)
            }
            None => previous,
        }
    }
}

/// Counts an accepted request against the queue's limits until it is dropped.
pub(super) struct Permit {
    queue: Arc<SubmissionQueue>,
    priority: Priority,
    /// The request's sequences in the queue, until it starts; 0 if it did not have to wait.
    queued_sequences: usize,
}

impl SubmissionQueue {
    /// An empty queue of `capacity` waiting sequences in front of `batch_slots` slots.
    pub(super) fn new(batch_slots: usize, capacity: usize) -> Self {
        Self {
            batch_slots,
            capacity,
            state: Mutex::default(),
            changed: Condvar::new(),
            recording: Mutex::default(),
        }
    }

    /// Submits all sequences of a request, or none.
    pub(super) fn submit(
        self: &Arc<Self>,
        tasks: Vec<Task>,
        adapter: Option<Arc<AdapterWeights>>,
        priority: Priority,
    ) -> Result<EventStream, SubmitError> {
        let mut state = self.state();
        if state.closed {
            return Err(SubmitError::Closed);
        }
        // While there are fewer requests than slots, each gets a slot in the next step, however many
        // sequences it has: see `batch_slots`. Only requests beyond that wait for others to end.
        let ahead = state.load_ahead(priority);
        let queued_sequences = if ahead.active_requests < self.batch_slots { 0 } else { tasks.len() };
        if queued_sequences > 0 && ahead.queued_sequences + queued_sequences > self.capacity {
            return Err(SubmitError::QueueFull);
        }
        let load = &mut state.loads[priority as usize];
        load.active_requests += 1;
        load.queued_sequences += queued_sequences;
        if state.is_busy(self.batch_slots) {
            state.busy.get_or_insert((Instant::now(), 0));
        }
        let permit = Permit { queue: Arc::clone(self), priority, queued_sequences };
        let (events, stream) = channel();
        state.submissions.push(Submission { tasks, adapter, priority, events, permit });
        self.changed.notify_one();
        Ok(stream)
    }

    /// Returns the delay after which a rejected request should find room. Each call plans one retry, after
    /// the others, at the rate at which requests finish.
    pub(super) fn retry_delay(&self) -> Duration {
        let (mut state, now) = (self.state(), Instant::now());
        if state.busy.is_none() {
            return DEFAULT_RETRY_DELAY;
        }
        let spacing = state.spacing(now, self.batch_slots).mul_f64(RETRY_SPACING);
        // A whole batch may finish at once, and none until then.
        let earliest = now + spacing.saturating_mul(self.batch_slots as u32);
        let retry = state.last_retry.map_or(earliest, |last| last.max(earliest)) + spacing;
        let delay = retry - now;
        state.last_retry = Some(if delay > 2 * MAX_RETRY_DELAY { now + MAX_RETRY_DELAY } else { retry });
        match delay <= MAX_RETRY_DELAY {
            true => delay,
            // Too long for a client: spread over the last half of the maximum, and planned again then.
            false => MAX_RETRY_DELAY - Duration::from_nanos(delay.as_nanos() as u64 % HALF_MAX_NANOS),
        }
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

    /// What is recorded of the completion that started last.
    pub(super) fn recording(&self) -> MutexGuard<'_, Option<Recording>> {
        self.recording.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Frees the request's place in the queue: it has its first batch slot.
    pub(super) fn leave_queue(&mut self) {
        let load = &mut self.queue.state().loads[self.priority as usize];
        load.queued_sequences -= take(&mut self.queued_sequences);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        let load = &mut state.loads[self.priority as usize];
        load.active_requests -= 1;
        load.queued_sequences -= self.queued_sequences;
        let is_busy = state.is_busy(self.queue.batch_slots);
        let Some((since, finished)) = state.busy else { return };
        state.busy = Some((since, finished + 1));
        if !is_busy || finished + 1 == PERIOD {
            let now = Instant::now();
            state.previous_spacing = Some(state.spacing(now, self.queue.batch_slots));
            state.busy = is_busy.then_some((now, 0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_planned_one_after_the_other_at_the_rate_of_finished_requests() {
        let queue = Arc::new(SubmissionQueue::new(2, 0));
        assert_eq!(queue.retry_delay(), DEFAULT_RETRY_DELAY); // a slot is free
        let _streams: Vec<EventStream> =
            (0..212).map(|_| queue.submit(vec![], None, Priority::Live).unwrap()).collect();
        // Nothing is known of the rate yet.
        let delays: Vec<Duration> = (0..20).map(|_| queue.retry_delay()).collect();
        assert!(delays[19] >= 20 * DEFAULT_SPACING, "{delays:?}");
        let mut running = queue.drain(false).unwrap();
        queue.state().last_retry = None;
        std::thread::sleep(Duration::from_millis(50));
        running.truncate(2);
        let delays: Vec<Duration> = (0..20).map(|_| queue.retry_delay()).collect();
        for pair in delays.windows(2) {
            assert!(pair[1] > pair[0], "{delays:?}");
        }
        // The rate of the latest requests counts: of the 210, the last 18 have finished in no time.
        let spacing = queue.state().spacing(Instant::now(), 2);
        assert!(spacing < DEFAULT_SPACING / 2, "{spacing:?}");
    }

    #[test]
    fn delays_beyond_what_clients_wait_are_spread() {
        let queue = Arc::new(SubmissionQueue::new(1, 0));
        let _streams: Vec<EventStream> =
            (0..2).map(|_| queue.submit(vec![], None, Priority::Live).unwrap()).collect();
        queue.state().previous_spacing = Some(Duration::from_secs(7));
        let delays: Vec<Duration> = (0..40).map(|_| queue.retry_delay()).skip(8).collect();
        assert!(delays.iter().all(|delay| (30..=60).contains(&delay.as_secs())), "{delays:?}");
        let distinct: std::collections::BTreeSet<Duration> = delays.iter().copied().collect();
        assert!(distinct.len() > 8, "{delays:?}");
    }
}
