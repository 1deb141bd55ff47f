//! Every attention kernel with GPT-2's twelve heads, prefill and decode. `hornbook bench attention` has more
//! options.

use crate::{N_EMBD, pool, random_values};
use criterion::{BenchmarkId, Criterion, Throughput};
use hornbook::kernels::attention::{KERNELS, KeyValues, KvPrecision, Segment, Segments, attention};
use hornbook::kernels::rows::{Rows, RowsMut};

const HEADS: usize = 12;
const HEAD_DIM: usize = N_EMBD / HEADS;
const SCALE: f32 = 0.125;

pub fn bench(c: &mut Criterion) {
    let pool = pool();
    let mut group = c.benchmark_group("attention");
    // n queries at the end of kv_len positions.
    for (phase, n, kv_len) in
        [("prefill", 128, 128), ("prefill", 512, 512), ("decode", 1, 32), ("decode", 1, 1024)]
    {
        let (q, k, v) =
            (random_values(n * N_EMBD), random_values(kv_len * N_EMBD), random_values(kv_len * N_EMBD));
        let [q, k, v] = [&q, &k, &v].map(|x| Rows::dense(x, N_EMBD));
        let mut out = vec![0.0; n * N_EMBD];
        for precision in KvPrecision::ALL {
            let mut kv = KeyValues::new(HEADS, HEAD_DIM, kv_len, precision);
            kv.append(&pool, 0, k, v);
            let segment = |_| Segment { first_row: 0, len: n, position: kv_len - n, kv: &kv };
            group.throughput(if phase == "prefill" {
                // Q·Kᵀ and P·V for each unmasked query-key pair, two FLOPs per element each.
                Throughput::Elements((2 * n * (n + 1) * N_EMBD) as u64)
            } else {
                Throughput::Bytes((kv_len * HEADS * precision.bytes_per_head(HEAD_DIM)) as u64)
            });
            for kernel in KERNELS.iter().copied() {
                let name = format!("{phase} {} {precision}", kernel.name());
                group.bench_function(BenchmarkId::new(name, kv_len), |b| {
                    b.iter(|| {
                        let out = RowsMut::dense(&mut out, N_EMBD);
                        attention(kernel, &pool, q, Segments::new(1, &segment), SCALE, out)
                    });
                });
            }
        }
    }
}
