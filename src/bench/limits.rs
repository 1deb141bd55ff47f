//! The machine's limits, which bound every operation (the roofline).

use super::{ReadBandwidth, fma_peak};
use crate::kernels::thread_pool::ThreadPool;

/// The limits of some threads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Read bandwidth in bytes per second.
    pub bandwidth: f64,
    /// Peak in f32 FLOP/s.
    pub peak: f64,
}

impl Limits {
    /// Measures both.
    pub fn measure(memory: &ReadBandwidth, pool: &ThreadPool) -> Self {
        Self { bandwidth: memory.measure(pool), peak: fma_peak(pool) }
    }

    /// Returns the shortest possible time of an operation in seconds, and whether it is memory-bound.
    pub fn bound(&self, bytes: f64, flops: f64) -> (f64, bool) {
        let (memory, compute) = (bytes / self.bandwidth, flops / self.peak);
        (memory.max(compute), memory > compute)
    }
}
