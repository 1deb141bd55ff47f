//! The overhead of observers on a decode step of the built-in model: without an observer (`absent`), with one
//! that is interested in no site (`blind`, an upper bound of the cost to runs that do not observe), with one
//! that reads every head's output, and with one that reads every site, attention weights included.
//!
//! Every observed step is paired with an unobserved one, alternately before and after it. The line below a
//! benchmark is the observer's overhead, the median over these pairs, which a busy machine affects far less
//! than either time; `absent_again`, two runs without an observer, shows the noise of that median.

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

/// Interested in no site.
struct Blind;

impl Observer for Blind {
    fn is_interested(&self, _: Site) -> bool {
        false
    }

    fn observe(&mut self, _: Site, _: ArrayViewMutD<'_, f32>) {}
}

/// Reads every head's output.
struct HeadOutputs;

impl Observer for HeadOutputs {
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
        b.iter_custom(|n| StepPairs::new(&model).sum(n, &mut (), |pair| pair.unobserved))
    });
    bench_overhead(&mut group, "absent_again", &model, ());
    bench_overhead(&mut group, "blind", &model, Blind);
    bench_overhead(&mut group, "head_outputs", &model, HeadOutputs);
    bench_overhead(&mut group, "everything", &model, everything);
}

/// Times steps with an observer and prints its overhead.
fn bench_overhead(group: &mut Group, name: &str, model: &Model, mut observer: impl Observer) {
    let mut overheads = vec![];
    group.bench_function(name, |b| {
        b.iter_custom(|n| {
            StepPairs::new(model).sum(n, &mut observer, |pair| {
                overheads.push(pair.observed.as_secs_f64() / pair.unobserved.as_secs_f64() - 1.0);
                pair.observed
            })
        });
    });
    if overheads.len() < 100 {
        return; // filtered out, or a single run under `cargo test`
    }
    overheads.sort_by(f64::total_cmp);
    // A 95 % confidence interval of the median, from order statistics.
    let (middle, margin) = (overheads.len() / 2, (overheads.len() as f64).sqrt() as usize);
    let percent = |i: usize| 100.0 * overheads[i];
    let (low, high) = (percent(middle - margin), percent(middle + margin));
    println!("observer/{name} overhead: {:+.2} % per token [{low:+.2} % {high:+.2} %]\n", percent(middle));
}

/// The times of a step without and with an observer.
struct StepPair {
    unobserved: Duration,
    observed: Duration,
}

/// Runs pairs of steps on the same KV cache: its placement in memory can cost more than an observer.
struct StepPairs<'a> {
    model: &'a Model,
    cache: KvCache,
    workspace: Workspace,
    ids: Vec<u32>,
}

impl<'a> StepPairs<'a> {
    fn new(model: &'a Model) -> Self {
        let ids: Vec<u32> = (0..=DEPTH as u32).map(|i| i * 61 % 4096).collect();
        let cache = model.kv_cache(ids.len(), KvPrecision::F32);
        let mut pairs = Self { model, cache, workspace: Workspace::new(), ids };
        pairs.feed(0..DEPTH, &mut ());
        pairs
    }

    fn feed(&mut self, tokens: Range<usize>, observer: &mut impl Observer) {
        self.cache.truncate(tokens.start);
        let segment =
            Segment { tokens: &self.ids[tokens], cache: &mut self.cache, logits: LogitsWanted::Last };
        self.model.forward(&mut [segment], &mut self.workspace, observer).expect("tokens within the context");
    }

    fn step(&mut self, observer: &mut impl Observer) -> Duration {
        let start = Instant::now();
        self.feed(DEPTH..DEPTH + 1, observer);
        start.elapsed()
    }

    /// Runs `n` pairs and sums the duration that `select` picks from each.
    fn sum(
        &mut self,
        n: u64,
        observer: &mut impl Observer,
        select: impl FnMut(StepPair) -> Duration,
    ) -> Duration {
        let pair = |i: u64| {
            if i.is_multiple_of(2) {
                let unobserved = self.step(&mut ());
                StepPair { unobserved, observed: self.step(observer) }
            } else {
                let observed = self.step(observer);
                StepPair { unobserved: self.step(&mut ()), observed }
            }
        };
        (0..n).map(pair).map(select).sum()
    }
}
