//! The pool's operations in every order of its threads' steps, as loom finds them
//! (`scripts/check_thread_pool.sh`). The models fail if a work queue or the count of pending chunks has a
//! weaker memory order, or an operation no epoch.

use super::*;

/// Runs `model` in every order of its threads' steps with at most two preemptions.
fn check(model: impl Fn(ThreadPool) + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(move || model(ThreadPool::new(2, Isa::Portable)));
}

/// Runs an operation and asserts that the caller sees the effect of every chunk once.
fn run_and_count(pool: &ThreadPool, chunks: usize) {
    let counts: Vec<AtomicU32> = (0..chunks).map(|_| AtomicU32::new(0)).collect();
    pool.run(chunks, |i| _ = counts[i].fetch_add(1, Ordering::Relaxed));
    assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
}

#[test]
fn every_chunk_runs_once() {
    check(|pool| {
        run_and_count(&pool, 2);
        run_and_count(&pool, 3);
    });
}

#[test]
fn operations_of_two_callers_do_not_mix() {
    check(|pool| {
        let pool = Arc::new(pool);
        let shared = Arc::clone(&pool);
        let other = thread::spawn(move || run_and_count(&shared, 2));
        let panics = || {
            pool.run(2, |i| {
                if i == 1 {
                    resume_unwind(Box::new(""))
                }
            })
        };
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        other.join().expect("only the other operation panics");
    });
}
