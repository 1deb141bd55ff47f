//! The MLP's first layer, `[768, 3072]`: one token (vector-matrix, bytes a second) and a prompt (operations a second).

use crate::{N_EMBD, Stored, numbers, team};
use criterion::{BenchmarkId, Criterion, Throughput};
use hornbook::kernels::linear::{Matrix, Then, linear};
use hornbook::kernels::rows::{Rows, RowsMut};

const OUTPUTS: usize = 4 * N_EMBD;

pub fn bench(c: &mut Criterion) {
    let team = team();
    let (stored, bias) = (Stored::new(N_EMBD * OUTPUTS), numbers(OUTPUTS));
    let mut group = c.benchmark_group("linear");
    for tokens in [1, 8, 128, 512] {
        let (x, mut y) = (numbers(tokens * N_EMBD), vec![0.0; tokens * OUTPUTS]);
        for (precision, elements) in stored.all() {
            let w = Matrix::new(elements, N_EMBD, OUTPUTS);
            let bytes = elements.len() * if precision == "f32" { 4 } else { 2 };
            group.throughput(match tokens {
                1 => Throughput::Bytes(bytes as u64),
                _ => Throughput::Elements((2 * tokens * N_EMBD * OUTPUTS) as u64),
            });
            group.bench_function(BenchmarkId::new(precision, tokens), |b| {
                b.iter(|| {
                    let y = RowsMut::dense(&mut y, OUTPUTS);
                    linear(&team, Rows::dense(&x, N_EMBD), w, &bias, Then::Store, y);
                });
            });
        }
    }
}
