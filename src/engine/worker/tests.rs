//! The worker driven by hand, one turn after the other.

use super::*;
use crate::engine::stream::Stream;
use crate::engine::{Completion, Kind, Refused, Request};
use crate::kernels::attention::KvPrecision;
use crate::model::Session;
use crate::sampling::SamplingParams;
use crate::{Options, Token};
use futures_util::FutureExt;
use std::collections::BTreeMap;

/// A worker without a thread.
struct ByHand {
    worker: Worker,
    door: Arc<Door>,
}

impl ByHand {
    fn new(options: EngineOptions) -> Self {
        let door = Arc::new(Door::new(options.max_concurrency, options.queue));
        let hornbook = Arc::new(Hornbook::open("fable").unwrap());
        Self { worker: Worker::new(hornbook, options, Arc::clone(&door)), door }
    }

    fn submit(&self, prompt: &[u32], completion: &Completion) -> Stream {
        self.try_submit(prompt, completion).unwrap()
    }

    fn try_submit(&self, prompt: &[u32], completion: &Completion) -> std::result::Result<Stream, Refused> {
        let kind = Kind::Complete(completion.clone());
        let request = Request { prompt: prompt.to_vec(), kind };
        self.door.enter(request.tasks(&self.worker.hornbook).unwrap())
    }

    fn turn(&mut self) {
        let arrivals = self.door.arrivals(false).unwrap();
        self.worker.admit(arrivals);
        self.worker.turn().unwrap();
    }

    fn statistics(&self) -> Statistics {
        self.door.statistics()
    }

    fn until_idle(&mut self) {
        while !self.worker.requests.is_empty() || self.statistics().waiting > 0 {
            self.turn();
        }
    }

    fn alone(&self, prompt: &[u32], completion: &Completion) -> BTreeMap<usize, Vec<Token>> {
        let mut generation = self.worker.hornbook.generate(prompt, &completion.options).unwrap();
        let mut choice = |i| {
            if i > 0 {
                generation.restart().unwrap();
            }
            (i, generation.by_ref().map(|token| token.unwrap()).collect())
        };
        (0..completion.choices).map(&mut choice).collect()
    }
}

/// The events that are there, without waiting for more.
fn there(stream: &mut Stream) -> Vec<Event> {
    std::iter::from_fn(|| stream.next().now_or_never().flatten()).collect()
}

/// The tokens among them, by choice.
fn tokens(events: Vec<Event>) -> BTreeMap<usize, Vec<Token>> {
    let mut tokens: BTreeMap<usize, Vec<Token>> = BTreeMap::new();
    for event in events {
        if let Event::Token { choice, token } = event {
            tokens.entry(choice).or_default().push(token);
        }
    }
    tokens
}

fn write(max_tokens: usize, choices: usize) -> Completion {
    let sampling = SamplingParams { seed: 3, ..SamplingParams::default() };
    let options = Options { sampling, max_tokens: Some(max_tokens), ..Options::default() };
    Completion { options, choices, ..Completion::default() }
}

fn prompt(n: usize, salt: u32) -> Vec<u32> {
    (0..n as u32).map(|i| (i * i * 31 + salt * 101) % 4095).collect()
}

fn options(max_concurrency: usize, prefill_chunk: usize) -> EngineOptions {
    EngineOptions { max_concurrency, prefill_chunk, ..EngineOptions::default() }
}

#[test]
fn a_short_prompt_is_answered_at_once_and_nobody_waits_for_a_long_one() {
    let mut by_hand = ByHand::new(options(16, 64));
    let mut running: Vec<Stream> = (0..7).map(|i| by_hand.submit(&prompt(5, i), &write(100, 1))).collect();
    by_hand.turn();
    let mut long = by_hand.submit(&prompt(450, 8), &write(10, 1));
    by_hand.turn();
    running.iter_mut().for_each(|stream| drop(there(stream)));
    // Half of a pass is more than it needs: its first token is there after one.
    let mut short = by_hand.submit(&prompt(30, 9), &write(10, 1));
    by_hand.turn();
    assert_eq!(there(&mut short).len(), 1);
    let mut turns = 1;
    while there(&mut long).is_empty() {
        by_hand.turn();
        turns += 1;
    }
    // 64 in its first turn, 34 in that of the short one, 64 in every other.
    assert_eq!(turns, 1 + (450 - 64 - 34usize).div_ceil(64));
    for stream in &mut running {
        assert_eq!(there(stream).len(), turns, "a token for every pass");
    }
    assert_eq!(by_hand.statistics().batch_sizes[9], turns as u64);
}

#[test]
fn cancelling_gives_everything_back_wherever_it_comes() {
    let mut by_hand = ByHand::new(options(2, 16));
    let mate = write(60, 1);
    let mut stays = by_hand.submit(&prompt(9, 1), &mate);
    let mut found = vec![];
    for (turns, (running, waiting)) in [(1, (2, 1)), (2, (2, 1)), (9, (2, 1))] {
        // One in prefill (100 tokens by 16) or, later, in decode; and one in the queue.
        let seated = by_hand.submit(&prompt(100, 2 + turns), &write(50, 1));
        let queued = by_hand.submit(&prompt(5, 3), &write(50, 1));
        let alone = by_hand.statistics();
        for _ in 0..turns {
            by_hand.turn();
        }
        let before = by_hand.statistics();
        assert_eq!((before.running, before.waiting), (running, waiting));
        assert!(turns < 9 || before.generated_tokens > alone.generated_tokens + 9, "it was not in decode");
        drop(queued);
        by_hand.turn();
        assert_eq!((by_hand.statistics().running, by_hand.statistics().waiting), (2, 0));
        drop(seated);
        by_hand.turn();
        let after = by_hand.statistics();
        assert_eq!((after.running, after.waiting), (1, 0));
        assert!(after.kv_bytes < before.kv_bytes && after.prefix_cache_entries == 0);
        found.extend(there(&mut stays));
    }
    by_hand.until_idle();
    found.extend(there(&mut stays));
    assert_eq!(tokens(found), by_hand.alone(&prompt(9, 1), &mate));
    drop(stays);
    let last = by_hand.submit(&prompt(9, 4), &write(60, 3));
    by_hand.turn();
    drop(last);
    by_hand.turn();
    let Statistics { running, waiting, kv_bytes, .. } = by_hand.statistics();
    assert_eq!((running, waiting, kv_bytes), (0, 0, 0));
}

#[test]
fn a_hundred_choices_keep_nobody_out() {
    for prefix_cache_bytes in [0, 4 << 20, 256 << 20] {
        let limits = EngineOptions { prefix_cache_bytes, queue: 2, ..options(4, 64) };
        let mut by_hand = ByHand::new(limits);
        let (many, few) = (write(12, 100), write(5, 1));
        let mut hundred = by_hand.submit(&prompt(40, 1), &many);
        let mut found = vec![];
        for _ in 0..6 {
            by_hand.turn();
        }
        assert_eq!(by_hand.statistics().running, 4);
        // Three more have a seat in the next pass, and the fifth request waits for one in the queue.
        let mut others: Vec<Stream> = (2..6).map(|i| by_hand.submit(&prompt(6, i), &few)).collect();
        by_hand.turn();
        let first: Vec<usize> = others.iter_mut().map(|stream| there(stream).len()).collect();
        assert_eq!(first, [1, 1, 1, 0]);
        assert!(by_hand.try_submit(&[1], &write(1, 2)).is_err_and(|e| matches!(e, Refused::QueueFull)));
        found.extend(there(&mut hundred));
        let before = found.len();
        by_hand.turn();
        found.extend(there(&mut hundred));
        assert_eq!(found.len(), before + 1, "it goes on with one seat");
        by_hand.until_idle();
        found.extend(there(&mut hundred));
        assert_eq!(tokens(found), by_hand.alone(&prompt(40, 1), &many), "{prefix_cache_bytes} bytes");
        let rest = tokens(there(&mut others[3]));
        assert_eq!(rest, by_hand.alone(&prompt(6, 5), &few));
        assert!(by_hand.statistics().prefix_cache_bytes <= prefix_cache_bytes);
    }
}

#[test]
fn choices_share_the_prompt_and_requests_what_they_have_in_common() {
    let mut by_hand = ByHand::new(options(16, 64));
    let text = prompt(100, 1);
    let mut five = by_hand.submit(&text, &write(10, 5));
    by_hand.until_idle();
    assert_eq!(tokens(there(&mut five)).len(), 5);
    let first = by_hand.statistics();
    assert_eq!(first.prompt_tokens_computed, 100 + 4, "of each other choice the last token");
    assert_eq!((first.prefix_cache_hits, first.prefix_cache_misses, first.prompt_tokens_cached), (0, 1, 0));
    assert_eq!(first.prefix_cache_entries, 5);

    // The same beginning, and another end.
    let other = [&text[..90], &prompt(20, 2)[..]].concat();
    by_hand.submit(&other, &write(1, 1));
    let _kept = by_hand.submit(&other, &write(10, 1));
    by_hand.until_idle();
    let second = by_hand.statistics();
    assert_eq!((second.prefix_cache_hits, second.prompt_tokens_cached), (1, 90));
    assert_eq!(second.prompt_tokens_computed, 104 + 20);

    // Exactly what is there, and one more: the cache itself goes on, and comes back longer.
    let entries = second.prefix_cache_entries;
    let written = by_hand.alone(&other, &write(10, 1));
    let longer: Vec<u32> = other.iter().copied().chain(written[&0].iter().map(|token| token.id)).collect();
    let _third = by_hand.submit(&longer, &write(10, 1));
    by_hand.until_idle();
    let third = by_hand.statistics();
    assert_eq!((third.prompt_tokens_computed, third.prompt_tokens_cached), (125, 90 + 119));
    assert_eq!(third.prefix_cache_entries, entries);

    // While one runs, another begins with what it has.
    let text = prompt(60, 7);
    let _fourth = by_hand.submit(&text, &write(30, 1));
    by_hand.turn();
    let _fifth = by_hand.submit(&text, &write(30, 1));
    by_hand.turn();
    assert_eq!(by_hand.statistics().prompt_tokens_cached, 209 + 59);
}

#[test]
fn much_to_copy_is_spread_over_several_turns() {
    for (n, seated) in [(300, [1, 2, 3, 4, 5]), (100, [1, 4, 7, 7, 7])] {
        let mut by_hand = ByHand::new(options(7, 16)); // 256 tokens a turn
        let _stream = by_hand.submit(&prompt(n, 1), &write(20, 7));
        (1..n.div_ceil(16)).for_each(|_| by_hand.turn());
        let running = seated.map(|_| {
            by_hand.turn();
            by_hand.statistics().running
        });
        assert_eq!(running, seated, "{n} tokens");
    }
}

#[test]
fn a_panic_fails_what_is_open_and_the_engine_goes_on() {
    let ByHand { mut worker, door } = ByHand::new(options(4, 64));
    // Keys and values of another model, which this one cannot go on from.
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny-one-head");
    let team = crate::kernels::threads::Team::new(1, crate::kernels::isa::Isa::Portable);
    let tiny = Hornbook::new(crate::checkpoint::Checkpoint::from_folder(&folder).unwrap(), team).unwrap();
    let mut session = Session::new(tiny.model(), 8, KvPrecision::F32);
    session.feed(&[1, 2, 3]).unwrap();
    worker.prefixes.put(&[1, 2, 3], session.cache().fork(3, 8));

    let submit = |worker: &Arc<Hornbook>, prompt: &[u32]| {
        let request = Request { prompt: prompt.to_vec(), kind: Kind::Complete(write(5, 2)) };
        door.enter(request.tasks(worker).unwrap()).unwrap()
    };
    let hornbook = Arc::clone(&worker.hornbook);
    let mut streams = [submit(&hornbook, &[9, 9]), submit(&hornbook, &[1, 2, 3, 4])];
    let thread = std::thread::spawn(move || worker.work());
    for stream in &mut streams {
        let Some(Event::Failed(error)) = std::iter::from_fn(|| stream.blocking_next()).last() else {
            panic!()
        };
        assert!(error.to_string().starts_with("the engine failed while it computed"), "{error}");
    }
    let mut again = submit(&hornbook, &[1, 2, 3, 4]);
    let last = std::iter::from_fn(|| again.blocking_next()).last();
    assert!(matches!(last, Some(Event::Finished { .. })));
    assert_eq!(door.statistics().running, 0);
    door.quit();
    thread.join().unwrap();
}
