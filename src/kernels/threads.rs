//! A team of threads that shares out one operation at a time.
//!
//! A GPT-2 token is about sixty operations of 5 to 300 µs, so handing one out must cost well under a microsecond. An
//! operation is cut into *chunks*, each computing its own outputs from start to end: which thread takes which chunk,
//! and how many threads there are, cannot change a bit of the result.
//!
//! Every thread has a *share* of the chunks: one atomic number on a cache line of its own, with the operation's serial
//! number above and the chunks not yet taken below. Publishing an operation is one store for each share; a thread takes
//! from its own share until that is empty, which costs little because nobody else looks there, and then from the
//! others'. The caller works too and waits only for chunks that were really taken, so a thread the system has put aside
//! delays nobody. Idle threads spin for a few microseconds, then yield, then sleep.
//!
//! A share's chunks are neighbours and are taken in their order: a thread that reads one chunk's weights reads on where
//! it stopped.

use super::isa::Isa;
use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// How long an idle thread spins (each turn is a `pause`, tens of nanoseconds) before it yields, and how often it
/// yields before it sleeps.
const SPINS: u32 = 1 << 10;
const YIELDS: u32 = 1 << 8;
/// An idle thread looks at the others' shares once in so many turns.
const LOOK_AROUND: u32 = 32;

/// Threads and the instruction set they compute with: what every kernel is run on.
pub struct Team {
    isa: Isa,
    threads: usize,
    shared: Arc<Shared>,
    /// Held while an operation is shared out; a second caller meanwhile computes alone.
    turn: Mutex<()>,
    /// Rayon owns the threads; they leave it only when the team is dropped.
    _pool: Option<rayon::ThreadPool>,
}

type Job = dyn Fn(usize) + Sync;

#[repr(align(64))]
struct Line<T>(T);

struct Shared {
    shares: Box<[Line<Share>]>,
    /// Chunks not yet finished.
    pending: Line<AtomicU32>,
    job: UnsafeCell<Option<*const Job>>,
    panicked: AtomicBool,
    quit: AtomicBool,
    sleepers: AtomicUsize,
    bed: Mutex<()>,
    bell: Condvar,
}

/// The chunks that are one thread's to take first.
struct Share {
    /// The operation's serial number, and the number of chunks left.
    ticket: AtomicU64,
    /// One past the last chunk; written before the ticket.
    end: AtomicU32,
}

impl Share {
    fn new() -> Self {
        Self { ticket: AtomicU64::new(0), end: AtomicU32::new(0) }
    }

    /// Takes the next chunk; none where all are taken.
    fn take(&self) -> Option<usize> {
        let mut ticket = self.ticket.load(Ordering::Acquire);
        loop {
            let left = ticket as u32;
            if left == 0 {
                return None;
            }
            let end = self.end.load(Ordering::Relaxed);
            // The serial number is part of what is compared: where this succeeds, `end` was this operation's.
            match self.ticket.compare_exchange_weak(ticket, ticket - 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some((end - left) as usize),
                Err(now) => ticket = now,
            }
        }
    }
}

// SAFETY: `job` is written only by the caller that holds `Team::turn`, while no chunk is pending, and read only by
// threads that hold an unfinished chunk; the tickets' release stores and acquire CAS order the two.
unsafe impl Sync for Shared {}
// SAFETY: the raw pointer in `job` is to a `Sync` closure and is used only as said above.
unsafe impl Send for Shared {}

impl Team {
    /// A team of `threads` threads, the caller's among them; 0 means one for each core.
    pub fn new(threads: usize, isa: Isa) -> Self {
        let threads = match threads {
            0 => thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let shared = Arc::new(Shared {
            shares: (0..threads).map(|_| Line(Share::new())).collect(),
            pending: Line(AtomicU32::new(0)),
            job: UnsafeCell::new(None),
            panicked: AtomicBool::new(false),
            quit: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            bed: Mutex::new(()),
            bell: Condvar::new(),
        });
        // Where no thread can be started the caller computes alone, to the same result.
        let pool = (threads > 1)
            .then(|| {
                rayon::ThreadPoolBuilder::new()
                    .num_threads(threads - 1)
                    .thread_name(|i| format!("hornbook-{}", i + 1))
                    .build()
            })
            .and_then(|pool| pool.ok());
        if let Some(pool) = &pool {
            let shared = Arc::clone(&shared);
            pool.spawn_broadcast(move |thread| shared.serve(thread.index() + 1));
        }
        Self { isa, threads, shared, turn: Mutex::new(()), _pool: pool }
    }

    /// The number of threads, the caller's among them.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Calls `job(0)` to `job(chunks - 1)`, each once, on whichever threads are free, and returns when all are done.
    /// A job may share out work itself; unless it is alone, it then does that work alone.
    pub fn run(&self, chunks: usize, job: impl Fn(usize) + Sync) {
        if self.threads == 1 || chunks <= 1 {
            return (0..chunks).for_each(job);
        }
        let Ok(turn) = self.turn.try_lock() else { return (0..chunks).for_each(job) };
        let count = u32::try_from(chunks).expect("fewer than 2^32 chunks");
        let shared = &*self.shared;
        let job: &(dyn Fn(usize) + Sync) = &job;
        // SAFETY: only the lifetime is erased. The pointer is read by threads that hold a chunk of this operation, and
        // this function does not return before every chunk is finished (`pending` is zero).
        let job: &'static Job = unsafe { std::mem::transmute(job) };
        // SAFETY: we hold `turn` and no chunk is pending, so nobody reads `job` now.
        unsafe { *shared.job.get() = Some(job) };
        shared.pending.0.store(count, Ordering::Relaxed);
        let serial = (shared.shares[0].0.ticket.load(Ordering::Relaxed) >> 32).wrapping_add(1);
        for (i, Line(share)) in shared.shares.iter().enumerate().rev() {
            let bound = |i: usize| (i * chunks / self.threads) as u32;
            share.end.store(bound(i + 1), Ordering::Relaxed);
            share.ticket.store(serial << 32 | u64::from(bound(i + 1) - bound(i)), Ordering::Release);
        }
        fence(Ordering::SeqCst);
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            drop(shared.lock_bed());
            shared.bell.notify_all();
        }
        shared.work(0);
        let mut turns = 0;
        while shared.pending.0.load(Ordering::Acquire) > 0 {
            relax(&mut turns);
        }
        drop(turn);
        if shared.panicked.swap(false, Ordering::Relaxed) {
            resume_unwind(Box::new("a chunk of a parallel operation panicked"));
        }
    }

    /// Cuts `data` into pieces of `length` (the last may be shorter) and calls `job(index, piece)` for each.
    pub fn for_each_piece<T: Send>(
        &self,
        data: &mut [T],
        length: usize,
        job: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let total = data.len();
        let data = Disjoint::new(data);
        self.run(total.div_ceil(length.max(1)), |i| {
            let start = i * length;
            // SAFETY: every index is handed out once and the pieces of different indices do not overlap.
            job(i, unsafe { data.slice(start..total.min(start + length)) });
        });
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.quit.store(true, Ordering::SeqCst);
        drop(self.shared.lock_bed());
        self.shared.bell.notify_all();
    }
}

impl Shared {
    /// Takes and does chunks, those of the thread's own share first, until none is left; false where there was none.
    fn work(&self, thread: usize) -> bool {
        let mut done = 0;
        for i in 0..self.shares.len() {
            let Line(share) = &self.shares[(thread + i) % self.shares.len()];
            while let Some(chunk) = share.take() {
                // SAFETY: we hold a chunk that is not counted as finished, so `job` is this operation's and its closure is
                // alive.
                let job = unsafe { &*(*self.job.get()).expect("a published operation has a job") };
                if catch_unwind(AssertUnwindSafe(|| job(chunk))).is_err() {
                    self.panicked.store(true, Ordering::Relaxed);
                }
                done += 1;
            }
        }
        // Counted together: until then the operation is not over, so all of them were the same operation's.
        if done > 0 {
            self.pending.0.fetch_sub(done, Ordering::Release);
        }
        done > 0
    }

    /// What a thread of the team does all its life.
    fn serve(&self, thread: usize) {
        let mut turns = 0;
        while !self.quit.load(Ordering::Relaxed) {
            // The others' shares are looked at now and then only, lest they never have their own cache line.
            let own = self.shares[thread].0.ticket.load(Ordering::Relaxed) as u32 > 0;
            if (own || turns % LOOK_AROUND == LOOK_AROUND - 1) && self.work(thread) {
                turns = 0;
            } else if turns < SPINS + YIELDS {
                relax(&mut turns);
            } else {
                self.sleep();
                turns = 0;
            }
        }
    }

    /// Sleeps until an operation is published or the team is dropped.
    fn sleep(&self) {
        let mut bed = self.lock_bed();
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let nothing = || self.shares.iter().all(|share| share.0.ticket.load(Ordering::SeqCst) as u32 == 0);
        while nothing() && !self.quit.load(Ordering::SeqCst) {
            bed = self.bell.wait(bed).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    fn lock_bed(&self) -> MutexGuard<'_, ()> {
        self.bed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits a moment: spinning at first, later giving the core away.
fn relax(turns: &mut u32) {
    *turns += 1;
    if *turns < SPINS {
        std::hint::spin_loop();
    } else {
        thread::yield_now();
    }
}

/// A slice whose parts are written by different threads at once.
pub struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    life: PhantomData<&'a mut [T]>,
}

// SAFETY: access goes through `slice`, whose caller promises that no two threads touch the same element.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    /// Wraps a slice for as long as it is borrowed.
    pub fn new(data: &'a mut [T]) -> Self {
        Self { start: data.as_mut_ptr(), len: data.len(), life: PhantomData }
    }

    /// The elements of `range`.
    ///
    /// # Safety
    /// While the returned slice lives, no other one that shares an element with it may.
    #[allow(clippy::mut_from_ref)]
    #[inline(always)]
    pub unsafe fn slice(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: within the slice's bounds, checked above; not aliased, by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_is_done_exactly_once() {
        for threads in [1, 2, 3, 8] {
            let team = Team::new(threads, Isa::Portable);
            for chunks in [0, 1, 2, 7, 1000] {
                let counts: Vec<AtomicU32> = (0..chunks).map(|_| AtomicU32::new(0)).collect();
                team.run(chunks, |i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn pieces_cover_the_slice() {
        let team = Team::new(3, Isa::Portable);
        let mut data = vec![0usize; 1001];
        team.for_each_piece(&mut data, 64, |i, piece| {
            for (j, x) in piece.iter_mut().enumerate() {
                *x = i * 64 + j;
            }
        });
        assert!(data.iter().enumerate().all(|(i, &x)| i == x));
    }

    #[test]
    fn a_sleeping_team_wakes() {
        let team = Team::new(2, Isa::Portable);
        for _ in 0..3 {
            thread::sleep(std::time::Duration::from_millis(20));
            let sum = AtomicUsize::new(0);
            team.run(100, |i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 4950);
        }
    }

    #[test]
    fn a_second_caller_computes_alone() {
        let team = Team::new(2, Isa::Portable);
        let sum = AtomicUsize::new(0);
        team.run(4, |_| {
            team.run(10, |i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
        });
        assert_eq!(sum.into_inner(), 180);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_lives_on() {
        let team = Team::new(2, Isa::Portable);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            team.run(50, |i| assert_ne!(i, 17));
        }));
        assert!(outcome.is_err());
        let done = AtomicUsize::new(0);
        team.run(50, |_| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.into_inner(), 50);
    }
}
