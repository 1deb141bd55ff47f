//! Layer normalisation of one token and of a prompt.

use crate::{N_EMBD, numbers, team};
use criterion::{BenchmarkId, Criterion, Throughput};
use hornbook::kernels::layer_norm::layer_norm;
use hornbook::kernels::rows::{Rows, RowsMut};

pub fn bench(c: &mut Criterion) {
    let team = team();
    let (weight, bias) = (numbers(N_EMBD), numbers(N_EMBD));
    let mut group = c.benchmark_group("layer_norm");
    for tokens in [1, 512] {
        let (x, mut y) = (numbers(tokens * N_EMBD), vec![0.0; tokens * N_EMBD]);
        group.throughput(Throughput::Elements(x.len() as u64));
        group.bench_function(BenchmarkId::new("tokens", tokens), |b| {
            b.iter(|| {
                let y = RowsMut::dense(&mut y, N_EMBD);
                layer_norm(&team, Rows::dense(&x, N_EMBD), &weight, &bias, 1e-5, y);
            });
        });
    }
}
