//! The backward pass and the optimizers, on 512 tokens of GPT-2 (in FLOPs or bytes per second); `forward` is
//! the linear layer that its gradients are to be compared with.

use crate::{N_EMBD, pool, random_values};
use criterion::{BenchmarkId, Criterion, Throughput};
use hornbook::kernels::activation::Activation;
use hornbook::kernels::backward;
use hornbook::kernels::backward::{attention, cross_entropy};
use hornbook::kernels::elements::Elements;
use hornbook::kernels::linear::{Epilogue, Matrix, linear};
use hornbook::kernels::optimizers::{adamw, gradient_norm, muon};
use hornbook::kernels::rows::{Rows, RowsMut};
use std::slice::from_ref;

const TOKENS: usize = 512;
const OUTPUTS: usize = 4 * N_EMBD;
const VOCAB_SIZE: usize = 50257;

pub fn bench(c: &mut Criterion) {
    bench_linear(c);
    bench_elementwise(c);
    bench_attention(c);
    bench_head(c);
    bench_optimizers(c);
}

fn bench_linear(c: &mut Criterion) {
    let pool = pool();
    let mut group = c.benchmark_group("backward_linear");
    for (inputs, outputs) in [(N_EMBD, OUTPUTS), (OUTPUTS, N_EMBD)] {
        let (w, mut dw) = (random_values(inputs * outputs), vec![0.0; inputs * outputs]);
        let (x, mut dx) = (random_values(TOKENS * inputs), vec![0.0; TOKENS * inputs]);
        let (dy, mut y) = (random_values(TOKENS * outputs), vec![0.0; TOKENS * outputs]);
        let (bias, mut db) = (vec![0.0; outputs], vec![0.0; outputs]);
        let (x, dy) = (Rows::dense(&x, inputs), Rows::dense(&dy, outputs));
        let shape = format!("{inputs}x{outputs}");
        group.throughput(Throughput::Elements((2 * TOKENS * inputs * outputs) as u64));
        group.bench_function(BenchmarkId::new("forward", &shape), |b| {
            let w = Matrix::new(Elements::F32(&w), inputs, outputs);
            b.iter(|| linear(&pool, x, w, &bias, Epilogue::Store, RowsMut::dense(&mut y, outputs)));
        });
        group.bench_function(BenchmarkId::new("dx", &shape), |b| {
            b.iter(|| backward::linear::input_gradient(&pool, dy, &w, RowsMut::dense(&mut dx, inputs)));
        });
        group.bench_function(BenchmarkId::new("dw", &shape), |b| {
            b.iter(|| backward::linear::weight_gradient(&pool, x, dy, &mut dw));
        });
        group.throughput(Throughput::Bytes((4 * TOKENS * outputs) as u64));
        group.bench_function(BenchmarkId::new("db", &shape), |b| {
            b.iter(|| backward::linear::bias_gradient(&pool, dy, &mut db));
        });
    }
}

fn bench_elementwise(c: &mut Criterion) {
    let pool = pool();
    let mut group = c.benchmark_group("backward_elementwise");
    let (x, dy, weight) =
        (random_values(TOKENS * N_EMBD), random_values(TOKENS * N_EMBD), random_values(N_EMBD));
    let (mut dx, mut statistics) = (vec![0.0; TOKENS * N_EMBD], vec![Default::default(); TOKENS]);
    let (mut dweight, mut dbias) = (vec![0.0; N_EMBD], vec![0.0; N_EMBD]);
    let (x, dy) = (Rows::dense(&x, N_EMBD), Rows::dense(&dy, N_EMBD));
    group.throughput(Throughput::Bytes((6 * 4 * TOKENS * N_EMBD) as u64));
    group.bench_function("layer_norm", |b| {
        b.iter(|| {
            let dx = RowsMut::dense(&mut dx, N_EMBD);
            backward::layer_norm::input_gradient(&pool, x, &weight, 1e-5, dy, dx, &mut statistics);
            backward::layer_norm::weight_gradients(&pool, x, dy, &statistics, &mut dweight, &mut dbias);
        });
    });
    let (x, mut dy) = (random_values(TOKENS * OUTPUTS), random_values(TOKENS * OUTPUTS));
    let mut y = vec![0.0; TOKENS * OUTPUTS];
    group.throughput(Throughput::Bytes((4 * 4 * TOKENS * OUTPUTS) as u64));
    for activation in [Activation::GeluTanh, Activation::GeluErf, Activation::Relu, Activation::Silu] {
        group.bench_function(format!("{activation:?}"), |b| {
            b.iter(|| {
                let [y, dy] = [&mut y, &mut dy].map(|data| RowsMut::dense(data, OUTPUTS));
                backward::activation::activation(&pool, activation, Rows::dense(&x, OUTPUTS), y, dy);
            });
        });
    }
    let (ids, mut dwte): (Vec<u32>, _) =
        ((0..TOKENS as u32).map(|t| t * t % 5003).collect(), vec![0.0; 5003 * N_EMBD]);
    group.throughput(Throughput::Bytes((3 * 4 * TOKENS * N_EMBD) as u64));
    group.bench_function("embedding", |b| {
        b.iter(|| backward::embedding::embedding(&pool, &ids, Rows::dense(&dx, N_EMBD), &mut dwte));
    });
}

fn bench_attention(c: &mut Criterion) {
    let pool = pool();
    let mut group = c.benchmark_group("backward_attention");
    for n in [TOKENS / 4, TOKENS, 2 * TOKENS] {
        let (qkv, mut dqkv) = (random_values(n * 3 * N_EMBD), vec![0.0; n * 3 * N_EMBD]);
        let (out, dout) = (random_values(n * N_EMBD), random_values(n * N_EMBD));
        let [out, dout] = [&out, &dout].map(|x| Rows::dense(x, N_EMBD));
        let sequence = 0..n;
        let batch = attention::Batch { sequences: from_ref(&sequence), n_head: 12, scale: 0.125 };
        group.throughput(Throughput::Elements((5 * n * (n + 1) * N_EMBD) as u64));
        group.bench_function(BenchmarkId::new("tokens", n), |b| {
            b.iter(|| {
                let dqkv = RowsMut::dense(&mut dqkv, 3 * N_EMBD);
                attention::attention(&pool, batch, Rows::dense(&qkv, 3 * N_EMBD), out, dout, dqkv);
            });
        });
    }
}

fn bench_head(c: &mut Criterion) {
    let pool = pool();
    let n = TOKENS / 4;
    let (x, mut dx) = (random_values(n * N_EMBD), vec![0.0; n * N_EMBD]);
    let (wte, mut dwte) = (random_values(VOCAB_SIZE * N_EMBD), vec![0.0; VOCAB_SIZE * N_EMBD]);
    let (ids, weights): (Vec<u32>, Vec<f32>) = (0..n as u32).map(|t| (t * 97, 1.0 / n as f32)).unzip();
    let targets = cross_entropy::Targets { ids: &ids, weights: &weights };
    let x = Rows::dense(&x, N_EMBD);
    let mut workspace = cross_entropy::Workspace::default();
    let mut group = c.benchmark_group("backward_cross_entropy");
    group.throughput(Throughput::Elements((2 * n * N_EMBD * VOCAB_SIZE) as u64));
    group.bench_function("loss", |b| {
        b.iter(|| cross_entropy::loss(&pool, x, &wte, targets, &mut workspace));
    });
    group.throughput(Throughput::Elements((6 * n * N_EMBD * VOCAB_SIZE) as u64));
    group.bench_function("loss_and_gradients", |b| {
        b.iter(|| {
            let dx = RowsMut::dense(&mut dx, N_EMBD);
            cross_entropy::loss_and_gradients(&pool, x, &wte, targets, dx, Some(&mut dwte), &mut workspace)
        });
    });
}

fn bench_optimizers(c: &mut Criterion) {
    let pool = pool();
    let n = N_EMBD * OUTPUTS;
    let (mut weights, gradient) = (random_values(n), random_values(n));
    let (mut m, mut v) = (vec![0.0; n], vec![0.0; n]);
    let mut group = c.benchmark_group("optimizers");
    group.throughput(Throughput::Bytes((4 * n) as u64));
    group.bench_function("gradient_norm", |b| {
        b.iter(|| gradient_norm::gradient_norm(&pool, &[&gradient]));
    });
    group.throughput(Throughput::Bytes((7 * 4 * n) as u64));
    let adamw =
        adamw::AdamW { learning_rate: 1e-3, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1 };
    group.bench_function("adamw", |b| {
        b.iter(|| {
            let parameters =
                adamw::Parameters { weights: &mut weights, gradient: &gradient, m: &mut m, v: &mut v };
            adamw.step(&pool, 10, 1.0, parameters);
        });
    });
    let muon = muon::Muon { learning_rate: 0.02, momentum: 0.95, weight_decay: 0.01 };
    let mut workspace = muon::Workspace::default();
    group.throughput(Throughput::Elements((10 * N_EMBD * N_EMBD * (2 * OUTPUTS + N_EMBD)) as u64));
    group.bench_function("muon", |b| {
        b.iter(|| {
            let parameters = muon::Parameters {
                weights: &mut weights,
                gradient: &gradient,
                momentum: &mut m,
                inputs: N_EMBD,
                parts: 1,
            };
            muon.step(&pool, 1.0, parameters, &mut workspace);
        });
    });
}
