//! The LM head over GPT-2's vocabulary, for one token and for a batch.

use crate::{N_EMBD, StoredWeights, pool, random_values};
use criterion::{BenchmarkId, Criterion, Throughput};
use hornbook::kernels::linear::Matrix;
use hornbook::kernels::logits::logits;
use hornbook::kernels::rows::{Rows, RowsMut};

const VOCAB_SIZE: usize = 50257;

pub fn bench(c: &mut Criterion) {
    let pool = pool();
    let table = StoredWeights::new(VOCAB_SIZE * N_EMBD);
    let mut group = c.benchmark_group("logits");
    for tokens in [1, 8] {
        let (x, mut y) = (random_values(tokens * N_EMBD), vec![0.0; tokens * VOCAB_SIZE]);
        for (precision, elements) in table.all() {
            let table = Matrix::new(elements, VOCAB_SIZE, N_EMBD);
            let bytes = elements.len() * if precision == "f32" { 4 } else { 2 };
            group.throughput(Throughput::Bytes(bytes as u64));
            group.bench_function(BenchmarkId::new(precision, tokens), |b| {
                b.iter(|| {
                    logits(&pool, Rows::dense(&x, N_EMBD), table, RowsMut::dense(&mut y, VOCAB_SIZE));
                });
            });
        }
    }
}
