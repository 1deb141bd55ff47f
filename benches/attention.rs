//! Attention with GPT-2's twelve heads: the score matrix of the textbook beside the online softmax, prefill and decode.

use crate::{N_EMBD, numbers, team};
use criterion::{BenchmarkId, Criterion, Throughput};
use hornbook::kernels::attention::{KeyValues, KvPrecision, Span, attention, textbook};
use hornbook::kernels::rows::{Rows, RowsMut};

const HEADS: usize = 12;
const HEAD_DIM: usize = N_EMBD / HEADS;
const SCALE: f32 = 0.125;

pub fn bench(c: &mut Criterion) {
    let team = team();
    let mut group = c.benchmark_group("attention");

    for n in [128, 512] {
        let (q, k, v) = (numbers(n * N_EMBD), numbers(n * N_EMBD), numbers(n * N_EMBD));
        let [q, k, v] = [&q, &k, &v].map(|x| Rows::dense(x, N_EMBD));
        // A score and a share of a value for each pair that the mask leaves, two operations a number each.
        group.throughput(Throughput::Elements((2 * n * (n + 1) * N_EMBD) as u64));
        group.bench_function(BenchmarkId::new("prefill textbook", n), |b| {
            b.iter(|| {
                for head in (0..N_EMBD).step_by(HEAD_DIM) {
                    let [q, k, v] = [q, k, v].map(|x| x.columns(head, HEAD_DIM));
                    std::hint::black_box(textbook(q, k, v, SCALE));
                }
            });
        });
        for (name, precision) in [("f32", KvPrecision::F32), ("f16", KvPrecision::F16)] {
            let mut past = KeyValues::new(HEADS, HEAD_DIM, n, precision);
            past.append(&team, 0, k, v);
            let mut z = vec![0.0; n * N_EMBD];
            group.bench_function(BenchmarkId::new(format!("prefill online {name}"), n), |b| {
                b.iter(|| {
                    let span = Span { row: 0, n, position: 0, past: &past };
                    attention(&team, q, [span].into_iter(), SCALE, RowsMut::dense(&mut z, N_EMBD));
                });
            });
        }
    }

    for depth in [32, 1024] {
        let (k, v) = (numbers(depth * N_EMBD), numbers(depth * N_EMBD));
        let q = numbers(N_EMBD);
        let mut z = vec![0.0; N_EMBD];
        for (name, precision, bytes) in [("f32", KvPrecision::F32, 4), ("f16", KvPrecision::F16, 2)] {
            let mut past = KeyValues::new(HEADS, HEAD_DIM, depth, precision);
            past.append(&team, 0, Rows::dense(&k, N_EMBD), Rows::dense(&v, N_EMBD));
            group.throughput(Throughput::Bytes((2 * depth * N_EMBD * bytes) as u64));
            group.bench_function(BenchmarkId::new(format!("decode online {name}"), depth), |b| {
                b.iter(|| {
                    let span = Span { row: 0, n: 1, position: depth - 1, past: &past };
                    let (q, z) = (Rows::dense(&q, N_EMBD), RowsMut::dense(&mut z, N_EMBD));
                    attention(&team, q, [span].into_iter(), SCALE, z);
                });
            });
        }
    }
}
