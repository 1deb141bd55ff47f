//! How far the worker is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Counts of the worker, and the progress of the job that it has.
#[derive(Default)]
pub struct Progress {
    steps: AtomicU64,
    tokens: AtomicU64,
    run: Mutex<Option<RunProgress>>,
}

/// The steps of a run since the worker began it, or went on with it.
struct RunProgress {
    first: u32,
    step: u32,
    last: u32,
    since: Instant,
}

impl Progress {
    /// Begins a run of `last` steps, of which `first` are taken.
    pub fn begin(&self, first: u32, last: u32) {
        self.set(Some(RunProgress { first, step: first, last, since: Instant::now() }));
    }

    /// Ends a run.
    pub fn end(&self) {
        self.set(None);
    }

    fn set(&self, run: Option<RunProgress>) {
        *self.run.lock().unwrap_or_else(PoisonError::into_inner) = run;
    }

    /// Counts a step of so many tokens.
    pub fn count(&self, step: u32, tokens: usize) {
        self.steps.fetch_add(1, Ordering::Relaxed);
        self.tokens.fetch_add(tokens as u64, Ordering::Relaxed);
        if let Some(run) = &mut *self.run.lock().unwrap_or_else(PoisonError::into_inner) {
            run.step = step;
        }
    }

    /// The seconds that the run will still take, once it has taken a step.
    pub fn seconds_left(&self) -> Option<u64> {
        let run = self.run.lock().unwrap_or_else(PoisonError::into_inner);
        let RunProgress { first, step, last, since } = run.as_ref().filter(|run| run.step > run.first)?;
        let seconds_per_step = since.elapsed().as_secs_f64() / f64::from(step - first);
        Some((seconds_per_step * f64::from(last.saturating_sub(*step))) as u64)
    }

    /// The steps that were taken since the server has started.
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// The tokens of these steps.
    pub fn tokens(&self) -> u64 {
        self.tokens.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_is_known_after_a_step() {
        let progress = Progress::default();
        assert_eq!(progress.seconds_left(), None);
        progress.begin(3, 5);
        assert_eq!(progress.seconds_left(), None);
        progress.count(4, 7);
        progress.count(5, 8);
        assert_eq!((progress.seconds_left(), progress.steps(), progress.tokens()), (Some(0), 2, 15));
        progress.end();
        assert_eq!(progress.seconds_left(), None);
    }
}
