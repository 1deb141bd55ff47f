//! What it costs to share out a token's operations: rayon for each of them, one rayon broadcast for the whole token with
//! a barrier after each, and Hornbook's pool.

use criterion::{BenchmarkId, Criterion};
use hornbook::kernels::isa::Isa;
use hornbook::kernels::thread_pool::ThreadPool;
use rayon::prelude::*;
use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;

/// Operations of a GPT-2 token: eight in each of twelve blocks, and the head.
const OPERATIONS: usize = 97;
/// Pieces of an operation for each thread.
const PIECES: usize = 4;

pub fn bench(c: &mut Criterion) {
    let threads = available_parallelism().map_or(1, usize::from);
    let pieces = PIECES * threads;
    let rayon_pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
    let pool = ThreadPool::new(threads, Isa::Portable);
    let data: Vec<f32> = crate::random_values(1 << 16);
    // Numbers added up in a piece: almost none, and some that take a microsecond or so.
    for (name, n) in [("of nothing", 16), ("of 64 KiB a piece", 1 << 14)] {
        let work = |piece: usize| {
            let sum = data[piece % 4 * n..][..n].iter().fold(0u32, |sum, x| sum.wrapping_add(x.to_bits()));
            black_box(sum);
        };
        let mut group = c.benchmark_group(format!("threads, {OPERATIONS} operations {name}"));
        group.bench_function(BenchmarkId::from_parameter("one after the other"), |b| {
            b.iter(|| (0..OPERATIONS).for_each(|_| (0..pieces).for_each(work)));
        });
        group.bench_function(BenchmarkId::from_parameter("rayon for each operation"), |b| {
            b.iter(|| {
                for _ in 0..OPERATIONS {
                    rayon_pool.install(|| (0..pieces).into_par_iter().for_each(work));
                }
            });
        });
        group.bench_function(BenchmarkId::from_parameter("one rayon broadcast"), |b| {
            b.iter(|| {
                let barrier = Barrier::new(threads);
                rayon_pool.broadcast(|thread| {
                    for operation in 0..OPERATIONS {
                        (thread.index()..pieces).step_by(threads).for_each(work);
                        barrier.wait(operation);
                    }
                });
            });
        });
        group.bench_function(BenchmarkId::from_parameter("hornbook's pool"), |b| {
            b.iter(|| (0..OPERATIONS).for_each(|_| pool.run(pieces, work)));
        });
    }
}

/// Where threads wait for one another, spinning.
struct Barrier {
    threads: usize,
    arrived: AtomicUsize,
}

impl Barrier {
    fn new(threads: usize) -> Self {
        Self { threads, arrived: AtomicUsize::new(0) }
    }

    /// Waits until every thread has done operation `operation`, of which the first is 0.
    fn wait(&self, operation: usize) {
        self.arrived.fetch_add(1, Ordering::AcqRel);
        while self.arrived.load(Ordering::Acquire) < (operation + 1) * self.threads {
            spin_loop();
        }
    }
}
