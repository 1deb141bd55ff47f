//! A work-stealing thread pool that runs one parallel operation at a time.
//!
//! A GPT-2 token takes about a hundred operations of 5 to 300 µs, so dispatch must not cost more than about a
//! microsecond. An operation is split into *chunks*, each of which writes memory of its own (outputs, or the
//! partial sums of a K-block), so neither the number of threads nor the assignment of chunks to threads
//! affects the result.
//!
//! Each thread has a *work queue*: an atomic integer on a cache line of its own, with the operation's epoch
//! in the upper half and the number of remaining chunks in the lower. Publishing an operation takes two
//! stores per queue. A thread first empties its own queue, which is cheap because it is rarely contended, and
//! then steals from the others, in the same order as their owners. The calling thread works too, and waits
//! only for chunks that a thread has taken, so a preempted thread that holds none delays nothing. Idle
//! threads spin for some tens of microseconds, then yield, then park.
//!
//! A queue holds adjacent chunks in order, so a thread reads weights sequentially from one chunk to the next.

#[cfg(all(test, loom))]
mod model;
mod sync;

use super::isa::Isa;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::PoisonError;
use sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use sync::{Arc, Condvar, Mutex, MutexGuard, UnsafeCell, thread};

/// Backoff steps in which an idle thread spins (a `pause` each, tens of nanoseconds) before it yields.
const SPIN_STEPS: u32 = if cfg!(loom) { 1 } else { 1 << 10 };
/// Backoff steps in which an idle thread yields before it parks.
const YIELD_STEPS: u32 = if cfg!(loom) { 1 } else { 1 << 8 };
/// Backoff steps between an idle thread's attempts to steal.
const STEAL_INTERVAL: u32 = if cfg!(loom) { 1 } else { 32 };

/// The most threads that a user may ask for; a larger number is a typing error.
pub const MAX_THREADS: usize = 1024;

/// The threads and the instruction set that kernels run on.
pub struct ThreadPool {
    isa: Isa,
    threads: usize,
    shared: Arc<Shared>,
    /// Held while an operation runs; meanwhile, other callers compute sequentially.
    operation_lock: Mutex<()>,
}

type Job = dyn Fn(usize) + Sync;

#[repr(align(64))]
struct CachePadded<T>(T);

struct Shared {
    queues: Box<[CachePadded<WorkQueue>]>,
    /// Chunks not yet finished.
    pending: CachePadded<AtomicU32>,
    job: UnsafeCell<Option<*const Job>>,
    panicked: AtomicBool,
    shutdown: AtomicBool,
    /// The number of parked threads.
    parked: AtomicUsize,
    park_lock: Mutex<()>,
    unpark: Condvar,
}

/// A thread's queue of chunks.
struct WorkQueue {
    /// The operation's epoch in the upper half, the number of remaining chunks in the lower.
    state: AtomicU64,
    /// One past the last chunk; written before the state.
    end: AtomicU32,
}

impl WorkQueue {
    fn new() -> Self {
        Self { state: AtomicU64::new(0), end: AtomicU32::new(0) }
    }

    /// The number of remaining chunks.
    fn remaining(&self, order: Ordering) -> u32 {
        self.state.load(order) as u32
    }

    /// Takes the next chunk, if any remains.
    fn pop(&self) -> Option<usize> {
        let mut state = self.state.load(Ordering::Acquire);
        loop {
            let remaining = state as u32;
            if remaining == 0 {
                return None;
            }
            let end = self.end.load(Ordering::Relaxed);
            // The comparison includes the epoch: if it succeeds, `end` belongs to this operation.
            match self.state.compare_exchange_weak(state, state - 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some((end - remaining) as usize),
                Err(current) => state = current,
            }
        }
    }
}

// SAFETY: `job` is written only by the caller that holds `ThreadPool::operation_lock`, while no chunk is
// pending, and read only by threads that hold an unfinished chunk; the release stores and acquire CAS of
// `WorkQueue::state` order the two.
unsafe impl Sync for Shared {}
// SAFETY: the raw pointer in `job` points to a `Sync` closure and is used only as described above.
unsafe impl Send for Shared {}

impl ThreadPool {
    /// Creates a pool of `threads` threads, including the calling thread; 0 means one per core.
    pub fn new(threads: usize, isa: Isa) -> Self {
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let shared = Arc::new(Shared {
            queues: (0..threads).map(|_| CachePadded(WorkQueue::new())).collect(),
            pending: CachePadded(AtomicU32::new(0)),
            job: UnsafeCell::new(None),
            panicked: AtomicBool::new(false),
            shutdown: AtomicBool::new(false),
            parked: AtomicUsize::new(0),
            park_lock: Mutex::new(()),
            unpark: Condvar::new(),
        });
        if cfg!(feature = "threads") {
            for i in 1..threads {
                let shared = Arc::clone(&shared);
                let worker = thread::Builder::new().name(format!("hornbook-{i}"));
                // The chunks of a thread that cannot be started are stolen by the others.
                _ = worker.spawn(move || shared.run_worker(i));
            }
        }
        Self { isa, threads, shared, operation_lock: Mutex::new(()) }
    }

    /// The number of threads, including the calling thread.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The instruction set that kernels are run with.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Calls `job(0)` to `job(chunks - 1)`, each once, on whichever threads are free, and returns when all
    /// are done. A call while another operation runs, for example from within a job, runs sequentially. A
    /// panic in a job is propagated once all chunks are done.
    pub fn run(&self, chunks: usize, job: impl Fn(usize) + Sync) {
        if self.threads == 1 || chunks <= 1 {
            return (0..chunks).for_each(job);
        }
        let Ok(guard) = self.operation_lock.try_lock() else { return (0..chunks).for_each(job) };
        let count = u32::try_from(chunks).expect("fewer than 2^32 chunks");
        let shared = &*self.shared;
        let job: &(dyn Fn(usize) + Sync) = &job;
        // SAFETY: only the lifetime is erased. The pointer is read by threads that hold a chunk of this
        // operation, and this function does not return before every chunk is finished (`pending` is zero).
        let job: &'static Job = unsafe { std::mem::transmute(job) };
        // SAFETY: the operation lock is held and no chunk is pending, so no thread reads `job` now.
        shared.job.with_mut(|to| unsafe { *to = Some(job) });
        shared.pending.0.store(count, Ordering::Relaxed);
        let epoch = (shared.queues[0].0.state.load(Ordering::Relaxed) >> 32).wrapping_add(1);
        for (i, CachePadded(queue)) in shared.queues.iter().enumerate().rev() {
            let bound = |i: usize| (i * chunks / self.threads) as u32;
            queue.end.store(bound(i + 1), Ordering::Relaxed);
            queue.state.store(epoch << 32 | u64::from(bound(i + 1) - bound(i)), Ordering::Release);
        }
        fence(Ordering::SeqCst);
        if shared.parked.load(Ordering::SeqCst) > 0 {
            drop(shared.lock_parking());
            shared.unpark.notify_all();
        }
        shared.run_chunks(0);
        let mut step = 0;
        while shared.pending.0.load(Ordering::Acquire) > 0 {
            backoff(&mut step);
        }
        // Read before another caller's operation can begin, whose panics are not this one's.
        let panicked = shared.panicked.swap(false, Ordering::Relaxed);
        drop(guard);
        if panicked {
            resume_unwind(Box::new("a chunk of a parallel operation panicked"));
        }
    }

    /// Runs `job`, whose operations are computed by the calling thread alone: for work that takes less time
    /// than its distribution.
    pub fn sequentially<T>(&self, job: impl FnOnce() -> T) -> T {
        // If another caller holds the lock, this one computes sequentially anyway.
        let _guard = self.operation_lock.try_lock();
        job()
    }

    /// Splits `data` into chunks of `length`, the last possibly shorter, and calls `job(index, chunk)` for
    /// each.
    pub fn for_each_chunk<T: Send>(
        &self,
        data: &mut [T],
        length: usize,
        job: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let total = data.len();
        let data = DisjointSlice::new(data);
        self.run(total.div_ceil(length.max(1)), |i| {
            let start = i * length;
            // SAFETY: each index is processed once, and chunks of different indices do not overlap.
            job(i, unsafe { data.slice(start..total.min(start + length)) });
        });
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.shutdown.store(true, Ordering::SeqCst);
        drop(self.shared.lock_parking());
        self.shared.unpark.notify_all();
    }
}

impl Shared {
    /// Runs chunks, first from the thread's own queue and then stolen from the others, until none is left.
    /// Returns whether it ran any.
    fn run_chunks(&self, thread: usize) -> bool {
        let mut done = 0;
        for i in 0..self.queues.len() {
            let CachePadded(queue) = &self.queues[(thread + i) % self.queues.len()];
            while let Some(chunk) = queue.pop() {
                // SAFETY: the chunk is still pending, so `job` is its operation's closure and still alive.
                let job = unsafe { &*self.job.with(|job| *job).expect("a published operation has a job") };
                if catch_unwind(AssertUnwindSafe(|| job(chunk))).is_err() {
                    self.panicked.store(true, Ordering::Relaxed);
                }
                done += 1;
            }
        }
        // Subtracted only now: the operation cannot end before, so all these chunks belong to it.
        if done > 0 {
            self.pending.0.fetch_sub(done, Ordering::Release);
        }
        done > 0
    }

    /// The main loop of a worker thread, until the pool is dropped.
    fn run_worker(&self, thread: usize) {
        let mut step = 0;
        while !self.shutdown.load(Ordering::Relaxed) {
            // Steals only at intervals, to leave the other threads' queues in their own caches.
            let has_own_work = self.queues[thread].0.remaining(Ordering::Relaxed) > 0;
            if (has_own_work || step % STEAL_INTERVAL == STEAL_INTERVAL - 1) && self.run_chunks(thread) {
                step = 0;
            } else if step < SPIN_STEPS + YIELD_STEPS {
                backoff(&mut step);
            } else {
                self.park();
                step = 0;
            }
        }
    }

    /// Parks the thread until an operation is published or the pool is dropped.
    fn park(&self) {
        let mut guard = self.lock_parking();
        self.parked.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let no_work = || self.queues.iter().all(|queue| queue.0.remaining(Ordering::SeqCst) == 0);
        while no_work() && !self.shutdown.load(Ordering::SeqCst) {
            guard = self.unpark.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.parked.fetch_sub(1, Ordering::SeqCst);
    }

    fn lock_parking(&self) -> MutexGuard<'_, ()> {
        self.park_lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits briefly: spins in the first steps, yields the core in later ones.
fn backoff(step: &mut u32) {
    *step += 1;
    if *step < SPIN_STEPS {
        std::hint::spin_loop();
    } else {
        thread::yield_now();
    }
}

/// A slice of which several threads write disjoint ranges at once.
pub struct DisjointSlice<'a, T> {
    ptr: *mut T,
    len: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: all access goes through `slice`, whose contract rules out that two threads access the same element.
unsafe impl<T: Send> Sync for DisjointSlice<'_, T> {}

impl<'a, T> DisjointSlice<'a, T> {
    /// Wraps a mutably borrowed slice.
    pub fn new(data: &'a mut [T]) -> Self {
        Self { ptr: data.as_mut_ptr(), len: data.len(), lifetime: PhantomData }
    }

    /// Returns the elements of `range`. Panics if it is out of bounds.
    ///
    /// # Safety
    /// While the returned slice lives, no other slice that overlaps it may exist.
    #[allow(clippy::mut_from_ref)]
    #[inline(always)]
    pub unsafe fn slice(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: the range is in bounds, as checked above, and not aliased, by this function's contract.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_calls_every_chunk_once() {
        for threads in [1, 2, 3, 8] {
            let pool = ThreadPool::new(threads, Isa::Portable);
            for chunks in [0, 1, 2, 7, 1000] {
                let counts: Vec<AtomicU32> = (0..chunks).map(|_| AtomicU32::new(0)).collect();
                pool.run(chunks, |i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn for_each_chunk_covers_slice() {
        let pool = ThreadPool::new(3, Isa::Portable);
        let mut data = vec![0usize; 1001];
        pool.for_each_chunk(&mut data, 64, |i, chunk| {
            for (j, x) in chunk.iter_mut().enumerate() {
                *x = i * 64 + j;
            }
        });
        assert!(data.iter().enumerate().all(|(i, &x)| i == x));
    }

    #[test]
    fn parked_pool_wakes() {
        let pool = ThreadPool::new(2, Isa::Portable);
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let sum = AtomicUsize::new(0);
            pool.run(100, |i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 4950);
        }
    }

    #[test]
    fn nested_run_computes_sequentially() {
        let pool = ThreadPool::new(2, Isa::Portable);
        let sum = AtomicUsize::new(0);
        pool.run(4, |_| {
            pool.run(10, |i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
        });
        assert_eq!(sum.into_inner(), 180);
    }

    #[test]
    fn panic_reaches_caller_and_pool_stays_usable() {
        let pool = ThreadPool::new(2, Isa::Portable);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            pool.run(50, |i| assert_ne!(i, 17));
        }));
        assert!(outcome.is_err());
        let done = AtomicUsize::new(0);
        pool.run(50, |_| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.into_inner(), 50);
    }

    #[test]
    fn panic_reaches_only_its_own_caller() {
        let pool = ThreadPool::new(2, Isa::Portable);
        let call = |panics: bool| {
            for _ in 0..if cfg!(miri) { 50 } else { 5000 } {
                let done = AtomicU32::new(0);
                let job = |i| match (i, panics) {
                    (3, true) => resume_unwind(Box::new("")),
                    _ => _ = done.fetch_add(1, Ordering::Relaxed),
                };
                let outcome = catch_unwind(AssertUnwindSafe(|| pool.run(4, job)));
                assert_eq!(outcome.is_err(), panics);
                assert_eq!(done.into_inner(), if panics { 3 } else { 4 });
            }
        };
        std::thread::scope(|scope| [true, false].map(|panics| scope.spawn(move || call(panics))).map(drop));
    }
}
