//! Choosing a token from GPT-2's vocabulary.

use crate::random_values;
use criterion::Criterion;
use hornbook::sampling::{Sampler, SamplingParams};

const VOCAB_SIZE: usize = 50257;

pub fn bench(c: &mut Criterion) {
    // Logits as spread as a trained model's.
    let logits: Vec<f32> = random_values(VOCAB_SIZE).iter().map(|x| x * x * x * 12.0).collect();
    let all = SamplingParams { temperature: 1.0, ..SamplingParams::default() };
    let ways = [
        ("greedy", SamplingParams { temperature: 0.0, ..all.clone() }),
        ("everything", all.clone()),
        ("top-k 40", SamplingParams { top_k: 40, ..all.clone() }),
        ("top-p 0.95", SamplingParams { top_p: 0.95, ..all.clone() }),
        ("min-p 0.05", SamplingParams { min_p: 0.05, ..all.clone() }),
        ("typical-p 0.95", SamplingParams { typical_p: 0.95, ..all.clone() }),
        ("repetition penalty", SamplingParams { repetition_penalty: 1.1, top_k: 40, ..all }),
    ];
    let prompt: Vec<u32> = (0..512).map(|i| i * 97).collect();
    let mut group = c.benchmark_group("sampling");
    for (name, params) in ways {
        let mut sampler = Sampler::new(params, 0);
        group.bench_function(name, |b| b.iter(|| sampler.sample(&logits, &prompt, &[])));
    }
}
