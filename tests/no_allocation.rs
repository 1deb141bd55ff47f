//! Generating a token allocates no memory, neither in the model, on any of its threads, nor in the sampler.

use hornbook::checkpoint::Checkpoint;
use hornbook::kernels::attention::KvPrecision;
use hornbook::kernels::isa::Isa;
use hornbook::kernels::thread_pool::ThreadPool;
use hornbook::model::{Model, Session};
use hornbook::sampling::{Sampler, SamplingParams};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// An allocator that counts the allocations of threads with a counter. Other threads, such as those of the
/// test harness, have none.
struct CountingAllocator;

type Counter = &'static AtomicUsize;

thread_local!(static COUNTER: Cell<Option<Counter>> = const { Cell::new(None) });

// SAFETY: every call is forwarded unchanged to the system allocator; accessing the counter neither allocates
// nor frees memory, and it is never dropped.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if let Some(counter) = COUNTER.get() {
            counter.fetch_add(1, Ordering::SeqCst);
        }
        // SAFETY: the caller upholds the contract, which is that of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller upholds the contract, which is that of `System`, and the pointer came from
        // `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Creates a counter and installs it on this thread; others may install it too.
fn new_counter() -> Counter {
    let counter: Counter = Box::leak(Box::default());
    COUNTER.set(Some(counter));
    counter
}

fn count_allocations(counter: Counter, work: impl FnOnce()) -> usize {
    let before = counter.load(Ordering::SeqCst);
    work();
    counter.load(Ordering::SeqCst) - before
}

#[test]
fn model_does_not_allocate_after_first_token() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny-gelu-new-bf16");
    for threads in [1, 2] {
        let pool = ThreadPool::new(threads, Isa::available()[0]);
        let counter = new_counter();
        // Installs the counter on every thread: if chunks take long enough, each thread runs one of them.
        let counted_threads = Mutex::new(HashSet::new());
        while counted_threads.lock().unwrap().len() < threads {
            pool.run(threads, |_| {
                COUNTER.set(Some(counter));
                counted_threads.lock().unwrap().insert(thread::current().id());
                thread::sleep(Duration::from_millis(1));
            });
        }
        let model = Model::new(Checkpoint::from_folder(&folder).unwrap(), pool);
        for precision in KvPrecision::ALL {
            assert_decode_does_not_allocate(&model, precision, counter);
        }
    }
}

fn assert_decode_does_not_allocate(model: &Model, precision: KvPrecision, counter: Counter) {
    let mut session = Session::new(model, model.config().n_positions, precision);
    let first = count_allocations(counter, || drop(session.feed(&[1, 2, 3]).unwrap().to_vec()));
    assert!(first > 0, "allocations are not counted");
    session.feed(&[4]).unwrap();
    let mut sum = 0.0;
    let allocations = count_allocations(counter, || {
        for id in 5..90 {
            sum += session.feed(&[id]).unwrap()[0];
        }
    });
    // A thread allocates its buffer with its first chunk of attention, which may be at any token.
    let threads = model.pool().threads();
    assert!(
        allocations < threads,
        "{allocations} allocations for 85 tokens with {threads} threads, {precision:?}"
    );
    assert!(sum.is_finite() && session.len() == 89);
}

#[test]
fn sampler_does_not_allocate_after_first_token() {
    let counter = new_counter();
    let every_filter = SamplingParams {
        temperature: 0.9,
        top_p: 0.95,
        min_p: 0.001,
        typical_p: 0.9,
        repetition_penalty: 1.1,
        presence_penalty: 0.1,
        no_repeat_ngram_size: 3,
        ..Default::default()
    };
    let with_top_k = SamplingParams { top_k: 40, ..every_filter.clone() };
    let greedy = SamplingParams { temperature: 0.0, ..every_filter.clone() };
    // Logits spread widely enough that every filter removes candidates.
    let row: Vec<f32> = (0..5000u32).map(|i| (i * 7919 % 5000) as f32 / -400.0).collect();
    for params in [every_filter, with_top_k, greedy] {
        let mut sampler = Sampler::new(params, 0);
        let mut generated = Vec::with_capacity(100);
        let first =
            count_allocations(counter, || generated.push(sampler.sample(&row, &[1, 2], &generated).id));
        assert!(first > 0, "allocations are not counted");
        let allocations = count_allocations(counter, || {
            for _ in 0..50 {
                generated.push(sampler.sample(&row, &[1, 2], &generated).id);
            }
        });
        assert_eq!(allocations, 0, "{:?}", sampler.params());
    }
}
