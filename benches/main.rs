//! Benchmarks of each operation and of the whole model: `cargo bench`, or `cargo bench -- linear` for a
//! single group. All groups share one binary because linking the library dominates the build time. `cargo
//! test` runs everything once.

mod activation;
mod attention;
mod backward;
mod end_to_end;
mod layer_norm;
mod linear;
mod logits;
mod observer;
mod sampling;
mod softmax;
mod thread_pool;

use criterion::{Criterion, criterion_group, criterion_main};
use half::{bf16, f16};
use hornbook::kernels::elements::Elements;
use hornbook::kernels::isa::Isa;
use hornbook::kernels::thread_pool::ThreadPool;
use std::time::Duration;

/// The embedding width of GPT-2.
const N_EMBD: usize = 768;

/// Returns a pool of all cores with the best instruction set, or the one that `HORNBOOK_ISA` names.
fn pool() -> ThreadPool {
    ThreadPool::new(0, Isa::choose().expect("HORNBOOK_ISA names an instruction set of this machine"))
}

/// Returns `n` values between -1 and 1.
fn random_values(n: usize) -> Vec<f32> {
    (1..=n as u32).map(|i| i.wrapping_mul(0x9e37_79b9) as i32 as f32 / (1u32 << 31) as f32).collect()
}

/// The same values in every unquantized precision that weights are stored in.
struct StoredWeights {
    f32: Vec<f32>,
    f16: Vec<f16>,
    bf16: Vec<bf16>,
}

impl StoredWeights {
    fn new(n: usize) -> Self {
        let f32 = random_values(n);
        let f16 = f32.iter().map(|&x| f16::from_f32(x)).collect();
        let bf16 = f32.iter().map(|&x| bf16::from_f32(x)).collect();
        Self { f32, f16, bf16 }
    }

    fn all(&self) -> [(&'static str, Elements<'_>); 3] {
        [
            ("f32", Elements::F32(&self.f32)),
            ("f16", Elements::F16(&self.f16)),
            ("bf16", Elements::Bf16(&self.bf16)),
        ]
    }
}

fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! {
    name = benches;
    config = criterion();
    targets =
        linear::bench, layer_norm::bench, softmax::bench, activation::bench, attention::bench, logits::bench,
        backward::bench, sampling::bench, thread_pool::bench, end_to_end::bench, observer::bench
}
criterion_main!(benches);
