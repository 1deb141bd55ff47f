//! Times of operations, measured while they are computed: one reading of the clock at the end of each.

use super::{Observer, Operation, OperationCost, Site};
use ndarray::ArrayViewMutD;
use std::time::Instant;

/// The time and cost of an operation, summed over its calls.
#[derive(Clone, Debug, PartialEq)]
pub struct OperationTime {
    /// The name as in checkpoints, or of a computation that is not the model's, such as `sampling`.
    pub name: &'static str,
    /// Calls.
    pub calls: usize,
    /// Seconds.
    pub seconds: f64,
    /// Bytes read and written.
    pub bytes: f64,
    /// FLOPs (a multiply-add is two).
    pub flops: f64,
}

impl OperationTime {
    /// Adds calls to the sums, which are in the order of the first calls.
    pub fn add(
        sums: &mut Vec<Self>,
        name: &'static str,
        calls: usize,
        seconds: f64,
        OperationCost { bytes, flops }: OperationCost,
    ) {
        match sums.iter_mut().find(|sum| sum.name == name) {
            Some(sum) => {
                sum.calls += calls;
                sum.seconds += seconds;
                sum.bytes += bytes;
                sum.flops += flops;
            }
            None => sums.push(Self { name, calls, seconds, bytes, flops }),
        }
    }
}

/// Records the time of each operation. It observes no activations, so the forward pass takes its usual path.
#[derive(Debug)]
pub struct OperationTimer {
    last: Instant,
    times: Vec<(Operation, f64)>,
}

impl OperationTimer {
    /// A timer with room for the operations of a pass through `n_layer` blocks.
    pub fn new(n_layer: usize) -> Self {
        Self { last: Instant::now(), times: Vec::with_capacity(Operation::in_pass(n_layer).count()) }
    }

    /// Starts a pass, and forgets the one before.
    pub fn start(&mut self) {
        self.times.clear();
        self.last = Instant::now();
    }

    /// Returns the seconds since the last operation, and starts the next one.
    pub fn lap(&mut self) -> f64 {
        let now = Instant::now();
        let seconds = (now - self.last).as_secs_f64();
        self.last = now;
        seconds
    }

    /// The operations of the pass with their seconds.
    pub fn times(&self) -> &[(Operation, f64)] {
        &self.times
    }
}

impl Observer for OperationTimer {
    const ENABLED: bool = false;

    fn observe(&mut self, _site: Site, _values: ArrayViewMutD<'_, f32>) {}

    fn operation_finished(&mut self, operation: Operation) {
        let seconds = self.lap();
        self.times.push((operation, seconds));
    }
}
