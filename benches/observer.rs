//! What it costs to look: a token of the built-in model, watched by nobody (`absent`), by an observer that wants nothing
//! (`blind`, the most that observers could cost whoever does not use them), by one that reads every head's output, and
//! by one that sees all there is, attention patterns included.
//!
//! Each step that is watched has one beside it that nobody watches, now before it and now after. The line below a
//! benchmark is what watching adds, the median of these pairs, which a busy machine moves far less than either time;
//! `absent_again`, nobody against nobody, says how far off such a median may be.

use crate::pool;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use hornbook::checkpoint::Checkpoint;
use hornbook::kernels::attention::KvPrecision;
use hornbook::model::{KvCache, LogitsWanted, Model, Observer, Segment, Site, Workspace};
use ndarray::ArrayViewMutD;
use std::hint::black_box;
use std::ops::Range;
use std::time::{Duration, Instant};

const DEPTH: usize = 64;

type Group<'a> = BenchmarkGroup<'a, WallTime>;

struct Blind;

impl Observer for Blind {
    fn is_interested(&self, _: Site) -> bool {
        false
    }

    fn observe(&mut self, _: Site, _: ArrayViewMutD<'_, f32>) {}
}

struct Outputs;

impl Observer for Outputs {
    fn is_interested(&self, site: Site) -> bool {
        matches!(site, Site::Z(_))
    }

    fn observe(&mut self, _: Site, values: ArrayViewMutD<'_, f32>) {
        black_box(values.sum());
    }
}

fn everything(_: Site, values: ArrayViewMutD<'_, f32>) {
    black_box(values.sum());
}

pub fn bench(c: &mut Criterion) {
    let model = Model::new(Checkpoint::open("fable").expect("fable is built in"), pool());
    let mut group = c.benchmark_group("observer");
    group.throughput(Throughput::Elements(1)).sample_size(50).measurement_time(Duration::from_secs(4));
    group.bench_function("absent", |b| {
        b.iter_custom(|n| Pairs::new(&model).take(n, &mut (), |pair| pair.without))
    });
    beside_nobody(&mut group, "absent_again", &model, ());
    beside_nobody(&mut group, "blind", &model, Blind);
    beside_nobody(&mut group, "head_outputs", &model, Outputs);
    beside_nobody(&mut group, "everything", &model, everything);
}

/// Times steps with an observer, and says what it adds.
fn beside_nobody(group: &mut Group, name: &str, model: &Model, mut see: impl Observer) {
    let mut added = vec![];
    group.bench_function(name, |b| {
        b.iter_custom(|n| {
            Pairs::new(model).take(n, &mut see, |pair| {
                added.push(pair.with.as_secs_f64() / pair.without.as_secs_f64() - 1.0);
                pair.with
            })
        });
    });
    if added.len() < 100 {
        return; // another benchmark was asked for, or a test whether this one runs
    }
    added.sort_by(f64::total_cmp);
    // Nineteen times of twenty, the median lies between these two.
    let (middle, reach) = (added.len() / 2, (added.len() as f64).sqrt() as usize);
    let at = |i: usize| 100.0 * added[i];
    let (low, high) = (at(middle - reach), at(middle + reach));
    println!("observer/{name} adds {:+.2} % to a token [{low:+.2} % {high:+.2} %]\n", at(middle));
}

/// The time of a step with nobody, and of the same step with an observer.
struct Pair {
    without: Duration,
    with: Duration,
}

/// Steps in pairs, in the same memory: where a cache lies can cost more than an observer does.
struct Pairs<'a> {
    model: &'a Model,
    cache: KvCache,
    workspace: Workspace,
    ids: Vec<u32>,
}

impl<'a> Pairs<'a> {
    fn new(model: &'a Model) -> Self {
        let ids: Vec<u32> = (0..=DEPTH as u32).map(|i| i * 61 % 4096).collect();
        let cache = KvCache::new(model.config(), ids.len(), KvPrecision::F32);
        let mut pairs = Self { model, cache, workspace: Workspace::new(), ids };
        pairs.feed(0..DEPTH, &mut ());
        pairs
    }

    fn feed(&mut self, tokens: Range<usize>, see: &mut impl Observer) {
        self.cache.truncate(tokens.start);
        let segment =
            Segment { tokens: &self.ids[tokens], cache: &mut self.cache, logits: LogitsWanted::Last };
        self.model.forward(&mut [segment], &mut self.workspace, see).expect("tokens within the context");
    }

    fn step(&mut self, see: &mut impl Observer) -> Duration {
        let start = Instant::now();
        self.feed(DEPTH..DEPTH + 1, see);
        start.elapsed()
    }

    /// The sum of what is taken from each of `n` pairs.
    fn take(&mut self, n: u64, see: &mut impl Observer, from: impl FnMut(Pair) -> Duration) -> Duration {
        let pair = |i: u64| {
            if i.is_multiple_of(2) {
                let without = self.step(&mut ());
                Pair { without, with: self.step(see) }
            } else {
                let with = self.step(see);
                Pair { without: self.step(&mut ()), with }
            }
        };
        (0..n).map(pair).map(from).sum()
    }
}
