//! A token costs no allocation.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use hornbook::sampling::{Sampler, SamplingParams};

/// Counts this thread's allocations.
struct Counting;

thread_local!(static ALLOCATIONS: Cell<usize> = const { Cell::new(0) });

// SAFETY: every call is handed to the system's allocator as it came; the counter is a plain thread-local number.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn nothing_is_allocated_after_the_first_token() {
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
        let before = ALLOCATIONS.get();
        generated.push(sampler.sample(&row, &[1, 2], &generated).id);
        assert!(ALLOCATIONS.get() > before, "nothing is counted");
        let before = ALLOCATIONS.get();
        for _ in 0..50 {
            generated.push(sampler.sample(&row, &[1, 2], &generated).id);
        }
        assert_eq!(ALLOCATIONS.get() - before, 0, "{:?}", sampler.params());
    }
}
