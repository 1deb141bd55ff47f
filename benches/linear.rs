//! The first layer of the MLP, `[768, 3072]`, for one token (GEMV, in bytes per second) and for batches of
//! tokens (skinny GEMM and GEMM, in FLOPs per second).

use crate::{N_EMBD, StoredWeights, pool, random_values};
use criterion::{BenchmarkId, Criterion, Throughput};
use hornbook::kernels::linear::{Epilogue, Matrix, linear};
use hornbook::kernels::rows::{Rows, RowsMut};

const OUTPUTS: usize = 4 * N_EMBD;

pub fn bench(c: &mut Criterion) {
    let pool = pool();
    let (stored, bias) = (StoredWeights::new(N_EMBD * OUTPUTS), random_values(OUTPUTS));
    let mut group = c.benchmark_group("linear");
    for tokens in [1, 8, 128, 512] {
        let (x, mut y) = (random_values(tokens * N_EMBD), vec![0.0; tokens * OUTPUTS]);
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
                    linear(&pool, Rows::dense(&x, N_EMBD), w, &bias, Epilogue::Store, y);
                });
            });
        }
    }
}
