//! Layer normalization of one token and of a prompt.

use crate::{N_EMBD, pool, random_values};
use criterion::{BenchmarkId, Criterion, Throughput};
use hornbook::kernels::layer_norm::layer_norm;
use hornbook::kernels::rows::{Rows, RowsMut};

pub fn bench(c: &mut Criterion) {
    let pool = pool();
    let (weight, bias) = (random_values(N_EMBD), random_values(N_EMBD));
    let mut group = c.benchmark_group("layer_norm");
    for tokens in [1, 512] {
        let (x, mut y) = (random_values(tokens * N_EMBD), vec![0.0; tokens * N_EMBD]);
        group.throughput(Throughput::Elements(x.len() as u64));
        group.bench_function(BenchmarkId::new("tokens", tokens), |b| {
            b.iter(|| {
                let y = RowsMut::dense(&mut y, N_EMBD);
                layer_norm(&pool, Rows::dense(&x, N_EMBD), &weight, &bias, 1e-5, y);
            });
        });
    }
}
