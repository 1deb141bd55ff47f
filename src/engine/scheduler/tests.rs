//! The scheduler stepped manually, without a thread.

use super::*;
use crate::engine::stream::EventStream;
use crate::engine::{CompletionParams, Priority, Request, RequestKind, RequestProfile, SubmitError};
use crate::kernels::attention::KvPrecision;
use crate::model::Session;
use crate::sampling::SamplingParams;
use crate::{Options, Token};
use futures_util::FutureExt;
use std::collections::BTreeMap;

/// A scheduler without a thread.
pub(super) struct ManualScheduler {
    pub(super) scheduler: Scheduler,
    queue: Arc<SubmissionQueue>,
}

impl ManualScheduler {
    pub(super) fn new(options: EngineOptions) -> Self {
        Self::with_hornbook(Hornbook::open("fable").unwrap(), options)
    }

    pub(super) fn with_hornbook(hornbook: Hornbook, options: EngineOptions) -> Self {
        let queue = Arc::new(SubmissionQueue::new(options.max_concurrency, options.queue));
        Self { scheduler: Scheduler::new(Arc::new(hornbook), options, Arc::clone(&queue)), queue }
    }

    pub(super) fn submit(&self, prompt: &[u32], params: &CompletionParams) -> EventStream {
        self.try_submit(prompt, params).unwrap()
    }

    fn try_submit(
        &self,
        prompt: &[u32],
        params: &CompletionParams,
    ) -> std::result::Result<EventStream, SubmitError> {
        self.submit_with(Priority::Live, prompt, RequestKind::Complete(params.clone()))
    }

    fn submit_with(
        &self,
        priority: Priority,
        prompt: &[u32],
        kind: RequestKind,
    ) -> std::result::Result<EventStream, SubmitError> {
        let request = Request { prompt: prompt.to_vec(), kind, adapter: None, priority };
        self.queue.submit(request.tasks(&self.scheduler.hornbook).unwrap(), None, priority)
    }

    pub(super) fn step(&mut self) {
        let submissions = self.queue.drain(false).unwrap();
        self.scheduler.admit(submissions);
        self.scheduler.step().unwrap();
    }

    pub(super) fn statistics(&self) -> Statistics {
        self.queue.statistics()
    }

    fn profile(&self) -> RequestProfile {
        let recording = self.queue.recording().clone().unwrap();
        recording.profile(self.scheduler.hornbook.model(), KvPrecision::F32)
    }

    pub(super) fn run_until_idle(&mut self) {
        while !self.scheduler.requests.is_empty() || self.statistics().waiting > 0 {
            self.step();
        }
    }

    /// The tokens of each choice as generated without an engine.
    pub(super) fn reference(&self, prompt: &[u32], params: &CompletionParams) -> BTreeMap<usize, Vec<Token>> {
        let generation = self.scheduler.hornbook.generate(prompt, &params.options).unwrap();
        let mut generation = generation.with_top_logprobs(params.top_logprobs);
        let mut choice = |i| {
            if i > 0 {
                generation.restart().unwrap();
            }
            (i, generation.by_ref().map(|token| token.unwrap()).collect())
        };
        (0..params.choices).map(&mut choice).collect()
    }
}

/// The events that have arrived, without waiting for more.
pub(super) fn pending_events(stream: &mut EventStream) -> Vec<Event> {
    std::iter::from_fn(|| stream.next().now_or_never().flatten()).collect()
}

/// The tokens among events, by choice.
pub(super) fn tokens(events: Vec<Event>) -> BTreeMap<usize, Vec<Token>> {
    let mut tokens: BTreeMap<usize, Vec<Token>> = BTreeMap::new();
    for event in events {
        if let Event::Token { choice, token } = event {
            tokens.entry(choice).or_default().push(token);
        }
    }
    tokens
}

pub(super) fn params(max_tokens: usize, choices: usize) -> CompletionParams {
    let sampling = SamplingParams { seed: 3, ..SamplingParams::default() };
    let options = Options { sampling, max_tokens: Some(max_tokens), ..Options::default() };
    CompletionParams { options, choices, ..CompletionParams::default() }
}

pub(super) fn prompt(n: usize, salt: u32) -> Vec<u32> {
    (0..n as u32).map(|i| (i * i * 31 + salt * 101) % 4095).collect()
}

pub(super) fn options(max_concurrency: usize, prefill_chunk: usize) -> EngineOptions {
    EngineOptions { max_concurrency, prefill_chunk, ..EngineOptions::default() }
}

#[test]
fn long_prompt_delays_neither_running_sequences_nor_a_short_prompt() {
    let mut manual = ManualScheduler::new(options(16, 64));
    let mut running: Vec<EventStream> =
        (0..7).map(|i| manual.submit(&prompt(5, i), &params(100, 1))).collect();
    manual.step();
    let mut long = manual.submit(&prompt(450, 8), &params(10, 1));
    manual.step();
    running.iter_mut().for_each(|stream| drop(pending_events(stream)));
    // It needs less than half of the budget, so its first token comes after one step.
    let mut short = manual.submit(&prompt(30, 9), &params(10, 1));
    manual.step();
    assert_eq!(pending_events(&mut short).len(), 1);
    let mut steps = 1;
    while pending_events(&mut long).is_empty() {
        manual.step();
        steps += 1;
    }
    // 64 tokens in its first step, 34 in that of the short prompt, 64 in every other.
    assert_eq!(steps, 1 + (450 - 64 - 34usize).div_ceil(64));
    for stream in &mut running {
        assert_eq!(pending_events(stream).len(), steps, "one token per step");
    }
    assert_eq!(manual.statistics().batch_sizes[9], steps as u64);
}

#[test]
fn cancelled_request_releases_slot_queue_place_and_memory() {
    let mut manual = ManualScheduler::new(options(2, 16));
    let neighbor = params(60, 1);
    let mut kept = manual.submit(&prompt(9, 1), &neighbor);
    let mut events = vec![];
    for (steps, (running, waiting)) in [(1, (2, 1)), (2, (2, 1)), (9, (2, 1))] {
        // One sequence in prefill (100 tokens in chunks of 16) or, later, in decode; and one in the queue.
        let cancelled = manual.submit(&prompt(100, 2 + steps), &params(50, 1));
        let queued = manual.submit(&prompt(5, 3), &params(50, 1));
        let at_submission = manual.statistics();
        for _ in 0..steps {
            manual.step();
        }
        let before = manual.statistics();
        assert_eq!((before.running, before.waiting), (running, waiting));
        assert!(steps < 9 || before.generated_tokens > at_submission.generated_tokens + 9, "not in decode");
        drop(queued);
        manual.step();
        assert_eq!((manual.statistics().running, manual.statistics().waiting), (2, 0));
        drop(cancelled);
        manual.step();
        let after = manual.statistics();
        assert_eq!((after.running, after.waiting), (1, 0));
        assert!(after.kv_bytes < before.kv_bytes && after.prefix_cache_entries == 0);
        assert!(after.kv_tokens < before.kv_tokens && before.kv_tokens <= before.max_kv_tokens);
        events.extend(pending_events(&mut kept));
    }
    manual.run_until_idle();
    events.extend(pending_events(&mut kept));
    assert_eq!(tokens(events), manual.reference(&prompt(9, 1), &neighbor));
    drop(kept);
    let last = manual.submit(&prompt(9, 4), &params(60, 3));
    manual.step();
    drop(last);
    manual.step();
    let Statistics { running, waiting, kv_bytes, kv_tokens, .. } = manual.statistics();
    assert_eq!((running, waiting, kv_bytes, kv_tokens), (0, 0, 0, 0));
}

#[test]
fn request_of_a_hundred_choices_does_not_block_others() {
    for prefix_cache_bytes in [0, 4 << 20, 256 << 20] {
        let limits = EngineOptions { prefix_cache_bytes, queue: 2, ..options(4, 64) };
        let mut manual = ManualScheduler::new(limits);
        let (many, few) = (params(12, 100), params(5, 1));
        let mut hundred = manual.submit(&prompt(40, 1), &many);
        let mut events = vec![];
        for _ in 0..6 {
            manual.step();
        }
        assert_eq!(manual.statistics().running, 4);
        // Three more requests get a slot in the next step; the fifth waits in the queue.
        let mut others: Vec<EventStream> = (2..6).map(|i| manual.submit(&prompt(6, i), &few)).collect();
        manual.step();
        let first: Vec<usize> = others.iter_mut().map(|stream| pending_events(stream).len()).collect();
        assert_eq!(first, [1, 1, 1, 0]);
        assert!(manual.try_submit(&[1], &params(1, 2)).is_err_and(|e| matches!(e, SubmitError::QueueFull)));
        events.extend(pending_events(&mut hundred));
        let before = events.len();
        manual.step();
        events.extend(pending_events(&mut hundred));
        assert_eq!(events.len(), before + 1, "it keeps one slot");
        manual.run_until_idle();
        events.extend(pending_events(&mut hundred));
        assert_eq!(tokens(events), manual.reference(&prompt(40, 1), &many), "{prefix_cache_bytes} bytes");
        let rest = tokens(pending_events(&mut others[3]));
        assert_eq!(rest, manual.reference(&prompt(6, 5), &few));
        assert!(manual.statistics().prefix_cache_bytes <= prefix_cache_bytes);
    }
}

#[test]
fn requests_of_low_priority_make_way_for_live_ones_and_have_the_same_bits() {
    for prefix_cache_bytes in [0, 256 << 20] {
        let limits = EngineOptions { prefix_cache_bytes, queue: 3, ..options(3, 64) };
        let mut manual = ManualScheduler::new(limits);
        // Preempted while it generates, while its prompt is scored, and while it is embedded.
        let (sampled, scored) = (params(30, 1), CompletionParams { score_prompt: true, ..params(4, 1) });
        let kinds = || [RequestKind::Complete(sampled.clone()), RequestKind::Complete(scored.clone())];
        let kinds = || kinds().into_iter().chain([RequestKind::Embed]).zip([20, 300, 400]);
        let collect = |mut streams: Vec<EventStream>| -> Vec<String> {
            streams.iter_mut().map(|stream| format!("{:?}", pending_events(stream))).collect()
        };
        let submit = |manual: &ManualScheduler, priority| -> Vec<EventStream> {
            let submit = |(kind, n)| manual.submit_with(priority, &prompt(n, 3), kind).unwrap();
            kinds().map(submit).collect()
        };
        let alone = submit(&manual, Priority::Live);
        manual.run_until_idle();
        let alone = collect(alone);
        manual.scheduler.prefix_cache = PrefixCache::new(prefix_cache_bytes);

        let low = submit(&manual, Priority::Low);
        (0..5).for_each(|_| manual.step());
        assert_eq!(manual.statistics().running, 3);
        // The queue of low requests is full, which no live one notices.
        let low_queue: Vec<EventStream> = (0..3)
            .map(|i| manual.submit_with(Priority::Low, &prompt(4, i), RequestKind::Embed).unwrap())
            .collect();
        let rejected = manual.submit_with(Priority::Low, &[1], RequestKind::Embed);
        assert!(rejected.is_err_and(|error| matches!(error, SubmitError::QueueFull)));
        let mut live: Vec<EventStream> =
            (0..6).map(|i| manual.submit(&prompt(5, 10 + i), &params(9, 1))).collect();
        assert!(manual.try_submit(&[1], &params(1, 1)).is_err_and(|e| matches!(e, SubmitError::QueueFull)));
        manual.step();
        let first: Vec<usize> = live.iter_mut().map(|stream| pending_events(stream).len()).collect();
        assert_eq!(first, [1, 1, 1, 0, 0, 0], "live requests get all slots in the next step");
        manual.run_until_idle();
        assert_eq!(collect(low), alone, "{prefix_cache_bytes} bytes");
        assert_eq!(tokens(pending_events(&mut live[5])).len(), 1);
        assert!(collect(low_queue).iter().all(|events| events.contains("Embedding")));
    }
}

#[test]
fn choices_share_the_prompt_and_requests_share_prefixes() {
    let mut manual = ManualScheduler::new(options(16, 64));
    let text = prompt(100, 1);
    let mut five = manual.submit(&text, &params(10, 5));
    manual.run_until_idle();
    assert_eq!(tokens(pending_events(&mut five)).len(), 5);
    let first = manual.statistics();
    assert_eq!(first.prompt_tokens_computed, 100 + 4, "each further choice computes the last prompt token");
    assert_eq!((first.prefix_cache_hits, first.prefix_cache_misses, first.prompt_tokens_cached), (0, 1, 0));
    assert_eq!(first.prefix_cache_entries, 5);

    // The same prefix with a different continuation.
    let other = [&text[..90], &prompt(20, 2)[..]].concat();
    manual.submit(&other, &params(1, 1));
    let _kept = manual.submit(&other, &params(10, 1));
    manual.run_until_idle();
    let second = manual.statistics();
    assert_eq!((second.prefix_cache_hits, second.prompt_tokens_cached), (1, 90));
    assert_eq!(second.prompt_tokens_computed, 104 + 20);

    // A whole entry and one token more: the entry's own cache is continued, and returned longer.
    let entries = second.prefix_cache_entries;
    let generated = manual.reference(&other, &params(10, 1));
    let longer: Vec<u32> = other.iter().copied().chain(generated[&0].iter().map(|token| token.id)).collect();
    let _third = manual.submit(&longer, &params(10, 1));
    manual.run_until_idle();
    let third = manual.statistics();
    assert_eq!((third.prompt_tokens_computed, third.prompt_tokens_cached), (125, 90 + 119));
    assert_eq!(third.prefix_cache_entries, entries);

    // A prefix of a running sequence is copied.
    let text = prompt(60, 7);
    let _fourth = manual.submit(&text, &params(30, 1));
    manual.step();
    let _fifth = manual.submit(&text, &params(30, 1));
    manual.step();
    assert_eq!(manual.statistics().prompt_tokens_cached, 209 + 59);
}

#[test]
fn copying_long_prefixes_is_spread_over_several_steps() {
    for (n, expected) in [(300, [1, 2, 3, 4, 5]), (100, [1, 4, 7, 7, 7])] {
        let mut manual = ManualScheduler::new(options(7, 16)); // 256 copied tokens per step
        let _stream = manual.submit(&prompt(n, 1), &params(20, 7));
        (1..n.div_ceil(4 * 16)).for_each(|_| manual.step());
        let running = expected.map(|_| {
            manual.step();
            manual.statistics().running
        });
        assert_eq!(running, expected, "{n} tokens");
    }
}

#[test]
fn panic_fails_open_requests_and_the_engine_recovers() {
    let ManualScheduler { mut scheduler, queue } = ManualScheduler::new(options(4, 64));
    // Keys and values of another model, which this one cannot continue.
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny-one-head");
    let pool = crate::kernels::thread_pool::ThreadPool::new(1, crate::kernels::isa::Isa::Portable);
    let tiny = Hornbook::new(crate::checkpoint::Checkpoint::from_folder(&folder).unwrap(), pool).unwrap();
    let mut session = Session::new(tiny.model(), 8, KvPrecision::F32);
    session.feed(&[1, 2, 3]).unwrap();
    scheduler.prefix_cache.insert(&[1, 2, 3], session.cache().fork(3, 8));

    let submit = |hornbook: &Arc<Hornbook>, prompt: &[u32]| {
        let (kind, priority) = (RequestKind::Complete(params(5, 2)), Priority::Live);
        let request = Request { prompt: prompt.to_vec(), kind, adapter: None, priority };
        queue.submit(request.tasks(hornbook).unwrap(), None, priority).unwrap()
    };
    let hornbook = Arc::clone(&scheduler.hornbook);
    let mut streams = [submit(&hornbook, &[9, 9]), submit(&hornbook, &[1, 2, 3, 4])];
    let thread = std::thread::spawn(move || scheduler.run());
    for stream in &mut streams {
        let Some(Event::Failed(error)) = std::iter::from_fn(|| stream.blocking_next()).last() else {
            panic!()
        };
        assert!(error.to_string().starts_with("the engine panicked during a step"), "{error}");
    }
    let mut again = submit(&hornbook, &[1, 2, 3, 4]);
    let last = std::iter::from_fn(|| again.blocking_next()).last();
    assert!(matches!(last, Some(Event::Finished { .. })));
    assert_eq!(queue.statistics().running, 0);
    queue.stop();
    thread.join().unwrap();
}

#[test]
fn passes_of_the_latest_completion_are_profiled() {
    let mut manual = ManualScheduler::new(options(16, 16)); // 64 without decode
    assert!(manual.queue.recording().is_none());
    let first = manual.submit(&prompt(100, 1), &params(10, 1));
    manual.run_until_idle();
    let profile = manual.profile();
    assert_eq!((profile.prompt_tokens, profile.cached_tokens), (100, 0));
    let (prefill, decode) = (&profile.prefill, &profile.decode);
    assert_eq!((prefill.tokens, prefill.passes, prefill.max_batch_size), (100, 2, 1));
    assert_eq!((decode.tokens, decode.passes, decode.max_batch_size), (9, 9, 1));
    for (phase, calls) in [(prefill, 2), (decode, 9)] {
        assert_eq!(phase.operations.len(), 12);
        for operation in &phase.operations {
            let once = ["wte + wpe", "ln_f", "lm_head", "sampling"].contains(&operation.name);
            assert_eq!(operation.calls, if once { calls } else { 6 * calls }, "{}", operation.name);
            assert!(operation.seconds > 0.0 && operation.bytes >= 0.0, "{}", operation.name);
        }
    }
    drop(first);
    // Of two that run together, the one that started last is profiled, in passes of both.
    let long = manual.submit(&prompt(5, 2), &params(40, 1));
    manual.step();
    let short = manual.submit(&prompt(7, 3), &params(4, 1));
    manual.run_until_idle();
    let profile = manual.profile();
    assert_eq!((profile.prefill.tokens, profile.prefill.passes), (7, 1));
    assert_eq!((profile.decode.tokens, profile.decode.max_batch_size), (3, 2));
    // Embeddings are not completions.
    let embedding = manual.submit_with(Priority::Live, &prompt(9, 4), RequestKind::Embed).unwrap();
    manual.run_until_idle();
    assert_eq!(manual.profile(), profile);
    drop((long, short, embedding));
}
