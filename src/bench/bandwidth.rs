//! Read bandwidth: how many bytes a second the threads can take in from memory.

use crate::checkpoint::AlignedBuffer;
use crate::kernels::isa::Isa;
use crate::kernels::simd::{Kernel, LANES, Simd};
use crate::kernels::thread_pool::ThreadPool;
use crate::{Error, Result};
use rayon::prelude::*;
use std::hint::black_box;
use std::time::Instant;

/// Bytes to read where the caches are small or unknown.
const LEAST: usize = 256 << 20;
/// How many times the last-level cache's size is surely beyond it, for the share a cyclic read finds there.
const BEYOND_CACHE: usize = 8;
/// Times the buffer is read in one measurement: tens of milliseconds, as long as a few tokens take.
const PASSES: usize = 4;
/// Bytes that one thread takes at a time.
const PIECE: usize = 1 << 20;
/// Vectors that are summed side by side, so that no addition waits for another.
const SUMS: usize = 8;

/// A buffer much larger than the caches, to be read over and over.
pub struct ReadBandwidth {
    buffer: AlignedBuffer,
    isa: Isa,
}

impl ReadBandwidth {
    /// Prepares the buffer, in huge pages where the system offers them.
    ///
    /// # Errors
    /// [`Error::Message`] where there is not enough memory.
    pub fn new() -> Result<Self> {
        let bytes = LEAST.max(BEYOND_CACHE * last_level_cache().unwrap_or(0)).next_multiple_of(PIECE);
        let mut buffer = AlignedBuffer::zeroed(bytes).map_err(|error| {
            Error::Message(format!("no {bytes} bytes to measure bandwidth with: {error}"))
        })?;
        // Pages that were never written to are all the same page of zeros.
        buffer.par_chunks_mut(PIECE).for_each(|piece| piece.fill(1));
        // The machine's limit, whichever instructions the model is told to use.
        Ok(Self { buffer, isa: Isa::available()[0] })
    }

    /// Reads all of it a few times, on every thread of the pool. Returns bytes a second.
    pub fn measure(&self, pool: &ThreadPool) -> f64 {
        let start = Instant::now();
        for _ in 0..PASSES {
            // Each pass apart: of two threads in different passes the second would find in the cache what the first read.
            pool.run(self.buffer.len() / PIECE, |i| {
                let piece = bytemuck::cast_slice(&self.buffer[i * PIECE..][..PIECE]);
                black_box(self.isa.run(Sum(piece)));
            });
        }
        (PASSES * self.buffer.len()) as f64 / start.elapsed().as_secs_f64()
    }
}

/// The sum of some numbers: the least that can be done with what is read.
struct Sum<'a>(&'a [f32]);

impl Kernel for Sum<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let mut sums = [simd.splat(0.0); SUMS];
        for lines in self.0.as_chunks::<LANES>().0.as_chunks::<SUMS>().0 {
            for (sum, line) in sums.iter_mut().zip(lines) {
                *sum = simd.add(*sum, simd.load(line));
            }
        }
        sums.into_iter().fold(0.0, |total, sum| total + simd.reduce_add(sum))
    }
}

/// Bytes of the largest cache, where the system says (Linux).
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
    fn everything_is_read() {
        let numbers: Vec<f32> = (0..LANES * SUMS * 40).map(|i| (i % 7) as f32).collect();
        for isa in Isa::available() {
            assert_eq!(isa.run(Sum(&numbers)), numbers.iter().sum::<f32>(), "{isa}");
        }
    }

    #[test]
    fn a_plausible_number_comes_out() {
        let bandwidth = ReadBandwidth::new().unwrap().measure(&ThreadPool::new(2, Isa::Portable));
        assert!((1e8..1e13).contains(&bandwidth), "{bandwidth} bytes/s");
    }
}
