//! A training step: forward and backward pass of a micro-batch, and AdamW.

use super::{Summary, fma_peak};
use crate::Result;
use crate::checkpoint::Config;
use crate::kernels::optimizers::adamw::AdamW;
use crate::kernels::thread_pool::ThreadPool;
use crate::train::{Batch, Operation, Optimizers, Trainer, profile};
use std::time::Instant;

/// A learning rate so small that random weights stay as they are.
const OPTIMIZERS: Optimizers = Optimizers {
    adamw: AdamW { learning_rate: 1e-6, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1 },
    muon: None,
};

/// The micro-batch of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainShape {
    /// Sequences, at least one.
    pub sequences: usize,
    /// Tokens per sequence, at least one.
    pub context: usize,
}

impl TrainShape {
    /// Returns the tokens of a step.
    pub fn tokens(self) -> usize {
        self.sequences * self.context
    }

    /// Returns the FLOPs that an operation requires per step (a multiply-add is two), without those that
    /// compute an intermediate result again; 0 for what is bound by memory.
    pub fn flops(self, config: &Config, operation: Operation) -> f64 {
        let (n, e, context) = (self.tokens() as f64, config.n_embd as f64, self.context as f64);
        let layers = config.n_layer as f64;
        let linear = layers * 2.0 * n * (4.0 * e * e + 2.0 * e * config.n_inner as f64);
        // Each query meets every token up to its own, once in Q·Kᵀ and once in P·V.
        let attention = layers * 4.0 * n * (context + 1.0) / 2.0 * e;
        match operation {
            Operation::Linear | Operation::LinearInputGradient | Operation::LinearWeightGradient => linear,
            Operation::Attention => attention,
            Operation::AttentionGradient => 2.0 * attention,
            Operation::CrossEntropy => 3.0 * 2.0 * n * e * config.vocab_size as f64,
            _ => 0.0,
        }
    }

    /// Returns the FLOPs of a step: three times those of the forward pass.
    pub fn step_flops(self, config: &Config) -> f64 {
        Operation::ALL.iter().map(|&operation| self.flops(config, operation)).sum()
    }

    /// Pseudo-random tokens from the whole vocabulary.
    fn batch(self, vocab_size: usize) -> Batch {
        let token = |i: usize| ((i as u64 + 1).wrapping_mul(0x9e37_79b9) % vocab_size as u64) as u32;
        let (mut batch, weight) = (Batch::default(), 1.0 / self.tokens() as f32);
        for sequence in 0..self.sequences {
            let first = sequence * (self.context + 1);
            let ids: Vec<u32> = (first..=first + self.context).map(token).collect();
            batch.push(&ids, weight);
        }
        batch
    }
}

/// The time of a part of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepPart {
    /// The name of the operation, or `gradient norm` or `adamw`.
    pub name: String,
    /// Calls per step.
    pub calls: usize,
    /// Seconds per step, of all calls.
    pub seconds: f64,
    /// FLOPs per step; 0 for what is bound by memory.
    pub flops: f64,
}

/// The speed of a training step.
#[derive(Clone, Debug)]
pub struct TrainMeasurement {
    /// The micro-batch.
    pub shape: TrainShape,
    /// Seconds per step.
    pub seconds: Summary,
    /// FLOPs per step.
    pub flops: f64,
    /// The fraction of the FMA peak achieved.
    pub fraction_of_peak: f64,
    /// The peak in f32 FLOP/s, median over the run.
    pub peak: f64,
    /// The parts of the step of median length, in the order of their first call.
    pub parts: Vec<StepPart>,
}

impl TrainMeasurement {
    /// Returns the tokens per second.
    pub fn tokens_per_second(&self) -> f64 {
        self.shape.tokens() as f64 / self.seconds.median
    }

    /// Returns the sum of the parts' times in seconds.
    pub fn part_seconds(&self) -> f64 {
        self.parts.iter().map(|part| part.seconds).sum()
    }

    /// Returns the GFLOP/s of a part and their fraction of the peak; none for what is bound by memory.
    pub fn part_speed(&self, part: &StepPart) -> Option<(f64, f64)> {
        let speed = part.flops / part.seconds;
        (part.flops > 0.0).then_some((speed / 1e9, speed / self.peak))
    }
}

/// Takes a step `repeat` times (at least once) after a warm-up, on random tokens. `pool` has as many threads
/// as the trainer, and measures the peak before and after each step. `on_repetition` is called after every
/// repetition.
///
/// # Errors
/// As [`Trainer::accumulate`].
pub fn measure_training(
    trainer: &mut Trainer,
    pool: &ThreadPool,
    shape: TrainShape,
    repeat: usize,
    mut on_repetition: impl FnMut(),
) -> Result<TrainMeasurement> {
    let flops = shape.step_flops(trainer.config());
    let batch = shape.batch(trainer.config().vocab_size);
    let (mut steps, mut fractions) = (vec![], vec![]);
    step(trainer, &batch, shape)?;
    let mut peaks = vec![fma_peak(pool)];
    for i in 0..repeat.max(1) {
        steps.push(step(trainer, &batch, shape)?);
        peaks.push(fma_peak(pool));
        fractions.push(flops / steps[i].0 / ((peaks[i] + peaks[i + 1]) / 2.0));
        on_repetition();
    }
    let seconds: Vec<f64> = steps.iter().map(|(seconds, _)| *seconds).collect();
    steps.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (_, parts) = steps.swap_remove(steps.len() / 2);
    Ok(TrainMeasurement {
        shape,
        seconds: Summary::new(&seconds),
        flops,
        fraction_of_peak: Summary::new(&fractions).median,
        peak: Summary::new(&peaks).median,
        parts,
    })
}

/// Takes a step; returns its seconds and parts.
fn step(trainer: &mut Trainer, batch: &Batch, shape: TrainShape) -> Result<(f64, Vec<StepPart>)> {
    let start = Instant::now();
    let (loss, times) = profile(|| trainer.accumulate(batch));
    loss?;
    let passes = start.elapsed().as_secs_f64();
    trainer.gradient_norm();
    let norm = start.elapsed().as_secs_f64();
    trainer.update(&OPTIMIZERS, 1.0);
    let total = start.elapsed().as_secs_f64();
    let mut parts: Vec<StepPart> = times
        .into_iter()
        .map(|time| StepPart {
            name: time.operation.to_string(),
            calls: time.calls,
            seconds: time.seconds,
            flops: shape.flops(trainer.config(), time.operation),
        })
        .collect();
    for (name, seconds) in [("gradient norm", norm - passes), ("adamw", total - norm)] {
        parts.push(StepPart { name: name.into(), calls: 1, seconds, flops: 0.0 });
    }
    Ok((total, parts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::ModelShape;
    use crate::checkpoint::Checkpoint;
    use crate::kernels::isa::Isa;

    #[test]
    fn step_costs_three_forward_passes() {
        let config = Checkpoint::embedded().unwrap().config.clone();
        let matrices = 6 * (256 * 768 + 256 * 256 + 2 * 256 * 1024) + 4096 * 256;
        let shape = TrainShape { sequences: 3, context: 10 };
        let attention = 6 * 4 * 3 * (10 * 11 / 2) * 256;
        assert_eq!(shape.step_flops(&config), 3.0 * (2 * 30 * matrices + attention) as f64);
    }

    #[test]
    fn parts_add_up_to_the_step() {
        let tiny =
            ModelShape { name: "tiny", n_layer: 2, n_embd: 32, n_head: 2, n_positions: 64, vocab_size: 50 };
        let pool = || ThreadPool::new(2, Isa::available()[0]);
        let mut trainer = Trainer::new(&tiny.random_checkpoint().unwrap(), pool(), 128).unwrap();
        let shape = TrainShape { sequences: 2, context: 64 };
        let mut repetitions = 0;
        let m = measure_training(&mut trainer, &pool(), shape, 3, || repetitions += 1).unwrap();
        assert_eq!((repetitions, trainer.step()), (3, 4));
        let sum: f64 = m.parts.iter().map(|part| part.seconds).sum();
        assert!(sum <= m.seconds.median && m.parts.iter().all(|part| part.calls > 0), "{m:?}");
        assert_eq!(m.parts.iter().map(|part| part.flops).sum::<f64>(), m.flops);
        assert!(m.fraction_of_peak > 0.0 && m.tokens_per_second() > 0.0);
    }
}
