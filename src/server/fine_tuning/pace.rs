//! How training gives way to requests: its threads have a low priority, and while requests run it pauses, so
//! that it takes at most a share of the time.

use crate::server::models::ModelRegistry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use thread_priority::{ThreadPriority, ThreadPriorityValue, set_current_thread_priority};

/// How often a pause looks whether it is still needed.
const INTERVAL: Duration = Duration::from_millis(20);

/// The priority of training, of 99: on Linux it is the nice value 15, 1/28 of the weight of requests. The
/// lowest would let other programs keep a job from ever ending.
const PRIORITY: u8 = 10;

/// Lets this thread, and those that it starts, make way for others. Where the system does not allow that,
/// training has the priority of everything else.
pub fn give_way() {
    let priority =
        ThreadPriorityValue::try_from(PRIORITY).map_or(ThreadPriority::Min, ThreadPriority::Crossplatform);
    if let Err(error) = set_current_thread_priority(priority) {
        tracing::warn!("training has the priority of requests: {error:?}");
    }
}

/// The pauses of a run.
pub struct Pace {
    /// The share of the time that training takes at most while requests run, from 0 to 1.
    pub share: f64,
    /// The models whose requests count.
    pub models: Arc<ModelRegistry>,
}

impl Pace {
    /// Pauses after so much work, unless no request runs, or the run is to stop.
    pub fn pause(&self, work: Duration, stop: &AtomicBool) {
        let start = Instant::now();
        let pause = pause_after(work, self.share);
        while start.elapsed() < pause && self.requests_run() && !stop.load(Ordering::Relaxed) {
            thread::sleep(INTERVAL.min(pause.saturating_sub(start.elapsed())));
        }
    }

    fn requests_run(&self) -> bool {
        let is_busy = |statistics: crate::engine::Statistics| statistics.running + statistics.waiting > 0;
        self.models.current().base_models().any(|served| is_busy(served.engine.statistics()))
    }
}

/// The pause that makes some work this share of the time.
fn pause_after(work: Duration, share: f64) -> Duration {
    Duration::try_from_secs_f64(work.as_secs_f64() * (1.0 - share) / share).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_leave_the_share_to_work() {
        let work = Duration::from_secs(2);
        assert_eq!(pause_after(work, 1.0), Duration::ZERO);
        assert_eq!(pause_after(work, 0.5), work);
        assert_eq!(pause_after(work, 0.25), 3 * work);
        assert_eq!(pause_after(work, 0.0), Duration::MAX); // as long as requests run
    }
}
