//! A token costs no allocation: not in the model, on any of its threads, and not in the sampler.

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

/// Counts the allocations of threads that have a counter. The others, the test harness's among them, have none.
struct Counting;

type Counter = &'static AtomicUsize;

thread_local!(static COUNTER: Cell<Option<Counter>> = const { Cell::new(None) });

// SAFETY: every call is handed to the system's allocator as it came; the counter is a plain number, found without
// allocating and never dropped.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if let Some(counter) = COUNTER.get() {
            counter.fetch_add(1, Ordering::SeqCst);
        }
        // SAFETY: the caller's promise is the one `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the one `System` asks for, and `System` gave out the pointer.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A counter for this thread, and for those that are given it.
fn new_counter() -> Counter {
    let counter: Counter = Box::leak(Box::default());
    COUNTER.set(Some(counter));
    counter
}

fn allocations_of(counter: Counter, work: impl FnOnce()) -> usize {
    let before = counter.load(Ordering::SeqCst);
    work();
    counter.load(Ordering::SeqCst) - before
}

#[test]
fn the_model_allocates_nothing_after_the_first_token() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny-gelu-new-bf16");
    for threads in [1, 2] {
        let pool = ThreadPool::new(threads, Isa::available()[0]);
        let counter = new_counter();
        // Give it to every thread: each gets one of so many chunks if each takes long enough.
        let counted = Mutex::new(HashSet::new());
        while counted.lock().unwrap().len() < threads {
            pool.run(threads, |_| {
                COUNTER.set(Some(counter));
                counted.lock().unwrap().insert(thread::current().id());
                thread::sleep(Duration::from_millis(1));
            });
        }
        let model = Model::new(Checkpoint::from_folder(&folder).unwrap(), pool);
        for precision in KvPrecision::ALL {
            feed(&model, precision, counter);
        }
    }
}

fn feed(model: &Model, precision: KvPrecision, counter: Counter) {
    let mut session = Session::new(model, model.config().n_positions, precision);
    let first = allocations_of(counter, || drop(session.feed(&[1, 2, 3]).unwrap().to_vec()));
    assert!(first > 0, "nothing is counted");
    session.feed(&[4]).unwrap();
    let mut sum = 0.0;
    let found = allocations_of(counter, || {
        for id in 5..90 {
            sum += session.feed(&[id]).unwrap()[0];
        }
    });
    // A thread that joins in gets its buffer with its first share of attention, whichever token that comes at.
    let threads = model.pool().threads();
    assert!(found < threads, "{found} allocations for 85 tokens with {threads} threads, {precision:?}");
    assert!(sum.is_finite() && session.len() == 89);
}

#[test]
fn the_sampler_allocates_nothing_after_the_first_token() {
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
    // Scores wide enough apart that every filter has work to do.
    let row: Vec<f32> = (0..5000u32).map(|i| (i * 7919 % 5000) as f32 / -400.0).collect();
    for params in [every_filter, with_top_k, greedy] {
        let mut sampler = Sampler::new(params, 0);
        let mut generated = Vec::with_capacity(100);
        let first = allocations_of(counter, || generated.push(sampler.sample(&row, &[1, 2], &generated).id));
        assert!(first > 0, "nothing is counted");
        let found = allocations_of(counter, || {
            for _ in 0..50 {
                generated.push(sampler.sample(&row, &[1, 2], &generated).id);
            }
        });
        assert_eq!(found, 0, "{:?}", sampler.params());
    }
}
