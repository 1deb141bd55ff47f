//! What it costs to look: a token of the built-in model, watched by nobody (`absent`), by an observer that wants nothing
//! (`blind`, the most that observers could cost whoever does not use them), by one that reads every head's output, and
//! by one that sees all there is, attention patterns included.
//!
//! Each is timed in turns with nobody, step by step, so that a busy machine slows both alike.

use crate::team;
use criterion::{Criterion, Throughput};
use hornbook::checkpoint::Checkpoint;
use hornbook::kernels::attention::KvPrecision;
use hornbook::model::{Model, Observer, Session, Site};
use ndarray::ArrayViewMutD;
use std::hint::black_box;
use std::time::{Duration, Instant};

const DEPTH: usize = 64;

struct Blind;

impl Observer for Blind {
    fn wants(&self, _: Site) -> bool {
        false
    }

    fn see(&mut self, _: Site, _: ArrayViewMutD<'_, f32>) {}
}

struct Outputs;

impl Observer for Outputs {
    fn wants(&self, site: Site) -> bool {
        matches!(site, Site::Z(_))
    }

    fn see(&mut self, _: Site, values: ArrayViewMutD<'_, f32>) {
        black_box(values.sum());
    }
}

fn everything(_: Site, values: ArrayViewMutD<'_, f32>) {
    black_box(values.sum());
}

pub fn bench(c: &mut Criterion) {
    let model = Model::new(Checkpoint::open("fable").expect("fable is built in"), team());
    let mut group = c.benchmark_group("observer");
    group.throughput(Throughput::Elements(1)).sample_size(50).measurement_time(Duration::from_secs(4));
    group.bench_function("absent", |b| b.iter_custom(|n| in_turns(&model, n, ()).0));
    group.bench_function("absent_again", |b| b.iter_custom(|n| in_turns(&model, n, ()).1));
    group.bench_function("blind", |b| b.iter_custom(|n| in_turns(&model, n, Blind).1));
    group.bench_function("head_outputs", |b| b.iter_custom(|n| in_turns(&model, n, Outputs).1));
    group.bench_function("everything", |b| b.iter_custom(|n| in_turns(&model, n, everything).1));
}

/// The time of `n` steps with nobody, and of `n` with an observer.
fn in_turns<O: Observer>(model: &Model, n: u64, see: O) -> (Duration, Duration) {
    let ids: Vec<u32> = (0..=DEPTH as u32).map(|i| i * 61 % 4096).collect();
    let mut nobody = Session::new(model, DEPTH + 1, KvPrecision::F32);
    let mut watched = Session::observed(model, DEPTH + 1, KvPrecision::F32, see);
    nobody.feed(&ids[..DEPTH]).expect("a prompt within the context");
    watched.feed(&ids[..DEPTH]).expect("a prompt within the context");
    let (mut without, mut with) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..n {
        without += step(&mut nobody, &ids);
        with += step(&mut watched, &ids);
    }
    (without, with)
}

fn step<O: Observer>(session: &mut Session<O>, ids: &[u32]) -> Duration {
    session.truncate(DEPTH);
    let start = Instant::now();
    black_box(session.feed(&ids[DEPTH..]).expect("room for one more")[0]);
    start.elapsed()
}
