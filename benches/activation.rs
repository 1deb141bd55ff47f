//! Each activation over the hidden layer of one token's MLP.

use crate::{N_EMBD, pool, random_values};
use criterion::{BenchmarkId, Criterion, Throughput};
use hornbook::kernels::activation::Activation;
use hornbook::kernels::simd::{Kernel, LANES, Simd};

struct Apply<'a> {
    activation: Activation,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (xs, ys) = (self.x.as_chunks::<LANES>().0, self.y.as_chunks_mut::<LANES>().0);
        for (x, y) in xs.iter().zip(ys) {
            simd.store(self.activation.apply_lanes(simd, simd.load(x)), y);
        }
    }
}

pub fn bench(c: &mut Criterion) {
    let isa = pool().isa();
    let (x, mut y) = (random_values(4 * N_EMBD), vec![0.0; 4 * N_EMBD]);
    let mut group = c.benchmark_group("activation");
    group.throughput(Throughput::Elements(x.len() as u64));
    for activation in [Activation::GeluTanh, Activation::GeluErf, Activation::Relu, Activation::Silu] {
        let name = format!("{activation:?}");
        group.bench_function(BenchmarkId::new("reference", &name), |b| {
            b.iter(|| x.iter().zip(&mut y).for_each(|(&x, y)| *y = activation.reference(x)));
        });
        group.bench_function(BenchmarkId::new("fast", &name), |b| {
            b.iter(|| isa.run(Apply { activation, x: &x, y: &mut y }));
        });
    }
}
