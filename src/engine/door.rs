//! Where requests come in: a bounded number of them, from any thread, to the one that computes.

use super::sequence::Task;
use super::stream::{Events, stream};
use super::{Refused, Statistics, Stream};
use std::mem::take;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A request that has come in.
pub(super) struct Arrival {
    pub(super) tasks: Vec<Task>,
    pub(super) events: Events,
    pub(super) place: Place,
}

/// The way in, and what can be seen from outside.
pub(super) struct Door {
    seats: usize,
    queue: usize,
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Default)]
struct State {
    closed: bool,
    quit: bool,
    /// Requests that are inside.
    inside: usize,
    /// The sequences of those among them that cannot begin yet.
    queued: usize,
    arrivals: Vec<Arrival>,
    statistics: Statistics,
}

/// A request's place inside; given back when dropped.
pub(super) struct Place {
    door: Arc<Door>,
    /// Its sequences, where it has to wait and until it begins.
    queued: usize,
}

impl Door {
    /// A door to so many seats and so long a queue.
    pub(super) fn new(seats: usize, queue: usize) -> Self {
        Self { seats, queue, state: Mutex::default(), bell: Condvar::new() }
    }

    /// Lets all sequences of a request in, or none.
    pub(super) fn enter(self: &Arc<Self>, tasks: Vec<Task>) -> Result<Stream, Refused> {
        let mut state = self.state();
        if state.closed {
            return Err(Refused::Closed);
        }
        // With fewer requests than seats each has one, or gets it in the next pass, whatever the number of sequences:
        // see `seats`. Only those beyond that wait for others to end.
        let queued = if state.inside < self.seats { 0 } else { tasks.len() };
        if queued > 0 && state.queued + queued > self.queue {
            return Err(Refused::QueueFull);
        }
        state.inside += 1;
        state.queued += queued;
        let place = Place { door: Arc::clone(self), queued };
        let (events, stream) = stream();
        state.arrivals.push(Arrival { tasks, events, place });
        self.bell.notify_one();
        Ok(stream)
    }

    /// Those who have come in since, first come first. Sleeps until there is one where the caller is `idle`; none once
    /// the engine is to end.
    pub(super) fn arrivals(&self, idle: bool) -> Option<Vec<Arrival>> {
        let mut state = self.state();
        while idle && state.arrivals.is_empty() && !state.quit {
            state = self.bell.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        (!state.quit).then(|| take(&mut state.arrivals))
    }

    /// Lets nobody in any more.
    pub(super) fn close(&self) {
        self.state().closed = true;
    }

    /// Ends the engine at its next step.
    pub(super) fn quit(&self) {
        let mut state = self.state();
        (state.closed, state.quit) = (true, true);
        self.bell.notify_one();
    }

    /// Closes for good, and hands over those whom nobody has looked at yet.
    pub(super) fn lock_up(&self) -> Vec<Arrival> {
        let mut state = self.state();
        state.closed = true;
        take(&mut state.arrivals)
    }

    /// The numbers made known last, and those who have come in since.
    pub(super) fn statistics(&self) -> Statistics {
        let state = self.state();
        let mut statistics = state.statistics.clone();
        statistics.waiting += state.arrivals.iter().map(|arrival| arrival.tasks.len()).sum::<usize>();
        statistics
    }

    /// Makes new numbers known.
    pub(super) fn publish(&self, statistics: &Statistics) {
        self.state().statistics.clone_from(statistics);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Makes room in the queue: the request has its first seat.
    pub(super) fn begin(&mut self) {
        self.door.state().queued -= std::mem::take(&mut self.queued);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.door.state();
        state.inside -= 1;
        state.queued -= self.queued;
    }
}
