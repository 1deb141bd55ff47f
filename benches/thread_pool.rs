//! The overhead of running one token's operations in parallel: with a rayon parallel iterator per operation,
//! with one rayon broadcast per token and a barrier after each operation, and with Hornbook's thread pool.

use criterion::{BenchmarkId, Criterion};
use hornbook::kernels::isa::Isa;
use hornbook::kernels::thread_pool::ThreadPool;
use rayon::prelude::*;
use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;

/// Operations per GPT-2 token: eight in each of twelve blocks, and the LM head.
const OPERATIONS: usize = 97;
/// Chunks per operation and thread.
const CHUNKS_PER_THREAD: usize = 4;

pub fn bench(c: &mut Criterion) {
    let threads = available_parallelism().map_or(1, usize::from);
    let chunks = CHUNKS_PER_THREAD * threads;
    let rayon_pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
    let pool = ThreadPool::new(threads, Isa::Portable);
    let data: Vec<f32> = crate::random_values(1 << 16);
    // Elements summed per chunk: almost none, and enough for a microsecond or so.
    for (name, n) in [("empty chunks", 16), ("64 KiB per chunk", 1 << 14)] {
        let work = |chunk: usize| {
            let sum = data[chunk % 4 * n..][..n].iter().fold(0u32, |sum, x| sum.wrapping_add(x.to_bits()));
            black_box(sum);
        };
        let mut group = c.benchmark_group(format!("thread_pool, {OPERATIONS} operations, {name}"));
        group.bench_function(BenchmarkId::from_parameter("sequential"), |b| {
            b.iter(|| (0..OPERATIONS).for_each(|_| (0..chunks).for_each(work)));
        });
        group.bench_function(BenchmarkId::from_parameter("rayon per operation"), |b| {
            b.iter(|| {
                for _ in 0..OPERATIONS {
                    rayon_pool.install(|| (0..chunks).into_par_iter().for_each(work));
                }
            });
        });
        group.bench_function(BenchmarkId::from_parameter("one rayon broadcast with barriers"), |b| {
            b.iter(|| {
                let barrier = Barrier::new(threads);
                rayon_pool.broadcast(|thread| {
                    for operation in 0..OPERATIONS {
                        (thread.index()..chunks).step_by(threads).for_each(work);
                        barrier.wait(operation);
                    }
                });
            });
        });
        group.bench_function(BenchmarkId::from_parameter("hornbook thread pool"), |b| {
            b.iter(|| (0..OPERATIONS).for_each(|_| pool.run(chunks, work)));
        });
    }
}

/// A spinning barrier.
struct Barrier {
    threads: usize,
    arrived: AtomicUsize,
}

impl Barrier {
    fn new(threads: usize) -> Self {
        Self { threads, arrived: AtomicUsize::new(0) }
    }

    /// Waits until every thread has finished the operation with index `operation`.
    fn wait(&self, operation: usize) {
        self.arrived.fetch_add(1, Ordering::AcqRel);
        while self.arrived.load(Ordering::Acquire) < (operation + 1) * self.threads {
            spin_loop();
        }
    }
}
