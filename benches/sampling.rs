//! Sampling a token from GPT-2's vocabulary.

use crate::random_values;
use criterion::Criterion;
use hornbook::sampling::{Sampler, SamplingParams};

const VOCAB_SIZE: usize = 50257;

pub fn bench(c: &mut Criterion) {
    // Logits with the spread of a trained model's.
    let logits: Vec<f32> = random_values(VOCAB_SIZE).iter().map(|x| x * x * x * 12.0).collect();
    let default = SamplingParams { temperature: 1.0, ..SamplingParams::default() };
    let cases = [
        ("greedy", SamplingParams { temperature: 0.0, ..default.clone() }),
        ("full distribution", default.clone()),
        ("top-k 40", SamplingParams { top_k: 40, ..default.clone() }),
        ("top-p 0.95", SamplingParams { top_p: 0.95, ..default.clone() }),
        ("min-p 0.05", SamplingParams { min_p: 0.05, ..default.clone() }),
        ("typical-p 0.95", SamplingParams { typical_p: 0.95, ..default.clone() }),
        ("repetition penalty", SamplingParams { repetition_penalty: 1.1, top_k: 40, ..default }),
    ];
    let prompt: Vec<u32> = (0..512).map(|i| i * 97).collect();
    let mut group = c.benchmark_group("sampling");
    for (name, params) in cases {
        let mut sampler = Sampler::new(params, 0);
        group.bench_function(name, |b| b.iter(|| sampler.sample(&logits, &prompt, &[])));
    }
}
