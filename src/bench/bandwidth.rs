//! Read bandwidth: how many bytes per second the threads read from memory.

use crate::checkpoint::AlignedBuffer;
use crate::kernels::isa::Isa;
use crate::kernels::parallel::*;
use crate::kernels::simd::{Kernel, LANES, Simd};
use crate::kernels::thread_pool::ThreadPool;
use crate::{Error, Result};
use std::hint::black_box;
use std::time::Instant;

/// The minimum size of the buffer in bytes.
const MIN_BYTES: usize = 256 << 20;
/// The buffer's size as a multiple of the last-level cache: few of a cyclic read's accesses hit the cache
/// then.
const CACHE_MULTIPLE: usize = 8;
/// Passes over the buffer per measurement: tens of milliseconds, as long as a few tokens take.
const PASSES: usize = 4;
/// Bytes per task of a thread.
const CHUNK: usize = 1 << 20;
/// Independent vector accumulators, so that no addition waits for another.
const ACCUMULATORS: usize = 8;

/// A buffer much larger than the caches, to be read repeatedly.
pub struct ReadBandwidth {
    buffer: AlignedBuffer,
    isa: Isa,
}

impl ReadBandwidth {
    /// Allocates the buffer, in huge pages where the system offers them.
    ///
    /// # Errors
    /// [`Error::System`] if there is not enough memory.
    pub fn new() -> Result<Self> {
        let bytes = Self::buffer_bytes();
        let mut buffer = AlignedBuffer::zeroed(bytes).map_err(|error| {
            Error::system(format!("allocate {bytes} bytes to measure the memory bandwidth"), error)
        })?;
        // Pages that were never written all map to one page of zeros.
        buffer.par_chunks_mut(CHUNK).for_each(|chunk| chunk.fill(1));
        // The machine's limit, whatever instruction set the model uses.
        Ok(Self { buffer, isa: Isa::available()[0] })
    }

    /// The bytes of the buffer.
    pub fn buffer_bytes() -> usize {
        MIN_BYTES.max(CACHE_MULTIPLE * last_level_cache().unwrap_or(0)).next_multiple_of(CHUNK)
    }

    /// Reads the buffer four times on all threads. Returns bytes per second.
    pub fn measure(&self, pool: &ThreadPool) -> f64 {
        self.measure_passes(pool, PASSES)
    }

    /// Reads the buffer so many times on all threads. Returns bytes per second.
    pub fn measure_passes(&self, pool: &ThreadPool, passes: usize) -> f64 {
        let start = Instant::now();
        for _ in 0..passes {
            // Passes do not overlap: a thread one pass behind would hit the cache lines that another has just
            // read.
            pool.run(self.buffer.len() / CHUNK, |i| {
                let chunk = bytemuck::cast_slice(&self.buffer[i * CHUNK..][..CHUNK]);
                black_box(self.isa.run(Sum(chunk)));
            });
        }
        (passes * self.buffer.len()) as f64 / start.elapsed().as_secs_f64()
    }
}

/// The sum of a slice: the cheapest use of all elements.
struct Sum<'a>(&'a [f32]);

impl Kernel for Sum<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let mut sums = [simd.splat(0.0); ACCUMULATORS];
        for vectors in self.0.as_chunks::<LANES>().0.as_chunks::<ACCUMULATORS>().0 {
            for (sum, vector) in sums.iter_mut().zip(vectors) {
                *sum = simd.add(*sum, simd.load(vector));
            }
        }
        sums.into_iter().fold(0.0, |total, sum| total + simd.reduce_add(sum))
    }
}

/// Returns the bytes of the largest cache, on Linux.
fn last_level_cache() -> Option<usize> {
    let caches = std::fs::read_dir("/sys/devices/system/cpu/cpu0/cache").ok()?;
    let size = |entry: std::fs::DirEntry| {
        let size = std::fs::read_to_string(entry.path().join("size")).ok()?;
        let kib: usize = size.trim().strip_suffix('K')?.parse().ok()?;
        Some(kib << 10)
    };
    caches.flatten().filter_map(size).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sum_reads_every_element() {
        let values: Vec<f32> = (0..LANES * ACCUMULATORS * 40).map(|i| (i % 7) as f32).collect();
        for isa in Isa::available() {
            assert_eq!(isa.run(Sum(&values)), values.iter().sum::<f32>(), "{isa}");
        }
    }

    #[test]
    fn measured_bandwidth_is_plausible() {
        let bandwidth = ReadBandwidth::new().unwrap().measure(&ThreadPool::new(2, Isa::Portable));
        assert!((1e8..1e13).contains(&bandwidth), "{bandwidth} bytes/s");
    }
}
