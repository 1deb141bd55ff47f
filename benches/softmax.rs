//! Softmax over a context and over a vocabulary, by the reference and the fast implementation.

use crate::{pool, random_values};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use hornbook::kernels::softmax::{reference, softmax};

pub fn bench(c: &mut Criterion) {
    let isa = pool().isa();
    let mut group = c.benchmark_group("softmax");
    for n in [1024, 50257] {
        let x = random_values(n);
        group.throughput(Throughput::Elements(n as u64));
        group.bench_function(BenchmarkId::new("reference", n), |b| b.iter(|| reference(&x)));
        group.bench_function(BenchmarkId::new("fast", n), |b| {
            b.iter_batched_ref(|| x.clone(), |x| softmax(isa, x), BatchSize::LargeInput);
        });
    }
}
