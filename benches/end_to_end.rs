//! Prefill and decode of the built-in model. `hornbook bench` measures other models and the machine's limits.

use crate::pool;
use criterion::{BenchmarkId, Criterion, Throughput};
use hornbook::checkpoint::Checkpoint;
use hornbook::kernels::attention::KvPrecision;
use hornbook::model::{Model, Session};

pub fn bench(c: &mut Criterion) {
    let model = Model::new(Checkpoint::open("fable").expect("fable is built in"), pool());
    let context = model.config().n_positions;
    let ids: Vec<u32> = (0..context as u32).map(|i| i * 61 % 4096).collect();
    let mut session = Session::new(&model, context, KvPrecision::F32);
    let mut group = c.benchmark_group("end_to_end");
    for prompt in [16, 128, context] {
        group.throughput(Throughput::Elements(prompt as u64));
        group.bench_function(BenchmarkId::new("prefill", prompt), |b| {
            b.iter(|| {
                session.truncate(0);
                session.feed(&ids[..prompt]).expect("a prompt within the context")[0]
            });
        });
    }
    group.throughput(Throughput::Elements(1));
    for depth in [32, context - 1] {
        session.truncate(0);
        session.feed(&ids[..depth]).expect("a prompt within the context");
        group.bench_function(BenchmarkId::new("decode", depth), |b| {
            b.iter(|| {
                session.truncate(depth);
                session.feed(&ids[depth..=depth]).expect("room for one more")[0]
            });
        });
    }
}
